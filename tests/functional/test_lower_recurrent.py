"""A direction of a recurrent layer against a plain loop over the cell, derivatives included."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from funcnets.functional._lower_recurrent import scan_cell
from funcnets.functional.linear import linear
from funcnets.functional.recurrent_cell import GRU, LSTM, RELU, TANH, Weights

KINDS = [TANH, RELU, LSTM, GRU]


@functools.partial(jax.jit, static_argnums=(0, 1))
def plain(kind, reverse, input, state, weights, mask):
    def step(state, inputs):
        x, active = inputs
        from_input = linear(x, weights.ih, weights.b_ih)
        new = kind.step(from_input, linear(state[0], weights.hh, weights.b_hh), state)
        if weights.hr is not None:
            new = (linear(new[0], weights.hr), *new[1:])
        if active is not None:
            pairs = zip(new, state, strict=True)
            new = tuple(jnp.where(active[:, None], n, o) for n, o in pairs)
        return new, new[0]

    final, output = lax.scan(step, state, (input, mask), reverse=reverse)
    return output, final


def drawn(kind, t, n, inputs, hidden, *, project=0, biases=True, masked=False, seed=0):
    """Input, state, weights and mask; their sizes as given."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    out, gates = project or hidden, kind.gates * hidden
    b = [normal(gates) for _ in range(2)] if biases else [None, None]
    hr = normal(out, hidden) if project else None
    state = (normal(n, out), normal(n, hidden))[: kind.states]
    mask = jnp.asarray(rng.integers(0, 2, (t, n)), bool) if masked else None
    weights = Weights(normal(gates, inputs), normal(gates, out), *b, hr=hr)
    return normal(t, n, inputs), state, weights, mask


def close(a, b, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=tolerance), a, b
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def all_products(form, kind, reverse, arguments, tangents):
    """Outputs, tangents of the outputs, gradients."""
    *floats, mask = arguments

    def function(*floats):
        return form(kind, reverse, *floats, mask)

    out, d_out = jax.jvp(function, tuple(floats), tuple(tangents))
    _, pull = jax.vjp(function, *floats)
    return out, d_out, pull(d_out)


@settings(max_examples=6, deadline=None, database=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    options=st.tuples(*[st.booleans()] * 4),
)
def test_equals_the_plain_loop(kind, sizes, options):
    reverse, biases, masked, project = options
    project = 2 if project and kind is LSTM else 0
    given = drawn(kind, *sizes, project=project, biases=biases, masked=masked)
    tangents = drawn(kind, *sizes, project=project, biases=biases, seed=1)[:3]
    ours, theirs = (all_products(f, kind, reverse, given, tangents) for f in (scan_cell, plain))
    close(ours, theirs)


@pytest.mark.parametrize(
    ("kind", "reverse_over_reverse"), [(LSTM, True), (GRU, False)], ids=["lstm", "gru"]
)
def test_second_derivatives(kind, reverse_over_reverse):
    def curvature(form):
        input, state, weights, mask = drawn(kind, 2, 1, 1, 2, masked=True)

        def loss(input, weights):
            output, final = form(kind, False, input, state, weights, mask)
            return jnp.sum(output**2) + jnp.sum(final[-1] ** 3)

        slope = jax.grad(loss, (0, 1))
        if reverse_over_reverse:
            total = jax.grad(lambda *a: sum(jnp.sum(x**2) for x in jax.tree.leaves(slope(*a))))
            return jax.jit(total)(input, weights)
        return jax.jit(jax.jacfwd(slope))(input, weights)

    close(curvature(scan_cell), curvature(plain), 1e-4)


@pytest.mark.parametrize("kind", [RELU, GRU], ids=["relu", "gru"])
def test_gradient_of_a_part(kind):
    """Where only some arguments have tangents, those of the others are not computed with."""
    input, state, weights, _ = drawn(kind, 3, 2, 2, 3)

    def gradients(form):
        def of_weight(hh):
            return form(kind, False, input, state, weights._replace(hh=hh), None)[0].sum()

        def of_state(state):
            return form(kind, True, input, state, weights, None)[0].sum()

        return jax.jit(lambda: (jax.grad(of_weight)(weights.hh), jax.grad(of_state)(state)))()

    close(gradients(scan_cell), gradients(plain))


def test_under_vmap():
    input, state, weights, _ = drawn(LSTM, 3, 2, 2, 3)
    inputs = jnp.stack([input, 2 * input])

    def slope(form):
        def loss(weights, input):
            return form(LSTM, False, input, state, weights, None)[0].sum()

        return jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(weights, inputs)

    close(slope(scan_cell), slope(plain))


@pytest.mark.parametrize(
    ("kind", "dtype"), [(LSTM, jnp.bfloat16), (GRU, jnp.float16)], ids=["lstm", "gru"]
)
def test_half_precision_is_as_exact_as_the_plain_loop(kind, dtype):
    exact = drawn(kind, 6, 3, 4, 5)[:3]
    low = jax.tree.map(lambda x: x.astype(dtype), exact)

    def slope(form, given):
        def loss(*given):
            return form(kind, False, *given, None)[0].astype(jnp.float32).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2)))(*given)

    def error(found, wanted):
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        return max(jnp.linalg.norm(a.astype(b.dtype) - b) / jnp.linalg.norm(b) for a, b in pairs)

    wanted, ours, theirs = slope(plain, exact), slope(scan_cell, low), slope(plain, low)
    assert {x.dtype for x in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    assert error(ours, wanted) < 1.5 * error(theirs, wanted)


def test_an_empty_batch():
    input, state, weights, _ = drawn(GRU, 3, 0, 2, 3)
    grads = jax.grad(lambda w: scan_cell(GRU, False, input, state, w, None)[0].sum())(weights)
    assert all(not g.any() for g in jax.tree.leaves(grads))


def test_the_input_product_is_in_the_loop_on_a_cpu_only():
    """One traced program: the projection of all steps, (T * N, gates), is on the accelerator's side."""
    given = drawn(LSTM, 7, 2, 3, 4)
    traced = jax.jit(lambda *a: scan_cell(LSTM, False, *a)).trace(*given)
    for platform, outside in (("cpu", False), ("tpu", True), ("cuda", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("tensor<7x2x16xf32>" in text) == outside, platform


def test_no_product_of_weights_is_summed_up_in_the_backward_loop():
    input, state, weights, _ = drawn(LSTM, 7, 2, 3, 4)
    loss = jax.grad(lambda w: scan_cell(LSTM, False, input, state, w, None)[0].sum())
    text = str(jax.make_jaxpr(loss)(weights))
    # In the loops: (2, 4) x (4, 16) and back. The gradient of hh, over 7 steps, is outside of them.
    assert "f32[7,16,4]" not in text
    assert text.count("f32[16,4] = dot_general") == 1
