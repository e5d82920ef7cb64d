"""Resizing sequences, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_array, as_int, choice, describe
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional import pool_adaptive
from funcnets.functional._autocast import in_full
from funcnets.functional._numeric import real, widen
from funcnets.functional._window import flag

__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

_DIMENSIONS = {"linear": 1, "bilinear": 2, "bicubic": 2, "lanczos": 2, "trilinear": 3}
_PLAIN = ("nearest", "nearest-exact", "area")
MODES = (*_PLAIN, *_DIMENSIONS)
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


def interpolate(
    input: jax.Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> jax.Array:
    r"""Resizes the spatial axes.

    Output element :math:`i` stands at :math:`s \, (i + \tfrac12) - \tfrac12` in the input, where
    :math:`s` is the input's size divided by the output's (:math:`s \, i` with ``align_corners``,
    :math:`s` then being the ratio of the sizes less one), and is made of the elements around it,
    as ``mode`` says.

    Args:
        input: ``(N, C, L)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``, floating point; uint8, too,
            with the nearest modes.
        size: the wanted size, one integer or one for each axis.
        scale_factor: the wanted size as a multiple of the input's, rounded down; one number or one
            for each axis. Either this or ``size``.
        mode: ``'nearest'`` (the element at :math:`\lfloor s i \rfloor`), ``'nearest-exact'``,
            ``'linear'`` (1D), ``'bilinear'`` (2D), ``'bicubic'`` (2D), ``'trilinear'`` (3D),
            ``'area'`` (averages, as ``adaptive_avg_pool``), ``'lanczos'`` (2D, with ``antialias``).
        align_corners: whether the corner elements of input and output coincide; False if None. For
            the linear and cubic modes only.
        recompute_scale_factor: with ``scale_factor``: whether :math:`s` follows from the rounded
            size rather than from the factor.
        antialias: whether to average over all elements that one element of a smaller output
            covers: ``'bilinear'``, ``'bicubic'`` and ``'lanczos'`` only.

    Returns:
        An array of the wanted size and the dtype of ``input``.

    Raises:
        ArgumentError: both or none of ``size`` and ``scale_factor``, a mode that does not fit to
            the number of axes, or an option that does not fit to the mode.
        ShapeError: a wrong rank, an empty axis other than the batch, or an empty output.
        DTypeError: an array of integers or complex numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.interpolate(jnp.asarray([[[1.0, 3.0]]]), 4, mode="linear").tolist()
        [[[1.0, 1.5, 2.5, 3.0]]]
        >>> F.interpolate(jnp.ones((1, 3, 8, 8)), scale_factor=(2, 1.5)).shape
        (1, 3, 16, 12)

    References:
        torch.nn.functional.interpolate
    """
    input = _checked(input, mode)
    n = input.ndim - 2
    if align_corners is not None:
        flag("align_corners", align_corners)
        if mode in (*_PLAIN, "lanczos") and (mode != "lanczos" or align_corners):
            raise ArgumentError(
                f"align_corners has a meaning in the linear and cubic modes only, but mode is {mode!r}"
            )
    if flag("antialias", antialias) and mode not in _SUPPORT:
        raise ArgumentError(
            f"antialias is for the modes 'bilinear', 'bicubic' and 'lanczos', but mode is {mode!r}"
        )
    if mode == "lanczos" and not antialias:
        raise ArgumentError("mode='lanczos' needs antialias=True")
    lengths = input.shape[2:]
    sizes, factors = _target(lengths, size, scale_factor, recompute_scale_factor)
    if min(sizes) < 1 or 0 in input.shape[1:]:
        raise ShapeError(
            f"interpolate: only the batch may be empty, but input is {describe(input)} and the "
            f"size of the output {sizes}"
        )
    if mode == "area":
        pool = (
            pool_adaptive.adaptive_avg_pool1d,
            pool_adaptive.adaptive_avg_pool2d,
            pool_adaptive.adaptive_avg_pool3d,
        )[n - 1]
        return pool(input, sizes)
    scales = tuple(1 / f if f else None for f in factors)
    return _resize(in_full(input), sizes, scales, mode, bool(align_corners), antialias)


def upsample(
    input: jax.Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> jax.Array:
    """PyTorch's old name for ``interpolate``."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: jax.Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> jax.Array:
    """PyTorch's old name for ``interpolate`` with ``mode='nearest'``."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(
    input: jax.Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> jax.Array:
    """PyTorch's old name for ``interpolate`` with ``mode='bilinear'`` and ``align_corners=True``."""
    return interpolate(input, size, scale_factor, "bilinear", True)


