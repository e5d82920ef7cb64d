"""Shuffles, patches, resizing and sampling: what is refused, and what the table cannot say."""

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

IMAGE = jnp.arange(48.0).reshape(1, 3, 4, 4)
GRID = jnp.zeros((1, 2, 2, 2))
THETA = jnp.eye(2, 3)[None]


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: nn.PixelShuffle(0), ArgumentError, "upscale_factor must be positive"),
        (lambda: nn.PixelUnshuffle(2.0), ArgumentError, "downscale_factor must be an integer"),
        (lambda: nn.ChannelShuffle(-1), ArgumentError, "groups must be positive"),
        (lambda: F.pixel_shuffle(IMAGE, 2), ShapeError, "channels divisible by 4"),
        (lambda: F.pixel_shuffle(IMAGE[0, 0], 2), ShapeError, "at least 3 axes"),
        (lambda: F.pixel_unshuffle(IMAGE, 3), ShapeError, "must divide height and width"),
        (lambda: F.channel_shuffle(IMAGE, 2), ShapeError, "groups=2 must divide"),
        (lambda: F.channel_shuffle(IMAGE[0, 0], 2), ShapeError, "at least 3 axes"),
        (lambda: nn.Unfold(0), ArgumentError, "kernel_size must be positive"),
        (lambda: nn.Unfold((2,)), ArgumentError, "kernel_size must be one integer or 2"),
        (lambda: nn.Unfold(2, stride=0), ArgumentError, "stride must be positive"),
        (lambda: nn.Fold(0, 2), ArgumentError, "output_size must be positive"),
        (lambda: F.unfold(IMAGE, 5), ShapeError, "does not fit into input"),
        (lambda: F.unfold(IMAGE, 2, padding=-1), ArgumentError, "padding must be non-negative"),
        (lambda: F.unfold(IMAGE[0, 0], 2), ShapeError, "3D input .* or 4D"),
        (lambda: F.unfold(IMAGE.astype(int), 2), DTypeError, "must not be an array of integers"),
        (lambda: F.fold(jnp.ones((1, 4, 8)), 4, 2), ShapeError, r"3 \* 3 patches .* has 8"),
        (lambda: F.fold(jnp.ones((1, 5, 9)), 4, 2), ShapeError, "divisible by 4"),
        (lambda: F.fold(jnp.ones((1, 1, 4, 9)), 4, 2), ShapeError, "fold: expected input"),
        (lambda: F.fold(jnp.ones((1, 4, 9)), 1, 2), ShapeError, "0 . 0 patches"),
        (lambda: nn.Upsample(2, mode="cubic"), ArgumentError, "mode must be one of"),
        (lambda: nn.Upsample("2"), ArgumentError, "size must be an integer"),
        (lambda: nn.Upsample(2)(IMAGE[0, 0, 0]), ShapeError, "interpolate: expected input"),
        (
            lambda: nn.Upsample()(IMAGE),
            ArgumentError,
            "either size or scale_factor, but got neither",
        ),
        (lambda: F.interpolate(IMAGE, 2, 2.0), ArgumentError, "but got both"),
        (lambda: F.interpolate(IMAGE, (2,)), ArgumentError, "size must be one integer or 2"),
        (lambda: F.interpolate(IMAGE, 2.5), ArgumentError, "size must be an integer"),
        (lambda: F.interpolate(IMAGE, 0), ShapeError, "only the batch may be empty"),
        (lambda: F.interpolate(IMAGE, scale_factor=0.1), ShapeError, "only the batch"),
        (lambda: F.interpolate(IMAGE, scale_factor=-1), ShapeError, "only the batch"),
        (lambda: F.interpolate(IMAGE[:, :0], 2), ShapeError, "only the batch may be empty"),
        (
            lambda: F.interpolate(IMAGE, scale_factor=(2, 2, 2)),
            ArgumentError,
            "scale_factor must be",
        ),
        (lambda: F.interpolate(IMAGE, scale_factor="2"), ArgumentError, "scale_factor must be"),
        (lambda: F.interpolate(IMAGE, 2, mode="linear"), ArgumentError, "resizes 3D input"),
        (lambda: F.interpolate(IMAGE[0], 2, mode="bicubic"), ArgumentError, "resizes 4D input"),
        (lambda: F.interpolate(IMAGE, 2, align_corners=False), ArgumentError, "align_corners has"),
        (lambda: F.interpolate(IMAGE, 2, antialias=True), ArgumentError, "antialias is for"),
        (lambda: F.interpolate(IMAGE, 2, mode="lanczos"), ArgumentError, "needs antialias=True"),
        (
            lambda: F.interpolate(IMAGE, 2, mode="lanczos", antialias=True, align_corners=True),
            ArgumentError,
            "align_corners has",
        ),
        (
            lambda: F.interpolate(IMAGE, 2, recompute_scale_factor=True),
            ArgumentError,
            "needs scale_factor",
        ),
        (lambda: F.interpolate(IMAGE.astype(int), 2), DTypeError, "floating point or uint8"),
        (lambda: F.interpolate(IMAGE.astype(int), 2, mode="area"), DTypeError, "floating point"),
        (lambda: F.grid_sample(IMAGE, GRID, "linear"), ArgumentError, "mode must be one of"),
        (lambda: F.grid_sample(IMAGE, GRID, padding_mode="edge"), ArgumentError, "padding_mode"),
        (lambda: F.grid_sample(IMAGE, GRID[..., :1]), ShapeError, "end with 2"),
        (lambda: F.grid_sample(IMAGE, GRID[:0]), ShapeError, "begin with the batch"),
        (lambda: F.grid_sample(IMAGE[0], GRID[0]), ShapeError, "grid_sample: expected input"),
        (lambda: F.grid_sample(IMAGE[..., :0], GRID), ShapeError, "nothing to read"),
        (lambda: F.grid_sample(IMAGE, GRID.astype(jnp.bfloat16)), DTypeError, "one dtype"),
        (lambda: F.grid_sample(IMAGE.astype(int), GRID), DTypeError, "input must be"),
        (
            lambda: F.grid_sample(IMAGE[None], jnp.zeros((1, 1, 1, 1, 3)), "bicubic"),
            ArgumentError,
            "reads images only",
        ),
        (lambda: F.affine_grid(THETA, (1, 1, 2)), ArgumentError, "size must be"),
        (lambda: F.affine_grid(THETA, (1, 0, 2, 2)), ArgumentError, "size must be positive"),
        (lambda: F.affine_grid(THETA, (2, 1, 2, 2)), ShapeError, "theta must have the shape"),
        (lambda: F.affine_grid(THETA[0], (1, 1, 2, 2)), ShapeError, "theta must have the shape"),
        (lambda: F.affine_grid(THETA.astype(int), (1, 1, 2, 2)), DTypeError, "theta must be"),
    ],
)
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_convolution_is_a_product_with_patches():
    weight = jax.random.normal(jax.random.key(0), (5, 3, 2, 3))
    patches = F.unfold(IMAGE, (2, 3), padding=1, stride=(2, 1))
    product = jnp.einsum("ok,nkl->nol", weight.reshape(5, -1), patches)
    expected = F.conv2d(IMAGE, weight, padding=1, stride=(2, 1))
    np.testing.assert_allclose(product.reshape(expected.shape), expected, rtol=1e-5, atol=1e-4)


