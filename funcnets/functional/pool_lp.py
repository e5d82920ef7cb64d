"""Power-mean pooling: the p-norm of each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe, ntuple
from funcnets.errors import ArgumentError
from funcnets.functional import pool
from funcnets.functional._autocast import in_full
from funcnets.functional._numeric import absolute, real, widen
from funcnets.functional._window import volume

__all__ = ["lp_pool1d", "lp_pool2d", "lp_pool3d"]


def lp_pool1d(
    input: jax.Array,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    r"""p-norm of a window that slides over one axis.

    .. math::
        y = \Bigl(\sum_{x \in \text{window}} x^p\Bigr)^{1/p}

    There is no absolute value: with an odd ``p`` a negative sum gives NaN. The gradient is 0 where
    the sum is 0. A window cut off by ``ceil_mode`` counts as if its missing elements were the mean
    of the others. ``p`` may be infinite: the largest (``inf``) or smallest (``-inf``) magnitude.

    Args:
        input: ``(N, C, L)`` or ``(C, L)``, floating point.
        norm_type: the exponent ``p``, not 0.
        kernel_size: number of elements in a window.
        stride: step of the window; ``kernel_size`` if None.
        ceil_mode: whether a last window may reach beyond the input.

    Returns:
        ``(N, C, L')`` or ``(C, L')`` with ``L' = (L - kernel_size) / stride + 1``, rounded down,
        or up in ``ceil_mode``.

    Raises:
        ArgumentError: an option that cannot be.
        ShapeError: a wrong rank, an empty axis other than the batch, or no room for one window.
        DTypeError: an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.lp_pool1d(jnp.asarray([[[3.0, 4.0, 0.0, 2.0]]]), 2, 2).tolist()
        [[[5.0, 2.0]]]

    References:
        torch.nn.functional.lp_pool1d
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: jax.Array,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """p-norm of a window that slides over two axes; ``lp_pool1d`` has the formula.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point.
        norm_type: the exponent, not 0.
        kernel_size, stride: as in ``lp_pool1d``, one integer or two.
        ceil_mode: as in ``lp_pool1d``.

    Returns:
        ``(N, C, H', W')`` or ``(C, H', W')``, each size as in ``lp_pool1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``lp_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.lp_pool2d(jnp.ones((2, 3, 7, 7)), 2, 3, stride=2).shape
        (2, 3, 3, 3)

    References:
        torch.nn.functional.lp_pool2d
    """
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: jax.Array,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """p-norm of a window that slides over three axes; ``lp_pool1d`` has the formula.

    Args:
        input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``, floating point.
        norm_type: the exponent, not 0.
        kernel_size, stride: as in ``lp_pool1d``, one integer or three.
        ceil_mode: as in ``lp_pool1d``.

    Returns:
        ``(N, C, D', H', W')`` or ``(C, D', H', W')``, each size as in ``lp_pool1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``lp_pool1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.lp_pool3d(jnp.ones((1, 2, 4, 4, 4)), 2, 2).shape
        (1, 2, 2, 2, 2)

    References:
        torch.nn.functional.lp_pool3d
    """
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _lp_pool(
    n: int, input: jax.Array, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> jax.Array:
    """The p-norm of windows over ``n`` axes."""
    power = exponent(norm_type)
    max_pool = (pool.max_pool1d, pool.max_pool2d, pool.max_pool3d)[n - 1]
    avg_pool = (pool.avg_pool1d, pool.avg_pool2d, pool.avg_pool3d)[n - 1]
    input = real("input", input)
    if math.isinf(power):
        sign = 1 if power > 0 else -1
        return sign * max_pool(sign * absolute(input), kernel_size, stride, ceil_mode=ceil_mode)
    input = in_full(input)
    size = volume(ntuple("kernel_size", kernel_size, n, minimum=1))
    means = avg_pool(widen(input) ** power, kernel_size, stride, ceil_mode=ceil_mode)
    # The root has no derivative at 0: there the result is 0 whatever the input.
    zero = means == 0
    roots = jnp.where(zero, 1, means * size) ** (1 / power)
    return jnp.where(zero, 0, roots).astype(input.dtype)


def exponent(norm_type: Any) -> float:
    """``norm_type`` as a number, a Python int if it is whole, so that powers are products."""
    if isinstance(norm_type, bool) or not isinstance(norm_type, (int, float)):
        raise ArgumentError(f"norm_type must be a number, but got {describe(norm_type)}")
    if norm_type == 0 or math.isnan(norm_type):
        raise ArgumentError(f"norm_type must be a number other than 0, but got {norm_type}")
    return int(norm_type) if float(norm_type).is_integer() else norm_type
