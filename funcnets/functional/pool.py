"""Maximum and average over windows that slide over the spatial axes.

Power means are in pool_lp.py, windows that a given output size implies in pool_adaptive.py, random
windows in pool_fractional.py, the way back from a maximum in pool_unpool.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_int
from funcnets.errors import ArgumentError
from funcnets.functional._lower_pool import window_max, window_sum
from funcnets.functional._maximum import max_over, with_indices
from funcnets.functional._numeric import real, real_or_integer, widen
from funcnets.functional._window import Window, flag, pool_windows

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
]


def max_pool1d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    r"""Maximum over a window that slides over one axis.

    .. math::
        y_{n,c,t} = \max_{0 \le k < \text{kernel\_size}} x_{n,c,\, t \cdot \text{stride}
        - \text{padding} + k \cdot \text{dilation}}

    Padding counts as less than everything. Of several equal maxima the first one gets the whole
    gradient. A NaN in the window makes the result NaN.

    Args:
        input: ``(N, C, L)`` or ``(C, L)``, floating point or integer.
        kernel_size: number of elements in a window.
        stride: step of the window; ``kernel_size`` if None.
        padding: elements added on both sides, at most half of ``kernel_size``.
        dilation: distance between the elements of a window.
        ceil_mode: whether a last window may reach beyond the padded input, as long as it begins
            within the input or its left padding.
        return_indices: whether to return the places of the maxima along ``L``, too.

    Returns:
        ``(N, C, L')`` or ``(C, L')`` with ``L' = (L + 2 * padding - dilation * (kernel_size - 1)
        - 1) / stride + 1``, rounded down, or up in ``ceil_mode``. With ``return_indices`` a pair
        of it and of integers of the same shape, which ``max_unpool1d`` takes.

    Raises:
        ArgumentError: an option that cannot be, for example too large a padding.
        ShapeError: a wrong rank, an empty axis other than the batch, or no room for one window.
        DTypeError: an array of booleans or complex numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> x = jnp.asarray([[[1.0, 3.0, 2.0, 2.0]]])
        >>> values, indices = F.max_pool1d(x, 2, return_indices=True)
        >>> values.tolist(), indices.tolist()
        ([[[3.0, 2.0]]], [[[1, 2]]])

    References:
        torch.nn.functional.max_pool1d
    """
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool1d", 1, input, options, return_indices)


def max_pool2d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over a window that slides over two axes; ``max_pool1d`` has the formula.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point or integer.
        kernel_size, stride, padding, dilation: as in ``max_pool1d``, one integer or two.
        ceil_mode: as in ``max_pool1d``.
        return_indices: whether to return the places of the maxima in the flattened ``(H, W)``, too.

    Returns:
        ``(N, C, H', W')`` or ``(C, H', W')``, each size as in ``max_pool1d``, or a pair of it and
        of the indices. The first of equal maxima is the first in row-major order.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``max_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.max_pool2d(jnp.ones((2, 3, 7, 7)), 3, stride=2, padding=1).shape
        (2, 3, 4, 4)

    References:
        torch.nn.functional.max_pool2d
    """
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool2d", 2, input, options, return_indices)


