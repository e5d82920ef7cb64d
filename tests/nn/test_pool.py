"""Pooling: what is refused, ties, NaN and infinities, and what the table cannot say."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.nn import functional as F

IMAGE = jnp.ones((1, 2, 5, 5))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: nn.MaxPool2d(0), "kernel_size must be positive"),
        (lambda: nn.MaxPool2d((2, 2, 2)), "kernel_size must be one integer or 2"),
        (lambda: nn.MaxPool2d(2.0), "kernel_size must be an integer"),
        (lambda: nn.MaxPool2d(2, stride=0), "stride must be positive"),
        (lambda: nn.MaxPool2d(2, padding=-1), "padding must be non-negative"),
        (lambda: nn.MaxPool2d(2, dilation=0), "dilation must be positive"),
        (lambda: nn.MaxPool2d(2, ceil_mode=1), "ceil_mode must be True or False"),
        (lambda: nn.MaxPool2d(2, return_indices="no"), "return_indices must be True or False"),
        (lambda: nn.AvgPool1d((2, 2)), "kernel_size must be one integer or 1"),
        (lambda: nn.AvgPool2d(2, count_include_pad=0), "count_include_pad must be True or False"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), "divisor_override must not be 0"),
        (lambda: nn.AvgPool2d(2, divisor_override=1.5), "divisor_override must be an integer"),
        (lambda: nn.LPPool2d(0, 2), "norm_type must be a number other than 0"),
        (lambda: nn.LPPool2d("2", 2), "norm_type must be a number"),
        (lambda: nn.AdaptiveAvgPool1d(None), "output_size must be an integer"),
        (lambda: nn.AdaptiveAvgPool2d((2,)), "output_size must be one integer or 2"),
        (lambda: nn.AdaptiveMaxPool2d(-1), "output_size must be non-negative"),
        (lambda: nn.AdaptiveMaxPool3d(2.0), "output_size must be an integer"),
    ],
)
def test_layers_refuse_at_construction(build, match):
    with pytest.raises(ArgumentError, match=match):
        build()


def test_one_dimensional_average_has_no_divisor():
    with pytest.raises(TypeError, match="divisor_override"):
        nn.AvgPool1d(2, divisor_override=3)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
@pytest.mark.parametrize(
    ("x", "options", "error", "match"),
    [
        (IMAGE, (2, 2, 2), ArgumentError, "padding must be at most half of kernel_size"),
        (IMAGE, (6,), ShapeError, "does not fit"),
        (IMAGE[0, 0], (2,), ShapeError, "3D input .* or 4D input"),
        (IMAGE[None], (2,), ShapeError, "3D input .* or 4D input"),
        (IMAGE[:, :0], (2,), ShapeError, "only the batch axis"),
        (IMAGE[..., :0], (3, 1, 1), ShapeError, "only the batch axis"),
        (IMAGE > 0, (2,), DTypeError, "input must be"),
        (IMAGE.astype(jnp.complex64), (2,), DTypeError, "input must be"),
        ([[1.0]], (2,), DTypeError, "input must be an array"),
    ],
)
def test_sliding_windows_refuse(pool, x, options, error, match):
    with pytest.raises(error, match=match):
        pool(x, *options)


@pytest.mark.parametrize("pool", [F.adaptive_max_pool2d, F.adaptive_avg_pool2d, F.avg_pool2d])
def test_integers_are_refused_where_floats_belong(pool):
    with pytest.raises(DTypeError, match="floating point"):
        pool(IMAGE.astype(jnp.int32), 2)


@pytest.mark.parametrize("pool", [F.adaptive_max_pool2d, F.adaptive_avg_pool2d])
@pytest.mark.parametrize("x", [IMAGE[0, 0], IMAGE[None], IMAGE[..., :0], IMAGE[:, :0]])
def test_adaptive_windows_refuse(pool, x):
    with pytest.raises(ShapeError, match="input"):
        pool(x, 2)


def both(function, x, *args, **options):
    """Ours and torch's value and gradient of a weighted sum."""
    theirs = torch.tensor(x, requires_grad=True)
    out = getattr(torch.nn.functional, function)(theirs, *args, **options)
    weights = np.arange(1, out.numel() + 1, dtype=np.float32).reshape(out.shape)
    (out * torch.tensor(weights)).sum().backward()
    ours, pull = jax.vjp(lambda x: getattr(F, function)(x, *args, **options), jnp.asarray(x))
    return np.asarray(ours), np.asarray(pull(jnp.asarray(weights))[0]), out.detach(), theirs.grad


