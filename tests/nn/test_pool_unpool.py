"""Max unpooling and fractional max pooling: what is refused, and what the table cannot say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import functional as pure
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, RngError, ShapeError
from funcnets.nn import functional as F

VALUES = jnp.arange(1.0, 5.0).reshape(1, 1, 2, 2)
PLACES = jnp.asarray([[[[0, 2], [8, 10]]]])
IMAGE = jax.random.normal(jax.random.key(0), (2, 3, 9, 8))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: F.max_unpool2d(VALUES, PLACES[..., :1], 2),
            ShapeError,
            "indices must have the shape",
        ),
        (
            lambda: F.max_unpool2d(VALUES, VALUES, 2),
            DTypeError,
            "indices must be an array of int",
        ),
        (lambda: F.max_unpool2d(PLACES, PLACES, 2), DTypeError, "input must be"),
        (lambda: F.max_unpool2d(VALUES[0, 0], PLACES[0, 0], 2), ShapeError, "3D input .* or 4D"),
        (lambda: F.max_unpool2d(VALUES[:, :0], PLACES[:, :0], 2), ShapeError, "only the batch"),
        (lambda: F.max_unpool2d(VALUES, PLACES, 0), ArgumentError, "kernel_size"),
        (lambda: F.max_unpool2d(VALUES, PLACES, 2, padding=3), ShapeError, "would have the size"),
        (
            lambda: F.max_unpool2d(VALUES, PLACES, 2, output_size=(6, 4)),
            ArgumentError,
            "output_size",
        ),
        (lambda: F.max_unpool2d(VALUES, PLACES, 2, output_size=(4,)), ArgumentError, "must hold 2"),
        (lambda: F.max_unpool2d(VALUES, PLACES, 2, output_size=4), ArgumentError, "must hold 2"),
        (lambda: nn.MaxUnpool2d(0), ArgumentError, "kernel_size must be positive"),
        (lambda: nn.MaxUnpool1d(2, stride=0), ArgumentError, "stride must be positive"),
        (lambda: nn.FractionalMaxPool2d(2), ArgumentError, "but got neither"),
        (lambda: nn.FractionalMaxPool2d(2, 3, 0.5), ArgumentError, "but got both"),
        (lambda: nn.FractionalMaxPool2d(2, output_ratio=1.0), ArgumentError, "between 0 and 1"),
        (lambda: nn.FractionalMaxPool2d(2, output_ratio=(0.5, 0)), ArgumentError, "output_ratio"),
        (lambda: nn.FractionalMaxPool3d(0, 3), ArgumentError, "kernel_size must be positive"),
        (lambda: F.fractional_max_pool2d(IMAGE, 2), ArgumentError, "got neither"),
        (lambda: F.fractional_max_pool2d(IMAGE, 2, 9), ShapeError, "do not fit into input"),
        (lambda: F.fractional_max_pool2d(IMAGE, (2,), 3), ArgumentError, "kernel_size must be one"),
        (lambda: F.fractional_max_pool2d(IMAGE[0, 0], 2, 3), ShapeError, "3D input .* or 4D"),
        (
            lambda: F.fractional_max_pool2d(IMAGE, 2, 3, _random_samples=IMAGE),
            ShapeError,
            "_random",
        ),
        (lambda: F.fractional_max_pool2d(IMAGE > 0, 2, 3), DTypeError, "input must be"),
    ],
)
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_unpooling_brings_the_maxima_back():
    x = jax.random.uniform(jax.random.key(0), (2, 3, 6, 7), minval=0.1)
    values, indices = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(values, indices, output_size=(6, 7))
    expected = jnp.where(F.interpolate(values, scale_factor=2) == x[..., :6], x[..., :6], 0)
    np.testing.assert_array_equal(back[..., :6], expected)
    assert not back[..., 6].any()


def test_an_index_outside_leaves_its_value_out():
    out = F.max_unpool2d(VALUES, PLACES.at[0, 0, 1, 1].set(100), 2)
    assert jnp.count_nonzero(out) == 3


def test_each_window_gets_the_gradient_of_a_shared_maximum():
    gradient = jax.grad(lambda x: F.max_unpool2d(x, PLACES * 0, 2).sum())(jnp.ones_like(VALUES))
    assert gradient.ravel().tolist() == [1, 1, 1, 1]


def test_fractional_pooling_asks_for_a_key():
    with pytest.raises(RngError, match="fractional_max_pool2d draws random numbers"):
        pure.fractional_max_pool2d(IMAGE, 2, 3)
    init, apply = fn.functionalize(nn.FractionalMaxPool2d(2, 3))
    params, state = init(jax.random.key(0))
    with pytest.raises(RngError):
        apply(params, state, IMAGE)
    out, _ = apply(params, state, IMAGE, rng=jax.random.key(1))
    again, _ = apply(params, state, IMAGE, rng=jax.random.key(1))
    other, _ = apply(params, state, IMAGE, rng=jax.random.key(2))
    assert (out == again).all()
    assert (out != other).any()


def test_fractional_windows_cover_the_input_and_vary():
    layer = nn.FractionalMaxPool2d(3, output_ratio=0.5, return_indices=True)
    assert not list(layer.state_dict())
    seen = set()
    for _ in range(20):
        values, indices = layer(IMAGE)
        assert values.shape == (2, 3, 4, 4)
        flat = IMAGE.reshape(2, 3, -1)
        taken = jnp.take_along_axis(flat, indices.reshape(2, 3, -1), -1)
        np.testing.assert_array_equal(taken, values.reshape(2, 3, -1))
        seen |= set(indices[..., 0, 0].ravel().tolist())
        # The last window ends at the last element.
        assert (indices[..., -1, -1] >= 6 * 8).all()
    assert len(seen) > 3


def test_fractional_samples_are_a_buffer():
    samples = jax.random.uniform(jax.random.key(0), (2, 3, 2))
    layer = nn.FractionalMaxPool2d(2, 3, _random_samples=samples)
    assert list(layer.state_dict()) == ["_random_samples"]
    assert (layer(IMAGE) == layer(IMAGE)).all()