def max_pool3d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over a window that slides over three axes; ``max_pool1d`` has the formula.

    Args:
        input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``, floating point or integer.
        kernel_size, stride, padding, dilation: as in ``max_pool1d``, one integer or three.
        ceil_mode: as in ``max_pool1d``.
        return_indices: whether to return the places of the maxima in the flattened ``(D, H, W)``,
            too.

    Returns:
        ``(N, C, D', H', W')`` or ``(C, D', H', W')``, each size as in ``max_pool1d``, or a pair of
        it and of the indices. The first of equal maxima is the first in row-major order.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``max_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.max_pool3d(jnp.ones((1, 2, 4, 6, 6)), (1, 2, 2)).shape
        (1, 2, 4, 3, 3)

    References:
        torch.nn.functional.max_pool3d
    """
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool3d", 3, input, options, return_indices)


max_pool1d_with_indices = with_indices(max_pool1d)
max_pool2d_with_indices = with_indices(max_pool2d)
max_pool3d_with_indices = with_indices(max_pool3d)


def avg_pool1d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    r"""Average over a window that slides over one axis.

    .. math::
        y_{n,c,t} = \frac{1}{m_t} \sum_{0 \le k < \text{kernel\_size}}
        x_{n,c,\, t \cdot \text{stride} - \text{padding} + k}

    where :math:`m_t` is the number of elements of the window, without those beyond the right
    padding (``ceil_mode``) and, unless ``count_include_pad``, without the padding.

    Args:
        input: ``(N, C, L)`` or ``(C, L)``, floating point; 16-bit floats are summed in float32.
        kernel_size: number of elements in a window.
        stride: step of the window; ``kernel_size`` if None.
        padding: zeros added on both sides, at most half of ``kernel_size``.
        ceil_mode: whether a last window may reach beyond the padded input, as long as it begins
            within the input or its left padding.
        count_include_pad: whether the padding counts in the average.

    Returns:
        ``(N, C, L')`` or ``(C, L')`` with ``L' = (L + 2 * padding - kernel_size) / stride + 1``,
        rounded down, or up in ``ceil_mode``.

    Raises:
        ArgumentError: an option that cannot be, for example too large a padding.
        ShapeError: a wrong rank, an empty axis other than the batch, or no room for one window.
        DTypeError: an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.avg_pool1d(jnp.arange(6.0).reshape(1, 1, 6), 3).tolist()
        [[[1.0, 4.0]]]

    References:
        torch.nn.functional.avg_pool1d
    """
    options = (kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool("avg_pool1d", 1, input, options, count_include_pad, None)


def avg_pool2d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """Average over a window that slides over two axes; ``avg_pool1d`` has the formula.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point.
        kernel_size, stride, padding: as in ``avg_pool1d``, one integer or two.
        ceil_mode, count_include_pad: as in ``avg_pool1d``.
        divisor_override: what the sums are divided by instead of the number of elements.

    Returns:
        ``(N, C, H', W')`` or ``(C, H', W')``, each size as in ``avg_pool1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``avg_pool1d``; ``divisor_override`` is not 0.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.avg_pool2d(jnp.ones((2, 3, 7, 7)), 2, ceil_mode=True).shape
        (2, 3, 4, 4)

    References:
        torch.nn.functional.avg_pool2d
    """
    options = (kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool("avg_pool2d", 2, input, options, count_include_pad, divisor_override)


def avg_pool3d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """Average over a window that slides over three axes; ``avg_pool1d`` has the formula.

    Args:
        input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``, floating point.
        kernel_size, stride, padding: as in ``avg_pool1d``, one integer or three.
        ceil_mode, count_include_pad: as in ``avg_pool1d``.
        divisor_override: what the sums are divided by instead of the number of elements.

    Returns:
        ``(N, C, D', H', W')`` or ``(C, D', H', W')``, each size as in ``avg_pool1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``avg_pool1d``; ``divisor_override`` is not 0.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.avg_pool3d(jnp.ones((1, 2, 4, 6, 6)), (1, 2, 2)).shape
        (1, 2, 4, 3, 3)

    References:
        torch.nn.functional.avg_pool3d
    """
    options = (kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool("avg_pool3d", 3, input, options, count_include_pad, divisor_override)


def _max_pool(
    function: str, n: int, input: jax.Array, options: tuple[Any, ...], return_indices: bool
) -> Any:
    """``max_pool`` over ``n`` axes."""
    input = real_or_integer("input", input)
    windows = tuple(pool_windows(function, input, n, *options))
    if flag("return_indices", return_indices):
        return max_over(input, windows)
    return window_max(input, windows)


def _avg_pool(
    function: str,
    n: int,
    input: jax.Array,
    options: tuple[Any, ...],
    count_include_pad: bool,
    divisor: int | None,
) -> jax.Array:
    """``avg_pool`` over ``n`` axes."""
    input = real("input", input)
    windows = pool_windows(function, input, n, *options)
    flag("count_include_pad", count_include_pad)
    if divisor is not None and as_int("divisor_override", divisor) == 0:
        raise ArgumentError("divisor_override must not be 0")
    sums = window_sum(widen(input), tuple(windows))
    if divisor is not None:
        return (sums / divisor).astype(input.dtype)
    counts = np.ones((1,) * input.ndim)
    for axis, w in enumerate(windows, input.ndim - n):
        counts = counts * _counts(w, count_include_pad).reshape(-1, *(1,) * (input.ndim - axis - 1))
    if (counts == counts.flat[0]).all():
        counts = counts.flat[0]
    return (sums / jnp.asarray(counts, sums.dtype)).astype(input.dtype)


def _counts(w: Window, count_include_pad: bool) -> np.ndarray:
    """For each window along one axis the number of elements that it averages over."""
    starts = np.arange(w.count) * w.stride - w.low
    ends = np.minimum(starts + w.kernel, w.length + w.low)
    if count_include_pad:
        return ends - starts
    return np.minimum(ends, w.length) - np.maximum(starts, 0)
