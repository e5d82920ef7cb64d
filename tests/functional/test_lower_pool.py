"""Every form of pooling against the native operation and against PyTorch, derivatives included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnets.errors import ShapeError
from funcnets.functional import _lower_pool as lower
from funcnets.functional._window import pool_windows
from funcnets.nn import functional as F


def draw(shape, seed=0, dtype=jnp.float32):
    """Few different numbers, so that there are ties."""
    values = np.random.default_rng(seed).integers(-3, 4, shape)
    return jnp.asarray(values, dtype)


@st.composite
def pools(draw):
    n = draw(st.integers(1, 3))
    sizes = st.integers(1, 4 if n == 3 else 9)
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(n))
    side_by_side = draw(st.booleans())
    stride = kernel if side_by_side else tuple(draw(st.integers(1, 3)) for _ in range(n))
    padding = tuple(0 if side_by_side else draw(st.integers(0, k // 2)) for k in kernel)
    shape = tuple(k + draw(sizes) - 1 for k in kernel)
    lead = draw(st.sampled_from([(2,), (1, 2), (2, 1)]))
    return (*lead, *shape), kernel, stride, padding, draw(st.booleans())


def torch_gradient(function, x, weights, *args, **options):
    tensor = torch.tensor(np.asarray(x), requires_grad=True)
    out = getattr(torch.nn.functional, function)(tensor, *args, **options)
    (out * torch.tensor(np.asarray(weights))).sum().backward()
    assert tensor.grad is not None
    return out.detach().numpy(), tensor.grad.numpy()


@settings(max_examples=10, deadline=None)
@given(pools())
def test_pooling_is_that_of_torch(pool):
    shape, kernel, stride, padding, ceil_mode = pool
    n = len(kernel)
    x = draw(shape, seed=sum(shape))
    for function in (f"max_pool{n}d", f"avg_pool{n}d"):

        def run(x):
            return getattr(F, function)(x, kernel, stride, padding, ceil_mode=ceil_mode)  # noqa: B023

        try:
            out, pull = jax.vjp(run, x)
        except ShapeError:
            continue
        weights = draw(out.shape, seed=1)
        options = {"ceil_mode": ceil_mode}
        expected = torch_gradient(function, x, weights, kernel, stride, padding, **options)
        np.testing.assert_allclose(out, expected[0], atol=1e-6)
        np.testing.assert_allclose(pull(weights)[0], expected[1], atol=1e-5)
        # What another platform would run, of which torch is not the judge of ties.
        windows = tuple(pool_windows(function, x, n, kernel, stride, padding, 1, ceil_mode))
        forms = lower.MAX_FORMS if function[0] == "m" else lower.SUM_FORMS
        if function[0] == "m":
            native, pull_native = jax.vjp(lambda x: forms["native"](x, windows), x)  # noqa: B023
            np.testing.assert_array_equal(native, out)
            np.testing.assert_allclose(pull_native(weights)[0], expected[1], atol=1e-5)
        else:
            native = forms["native"](x, windows)
            np.testing.assert_allclose(native, lower.window_sum(x, windows), atol=1e-5)


CASES = [  # operation, form, shape, kernel, stride, padding
    ("max", "chain", (2, 2, 5, 4), 2, 2, 0),
    ("max", "blocks", (1, 2, 9, 4), 4, 4, 0),
    ("max", "blocks", (2, 1, 40), 20, 20, 0),
    ("max", "chain", (1, 2, 5, 5), 3, 2, 1),
    ("sum", "slices", (1, 2, 5, 5), 3, 2, 1),
    ("sum", "slices", (2, 2, 5, 4), 2, 2, 0),
    ("sum", "blocks", (2, 1, 40), 20, 20, 0),
    ("sum", "native", (1, 1, 23), 20, 1, 0),
]


@pytest.mark.parametrize(("operation", "form", "shape", "kernel", "stride", "padding"), CASES)
def test_each_form_has_every_derivative(operation, form, shape, kernel, stride, padding):
    x = jax.random.normal(jax.random.key(0), shape)
    windows = tuple(pool_windows("pool", x, len(shape) - 2, kernel, stride, padding))
    if operation == "max":
        assert lower.max_form(windows, x.dtype) == form
        run, forms = lower.window_max, lower.MAX_FORMS
    else:
        assert lower.sum_form(windows) == form
        run, forms = lower.window_sum, lower.SUM_FORMS

    def everything(x, run):
        def function(x):
            return jnp.sum(jnp.sin(run(x, windows)))

        value, tangent = jax.jvp(lambda x: run(x, windows), (x,), (jnp.cos(x),))
        gradient = jax.grad(function)
        _, second = jax.jvp(gradient, (x,), (jnp.cos(x),))  # forward over reverse
        twice = jax.grad(lambda x: jnp.sum(gradient(x) ** 2))(x)  # reverse over reverse
        mapped = jax.vmap(gradient)(jnp.stack([x, 2 * x]))
        return value, tangent, gradient(x), second, twice, mapped

    ours = jax.jit(everything, static_argnums=1)(x, run)
    native = jax.jit(everything, static_argnums=1)(x, forms["native"])
    for mine, theirs in zip(ours, native, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [2, 4])
def test_half_precision_integers_and_empty_batches(kernel):
    for dtype in (jnp.bfloat16, jnp.float16, jnp.int32, jnp.uint8):
        values = jnp.abs(draw((1, 2, 8, 8), dtype=jnp.int32)).astype(dtype)
        pooled = F.max_pool2d(values, kernel)
        assert pooled.dtype == dtype
        wide = F.max_pool2d(values.astype(jnp.float32), kernel)
        np.testing.assert_array_equal(pooled.astype(jnp.float32), wide)
    low = draw((1, 2, 8, 8), dtype=jnp.bfloat16)
    gradient = jax.grad(lambda x: jnp.sum(F.max_pool2d(x, kernel).astype(jnp.float32)))(low)
    assert gradient.dtype == jnp.bfloat16
    assert gradient.sum() == 2 * (8 // kernel) ** 2
    for pool in (F.max_pool2d, F.avg_pool2d):
        out, pull = jax.vjp(lambda x, pool=pool: pool(x, kernel), jnp.zeros((0, 2, 8, 8)))
        assert out.shape == (0, 2, 8 // kernel, 8 // kernel)
        assert pull(out)[0].shape == (0, 2, 8, 8)


def test_large_blocks_choose_among_ties_and_nan_as_torch_does():
    x = np.array(draw((2, 2, 9, 12)))
    x[np.random.default_rng(2).uniform(size=x.shape) < 0.1] = np.nan
    x[0, 0, :4, :4] = -np.inf
    out, pull = jax.vjp(lambda x: F.max_pool2d(x, 4), jnp.asarray(x))
    weights = draw(out.shape, seed=1)
    expected = torch_gradient("max_pool2d", x, weights, 4)
    np.testing.assert_array_equal(out, expected[0])
    np.testing.assert_array_equal(pull(weights)[0], expected[1])


def test_adaptive_pooling_into_equal_windows_is_that_of_torch():
    x = draw((2, 3, 12, 40))
    for function in ("adaptive_max_pool2d", "adaptive_avg_pool2d"):
        for size in ((6, 20), (3, None), (1, 1), (6, 7)):
            out, pull = jax.vjp(lambda x: getattr(F, function)(x, size), x)  # noqa: B023
            weights = draw(out.shape, seed=1)
            expected = torch_gradient(function, x, weights, size)
            np.testing.assert_allclose(out, expected[0], atol=1e-6)
            np.testing.assert_allclose(pull(weights)[0], expected[1], atol=1e-5)


def test_only_a_cpu_leaves_the_native_operation():
    def text(platform: str, pool) -> str:
        return (
            jax.jit(jax.grad(lambda x: jnp.sum(pool(x, 2))))
            .trace(x)
            .lower(lowering_platforms=(platform,))
            .as_text()
        )

    x = jnp.ones((1, 2, 8, 8))
    for pool in (F.max_pool2d, F.avg_pool2d):
        assert "reduce_window" not in text("cpu", pool)
        assert "select_and_scatter" not in text("cpu", pool)
    assert "select_and_scatter" in text("cuda", F.max_pool2d)
    assert "reduce_window" in text("cuda", F.avg_pool2d)


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_an_eager_gradient_is_compiled_once(pool, caplog):
    x = draw((1, 2, 4, 6))
    gradient = jax.grad(lambda x: jnp.sum(pool(x, 2)))
    first = gradient(x)
    compiler = "jax._src.interpreters.pxla"
    with caplog.at_level("DEBUG", compiler):
        np.testing.assert_array_equal(gradient(x), first)
        assert not caplog.records
        gradient(draw((1, 3, 4, 6)))
        assert caplog.records  # another shape shows that the log is listened to