def _checked(input: Any, mode: str) -> jax.Array:
    """``input`` if ``mode`` can resize it."""
    choice("mode", mode, MODES)
    if mode.startswith("nearest"):
        input = as_array("input", input)
        if input.dtype != jnp.uint8 and not jnp.issubdtype(input.dtype, jnp.floating):
            raise DTypeError(
                f"input must be a floating point or uint8 array, but got {describe(input)}; "
                f"convert it, for example with input.astype(jnp.float32)"
            )
    else:
        input = real("input", input)
    if input.ndim not in (3, 4, 5):
        raise ShapeError(
            f"interpolate: expected input (N, C, L), (N, C, H, W) or (N, C, D, H, W), "
            f"but got {describe(input)}"
        )
    if mode in _DIMENSIONS and _DIMENSIONS[mode] != input.ndim - 2:
        raise ArgumentError(
            f"mode={mode!r} resizes {_DIMENSIONS[mode] + 2}D input, but got {input.ndim}D input "
            f"{describe(input)}"
        )
    return input


def _target(
    lengths: Sequence[int], size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The size of the output, and the factors where they, not the sizes, give the places."""
    n = len(lengths)
    if (size is None) == (scale_factor is None):
        got = "neither" if size is None else "both"
        raise ArgumentError(f"interpolate takes either size or scale_factor, but got {got}")
    if size is not None:
        if recompute:
            raise ArgumentError("recompute_scale_factor=True needs scale_factor, but got size")
        return integers_for_axes(size, n), (None,) * n
    factors = numbers_for_axes(scale_factor, n)
    sizes = tuple(int(length * f) for length, f in zip(lengths, factors, strict=True))
    return sizes, (None,) * n if recompute else factors


def integers_for_axes(size: Any, n: int | None) -> tuple[int, ...]:
    """``size`` as ``n`` integers; with None for ``n``, which a layer does not know, as it comes."""
    items = tuple(size) if isinstance(size, Sequence) else (size,) * (n or 1)
    if n is not None and len(items) != n:
        raise ArgumentError(f"size must be one integer or {n} of them, but got {size!r}")
    return tuple(as_int("size", item) for item in items)


def numbers_for_axes(scale_factor: Any, n: int | None) -> tuple[float, ...]:
    """``scale_factor`` as ``n`` numbers; with None for ``n`` as it comes."""
    several = isinstance(scale_factor, Sequence) and not isinstance(scale_factor, str)
    items: tuple[Any, ...] = tuple(scale_factor) if several else (scale_factor,) * (n or 1)
    if (n is not None and len(items) != n) or not all(
        isinstance(f, (int, float)) and not isinstance(f, bool) and math.isfinite(f) for f in items
    ):
        raise ArgumentError(
            f"scale_factor must be one number or {n or 'several'} of them, "
            f"but got {describe(scale_factor)}"
        )
    return tuple(float(f) for f in items)


@partial(jax.jit, static_argnums=(1, 2, 3, 4, 5), inline=True)
def _resize(
    input: jax.Array,
    sizes: tuple[int, ...],
    scales: tuple[float | None, ...],
    mode: str,
    align_corners: bool,
    antialias: bool,
) -> jax.Array:
    """Resize one axis after the other."""
    if mode.startswith("nearest"):
        for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), 2):
            length = input.shape[axis]
            input = _pick(input, axis, _nearest(length, size, scale, mode == "nearest-exact"))
        return input
    x = widen(input)
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), 2):
        length = x.shape[axis]
        if antialias:
            index, weight = _antialiased(length, size, scale, mode, align_corners, x.dtype)
        else:
            index, weight = _interpolated(length, size, scale, mode, align_corners, x.dtype)
        x = _blend(x, axis, index, weight)
    return x.astype(input.dtype)


def _pick(x: jax.Array, axis: int, index: np.ndarray) -> jax.Array:
    """``x[index]`` along ``axis``."""
    length, size = x.shape[axis], len(index)
    if size % length == 0 and (index == np.arange(size) // (size // length)).all():
        return jnp.repeat(x, size // length, axis)  # Much faster, and so is its derivative.
    return jnp.take(x, index, axis, mode="clip")


def _blend(x: jax.Array, axis: int, index: np.ndarray, weight: np.ndarray) -> jax.Array:
    """Along ``axis`` the sums of ``x[index] * weight`` over the last axis of the two."""
    ones = (1,) * (x.ndim - axis - 1)
    lead = (None,) * axis
    total = jnp.zeros((), x.dtype)
    for i, w in zip(index.T, weight.T, strict=True):
        part = _pick(x, axis, i)
        used = (w != 0).reshape(-1, *ones)[lead]
        if not used.all():  # 0 * inf is NaN.
            part = jnp.where(used, part, 0)
        total = total + part * w.reshape(-1, *ones)[lead]
    return total


def _nearest(length: int, size: int, scale: float | None, exact: bool) -> np.ndarray:
    """The element for each output element, in float32 as in PyTorch."""
    i = np.arange(size)
    step = np.float32(length) / np.float32(size) if scale is None else np.float32(scale)
    places = (i + 0.5) * np.float64(step) if exact else i.astype(np.float32) * step
    return np.minimum(np.floor(places.astype(np.float32)).astype(np.int64), length - 1)


def _step(length: int, size: int, scale: float | None, align_corners: bool, dtype: Any) -> Any:
    """The distance in the input between two neighbours of the output."""
    kind = np.dtype(dtype).type
    if align_corners:
        return kind(length - 1) / kind(size - 1) if size > 1 else kind(0)
    return kind(length) / kind(size) if scale is None else kind(scale)


def _interpolated(
    length: int, size: int, scale: float | None, mode: str, align_corners: bool, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The elements around each place and their weights, both ``(size, 2 or 4)``."""
    cubic = mode == "bicubic"
    if size == length and not cubic:
        return np.arange(size)[:, None], np.ones((size, 1), dtype)
    step = _step(length, size, scale, align_corners, dtype)
    half = np.dtype(dtype).type(0.5)
    i = np.arange(size).astype(dtype)
    x = step * i if align_corners else step * (i + half) - half
    if not cubic:
        x = np.maximum(x, 0)
        left = np.minimum(np.floor(x), length - 1)
        t = np.clip(x - left, 0, 1).astype(dtype)
        offsets, weights = (0, 1), [1 - t, t]
    else:
        left = np.minimum(np.floor(x), length - 1)
        t = np.clip(x - left, 0, 1).astype(dtype)
        offsets, weights = (-1, 0, 1, 2), [_keys(np.abs(t - k), -0.75) for k in (-1, 0, 1, 2)]
    index = left.astype(np.int64)[:, None] + np.asarray(offsets)
    return np.clip(index, 0, length - 1), np.stack(weights, -1).astype(dtype)


def _antialiased(
    length: int, size: int, scale: float | None, mode: str, align_corners: bool, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
    """All elements that an output element covers and their weights, both ``(size, elements)``."""
    kind = np.dtype(dtype).type
    step = _step(length, size, scale, align_corners, dtype)
    shrink = max(step, kind(1))
    support = kind(_SUPPORT[mode]) * shrink
    centre = step * (np.arange(size) + 0.5).astype(dtype)
    # The cast to an integer truncates towards zero.
    first = np.maximum((centre - support + kind(0.5)).astype(np.int64), 0)
    stop = np.minimum((centre + support + kind(0.5)).astype(np.int64), length)
    index = first[:, None] + np.arange(max(1, (stop - first).max()))
    distance = np.abs((index + 0.5 - centre[:, None]) / shrink)
    weight = np.where(index < stop[:, None], _kernel(mode, distance), 0)
    total = weight.sum(-1, keepdims=True)
    weight = weight / np.where(total == 0, 1, total)
    return np.minimum(index, length - 1), weight.astype(dtype)


def _kernel(mode: str, d: np.ndarray) -> np.ndarray:
    """The weight of an element at distance ``d``."""
    if mode == "bilinear":
        return np.maximum(1 - d, 0)
    if mode == "bicubic":
        return _keys(d, -0.5)
    return np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0)


def _keys(d: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with the parameter ``a``."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
