"""Convolutions: what is refused, how they start, and what the table cannot say."""

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

SEQUENCE, IMAGE = jnp.ones((1, 4, 6)), jnp.ones((1, 4, 6, 6))


def weight(*shape, dtype=jnp.float32):
    return jnp.ones(shape, dtype)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "in_channels must be divisible by groups"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), "out_channels must be divisible by groups"),
        (lambda: nn.Conv2d(4, 4, 3, groups=0), "groups must be positive"),
        (lambda: nn.Conv2d(-1, 4, 3), "in_channels must be non-negative"),
        (lambda: nn.Conv2d(1, 2.5, 3), "out_channels must be an integer"),
        (lambda: nn.Conv2d(1, 1, 0), "kernel_size must be positive"),
        (lambda: nn.Conv2d(1, 1, 3.0), "kernel_size must be an integer"),
        (lambda: nn.Conv2d(1, 1, (3, 3, 3)), "kernel_size must be one integer or 2"),
        (lambda: nn.Conv2d(1, 1, 3, stride=0), "stride must be positive"),
        (lambda: nn.Conv2d(1, 1, 3, dilation=(1, 0)), "dilation must be positive"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), "padding must be non-negative"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), "'valid', 'same'"),
        (lambda: nn.Conv2d(1, 1, 3, padding="same", stride=(1, 2)), "'same' needs stride 1"),
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="edge"), "padding_mode must be one of"),
        (
            lambda: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect"),
            "padding_mode must be one of",
        ),
        (
            lambda: nn.ConvTranspose2d(1, 1, 3, padding="same"),
            "padding must be an integer|padding must",
        ),
        (lambda: nn.ConvTranspose2d(1, 1, 3, output_padding=-1), "output_padding must be non-neg"),
    ],
)
def test_layers_refuse_at_construction(build, match):
    with pytest.raises(ArgumentError, match=match):
        build()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: F.conv1d(IMAGE, weight(2, 4, 3)), ShapeError, "2D or 3D input"),
        (lambda: F.conv2d(jnp.ones((6, 6)), weight(2, 4, 3, 3)), ShapeError, "3D or 4D input"),
        (lambda: F.conv2d(IMAGE, weight(2, 4, 3)), ShapeError, "weight must have 4 axes"),
        (lambda: F.conv2d(IMAGE, weight(2, 4, 0, 3)), ShapeError, "empty kernel"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 3, 3)), ShapeError, "input to have 3 channels"),
        (lambda: F.conv1d(SEQUENCE, weight(3, 2, 3), groups=2), ShapeError, "multiple of groups=2"),
        (lambda: F.conv1d(SEQUENCE, weight(0, 4, 3)), ShapeError, "positive multiple"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 3), weight(3)), ShapeError, "bias must have"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 3), weight(2, 1)), ShapeError, "bias must have"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 7)), ShapeError, "does not fit into input"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 3), dilation=3), ShapeError, "does not fit"),
        (lambda: F.conv1d(jnp.ones((1, 4, 0)), weight(2, 4, 1), padding=1), ShapeError, "not fit"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 3), stride=(1, 1)), ArgumentError, "stride"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 3), stride=1.0), ArgumentError, "stride"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 3), padding="x"), ArgumentError, "padding must"),
        (lambda: F.conv1d(SEQUENCE, weight(2, 4, 3, dtype=jnp.bfloat16)), DTypeError, "one dtype"),
        (lambda: F.conv1d([1.0], weight(2, 4, 3)), DTypeError, "input must be an array"),
        (lambda: F.conv1d(SEQUENCE > 0, weight(2, 4, 3) > 0), DTypeError, "array of numbers"),
        (lambda: F.conv_transpose1d(SEQUENCE, weight(3, 2, 3)), ShapeError, "3 channels"),
        (lambda: F.conv_transpose1d(SEQUENCE, weight(4, 2, 3), groups=3), ShapeError, "groups=3"),
        (lambda: F.conv_transpose1d(SEQUENCE, weight(4, 2, 1), padding=3), ShapeError, "empty"),
        (lambda: F.conv_transpose1d(SEQUENCE, weight(4, 2, 3), weight(3)), ShapeError, "bias"),
        (
            lambda: F.conv_transpose1d(SEQUENCE, weight(4, 2, 3), stride=2, output_padding=2),
            ArgumentError,
            "output_padding must be less than stride or dilation",
        ),
        (lambda: F.conv_tbc(jnp.ones((5, 2, 3)), weight(3, 4, 2), weight(2)), ShapeError, "middle"),
        (
            lambda: F.conv_tbc(jnp.ones((2, 2, 3)), weight(5, 3, 2), weight(2)),
            ShapeError,
            "not fit",
        ),
        (lambda: F.conv_tbc(jnp.ones((5, 2, 3)), weight(3, 3, 2), weight(3)), ShapeError, "bias"),
        (lambda: F.conv_tbc(jnp.ones((2, 3)), weight(5, 3, 2), weight(2)), ShapeError, "3D input"),
    ],
)
def test_functions_refuse(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("mode", "padding", "match"),
    [("reflect", 6, "less than the size"), ("circular", 7, "at most the size")],
)
def test_borders_that_the_input_cannot_give_are_refused(mode, padding, match):
    layer = nn.Conv1d(4, 2, 3, padding=padding, padding_mode=mode)
    with pytest.raises(ShapeError, match=match):
        layer(SEQUENCE)


