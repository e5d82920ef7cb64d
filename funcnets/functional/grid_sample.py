"""Sampling images and volumes at given places, and the places that an affine map gives."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import choice, describe, positive
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_widest
from funcnets.functional._numeric import real, widen
from funcnets.functional._window import flag, volume

__all__ = ["affine_grid", "grid_sample"]


def grid_sample(
    input: jax.Array,
    grid: jax.Array,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> jax.Array:
    """Reads an image or a volume at the places that a grid names.

    The last axis of ``grid`` holds a place for each output pixel: ``(x, y)`` in an image,
    ``(x, y, z)`` in a volume, from -1 at the left, upper and front end to 1 at the other.

    Args:
        input: ``(N, C, H, W)`` or ``(N, C, D, H, W)``, floating point.
        grid: ``(N, H', W', 2)`` or ``(N, D', H', W', 3)``, of the dtype of ``input``.
        mode: ``'bilinear'`` (trilinear in a volume), ``'nearest'``, or ``'bicubic'`` (images only).
        padding_mode: what is outside: ``'zeros'``, ``'border'`` (the nearest pixel) or
            ``'reflection'``.
        align_corners: whether -1 and 1 are the centres of the corner pixels (True) or their outer
            edges (False, and None).

    Returns:
        ``(N, C, H', W')`` or ``(N, C, D', H', W')``. With ``'nearest'`` the gradient of ``grid``
        is 0.

    Raises:
        ArgumentError: an unknown mode, or ``'bicubic'`` for a volume.
        ShapeError: shapes that do not fit, or an empty image.
        DTypeError: ``input`` and ``grid`` are not real floating point arrays of one dtype.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> image = jnp.arange(4.0).reshape(1, 1, 2, 2)
        >>> places = jnp.asarray([[[[0.0, 0.0], [-1.0, 1.0]]]])
        >>> F.grid_sample(image, places, align_corners=True).tolist()
        [[[[1.5, 2.0]]]]

    References:
        Jaderberg et al., Spatial Transformer Networks, 2015. torch.nn.functional.grid_sample
    """
    input, grid = in_widest(input, grid)
    choice("mode", mode, ("bilinear", "nearest", "bicubic"))
    choice("padding_mode", padding_mode, ("zeros", "border", "reflection"))
    if align_corners is not None:
        flag("align_corners", align_corners)
    input, grid = real("input", input), real("grid", grid)
    if input.dtype != grid.dtype:
        raise DTypeError(
            f"input and grid must have one dtype, but got {input.dtype} and {grid.dtype}; convert "
            f"one of them, for example with grid.astype(input.dtype)"
        )
    if input.ndim not in (4, 5) or grid.ndim != input.ndim:
        raise ShapeError(
            f"grid_sample: expected input (N, C, H, W) with grid (N, H', W', 2), or input "
            f"(N, C, D, H, W) with grid (N, D', H', W', 3), but got {describe(input)} and "
            f"{describe(grid)}"
        )
    if grid.shape[0] != input.shape[0] or grid.shape[-1] != input.ndim - 2:
        raise ShapeError(
            f"grid_sample: grid must begin with the batch of input and end with "
            f"{input.ndim - 2}, but got grid {describe(grid)} for input {describe(input)}"
        )
    if 0 in input.shape[2:]:
        raise ShapeError(f"grid_sample: there is nothing to read in input {describe(input)}")
    if mode == "bicubic" and input.ndim == 5:
        raise ArgumentError("mode='bicubic' reads images only, but input is 5D: use 'bilinear'")
    return _sample(input, grid, mode, padding_mode, bool(align_corners))


def affine_grid(
    theta: jax.Array, size: Sequence[int], align_corners: bool | None = None
) -> jax.Array:
    r"""The places that affine maps give to the pixels of an image or a volume.

    .. math::
        g_{n,h,w} = \theta_n \, (x_w, y_h, 1)^\top

    with :math:`x_w` and :math:`y_h` the places of the output pixels themselves, in the coordinates
    of ``grid_sample``.

    Args:
        theta: one matrix for each sample, ``(N, 2, 3)`` for images, ``(N, 3, 4)`` for volumes.
        size: the shape of the output of ``grid_sample``: ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        align_corners: whether -1 and 1 are the centres of the corner pixels (True) or their outer
            edges (False, and None).

    Returns:
        A grid for ``grid_sample``: ``(N, H, W, 2)`` or ``(N, D, H, W, 3)``.

    Raises:
        ArgumentError: ``size`` is not made of four or five positive integers.
        ShapeError: ``theta`` does not fit to ``size``.
        DTypeError: ``theta`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> mirror = jnp.asarray([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
        >>> F.affine_grid(mirror, (1, 3, 1, 2), align_corners=True).tolist()
        [[[[1.0, 0.0], [-1.0, 0.0]]]]

    References:
        torch.nn.functional.affine_grid
    """
    theta = real("theta", theta)
    if not isinstance(size, Sequence) or len(size) not in (4, 5):
        raise ArgumentError(
            f"size must be (N, C, H, W) or (N, C, D, H, W), but got {describe(size)}"
        )
    sizes = [positive("size", s) for s in size]
    n = len(sizes) - 2
    if align_corners is not None:
        flag("align_corners", align_corners)
    if theta.shape != (sizes[0], n, n + 1):
        raise ShapeError(
            f"affine_grid: theta must have the shape {(sizes[0], n, n + 1)} for size={tuple(sizes)}, "
            f"but got {describe(theta)}"
        )
    matrices = widen(theta)
    axes = [_centres(length, bool(align_corners)).astype(matrices.dtype) for length in sizes[2:]]
    places = np.stack(
        [*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(sizes[2:], matrices.dtype)], -1
    )
    grid = jnp.einsum("...j,nij->n...i", jnp.asarray(places), matrices, precision="highest")
    return grid.astype(theta.dtype)


def _centres(length: int, align_corners: bool) -> np.ndarray:
    """Where the centres of ``length`` pixels are between -1 and 1."""
    if length == 1:
        return np.zeros(1)
    ends = np.linspace(-1.0, 1.0, length)
    return ends if align_corners else ends * (length - 1) / length


@partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
def _sample(
    input: jax.Array, grid: jax.Array, mode: str, padding_mode: str, align_corners: bool
) -> jax.Array:
    """The weighted sum of the pixels around each place."""
    sizes = input.shape[2:]
    places = widen(grid)
    taps = [  # For each axis, the last one first in the grid, the pixels to read and their weights.
        _taps(places[..., -1 - i], length, mode, padding_mode, align_corners)
        for i, length in enumerate(sizes)
    ]
    pixels = widen(input).reshape(*input.shape[:2], volume(sizes))  # (N, C, pixels)
    total = jnp.zeros((), pixels.dtype)
    for combination in itertools.product(*taps):
        index, inside, weight = jnp.zeros((), jnp.int32), jnp.asarray(True), None
        for (place, w), length in zip(combination, sizes, strict=True):
            within = (place >= 0) & (place <= length - 1)  # False for NaN
            index = index * length + jnp.where(within, place, 0).astype(jnp.int32)
            inside = inside & within
            weight = w if weight is None else w if w is None else weight * w
        read = jax.vmap(lambda image, at: image[:, at])(pixels, index)  # (N, C, ...)
        read = jnp.where(inside[:, None], read, 0)
        total = total + (read if weight is None else read * weight[:, None])
    return total.astype(input.dtype)


def _taps(
    place: jax.Array, length: int, mode: str, padding_mode: str, align_corners: bool
) -> list[tuple[jax.Array, Any]]:
    """The pixels along one axis, as floating point numbers, and their weights (None for 1)."""
    x = (place + 1) / 2 * (length - 1) if align_corners else ((place + 1) * length - 1) / 2
    within = partial(
        _bring_in, length=length, padding_mode=padding_mode, align_corners=align_corners
    )
    if mode == "nearest":
        return [(jnp.round(within(x)), None)]
    if mode == "bilinear":
        x = within(x)
        left = jnp.floor(x)
        return [(left, left + 1 - x), (left + 1, x - left)]
    left = jnp.floor(x)
    weights = _cubic(x - left)
    return [(within(left + k), w) for k, w in zip((-1, 0, 1, 2), weights, strict=True)]


def _bring_in(x: jax.Array, length: int, padding_mode: str, align_corners: bool) -> jax.Array:
    """``x`` within the image, unless what is outside is zero. No gradient at and beyond the ends."""
    if padding_mode == "zeros":
        return x
    if padding_mode == "reflection":
        low, span = (0.0, length - 1) if align_corners else (-0.5, length)
        if span == 0:
            return jnp.zeros_like(x)
        away = x - low
        away = jnp.where(away < 0, -away, away)
        over = jnp.fmod(away, span)
        even = jnp.fmod(jnp.floor(away / span), 2) == 0
        x = jnp.where(even, over, span - over) + low
    x = jnp.where(x > 0, x, 0)  # NaN becomes 0, too.
    return jnp.where(x < length - 1, x, length - 1)


def _cubic(t: jax.Array) -> list[jax.Array]:
    """The weights of the four pixels around a place ``t`` after the second (Keys, a = -0.75)."""
    a = -0.75

    def near(d: jax.Array) -> jax.Array:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: jax.Array) -> jax.Array:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]
