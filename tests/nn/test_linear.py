"""Linear, Bilinear and Identity beyond the shared table: refusals and initial distributions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.nn import functional as F


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: nn.Linear(-1, 3), "in_features"),
        (lambda: nn.Linear(3, -1), "out_features"),
        (lambda: nn.Linear(3.0, 2), "in_features"),
        (lambda: nn.Linear(True, 2), "in_features"),
        (lambda: nn.Bilinear(0, 1, 1), "in1_features"),
        (lambda: nn.Bilinear(1, -1, 1), "in2_features"),
        (lambda: nn.Bilinear(1, 1, "a"), "out_features"),
    ],
)
def test_sizes_that_cannot_be(build, match):
    with pytest.raises(ArgumentError, match=match):
        build()


@pytest.mark.parametrize("shape", [(2, 4), (4,), ()])
def test_linear_refuses_another_last_axis(shape):
    with pytest.raises(ShapeError, match=r"expected input of shape \(\*, 3\)"):
        nn.Linear(3, 4)(jnp.ones(shape))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32])
def test_linear_refuses_another_dtype(dtype):
    with pytest.raises(DTypeError, match=r"one dtype.*input"):
        nn.Linear(3, 4)(jnp.ones((2, 3), dtype))


def test_functions_refuse_shapes_that_do_not_fit():
    x, w = jnp.ones((2, 3)), jnp.ones((4, 3))
    with pytest.raises(ShapeError, match="weight"):
        F.linear(x, w[None])
    with pytest.raises(ShapeError, match="bias"):
        F.linear(x, w, jnp.ones(3))
    with pytest.raises(ShapeError, match="bias"):
        F.linear(x[0], w, jnp.ones((2, 4)))
    with pytest.raises(DTypeError, match="input must be an array"):
        F.linear([[1.0, 2.0, 3.0]], w)


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        ((5, 3), (5, 3), "input1"),
        ((5, 2), (5, 2), "input2"),
        ((5, 2), (5, 6, 3), "leading axes"),
        ((5, 1, 2), (5, 6, 3), "leading axes"),
        ((), (3,), "input1"),
    ],
)
def test_bilinear_refuses_shapes_that_do_not_fit(first, second, match):
    with pytest.raises(ShapeError, match=match):
        nn.Bilinear(2, 3, 4)(jnp.ones(first), jnp.ones(second))


def test_bilinear_refuses_a_bias_or_dtype_that_does_not_fit():
    x1, x2, w = jnp.ones((5, 2)), jnp.ones((5, 3)), jnp.ones((4, 2, 3))
    with pytest.raises(ShapeError, match="bias"):
        F.bilinear(x1, x2, w, jnp.ones(1))
    with pytest.raises(ShapeError, match="weight"):
        F.bilinear(x1, x2, w[0])
    with pytest.raises(DTypeError, match="one dtype"):
        F.bilinear(x1.astype(jnp.float16), x2, w)


def test_linear_takes_complex_and_integer_arrays_as_torch_does():
    x, w = jnp.arange(6).reshape(2, 3), jnp.ones((4, 3), int)
    assert F.linear(x, w).tolist() == [[3] * 4, [12] * 4]
    z = F.linear(jnp.ones((2, 3), jnp.complex64) * 1j, jnp.ones((4, 3), jnp.complex64))
    np.testing.assert_allclose(z, np.full((2, 4), 3j))


def test_linear_takes_the_parameters_of_a_layer_and_numpy_arrays():
    layer = nn.Linear(3, 4)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(F.linear(x, layer.weight, layer.bias), layer(x))


@pytest.mark.parametrize("sizes", [(200, 300), (1000, 20)])
def test_linear_starts_as_torch_does(sizes):
    ours, theirs = nn.Linear(*sizes), torch.nn.Linear(*sizes)
    bound = 1 / math.sqrt(sizes[0])
    for name in ("weight", "bias"):
        got = np.asarray(getattr(ours, name))
        expected = getattr(theirs, name).detach().numpy()
        assert abs(got).max() <= bound
        assert abs(expected).max() <= bound
        np.testing.assert_allclose(got.std(), bound / math.sqrt(3), rtol=0.2)
        np.testing.assert_allclose(got.std(), expected.std(), rtol=0.3)
        np.testing.assert_allclose(got.mean(), 0, atol=bound / 4)


def test_bilinear_starts_as_torch_does():
    ours, theirs = nn.Bilinear(50, 10, 30), torch.nn.Bilinear(50, 10, 30)
    for name in ("weight", "bias"):
        got = np.asarray(getattr(ours, name))
        expected = getattr(theirs, name).detach().numpy()
        assert abs(got).max() <= 1 / math.sqrt(50)
        np.testing.assert_allclose(got.std(), expected.std(), rtol=0.4)


def test_reset_parameters_draws_anew():
    layer = nn.Linear(3, 4)
    before = np.asarray(layer.weight)
    layer.reset_parameters()
    assert (np.asarray(layer.weight) != before).any()


def test_identity_takes_one_argument_of_any_kind():
    assert nn.Identity(1, a=2)(None) is None
    with pytest.raises(TypeError):
        nn.Identity()(1, 2)


def test_the_parameters_have_the_dtype_that_was_asked_for():
    layer = nn.Linear(3, 4, dtype=jnp.bfloat16)
    assert layer.weight.dtype == layer.bias.dtype == jnp.bfloat16
    assert layer(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16


def test_in_float64():
    with jax.enable_x64(True):
        init, apply = fn.functionalize(nn.Bilinear(2, 3, 4, dtype=jnp.float64))
        params, state = init(jax.random.key(0))
        x1, x2 = jnp.ones((5, 2)), jnp.ones((5, 3))
        assert apply(params, state, x1, x2)[0].dtype == jnp.float64