ROWS = {
    "ties": [1, 3, 3, 0, 3, 3, 2, 2],
    "nan": [1, math.nan, 2, math.nan, 3, 3, 1, math.nan],
    "inf": [-math.inf] * 5 + [math.inf, math.inf, 0],
    "all -inf": [-math.inf] * 8,
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize(
    ("function", "args"),
    [("max_pool1d", (4, 2, 2)), ("max_pool1d", (3, 1, 1, 2)), ("adaptive_max_pool1d", (3,))],
)
def test_the_gradient_goes_where_torchs_goes(function, args, row):
    x = np.array([[row]], np.float32)
    ours, gradient, expected, expected_gradient = both(function, x, *args)
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("kernel", [9, 10, 16, 23])
def test_long_kernels_are_as_short_ones(kernel):
    """The doubling for long kernels chooses among ties and NaN as the comparison one by one."""
    rng = np.random.default_rng(kernel)
    x = np.round(rng.standard_normal((2, 2, 60))).astype(np.float32)
    x[rng.uniform(size=x.shape) < 0.02] = np.nan
    for options in ({}, {"stride": 3}, {"padding": 4, "stride": 2}, {"dilation": 2, "stride": 1}):
        ours, gradient, expected, expected_gradient = both("max_pool1d", x, kernel, **options)
        np.testing.assert_array_equal(ours, expected)
        np.testing.assert_array_equal(gradient, expected_gradient)
        _, index = F.max_pool1d(jnp.asarray(x), kernel, **options, return_indices=True)
        _, there = torch.nn.functional.max_pool1d(
            torch.tensor(x), kernel, **options, return_indices=True
        )
        np.testing.assert_array_equal(np.asarray(index), there)


def test_a_kernel_of_the_whole_input_compiles_to_few_operations():
    jaxpr = jax.make_jaxpr(lambda x: F.max_pool2d(x, x.shape[2:]))(jnp.ones((1, 1, 64, 64)))
    assert len(jaxpr.eqns) < 100


def test_pooling_has_a_forward_derivative_too():
    x = jax.random.normal(jax.random.key(0), (1, 1, 6, 6))
    for function in (lambda x: F.max_pool2d(x, 3, 2), lambda x: F.adaptive_avg_pool2d(x, 4)):
        np.testing.assert_allclose(jax.jacfwd(function)(x), jax.jacrev(function)(x), atol=1e-6)


def test_index_dtype_follows_x64():
    indices = F.max_pool2d(IMAGE, 2, return_indices=True)[1]
    assert indices.dtype == jnp.int32
    with jax.enable_x64(True):
        assert F.max_pool2d(IMAGE, 2, return_indices=True)[1].dtype == jnp.int64


def test_unsigned_integers_and_their_smallest_value():
    x = jnp.zeros((1, 1, 3, 3), jnp.uint8)
    values, indices = F.max_pool2d(x, 2, 2, 1, return_indices=True)
    assert values.dtype == jnp.uint8
    assert indices.ravel().tolist() == [0, 1, 3, 4]


def test_the_p_norm_of_zeros_has_gradient_zero():
    gradient = jax.grad(lambda x: F.lp_pool1d(x, 2, 2).sum())(jnp.asarray([[[0.0, 0.0, 3.0, 4.0]]]))
    np.testing.assert_allclose(gradient[0, 0], [0, 0, 0.6, 0.8], rtol=1e-6)


def test_averages_of_half_precision_are_summed_in_float32():
    x = jnp.full((1, 1, 4096), 1.0, jnp.float16)
    assert F.avg_pool1d(x * 100, 4096)[0, 0, 0] == 100
    assert F.adaptive_avg_pool1d(x * 100, 1)[0, 0, 0] == 100
