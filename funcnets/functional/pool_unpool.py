"""The way back from max pooling: values to the places where they stood, zeros elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import as_int, describe, integer, ntuple
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._numeric import real
from funcnets.functional._window import AXES, check_spatial, volume

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]


def max_unpool1d(
    input: jax.Array,
    indices: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """Puts maxima back to their places along one axis and zeros everywhere else.

    ``max_pool1d(..., return_indices=True)`` gives both arrays. Several windows may have had the
    same maximum: its place is written once, and each of them gets its gradient.

    Args:
        input: ``(N, C, L)`` or ``(C, L)``, floating point.
        indices: integers of the same shape, places along the axis of the output. An index outside
            of it, which PyTorch refuses, leaves its value out: values are not known under ``jit``.
        kernel_size: that of the pooling.
        stride: that of the pooling; ``kernel_size`` if None.
        padding: that of the pooling.
        output_size: the length of the output, alone or as the last of its shape, where the pooling
            has made several lengths one; less than ``stride`` away from the default.

    Returns:
        ``(N, C, L')`` or ``(C, L')`` with ``L' = (L - 1) * stride - 2 * padding + kernel_size``
        unless ``output_size`` is given.

    Raises:
        ArgumentError: an ``output_size`` out of reach, or an option that cannot be.
        ShapeError: ``input`` and ``indices`` differ in shape, or have a wrong rank.
        DTypeError: ``input`` is not floating point or ``indices`` are not integers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> x = jnp.asarray([[[1.0, 3.0, 2.0, 2.0]]])
        >>> F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2).tolist()
        [[[0.0, 3.0, 2.0, 0.0]]]

    References:
        torch.nn.functional.max_unpool1d
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: jax.Array,
    indices: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """Puts maxima back to their places in a plane and zeros everywhere else.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point.
        indices: integers of the same shape, places in the flattened plane of the output.
        kernel_size, stride, padding: those of the pooling, one integer or two.
        output_size: the size of the output, with or without its first axes, as in
            ``max_unpool1d``.

    Returns:
        ``(N, C, H', W')`` or ``(C, H', W')``, each size as in ``max_unpool1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``max_unpool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> values, indices = F.max_pool2d(jnp.ones((1, 2, 5, 5)), 2, return_indices=True)
        >>> F.max_unpool2d(values, indices, 2, output_size=(5, 5)).shape
        (1, 2, 5, 5)

    References:
        torch.nn.functional.max_unpool2d
    """
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: jax.Array,
    indices: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """Puts maxima back to their places in a volume and zeros everywhere else.

    Args:
        input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``, floating point.
        indices: integers of the same shape, places in the flattened volume of the output.
        kernel_size, stride, padding: those of the pooling, one integer or three.
        output_size: the size of the output, with or without its first axes, as in
            ``max_unpool1d``.

    Returns:
        ``(N, C, D', H', W')`` or ``(C, D', H', W')``, each size as in ``max_unpool1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``max_unpool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> values, indices = F.max_pool3d(jnp.ones((2, 4, 4, 4)), 2, return_indices=True)
        >>> F.max_unpool3d(values, indices, 2).shape
        (2, 4, 4, 4)

    References:
        torch.nn.functional.max_unpool3d
    """
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


def _max_unpool(
    n: int,
    input: jax.Array,
    indices: jax.Array,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Sequence[int] | None,
) -> jax.Array:
    """``max_unpool`` over ``n`` axes."""
    function = f"max_unpool{n}d"
    input = real("input", input)
    indices = integer("indices", indices)
    check_spatial(function, input, n)
    if indices.shape != input.shape:
        raise ShapeError(
            f"{function}: indices must have the shape of input, but got {describe(indices)} for "
            f"input {describe(input)}"
        )
    kernels = ntuple("kernel_size", kernel_size, n, minimum=1)
    strides = kernels if stride is None else ntuple("stride", stride, n, minimum=1)
    pads = ntuple("padding", padding, n, minimum=0)
    sizes = tuple(
        (length - 1) * s + k - 2 * p
        for length, s, k, p in zip(input.shape[-n:], strides, kernels, pads, strict=True)
    )
    if output_size is not None:
        sizes = _wanted(n, output_size, sizes, strides)
    if min(sizes) < 0:
        raise ShapeError(f"{function}: the output ({AXES[n]}) would have the size {sizes}")
    return _scatter(input, indices, sizes)


def _wanted(
    n: int, output_size: Any, sizes: Sequence[int], strides: Sequence[int]
) -> tuple[int, ...]:
    """``output_size`` if the pooling could have had such an input."""
    if not isinstance(output_size, Sequence) or len(output_size) not in (n, n + 2):
        raise ArgumentError(
            f"output_size must hold {n} or, with batch and channels, {n + 2} integers, "
            f"but got {describe(output_size)}"
        )
    wanted = tuple(as_int("output_size", size) for size in output_size[-n:])
    if any(abs(w - size) >= s for w, size, s in zip(wanted, sizes, strides, strict=True)):
        raise ArgumentError(
            f"output_size must be less than stride={tuple(strides)} away from {tuple(sizes)}, "
            f"but got {wanted}"
        )
    return wanted


@partial(jax.jit, static_argnums=2, inline=True)
def _scatter(input: jax.Array, indices: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Zeros of ``sizes`` in the last axes, with ``input`` at ``indices``."""
    n = len(sizes)
    lead = input.shape[:-n]
    flat = jnp.zeros((*lead, volume(sizes)), input.dtype)
    count = volume(input.shape[-n:])

    # Equal indices come from one maximum, so they carry equal values and any may be written. Saying
    # that they are unique makes the derivative a plain gather: each gets the whole gradient.
    def put(plane: jax.Array, at: jax.Array, values: jax.Array) -> jax.Array:
        return plane.at[at].set(values, mode="drop", unique_indices=True)

    for _ in lead:
        put = jax.vmap(put)
    out = put(flat, indices.reshape(*lead, count), input.reshape(*lead, count))
    return out.reshape(*lead, *sizes)
