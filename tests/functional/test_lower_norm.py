"""Normalisation with derivatives in closed form against the formula written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnets.functional._lower_norm import normalised, scale_and_shift
from funcnets.nn import functional as F


def textbook(x, weight, bias, axes, first):
    mean = x.mean(axes, keepdims=True)
    var = jnp.square(x - mean).mean(axes, keepdims=True)

    def lay(p):
        return p.reshape(*p.shape, *(1,) * (x.ndim - first - p.ndim))

    y = (x - mean) / jnp.sqrt(var + 1e-5)
    if weight is not None:
        y = y * lay(weight)[(None,) * first]
    return y if bias is None else y + lay(bias)[(None,) * first]


def case(name, shape):
    """``(function, formula, shape of the parameters)``."""
    rank = len(shape)
    if name == "batch":
        axes = (0, *range(2, rank))

        def ours(x, w, b):
            return F.batch_norm(x, None, None, w, b, training=True)
    elif name == "instance":
        axes = tuple(range(2, rank))

        def ours(x, w, b):
            return F.instance_norm(x, None, None, w, b)
    elif name == "group":

        def formula(x, w, b):
            grouped = x.reshape(shape[0], 2, -1, *shape[2:])
            w, b = (None if p is None else p.reshape(2, -1) for p in (w, b))
            return textbook(grouped, w, b, tuple(range(2, rank + 1)), 1).reshape(shape)

        return lambda x, w, b: F.group_norm(x, 2, w, b), formula, shape[1:2]
    else:
        return (
            lambda x, w, b: F.layer_norm(x, shape[1:], w, b),
            lambda x, w, b: textbook(x, w, b, tuple(range(1, rank)), 1),
            shape[1:],
        )
    return ours, lambda x, w, b: textbook(x, w, b, axes, 1), shape[1:2]


def arrays(shape, size, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return [jax.random.normal(k, s) for k, s in zip(keys, (shape, size, size), strict=True)]


def everything(function, x, weight, bias):
    given = tuple(p for p in (x, weight, bias) if p is not None)

    def call(*values):
        rest = iter(values[1:])
        return function(values[0], *(None if p is None else next(rest) for p in (weight, bias)))

    def loss(*values):
        return jnp.sum(jnp.sin(call(*values)))

    gradient = jax.grad(loss, argnums=tuple(range(len(given))))

    def squared(x):
        return jnp.sum(jax.grad(loss)(x, *given[1:]) ** 2)

    tangents = jax.tree.map(jnp.cos, given)
    return (
        jax.jvp(call, given, tangents),
        gradient(*given),
        jax.jvp(gradient, given, tangents),
        jax.grad(squared)(x),
        jax.vmap(jax.grad(loss), (0, *(None for _ in given[1:])))(
            jnp.stack([x, 2 * x]), *given[1:]
        ),
    )


@settings(max_examples=3, deadline=None)
@given(
    st.sampled_from(["batch", "instance", "group", "layer"]),
    st.lists(st.integers(2, 4), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_values_and_derivatives_of_every_order(name, spatial, with_weight, with_bias):
    shape = (3, 4, *spatial)
    ours, formula, size = case(name, shape)
    x, weight, bias = arrays(shape, size)
    parameters = weight if with_weight else None, bias if with_bias else None
    got = jax.jit(lambda x: everything(ours, x, *parameters))(x)
    expected = jax.jit(lambda x: everything(formula, x, *parameters))(x)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["batch", "instance", "group", "layer"])
def test_a_mean_far_from_zero_costs_no_digits(name):
    """The inputs are exact in float32, so float64 tells what was lost on the way."""
    shape = (4, 4, 6, 6)
    ours, formula, size = case(name, shape)
    x, weight, bias = arrays(shape, size)
    x = 1024 + jnp.round(x * 64) / 64
    cotangent = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(shape)
    out, pull = jax.vjp(ours, x, weight, bias)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(v), jnp.float64) for v in (x, weight, bias, cotangent)]
        expected, pull_wide = jax.vjp(formula, *wide[:3])
        expected = np.asarray(expected), *map(np.asarray, pull_wide(wide[3]))
    for got, want in zip((out, *pull(cotangent)), expected, strict=True):
        # The mean of 144 such numbers is good to a few times 2^-13, as PyTorch's is; the variance as a
        # difference of squares would be off by 0.05.
        np.testing.assert_allclose(got, want, rtol=3e-3, atol=3e-3)


def test_given_statistics_have_gradients_and_constant_ones_need_none():
    x, weight, bias = arrays((3, 4, 5), (4,))
    mean, var = jnp.linspace(-1, 1, 4), jnp.linspace(0.5, 2, 4)

    def lay(p):
        return p.reshape(1, -1, 1)

    def formula(x, m, v, w, b):
        return (x - lay(m)) / jnp.sqrt(lay(v) + 1e-5) * lay(w) + lay(b)

    args = x, mean, var, weight, bias
    for which in [(0,), (1,), (2, 4), (1, 2), (0, 3), (0, 1, 2, 3, 4)]:
        got = jax.grad(lambda *a: jnp.sum(jnp.sin(F.batch_norm(*a))), which)(*args)
        expected = jax.grad(lambda *a: jnp.sum(jnp.sin(formula(*a))), which)(*args)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_infinite_input_does_not_spoil_the_derivative_by_the_shift():
    x = jnp.asarray([[jnp.inf, 1.0]])
    parts = jnp.zeros((1, 2)), jnp.ones((1, 2))
    _, tangent = jax.jvp(lambda shift: scale_and_shift(x, *parts, shift), parts[:1], parts[1:])
    assert tangent.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_as_accurate_as_the_formula(dtype):
    ours, formula, size = case("batch", (4, 3, 8))
    x, weight, bias = (a.astype(dtype) for a in arrays((4, 3, 8), size))
    wide = [a.astype(jnp.float32) for a in (x, weight, bias)]
    out, pull = jax.vjp(ours, x, weight, bias)
    expected, pull_wide = jax.vjp(formula, *wide)
    cotangent = jnp.cos(expected)
    rounding = float(jnp.finfo(dtype).eps)
    both = (out, *pull(cotangent.astype(dtype))), (expected, *pull_wide(cotangent))
    for a, b in zip(*both, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=4 * rounding, atol=8 * rounding)


def test_an_empty_batch():
    out, pull = jax.vjp(lambda x: F.layer_norm(x, 4), jnp.zeros((0, 4)))
    assert pull(out)[0].shape == (0, 4)
    args = jnp.zeros((0, 4, 2)), jnp.ones(4), jnp.ones(4)
    out, pull = jax.vjp(lambda *a: F.batch_norm(a[0], None, None, *a[1:], training=True), *args)
    assert out.shape == (0, 4, 2)
    assert [g.tolist() for g in pull(out)[1:]] == [[0.0] * 4] * 2


def test_the_statistics_have_derivatives_too():
    x, weight, bias = arrays((3, 4, 2), (1, 4, 1))

    def formula(x, weight, bias):
        mean = x.mean((0, 2), keepdims=True)
        var = jnp.square(x - mean).mean((0, 2), keepdims=True)
        return (x - mean) / jnp.sqrt(var + 1e-3) * weight + bias, mean, var

    def ours(*args):
        return normalised(*args, (0, 2), 1e-3)

    def everything(function, *args):
        tangents = jax.tree.map(jnp.cos, args)
        out, pull = jax.vjp(function, *args)
        return jax.jvp(function, args, tangents), pull(jax.tree.map(jnp.sin, out))

    both = [jax.jit(everything, static_argnums=0)(f, x, weight, bias) for f in (ours, formula)]
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


NORMS = {
    "layer": lambda x: F.layer_norm(x, x.shape[1:]),
    "rms": lambda x: F.rms_norm(x, x.shape[1:]),
    "group": lambda x: F.group_norm(x, 2),
    "batch": lambda x: F.batch_norm(x, None, None, training=True),
    "batch by its statistics": lambda x: F.batch_norm(x, *F.batch_norm_stats(x)[:2]),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_deeper_network_compiles_to_a_proportionally_longer_program(name):
    """Without care XLA computes the gradient of a residual stream anew at each of its uses."""

    def length(depth):
        def loss(x, weights):
            for i in range(depth):
                x = x + NORMS[name](x) @ weights[i]
            return jnp.sum(x**2)

        args = jnp.ones((3, 8)), jnp.ones((depth, 8, 8))
        return str(jax.jit(jax.grad(loss, 1)).lower(*args).compile().as_text()).count("\n")

    short, middle, long = map(length, (2, 4, 6))
    assert long - middle < 1.1 * (middle - short)
