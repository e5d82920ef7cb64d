r"""Normalisation within a sample: subtract a mean, divide by a standard deviation, scale, shift.

Statistics are computed in float32 for half precision inputs, and the result has the input's dtype.
Normalisation over a batch is in ``batchnorm.py``, on the same ``moments`` and ``standardise``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnets._args import as_int, describe, positive, require_ndim
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._lower_norm import normalised, one_path, scale_and_shift
from funcnets.functional._numeric import as_array, real, widen

__all__ = [
    "cross_map_lrn2d",
    "group_norm",
    "layer_norm",
    "local_response_norm",
    "rms_norm",
]


def group_norm(
    input: jax.Array,
    num_groups: int,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    r"""Normalise groups of channels of each sample.

    .. math::
        y = \frac{x - \mu_g}{\sqrt{\sigma_g^2 + \epsilon}} \gamma + \beta

    Args:
        input: ``(N, C, *)``.
        num_groups: a divisor of C; the channels of a group are adjacent.
        weight: :math:`\gamma`, ``(C,)``, or None for 1.
        bias: :math:`\beta`, ``(C,)``, or None for 0.
        eps: added to the (biased) variance.

    Returns:
        An array of the shape and dtype of ``input``.

    Raises:
        ShapeError: shapes that do not fit together, or a single value per group in the whole batch.
        DTypeError: ``input`` is not floating point, or the parameters have another dtype.
        ArgumentError: ``num_groups`` is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.group_norm(jnp.ones((4, 6, 8)), 3).shape
        (4, 6, 8)

    References:
        Wu and He, 2018; torch.nn.functional.group_norm
    """
    input, weight, bias = in_full(input, weight, bias)
    positive("num_groups", num_groups)
    input = check_channels(input, weight=weight, bias=bias)
    batch, channels, *spatial = input.shape
    if channels % num_groups:
        raise ShapeError(
            f"expected a number of channels that num_groups={num_groups} divides, "
            f"but got {channels}: input is {describe(input)}"
        )
    if batch * (channels // num_groups) * math.prod(spatial) == 1:
        raise ShapeError(f"expected more than one value per group, but got input {describe(input)}")
    groups = num_groups, channels // num_groups
    grouped = input.reshape(batch, *groups, *spatial)
    weight, bias = (None if p is None else p.reshape(groups) for p in (weight, bias))
    axes = tuple(range(2, grouped.ndim))
    return normalise(grouped, weight, bias, axes, float(eps))[0].reshape(input.shape)


def layer_norm(
    input: jax.Array,
    normalized_shape: int | Sequence[int],
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    r"""Normalise over the last axes.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    Args:
        input: ``(*, *normalized_shape)``.
        normalized_shape: sizes of the axes to normalise over; an integer stands for the last axis.
        weight: :math:`\gamma`, of ``normalized_shape``, or None for 1.
        bias: :math:`\beta`, of ``normalized_shape``, or None for 0.
        eps: added to the (biased) variance.

    Returns:
        An array of the shape and dtype of ``input``.

    Raises:
        ShapeError: shapes that do not fit together.
        DTypeError: ``input`` is not floating point, or the parameters have another dtype.
        ArgumentError: ``normalized_shape`` is empty.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.layer_norm(jnp.ones((4, 3, 8)), (3, 8)).shape
        (4, 3, 8)

    References:
        Ba et al., 2016; torch.nn.functional.layer_norm
    """
    input, weight, bias = in_full(input, weight, bias)
    input = real("input", input)
    axes = _check_normalized(input, normalized_shape, weight=weight, bias=bias)
    # The parameters vary along the very axes that the statistics are shared by: no common factor.
    normalised, *_ = normalise(widen(input), None, None, axes, float(eps))
    return affine(normalised, weight, bias, axis=axes[0], dtype=input.dtype)


def rms_norm(
    input: jax.Array,
    normalized_shape: int | Sequence[int],
    weight: jax.Array | None = None,
    eps: float | None = None,
) -> jax.Array:
    r"""Divide by the root mean square over the last axes.

    .. math::
        y = \frac{x}{\sqrt{\operatorname{mean}(x^2) + \epsilon}} \gamma

    Args:
        input: ``(*, *normalized_shape)``.
        normalized_shape: sizes of the axes to normalise over; an integer stands for the last axis.
        weight: :math:`\gamma`, of ``normalized_shape``, or None for 1.
        eps: added to the mean square; None takes the machine epsilon of the precision that is
            computed in, which is float32 for half precision inputs.

    Returns:
        An array of the shape and dtype of ``input``.

    Raises:
        ShapeError: shapes that do not fit together.
        DTypeError: ``input`` is not floating point, or ``weight`` has another dtype.
        ArgumentError: ``normalized_shape`` is empty.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.rms_norm(jnp.ones((4, 3, 8)), 8).shape
        (4, 3, 8)

    References:
        Zhang and Sennrich, 2019; torch.nn.functional.rms_norm
    """
    input, weight = in_full(input, weight)
    input = real("input", input)
    axes = _check_normalized(input, normalized_shape, weight=weight)
    wide = widen(input)
    eps = float(jnp.finfo(wide.dtype).eps) if eps is None else eps
    normalised = wide * lax.rsqrt(jnp.mean(jnp.square(wide), axes, keepdims=True) + eps)
    return affine(normalised, weight, None, axis=axes[0], dtype=input.dtype)


def local_response_norm(
    input: jax.Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    r"""Divide by a power of the mean square over neighbouring channels.

    .. math::
        y_c = x_c \Big(k + \frac{\alpha}{n} \sum_{c' = c - \lfloor n/2 \rfloor}
        ^{c + \lfloor (n-1)/2 \rfloor} x_{c'}^2\Big)^{-\beta}

    Args:
        input: ``(N, C, *)``, at least 3D.
        size: :math:`n`, the number of neighbouring channels; missing ones count as zeros.
        alpha: :math:`\alpha`, a factor.
        beta: :math:`\beta`, the exponent.
        k: a constant.

    Returns:
        An array of the shape and dtype of ``input``.

    Raises:
        ShapeError: ``input`` has fewer than three axes.
        ArgumentError: ``size`` is not positive.
        DTypeError: ``input`` is not floating point.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.local_response_norm(jnp.ones((2, 5, 4, 4)), 3).shape
        (2, 5, 4, 4)

    References:
        Krizhevsky et al., 2012; torch.nn.functional.local_response_norm
    """
    input = in_full(input)
    positive("size", size)
    input = real("input", input)
    if input.ndim < 3:
        raise ShapeError(f"expected input of at least 3D, (N, C, *), but got {describe(input)}")
    total = _channel_window(jnp.square(widen(input)), size // 2, (size - 1) // 2)
    return _divide(input, total, k, alpha / size, beta)


def cross_map_lrn2d(
    input: jax.Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    r"""Local response normalisation of images as ``torch.nn.CrossMapLRN2d`` computes it.

    It is :func:`local_response_norm` with a window of :math:`2 \lfloor (n-1)/2 \rfloor + 1` channels
    around each, save that channel 0 stays in every later window. That is how PyTorch's values come
    about, and with them those of models trained with it. (PyTorch's gradient is that of neither;
    here it is the derivative of the values.)

    Args:
        input: ``(N, C, H, W)``.
        size: :math:`n`, the number of neighbouring channels.
        alpha: a factor of the sum, which is divided by ``size``.
        beta: the exponent.
        k: a constant.

    Returns:
        An array of the shape and dtype of ``input``.

    Raises:
        ShapeError: ``input`` is not 4D.
        ArgumentError: ``size`` is not positive.
        DTypeError: ``input`` is not floating point.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.cross_map_lrn2d(jnp.ones((2, 5, 4, 4)), 3).shape
        (2, 5, 4, 4)

    References:
        torch.nn.CrossMapLRN2d
    """
    reach = (positive("size", size) - 1) // 2
    input = real("input", input)
    require_ndim("input", input, (4,), "(N, C, H, W)")
    squares = jnp.square(widen(input))
    total = _channel_window(squares, reach, reach)
    total = total.at[:, reach + 1 :].add(squares[:, :1])
    return _divide(input, total, k, alpha / size, beta)


def _channel_window(squares: jax.Array, before: int, after: int) -> jax.Array:
    """Sums over the channels from ``c - before`` to ``c + after``."""
    window, padding = [1] * squares.ndim, [(0, 0)] * squares.ndim
    window[1], padding[1] = before + 1 + after, (before, after)
    zero = np.zeros((), squares.dtype)
    return lax.reduce_window(squares, zero, lax.add, window, [1] * squares.ndim, padding)


def _divide(input: jax.Array, total: jax.Array, k: float, factor: float, beta: float) -> jax.Array:
    return (input.astype(total.dtype) / (k + factor * total) ** beta).astype(input.dtype)


def normalized_shape_tuple(normalized_shape: int | Iterable[int]) -> tuple[int, ...]:
    """``normalized_shape`` as a tuple of at least one size."""
    if not isinstance(normalized_shape, Iterable):
        normalized_shape = (normalized_shape,)
    shape = tuple(as_int("normalized_shape", size) for size in normalized_shape)
    if not shape or min(shape) < 0:
        raise ArgumentError(
            f"normalized_shape must be one or more non-negative sizes, but got {shape}"
        )
    return shape


def _check_normalized(
    input: jax.Array, normalized_shape: int | Iterable[int], **parameters: jax.Array | None
) -> tuple[int, ...]:
    """The axes to normalise over."""
    shape = normalized_shape_tuple(normalized_shape)
    if input.shape[-len(shape) :] != shape:
        listed = ", ".join(str(size) for size in ("*", *shape))
        raise ShapeError(
            f"expected input of shape ({listed}), normalized_shape={shape}, but got {describe(input)}"
        )
    check_parameters(input, shape, **parameters)
    return tuple(range(input.ndim - len(shape), input.ndim))


# --- shared with batchnorm.py ---------------------------------------------------------------------


# One compiled program for an eager call instead of one for each operation; part of the caller's
# program under jit. So are the other two.
@partial(jax.jit, static_argnums=(3, 4), inline=True)
def normalise(
    x: jax.Array,
    weight: jax.Array | None,
    bias: jax.Array | None,
    axes: tuple[int, ...],
    eps: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``(normalised x, mean, variance)``, the last two over ``axes``, kept, at least in float32.

    The parameters' axes are laid along those of ``x`` from the second on.
    """
    if x.size == 0:
        # There are no statistics, and the parameters must not meet what stands for them.
        return affine(x, weight, bias, axis=1, dtype=x.dtype), *moments(x, axes)
    wide = widen(x)
    weight, bias = (None if p is None else along(p, wide, 1) for p in (weight, bias))
    y, mean, var = normalised(wide, weight, bias, axes, eps)
    return y.astype(x.dtype), mean, var


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def moments(
    x: jax.Array, axes: tuple[int, ...], axis_name: str | tuple[str, ...] | None = None
) -> tuple[jax.Array, jax.Array]:
    """The mean and the biased variance over ``axes``, which are kept.

    Two passes, one for the mean and one for the deviations from it: the difference of two large sums
    would lose its digits.
    """
    x = widen(one_path(x))
    mean = jnp.mean(x, axes, keepdims=True)
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
    var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
    return mean, var if axis_name is None else lax.pmean(var, axis_name)


@partial(jax.jit, inline=True)
def standardise(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    weight: jax.Array | None,
    bias: jax.Array | None,
    eps: float,
) -> jax.Array:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, computed at least in float32.

    The parameters' axes are laid along ``x``'s from the second on. They are joined with the
    statistics first, which takes one multiplication an element.
    """
    if x.size == 0:
        return affine(x, weight, bias, axis=1, dtype=x.dtype)
    wide = widen(x)
    scale = lax.rsqrt(var + eps)
    if weight is not None:
        scale = scale * along(weight, wide, 1)
    shift = None if bias is None else along(bias, wide, 1)
    return scale_and_shift(wide, mean, scale, shift).astype(x.dtype)


def affine(
    x: jax.Array, weight: jax.Array | None, bias: jax.Array | None, axis: int, dtype: Any
) -> jax.Array:
    """``x * weight + bias`` in ``dtype``; the parameters' axes are laid along ``x``'s from ``axis``."""
    if weight is not None:
        x = x * along(weight, x, axis)
    if bias is not None:
        x = x + along(bias, x, axis)
    return x.astype(dtype)


def along(parameter: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """``parameter`` in the dtype of ``x``, its axes laid along those of ``x`` from ``axis``."""
    parameter = as_array("a parameter", parameter).astype(x.dtype)
    return parameter.reshape(
        (1,) * axis + parameter.shape + (1,) * (x.ndim - axis - parameter.ndim)
    )


def check_parameters(
    input: jax.Array, shape: Sequence[int], **parameters: jax.Array | None
) -> None:
    """Refuse parameters of another shape, or of a dtype that does not go with the input's."""
    for name, parameter in parameters.items():
        if parameter is None:
            continue
        if parameter.shape != tuple(shape):
            raise ShapeError(
                f"expected {name} of shape {tuple(shape)} for input {describe(input)}, "
                f"but got {describe(parameter)}"
            )
        half = jnp.finfo(input.dtype).bits < 32
        if parameter.dtype != input.dtype and not (half and parameter.dtype == jnp.float32):
            raise DTypeError(
                f"expected {name} of the dtype of input {describe(input)}, or of float32 for half "
                f"precision, but got {describe(parameter)}; convert one of them with .astype(...)"
            )


def check_channels(input: jax.Array, **parameters: jax.Array | None) -> jax.Array:
    """``input`` if it is ``(N, C, *)`` and all parameters are ``(C,)``."""
    input = real("input", input)
    if input.ndim < 2:
        raise ShapeError(f"expected input of at least 2D, (N, C, *), but got {describe(input)}")
    check_parameters(input, input.shape[1:2], **parameters)
    return input
