"""Images to columns of patches, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import as_array, describe, floating
from funcnets.errors import DTypeError, ShapeError
from funcnets.functional._numeric import widen
from funcnets.functional._window import Window, check_spatial, exact_ints, taps, volume

__all__ = ["fold", "unfold"]


def unfold(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> jax.Array:
    r"""Cuts images into overlapping patches, one column for each.

    Column :math:`l` of the output holds the patch that a kernel meets at its :math:`l`-th place,
    in row-major order: channels first, then the rows and columns of the kernel. A convolution is a
    product of its weights with these columns.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point, complex or boolean.
        kernel_size: size of a patch, one integer or two, as are all sizes here.
        dilation: distance between the elements of a patch.
        padding: zeros added on both sides of each axis.
        stride: step from patch to patch.

    Returns:
        ``(N, C * KH * KW, L)`` or ``(C * KH * KW, L)`` with :math:`L` the product over both axes of
        ``(size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1``.

    Raises:
        ArgumentError: an option that cannot be.
        ShapeError: a wrong rank, an empty axis other than the batch, or no room for one patch.
        DTypeError: an array of integers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.unfold(jnp.ones((2, 5, 3, 4)), (2, 3)).shape
        (2, 30, 4)

    References:
        torch.nn.functional.unfold
    """
    x = _numbers(input)
    windows = _windows(kernel_size, dilation, padding, stride)
    check_spatial("unfold", x, 2)
    fitted = _fit(windows, x.shape[-2:])
    if min(w.count for w in fitted) < 1:
        raise ShapeError(
            f"unfold: a patch of {tuple(w.kernel for w in fitted)} with dilation "
            f"{tuple(w.dilation for w in fitted)} does not fit into input {describe(x)} with "
            f"padding {tuple(w.low for w in fitted)}"
        )
    patches = _patches(x, *fitted)  # (*, C, KH, KW, H', W')
    rows = volume(patches.shape[-5:-2])
    return patches.reshape(*patches.shape[:-5], rows, volume(patches.shape[-2:]))


def fold(
    input: jax.Array,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> jax.Array:
    """Puts patches back to their places and adds them up where they overlap.

    The adjoint of ``unfold`` with the same options. It is no inverse: an element comes back as
    often as there are patches that hold it.

    Args:
        input: ``(N, C * KH * KW, L)`` or ``(C * KH * KW, L)``, floating point or complex.
        output_size: size of the images, one integer or two, as are all sizes here.
        kernel_size: size of a patch.
        dilation: distance between the elements of a patch.
        padding: elements cut off both sides of each axis.
        stride: step from patch to patch.

    Returns:
        ``(N, C, *output_size)`` or ``(C, *output_size)``.

    Raises:
        ArgumentError: an option that cannot be.
        ShapeError: a wrong rank, or columns that do not make patches of images of that size.
        DTypeError: an array that is not of floating point or complex numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.fold(jnp.ones((1, 12, 12)), (4, 5), (2, 2)).shape
        (1, 3, 4, 5)

    References:
        torch.nn.functional.fold
    """
    x = floating("input", input)
    sizes = exact_ints("output_size", output_size, 2, minimum=1)
    windows = _fit(_windows(kernel_size, dilation, padding, stride), sizes)
    counts, kernels = [w.count for w in windows], [w.kernel for w in windows]
    if x.ndim not in (2, 3) or 0 in x.shape[-2:]:
        raise ShapeError(
            f"fold: expected input (C * KH * KW, L) or (N, C * KH * KW, L), of which only N may be "
            f"0, but got {describe(x)}"
        )
    if x.shape[-2] % volume(kernels):
        raise ShapeError(
            f"fold: the rows of input must be divisible by {volume(kernels)}, the elements of a "
            f"patch of kernel_size={tuple(kernels)}, but input is {describe(x)}"
        )
    if min(counts) < 1 or x.shape[-1] != volume(counts):
        raise ShapeError(
            f"fold: images of {sizes} have {' * '.join(str(max(c, 0)) for c in counts)} patches of "
            f"kernel_size={tuple(kernels)} with these options, but input has {x.shape[-1]}: "
            f"{describe(x)}"
        )
    lead = (*x.shape[:-2], x.shape[-2] // volume(kernels))
    return _images(x.reshape(*lead, *kernels, *counts), *windows)


def _numbers(input: Any) -> jax.Array:
    """``input`` if it is not made of integers."""
    x = as_array("input", input)
    if jnp.issubdtype(x.dtype, jnp.integer):
        raise DTypeError(f"input must not be an array of integers, but got {describe(x)}")
    return x


def _windows(kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> list[tuple[int, ...]]:
    """The checked options of each axis: kernel, stride, dilation, padding."""
    kernels = exact_ints("kernel_size", kernel_size, 2, minimum=1)
    strides = exact_ints("stride", stride, 2, minimum=1)
    dilations = exact_ints("dilation", dilation, 2, minimum=1)
    pads = exact_ints("padding", padding, 2, minimum=0)
    return list(zip(kernels, strides, dilations, pads, strict=True))


def _fit(options: list[tuple[int, ...]], sizes: Sequence[int]) -> list[Window]:
    """The windows in images of these sizes."""
    return [
        Window(size, k, s, d, p, p, (size + 2 * p - d * (k - 1) - 1) // s + 1)
        for (k, s, d, p), size in zip(options, sizes, strict=True)
    ]


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _patches(x: jax.Array, rows: Window, columns: Window) -> jax.Array:
    """(*, C, H, W) to (*, C, KH, KW, H', W')."""
    around = [(0, 0, 0)] * (x.ndim - 2) + [(w.low, w.high, 0) for w in (rows, columns)]
    x = lax.pad(x, jnp.zeros((), x.dtype), around)
    x = jnp.stack(taps(x, x.ndim - 2, rows), -3)  # (*, C, KH, H', W)
    return jnp.stack(taps(x, x.ndim - 1, columns), -3)  # (*, C, KH, KW, H', W')


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _images(patches: jax.Array, rows: Window, columns: Window) -> jax.Array:
    """The transpose of ``_patches``, summed in float32 for the 16-bit floats."""
    x = widen(patches)
    images = jax.ShapeDtypeStruct((*x.shape[:-4], rows.length, columns.length), x.dtype)
    (out,) = jax.linear_transpose(lambda y: _patches(y, rows, columns), images)(x)
    return out.astype(patches.dtype)
