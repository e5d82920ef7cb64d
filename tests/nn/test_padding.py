"""Padding: what is refused, and what the table cannot say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.nn import functional as F

ROW = jnp.arange(3.0).reshape(1, 1, 3)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: F.pad(ROW, (1,)), ArgumentError, "two numbers for each axis"),
        (lambda: F.pad(ROW, (1,) * 8), ArgumentError, "at most 6 numbers"),
        (lambda: F.pad(ROW, 1), ArgumentError, "pad must be a sequence"),
        (lambda: F.pad(ROW, (1.0, 1.0)), ArgumentError, "pad must be an integer"),
        (lambda: F.pad(ROW, (1, 1), "symmetric"), ArgumentError, "mode must be one of"),
        (lambda: F.pad(ROW, (1, 1), "reflect", 1.0), ArgumentError, "value has a meaning"),
        (lambda: F.pad(ROW, (1, 1), value="a"), ArgumentError, "value must be a real number"),
        (lambda: F.pad(ROW, (1, 1), value=1j), ArgumentError, "value must be a real number"),
        (lambda: F.pad([1.0], (1, 1)), DTypeError, "input must be an array"),
        (lambda: F.pad(ROW, (-2, -2)), ShapeError, "removes more than there is"),
        (lambda: F.pad(ROW, (-4, 6)), ShapeError, "removes more than there is"),
        (lambda: F.pad(ROW, (), "reflect"), ArgumentError, "one to three spatial axes"),
        (lambda: F.pad(ROW[0, 0], (1, 1), "replicate"), ArgumentError, "one to three spatial"),
        (lambda: F.pad(ROW[None], (1, 1), "circular"), ArgumentError, "one to three spatial"),
        (lambda: F.pad(ROW, (1,) * 6, "reflect"), ArgumentError, "one to three spatial axes"),
        (lambda: F.pad(ROW, (3, 0), "reflect"), ShapeError, "less than the size"),
        (lambda: F.pad(ROW, (0, 4), "circular"), ShapeError, "at most the size"),
        (lambda: F.pad(ROW, (2, -2), "circular"), ShapeError, "at most the size"),
        (lambda: F.pad(ROW, (-2, -1), "reflect"), ShapeError, "leaves nothing"),
        (lambda: F.pad(ROW[:, :0], (1, 1), "replicate"), ShapeError, "only the batch axis"),
        (lambda: F.pad(ROW[..., :0], (1, 1), "reflect"), ShapeError, "only the batch axis"),
        (
            lambda: F.pad(jnp.ones(3, jnp.uint8), (1, 1), value=-1),
            ArgumentError,
            "does not fit into uint8",
        ),
    ],
)
def test_pad_refuses(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: nn.ZeroPad2d((1, 2, 3)), "padding must be one integer or 4"),
        (lambda: nn.ReflectionPad1d(1.5), "padding must be an integer"),
        (lambda: nn.ConstantPad1d(1, "a"), "value must be a real number"),
        (lambda: nn.CircularPad3d((1, 2)), "padding must be one integer or 6"),
    ],
)
def test_layers_refuse_at_construction(build, match):
    with pytest.raises(ArgumentError, match=match):
        build()


def test_a_layer_refuses_the_wrong_rank():
    with pytest.raises(ArgumentError, match="3D or 4D"):
        nn.ReflectionPad2d(1)(jnp.ones((4, 4)))
    with pytest.raises(ArgumentError, match="2D or 3D"):
        nn.CircularPad1d(1)(jnp.ones((2, 2, 4, 4)))


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "complex64"])
@pytest.mark.parametrize("mode", ["constant", "circular"])
def test_every_dtype_is_padded(mode, dtype):
    x = np.array([[[0, 1, 1]]]).astype(dtype)
    ours = F.pad(jnp.asarray(x), (2, 1), mode)
    assert ours.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(ours), torch.nn.functional.pad(torch.tensor(x), (2, 1), mode)
    )


def test_the_value_may_be_an_array_without_axes_and_traced():
    padded = jax.jit(lambda v: F.pad(ROW, (1, 0), value=v))(jnp.asarray(2.5))
    assert padded[0, 0, 0] == 2.5
    grad = jax.grad(lambda x, v: F.pad(x, (1, 2), value=v).sum(), argnums=(0, 1))
    assert grad(ROW, jnp.asarray(2.5))[1] == 3


def test_zero_padding_is_a_constant_padding():
    layer = nn.ZeroPad2d(1)
    assert isinstance(layer, nn.ConstantPad2d)
    assert layer.value == 0


def test_circular_padding_wraps_what_cropping_leaves():
    assert F.pad(ROW, (-1, 1), "circular")[0, 0].tolist() == [1, 2, 1]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_the_derivative_is_the_adjoint(mode):
    x = jax.random.normal(jax.random.key(0), (1, 2, 4, 5))
    pad = lambda x: F.pad(x, (2, 1, 0, 3), mode)  # noqa: E731
    y, pull = jax.vjp(pad, x)
    g = jax.random.normal(jax.random.key(1), y.shape)
    np.testing.assert_allclose(jnp.vdot(g, pad(x)), jnp.vdot(pull(g)[0], x), rtol=1e-5)
