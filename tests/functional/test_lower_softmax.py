"""Attention's softmax, cross entropy and GELU against their textbook forms, derivatives included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnets.functional.attention import softmax_or_zero
from funcnets.nn import functional as F


def close(a, b, tolerance=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=tolerance), a, b
    )


def products(function, x):
    """The result, a tangent, a gradient and a second derivative."""

    @jax.jit
    def run(x):
        out, d_out = jax.jvp(function, (x,), (jnp.sin(x),))
        slope = jax.grad(lambda x: jnp.sum(function(x) ** 2))
        return out, d_out, slope(x), jax.grad(lambda x: jnp.sum(slope(x) ** 2))(x)

    return run(x)


def test_softmax_with_rows_of_nothing():
    x = jax.random.normal(jax.random.key(0), (3, 5))
    hidden = jnp.asarray([[False] * 5, [True] * 5, [True, False, True, False, True]])

    def masked(softmax):
        return lambda x: softmax(jnp.where(hidden, -jnp.inf, x))

    def textbook(scores):
        empty = jnp.all(scores == -jnp.inf, axis=-1, keepdims=True)
        return jnp.where(empty, 0.0, jax.nn.softmax(jnp.where(empty, 0.0, scores)))

    found, wanted = products(masked(softmax_or_zero), x), products(masked(textbook), x)
    close(found, wanted)
    assert not any(array[1].any() for array in found)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [0, 4])
def test_attention_without_a_mask_is_attention_with_a_mask_of_ones(length, causal):
    q = jax.random.normal(jax.random.key(1), (2, 3, 4))
    k = jax.random.normal(jax.random.key(2), (2, length, 4))
    mask = jnp.tri(3, length, dtype=bool) if causal else jnp.ones((3, length), bool)

    def free(k):
        return F.scaled_dot_product_attention(q, k, k, is_causal=causal)

    def with_mask(k):
        return F.scaled_dot_product_attention(q, k, k, mask)

    close(products(free, k), products(with_mask, k), 1e-5)


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_cross_entropy_is_nll_of_log_softmax(shift):
    x = 3 * jax.random.normal(jax.random.key(0), (4, 5, 2))
    x = jnp.round(16 * x) / 16 + shift  # exact with the shift, too
    target = jnp.asarray([[0, 4], [-100, 2], [1, 1], [3, -100]])
    weight = jnp.arange(1.0, 6.0)

    def fused(x):
        return F.cross_entropy(x, target, weight, reduction="none")

    def textbook(x):
        return F.nll_loss(jax.nn.log_softmax(x, 1), target, weight, reduction="none")

    close(products(fused, x), products(textbook, x), 1e-5)


def test_gelu_is_that_of_jax():
    x = jnp.linspace(-8, 8, 101)
    exact = products(lambda x: jax.nn.gelu(x, approximate=False), x)
    # Where 1 + erf cancels the rest of it is as exact as PyTorch's: 1e-7 of the input.
    close(products(F.gelu, x), exact, 1e-6)