@pytest.mark.parametrize(
    ("size", "match"),
    [
        ((9, 11), r"between \[9, 9\] and \[10, 10\]"),
        ((9,), "2 or, with all axes, 4"),
        (9, "2 or, with all axes, 4"),
        ((9.0, 9), "must be an integer"),
    ],
)
def test_output_size_out_of_reach_is_refused(size, match):
    layer = nn.ConvTranspose2d(2, 4, 3, stride=2)
    with pytest.raises(ArgumentError, match=match):
        layer(jnp.ones((1, 2, 4, 4)), output_size=size)


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("Conv1d", (64, 48, 5), {}),
        ("Conv2d", (24, 48, 5), {"groups": 4}),
        ("Conv3d", (16, 32, (1, 3, 3)), {}),
        ("ConvTranspose2d", (32, 24, 5), {"groups": 2}),
    ],
)
def test_parameters_start_as_torchs(name, args, options):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    for parameter in ("weight", "bias"):
        a = np.asarray(getattr(ours, parameter))
        b = getattr(theirs, parameter).detach().numpy()
        fan_in = math.prod(theirs.weight.shape[1:])
        bound = 1 / math.sqrt(fan_in)
        assert np.abs(a).max() <= bound
        assert np.abs(b).max() <= bound
        if parameter == "weight":
            assert np.abs(a).max() > 0.99 * bound
            np.testing.assert_allclose(a.std(), b.std(), rtol=0.03)
            np.testing.assert_allclose(a.mean(), 0, atol=0.02 * bound)


def test_no_channels_are_allowed_until_the_call():
    assert nn.Conv2d(0, 1, 3).weight.shape == (1, 0, 3, 3)
    assert np.asarray(nn.Conv2d(0, 1, 3).bias) == 0
    empty = nn.Conv2d(1, 0, 3)
    with pytest.raises(ShapeError, match="positive multiple"):
        empty(jnp.ones((1, 1, 4, 4)))


def test_attributes_are_torchs():
    ours, theirs = nn.Conv2d(2, 4, 3, padding=1), torch.nn.Conv2d(2, 4, 3, padding=1)
    for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
                 "in_channels", "out_channels", "transposed", "output_padding"):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name)
    assert nn.ConvTranspose1d(2, 4, 3).transposed


def test_integers_and_complex_numbers_as_torch():
    x = np.arange(12).reshape(1, 2, 6)
    w = np.arange(12).reshape(2, 2, 3)
    for kind in (np.int32, np.complex64):
        ours = F.conv1d(jnp.asarray(x.astype(kind)), jnp.asarray(w.astype(kind)))
        theirs = torch.nn.functional.conv1d(
            torch.tensor(x.astype(kind)), torch.tensor(w.astype(kind))
        )
        assert ours.dtype == kind
        np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), rtol=1e-6)


def test_transposed_convolution_is_the_adjoint():
    key = jax.random.key(0)
    x = jax.random.normal(key, (1, 4, 7))
    w = jax.random.normal(key, (6, 2, 3))
    options = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    y, pull = jax.vjp(lambda x: F.conv1d(x, w, **options), x)
    g = jax.random.normal(key, y.shape)
    extra = 7 - ((y.shape[-1] - 1) * 2 - 2 + 4 + 1)
    back = F.conv_transpose1d(g, w, output_padding=extra, **options)
    np.testing.assert_allclose(np.asarray(back), np.asarray(pull(g)[0]), rtol=1e-5, atol=1e-5)


def test_a_wrong_input_names_the_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ShapeError, match="3 channels") as caught:
        model(jnp.ones((1, 1, 6, 6)))
    assert any("'0' of Sequential" in note for note in caught.value.__notes__)


def test_a_parameter_can_be_passed_to_the_function():
    layer = nn.Conv1d(4, 2, 3)
    np.testing.assert_allclose(
        np.asarray(F.conv1d(SEQUENCE, layer.weight, layer.bias)),
        np.asarray(layer(SEQUENCE)),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
def test_dtype_of_the_parameters(name):
    layer = getattr(nn, name)(4, 2, 3, dtype=jnp.bfloat16)
    assert layer.weight.dtype == layer.bias.dtype == jnp.bfloat16
    assert layer(IMAGE.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(DTypeError, match="one dtype"):
        layer(IMAGE)
