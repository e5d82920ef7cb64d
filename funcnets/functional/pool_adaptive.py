"""Pooling to a given output size: window ``i`` of ``m`` covers the ``i``-th ``m``-th of the axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import positive
from funcnets.errors import ArgumentError
from funcnets.functional._lower_pool import window_max, window_sum
from funcnets.functional._maximum import (
    Best,
    answer,
    positions,
    running_max,
    with_indices,
)
from funcnets.functional._numeric import real, widen
from funcnets.functional._window import Window, check_spatial, flag, volume

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
]


def adaptive_avg_pool1d(input: jax.Array, output_size: int | Sequence[int]) -> jax.Array:
    r"""Average over as many windows as the output is to have elements.

    .. math::
        y_{n,c,i} = \operatorname{mean}\bigl(x_{n,c,a_i}, \dots, x_{n,c,b_i - 1}\bigr), \quad
        a_i = \lfloor i L / m \rfloor, \; b_i = \lceil (i + 1) L / m \rceil

    for an output of :math:`m` elements. Windows overlap where :math:`m` does not divide :math:`L`.

    Args:
        input: ``(N, C, L)`` or ``(C, L)``, floating point; 16-bit floats are summed in float32.
        output_size: the length of the output.

    Returns:
        ``(N, C, output_size)`` or ``(C, output_size)``.

    Raises:
        ArgumentError: an ``output_size`` that cannot be.
        ShapeError: a wrong rank, or an empty axis other than the batch.
        DTypeError: an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.adaptive_avg_pool1d(jnp.arange(5.0).reshape(1, 1, 5), 2).tolist()
        [[[1.0, 3.0]]]

    References:
        torch.nn.functional.adaptive_avg_pool1d
    """
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(
    input: jax.Array, output_size: int | Sequence[int | None] | None
) -> jax.Array:
    """Average over windows whose number is given; ``adaptive_avg_pool1d`` has the formula.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point.
        output_size: the size of the output, one integer or two; None in a pair keeps the size.

    Returns:
        ``(N, C, *output_size)`` or ``(C, *output_size)``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``adaptive_avg_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.adaptive_avg_pool2d(jnp.ones((2, 3, 7, 9)), (1, None)).shape
        (2, 3, 1, 9)

    References:
        torch.nn.functional.adaptive_avg_pool2d
    """
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(
    input: jax.Array, output_size: int | Sequence[int | None] | None
) -> jax.Array:
    """Average over windows whose number is given; ``adaptive_avg_pool1d`` has the formula.

    Args:
        input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``, floating point.
        output_size: the size of the output, one integer or three; None in a triple keeps the size.

    Returns:
        ``(N, C, *output_size)`` or ``(C, *output_size)``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``adaptive_avg_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.adaptive_avg_pool3d(jnp.ones((2, 3, 4, 7, 9)), 2).shape
        (2, 3, 2, 2, 2)

    References:
        torch.nn.functional.adaptive_avg_pool3d
    """
    return _adaptive_avg(3, input, output_size)


def adaptive_max_pool1d(
    input: jax.Array, output_size: int | Sequence[int], return_indices: bool = False
) -> Any:
    """Maximum over as many windows as the output is to have elements.

    The windows are those of ``adaptive_avg_pool1d``; ties and NaN are as in ``max_pool1d``.

    Args:
        input: ``(N, C, L)`` or ``(C, L)``, floating point.
        output_size: the length of the output.
        return_indices: whether to return the places of the maxima along ``L``, too.

    Returns:
        ``(N, C, output_size)`` or ``(C, output_size)``, or a pair of it and of the indices.

    Raises:
        ArgumentError: an ``output_size`` that cannot be.
        ShapeError: a wrong rank, or an empty axis other than the batch.
        DTypeError: an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.adaptive_max_pool1d(jnp.arange(5.0).reshape(1, 1, 5), 2).tolist()
        [[[2.0, 4.0]]]

    References:
        torch.nn.functional.adaptive_max_pool1d
    """
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(
    input: jax.Array,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows whose number is given, those of ``adaptive_avg_pool2d``.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point.
        output_size: the size of the output, one integer or two; None in a pair keeps the size.
        return_indices: whether to return the places of the maxima in the flattened ``(H, W)``, too.

    Returns:
        ``(N, C, *output_size)`` or ``(C, *output_size)``, or a pair of it and of the indices.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``adaptive_max_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.adaptive_max_pool2d(jnp.ones((2, 3, 7, 9)), (5, None)).shape
        (2, 3, 5, 9)

    References:
        torch.nn.functional.adaptive_max_pool2d
    """
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(
    input: jax.Array,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows whose number is given, those of ``adaptive_avg_pool3d``.

    Args:
        input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``, floating point.
        output_size: the size of the output, one integer or three; None in a triple keeps the size.
        return_indices: whether to return the places of the maxima in the flattened ``(D, H, W)``,
            too.

    Returns:
        ``(N, C, *output_size)`` or ``(C, *output_size)``, or a pair of it and of the indices.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``adaptive_max_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.adaptive_max_pool3d(jnp.ones((2, 3, 4, 7, 9)), 2).shape
        (2, 3, 2, 2, 2)

    References:
        torch.nn.functional.adaptive_max_pool3d
    """
    return _adaptive_max(3, input, output_size, return_indices)


adaptive_max_pool1d_with_indices = with_indices(adaptive_max_pool1d)
adaptive_max_pool2d_with_indices = with_indices(adaptive_max_pool2d)
adaptive_max_pool3d_with_indices = with_indices(adaptive_max_pool3d)


def adaptive_size(output_size: Any, n: int) -> tuple[int | None, ...]:
    """The checked ``output_size``; None, in two or three dimensions, stands for the input's size."""
    several = isinstance(output_size, Sequence) and not isinstance(output_size, str)
    items = tuple(output_size) if several else (output_size,) * n
    if len(items) != n:
        raise ArgumentError(
            f"output_size must be one integer or {n} of them, but got {output_size!r}"
        )
    return tuple(
        None if item is None and n > 1 else positive("output_size", item, minimum=0)
        for item in items
    )


def _adaptive_avg(n: int, input: jax.Array, output_size: Any) -> jax.Array:
    """``adaptive_avg_pool`` over ``n`` axes."""
    input = real("input", input)
    sizes = adaptive_size(output_size, n)
    check_spatial(f"adaptive_avg_pool{n}d", input, n)
    return _averages(input, sizes)


@partial(jax.jit, static_argnums=1, inline=True)
def _averages(input: jax.Array, sizes: tuple[int | None, ...]) -> jax.Array:
    """The averages of the windows, first where they are equally long, then axis by axis."""
    lengths = input.shape[input.ndim - len(sizes) :]
    even = tuple(map(_even, lengths, sizes))
    x = window_sum(widen(input), even) / volume([w.kernel for w in even])
    for axis, size in enumerate(sizes, input.ndim - len(sizes)):
        if size is None or size == x.shape[axis]:
            continue
        index, count = _windows(x.shape[axis], size)
        ones = (1,) * (x.ndim - axis - 1)
        inside = np.arange(index.shape[1]) < count[:, None]
        members = jnp.take(x, index, axis, mode="clip")
        sums = jnp.where(inside.reshape(*index.shape, *ones)[(None,) * axis], members, 0)
        x = sums.sum(axis + 1) / count.astype(x.dtype).reshape(-1, *ones)[(None,) * axis]
    return x.astype(input.dtype)


def _adaptive_max(n: int, input: jax.Array, output_size: Any, return_indices: bool) -> Any:
    """``adaptive_max_pool`` over ``n`` axes."""
    input = real("input", input)
    sizes = adaptive_size(output_size, n)
    check_spatial(f"adaptive_max_pool{n}d", input, n)
    return _maxima(input, sizes, flag("return_indices", return_indices))


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _maxima(input: jax.Array, sizes: tuple[int | None, ...], return_indices: bool) -> Any:
    """The maxima of the windows of each axis in turn, the last axis first."""
    n = len(sizes)
    lengths = input.shape[input.ndim - n :]
    even = tuple(map(_even, lengths, sizes))
    known = all(size in (None, w.count) for w, size in zip(even, sizes, strict=True))
    if known and not return_indices:
        return window_max(input, even)
    best = Best(input, positions(input, n) if return_indices else None)
    for axis in reversed(range(input.ndim - n, input.ndim)):
        size, length = sizes[axis - input.ndim], best.value.shape[axis]
        if size is None or size == length:
            continue
        width = length // size if size else 1
        if width * size != length:  # Make the windows equally long; an element may stand twice.
            index, _ = _windows(length, size)
            width = index.shape[1]
            gather = partial(jnp.take, indices=index.ravel(), axis=axis, mode="clip")
            best = jax.tree.map(gather, best)
        best = running_max(best, axis, Window(width * size, width, width, 1, 0, 0, size))
    return answer(best)


def _even(length: int, size: int | None) -> Window:
    """Equally long windows side by side; one for each element if they cannot be that."""
    width = length // size if size and length % size == 0 else 1
    return Window(length, width, width, 1, 0, 0, length // width)


def _windows(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which elements each of ``size`` windows covers, its last one repeated, and how many."""
    i = np.arange(size)
    start, stop = i * length // size if size else i, -(-(i + 1) * length // max(size, 1))
    count = stop - start
    index = start[:, None] + np.arange(max(count, default=1))
    return np.minimum(index, stop[:, None] - 1), count
