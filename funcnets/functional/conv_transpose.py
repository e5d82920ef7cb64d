"""Transposed convolutions: the adjoint of a convolution, used to go up in size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from funcnets._args import describe, ntuple, positive
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._lower_conv import Window
from funcnets.functional._lower_conv_transpose import adjoint
from funcnets.functional.conv import (
    add_channel_bias,
    check_bias,
    check_ranks,
    same_dtype,
)

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def conv_transpose1d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> jax.Array:
    r"""Transposed convolution over one axis.

    The linear map whose matrix is the transpose of that of ``conv1d`` with the same weight and
    options: every input element adds a scaled copy of the kernel to the output,

    .. math::
        y_{n,o,\, t \cdot \text{stride} - \text{padding} + k \cdot \text{dilation}}
        \mathrel{+}= w_{c,o,k} \; x_{n,c,t} .

    Args:
        input: ``(N, C, L)`` or, without a batch, ``(C, L)``.
        weight: ``(C, O // groups, K)``.
        bias: ``(O,)`` or None.
        stride: distance in the output between two neighbours of the input.
        padding: elements cut off both ends of the output.
        output_padding: elements added to the right end; less than ``stride`` or ``dilation``. It
            tells apart the lengths that ``conv1d`` would map to ``L``.
        groups: number of blocks of channels that do not see each other.
        dilation: distance in the output between the elements of the kernel.

    Returns:
        ``(N, O, L')`` or ``(O, L')`` with ``L' = (L - 1) * stride - 2 * padding +
        dilation * (K - 1) + output_padding + 1``.

    Raises:
        ArgumentError: an option that cannot be, for example too large an ``output_padding``.
        ShapeError: shapes that do not fit, or an empty output.
        DTypeError: ``input``, ``weight`` and ``bias`` are not of one dtype.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.conv_transpose1d(jnp.ones((1, 3, 5)), jnp.ones((3, 4, 2)), stride=2).shape
        (1, 4, 10)

    References:
        torch.nn.functional.conv_transpose1d
    """
    return _conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Transposed convolution over two axes. ``conv_transpose1d`` has the formula.

    Args:
        input: ``(N, C, H, W)`` or, without a batch, ``(C, H, W)``.
        weight: ``(C, O // groups, KH, KW)``.
        bias: ``(O,)`` or None.
        stride: distance in the output between two neighbours of the input, one integer or two.
        padding: elements cut off both ends of each axis, one integer or two.
        output_padding: elements added to the right end of each axis, one integer or two.
        groups: number of blocks of channels that do not see each other.
        dilation: distance in the output between the elements of the kernel, one integer or two.

    Returns:
        ``(N, O, H', W')`` or ``(O, H', W')``, each size as in ``conv_transpose1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``conv_transpose1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> x, w = jnp.ones((1, 3, 5, 5)), jnp.ones((3, 4, 3, 3))
        >>> F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1).shape
        (1, 4, 10, 10)

    References:
        torch.nn.functional.conv_transpose2d
    """
    return _conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Transposed convolution over three axes. ``conv_transpose1d`` has the formula.

    Args:
        input: ``(N, C, D, H, W)`` or, without a batch, ``(C, D, H, W)``.
        weight: ``(C, O // groups, KD, KH, KW)``.
        bias: ``(O,)`` or None.
        stride: distance in the output between two neighbours of the input, one integer or three.
        padding: elements cut off both ends of each axis, one integer or three.
        output_padding: elements added to the right end of each axis, one integer or three.
        groups: number of blocks of channels that do not see each other.
        dilation: distance in the output between the elements of the kernel, one integer or three.

    Returns:
        ``(N, O, D', H', W')`` or ``(O, D', H', W')``, each size as in ``conv_transpose1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``conv_transpose1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.conv_transpose3d(jnp.ones((2, 3, 3, 3)), jnp.ones((2, 1, 2, 2, 2)), stride=2).shape
        (1, 6, 6, 6)

    References:
        torch.nn.functional.conv_transpose3d
    """
    return _conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def _conv_transpose(
    n: int,
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> jax.Array:
    """The transposed convolution over ``n`` spatial axes."""
    function = f"conv_transpose{n}d"
    strides = ntuple("stride", stride, n, minimum=1)
    pads = ntuple("padding", padding, n, minimum=0)
    extras = ntuple("output_padding", output_padding, n, minimum=0)
    dilations = ntuple("dilation", dilation, n, minimum=1)
    groups = positive("groups", groups)
    for extra, s, d in zip(extras, strides, dilations, strict=True):
        if extra >= s and extra >= d:
            raise ArgumentError(
                f"{function}: output_padding must be less than stride or dilation, but got "
                f"output_padding={extras} with stride={strides} and dilation={dilations}"
            )
    input, weight, bias = same_dtype(input, weight, bias)
    check_ranks(function, input, weight, n)
    in_channels, per_group, *kernel = weight.shape
    if in_channels == 0 or in_channels % groups:
        raise ShapeError(
            f"{function}: the first axis of weight must be a positive multiple of groups={groups}, "
            f"but weight is {describe(weight)}"
        )
    if input.shape[-n - 1] != in_channels:
        raise ShapeError(
            f"{function}: weight {describe(weight)} expects input to have {in_channels} channels, "
            f"but got {input.shape[-n - 1]}: input is {describe(input)}"
        )
    check_bias(function, bias, per_group * groups)
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    widths = [(r - p, r - p + e) for r, p, e in zip(reach, pads, extras, strict=True)]
    for size, s, (lo, hi), r in zip(input.shape[-n:], strides, widths, reach, strict=True):
        if size == 0 or (size - 1) * s + 1 + lo + hi - r < 1:
            raise ShapeError(
                f"{function}: the output would be empty: input is {describe(input)}, weight is "
                f"{describe(weight)}, stride={strides}, padding={pads}"
            )
    x = input if input.ndim == n + 2 else input[None]
    # The convolution that this is the adjoint of; its input is cut off by what output_padding adds.
    window = Window(
        strides, tuple((p, p - e) for p, e in zip(pads, extras, strict=True)), dilations, groups
    )
    sizes = tuple(
        (size - 1) * s + 1 + lo + hi - r
        for size, s, (lo, hi), r in zip(x.shape[2:], strides, widths, reach, strict=True)
    )
    out = adjoint(x, weight, window, sizes)
    out = add_channel_bias(out, bias)
    return out if input.ndim == n + 2 else out[0]