def test_folding_counts_the_patches_that_hold_an_element():
    ones = F.fold(F.unfold(jnp.ones((1, 1, 4, 4)), 2), 4, 2)
    row = jnp.asarray([1.0, 2, 2, 1])
    np.testing.assert_array_equal(ones[0, 0], jnp.outer(row, row))


def test_half_precision_folds_in_float32():
    patches = jnp.full((1, 2049, 1), 1, jnp.float16)
    assert F.fold(jnp.ones((1, 9, 9), jnp.float16) * 0.1, 5, 3)[0, 0, 2, 2] == jnp.float16(0.9)
    assert F.fold(patches, 1, 1).dtype == jnp.float16


def test_booleans_and_integers_where_torch_takes_them():
    assert F.unfold(IMAGE > 3, 2).dtype == jnp.bool_
    assert F.pixel_shuffle(jnp.zeros((4, 1, 1), jnp.int32), 2).dtype == jnp.int32
    tiny = jnp.arange(4, dtype=jnp.uint8).reshape(1, 1, 2, 2)
    assert F.interpolate(tiny, 4).dtype == jnp.uint8


def test_nearest_by_a_whole_factor_needs_no_gather():
    jaxpr = str(jax.make_jaxpr(lambda x: F.interpolate(x, scale_factor=2))(IMAGE))
    assert "gather" not in jaxpr


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
def test_infinities_stay_where_they_are(mode):
    x = jnp.zeros((1, 1, 1, 12)).at[..., 0].set(math.inf)
    out = F.interpolate(x, (1, 6), mode=mode, antialias=True)[0, 0, 0]
    assert jnp.isfinite(out[-1])


def test_antialiasing_down_to_one_column():
    """PyTorch repeats the first row there, but not for the transposed image."""
    x = np.arange(15, dtype=np.float32).reshape(1, 1, 5, 3)
    ours = F.interpolate(jnp.asarray(x), (2, 1), mode="bilinear", antialias=True)
    transposed = torch.tensor(x).mT.contiguous()
    theirs = torch.nn.functional.interpolate(transposed, (1, 2), mode="bilinear", antialias=True).mT
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_identity_grid_reads_the_image():
    for align in (True, False):
        grid = F.affine_grid(THETA, (1, 3, 4, 4), align)
        for mode in ("bilinear", "nearest", "bicubic"):
            out = F.grid_sample(IMAGE, grid, mode, align_corners=align)
            np.testing.assert_allclose(out, IMAGE, atol=1e-4)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_places_that_are_no_numbers(padding):
    for mode in ("bilinear", "nearest"):
        for value in (math.nan, math.inf, -math.inf):
            grid = np.full((1, 1, 1, 2), value, np.float32)
            ours = F.grid_sample(IMAGE, jnp.asarray(grid), mode, padding)
            theirs = torch.nn.functional.grid_sample(
                torch.tensor(np.asarray(IMAGE)), torch.tensor(grid), mode, padding, False
            )
            np.testing.assert_array_equal(ours, theirs)


def test_the_nearest_pixel_has_no_gradient_for_its_place():
    gradient = jax.grad(lambda g: F.grid_sample(IMAGE, g, "nearest").sum())(GRID)
    assert not gradient.any()


def test_align_corners_is_false_by_default():
    grid = F.affine_grid(THETA, (1, 3, 4, 4))
    np.testing.assert_array_equal(grid, F.affine_grid(THETA, (1, 3, 4, 4), False))
    np.testing.assert_array_equal(
        F.grid_sample(IMAGE, GRID), F.grid_sample(IMAGE, GRID, align_corners=False)
    )
