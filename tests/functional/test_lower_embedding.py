"""The gather of ``embedding`` and its gradient: what an index out of range does, and all derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnets.nn import functional as F


def by_product(index, weight):
    """Rows as a product with one-hot vectors; those of an index out of range are NaN."""
    known = (index >= 0) & (index < weight.shape[0])
    rows = jax.nn.one_hot(jnp.where(known, index, 0), weight.shape[0]) @ weight
    return jnp.where(known[..., None], rows, jnp.nan)


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 6),
    st.sampled_from([(0,), (5,), (3, 2)]),
    st.sampled_from([jnp.int8, jnp.uint16, jnp.int32]),
)
def test_rows_and_gradients_are_those_of_a_product(count, shape, dtype):
    rng = np.random.default_rng(count)
    index = jnp.asarray(rng.integers(0, count, shape), dtype)
    weight = jnp.asarray(rng.standard_normal((count, 3)), jnp.float32)

    def everything(weight, look_up):
        def loss(weight):
            return jnp.sum(jnp.sin(look_up(index, weight)))

        tangents = (jnp.cos(weight),)
        return (
            jax.jvp(lambda weight: look_up(index, weight), (weight,), tangents),
            jax.jvp(jax.grad(loss), (weight,), tangents),
            jax.vmap(jax.grad(loss))(jnp.stack([weight, 2 * weight])),
        )

    got = jax.jit(everything, static_argnums=1)(weight, F.embedding)
    expected = jax.jit(everything, static_argnums=1)(weight, by_product)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_index_out_of_range_shows_and_moves_no_row(compiled):
    weight = jnp.arange(6.0).reshape(3, 2)
    index = jnp.asarray([2, 3, -1, 0, -4])

    def both(weight):
        out, pull = jax.vjp(lambda weight: F.embedding(index, weight), weight)
        return out, pull(jnp.ones_like(out))[0]

    out, gradient = (jax.jit(both) if compiled else both)(weight)
    np.testing.assert_array_equal(out[jnp.asarray([0, 3])], weight[jnp.asarray([2, 0])])
    assert jnp.isnan(out[jnp.asarray([1, 2, 4])]).all()
    assert gradient.tolist() == [[1, 1], [0, 0], [1, 1]]
