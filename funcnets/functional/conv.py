"""Convolutions over one, two or three spatial axes; the transposed ones are in conv_transpose.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import as_array, as_int, describe, ntuple, positive, require_ndim
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_low
from funcnets.functional._lower_conv import Window, convolve
from funcnets.functional._window import AXES

__all__ = ["conv1d", "conv2d", "conv3d", "conv_tbc"]


def conv1d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    r"""Convolution over one axis: sequences.

    .. math::
        y_{n,o,t} = b_o + \sum_{c,k} w_{o,c,k} \; x_{n,c,\, t \cdot \text{stride} - \text{padding}
        + k \cdot \text{dilation}}

    (a cross-correlation: the kernel is not mirrored). With ``groups``, output channel ``o`` sees
    only the input channels of its own group.

    Args:
        input: ``(N, C, L)`` or, without a batch, ``(C, L)``.
        weight: ``(O, C // groups, K)``.
        bias: ``(O,)`` or None.
        stride: step of the kernel.
        padding: zeros added on both sides; ``'valid'`` is none, ``'same'`` as many as keep the
            length, the odd one on the right (stride 1 only).
        dilation: distance between the elements that the kernel meets.
        groups: number of blocks of channels that do not see each other.

    Returns:
        ``(N, O, L')`` or ``(O, L')`` with
        ``L' = (L + 2 * padding - dilation * (K - 1) - 1) // stride + 1``.

    Raises:
        ArgumentError: an option that cannot be, for example ``'same'`` with a stride.
        ShapeError: shapes that do not fit, or a kernel larger than the padded input.
        DTypeError: ``input``, ``weight`` and ``bias`` are not of one dtype.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.conv1d(jnp.ones((2, 3, 10)), jnp.ones((4, 3, 3)), padding="same").shape
        (2, 4, 10)

    References:
        torch.nn.functional.conv1d
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Convolution over two axes: images. ``conv1d`` has the formula.

    Args:
        input: ``(N, C, H, W)`` or, without a batch, ``(C, H, W)``.
        weight: ``(O, C // groups, KH, KW)``.
        bias: ``(O,)`` or None.
        stride: step of the kernel, one integer or one for each axis.
        padding: zeros added on both sides, one integer or one for each axis, or ``'valid'`` or
            ``'same'``.
        dilation: distance between the elements that the kernel meets, one integer or two.
        groups: number of blocks of channels that do not see each other.

    Returns:
        ``(N, O, H', W')`` or ``(O, H', W')``, each size as in ``conv1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``conv1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.conv2d(jnp.ones((1, 4, 8, 8)), jnp.ones((6, 2, 3, 3)), stride=2, groups=2).shape
        (1, 6, 3, 3)

    References:
        torch.nn.functional.conv2d
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Convolution over three axes: volumes, videos. ``conv1d`` has the formula.

    Args:
        input: ``(N, C, D, H, W)`` or, without a batch, ``(C, D, H, W)``.
        weight: ``(O, C // groups, KD, KH, KW)``.
        bias: ``(O,)`` or None.
        stride: step of the kernel, one integer or one for each axis.
        padding: zeros added on both sides, one integer or one for each axis, or ``'valid'`` or
            ``'same'``.
        dilation: distance between the elements that the kernel meets, one integer or three.
        groups: number of blocks of channels that do not see each other.

    Returns:
        ``(N, O, D', H', W')`` or ``(O, D', H', W')``, each size as in ``conv1d``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as ``conv1d``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.conv3d(jnp.ones((1, 2, 4, 8, 8)), jnp.ones((3, 2, 1, 3, 3)), padding=(0, 1, 1)).shape
        (1, 3, 4, 8, 8)

    References:
        torch.nn.functional.conv3d
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv_tbc(input: jax.Array, weight: jax.Array, bias: jax.Array, pad: int = 0) -> jax.Array:
    """Convolution over time with the time axis first and the channels last.

    Args:
        input: ``(T, B, C)``: time, batch, channels.
        weight: ``(K, C, O)``.
        bias: ``(O,)``.
        pad: zeros added to both ends of the time axis.

    Returns:
        ``(T + 2 * pad - K + 1, B, O)``.

    Raises:
        ShapeError: shapes that do not fit, or a kernel longer than the padded time axis.
        DTypeError: ``input``, ``weight`` and ``bias`` are not of one dtype.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.conv_tbc(jnp.ones((5, 2, 3)), jnp.ones((3, 3, 4)), jnp.zeros(4), pad=1).shape
        (5, 2, 4)

    References:
        torch.nn.functional.conv_tbc
    """
    pad = as_int("pad", pad)
    input, weight, bias = same_dtype(input, weight, bias)
    require_ndim("input", input, (3,), "(T, B, C)")
    require_ndim("weight", weight, (3,), "(K, C, O)")
    if weight.shape[1] != input.shape[2]:
        raise ShapeError(
            f"conv_tbc: the middle axis of weight must be the {input.shape[2]} channels of input, "
            f"but got weight {describe(weight)} and input {describe(input)}"
        )
    check_bias("conv_tbc", bias, weight.shape[2])
    if input.shape[0] + 2 * pad < weight.shape[0]:
        raise ShapeError(
            f"conv_tbc: a kernel of {weight.shape[0]} does not fit into {input.shape[0]} time "
            f"steps with pad={pad}"
        )
    layout = ("WNC", "WIO", "WNC")
    out = lax.conv_general_dilated(input, weight, (1,), [(pad, pad)], dimension_numbers=layout)
    return out + bias.reshape(1, 1, -1)


def _conv(
    n: int,
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> jax.Array:
    """The convolution over ``n`` spatial axes."""
    function = f"conv{n}d"
    strides = ntuple("stride", stride, n, minimum=1)
    dilations = ntuple("dilation", dilation, n, minimum=1)
    groups = positive("groups", groups)
    input, weight, bias = same_dtype(input, weight, bias)
    check_ranks(function, input, weight, n)
    out_channels, per_group, *kernel = weight.shape
    pads = explicit_padding(padding, kernel, strides, dilations)
    if out_channels == 0 or out_channels % groups:
        raise ShapeError(
            f"{function}: the first axis of weight must be a positive multiple of groups={groups}, "
            f"but weight is {describe(weight)}"
        )
    if input.shape[-n - 1] != per_group * groups:
        raise ShapeError(
            f"{function}: weight {describe(weight)} with groups={groups} expects input to have "
            f"{per_group * groups} channels, but got {input.shape[-n - 1]}: input is "
            f"{describe(input)}"
        )
    check_bias(function, bias, out_channels)
    for size, k, d, (lo, hi) in zip(input.shape[-n:], kernel, dilations, pads, strict=True):
        if size == 0 or size + lo + hi < d * (k - 1) + 1:
            raise ShapeError(
                f"{function}: a kernel of {tuple(kernel)} with dilation {dilations} does not fit "
                f"into input {describe(input)} padded by {tuple(pads)}"
            )
    x = input if input.ndim == n + 2 else input[None]
    out = convolve(x, weight, Window(strides, tuple(pads), dilations, groups))
    out = add_channel_bias(out, bias)
    return out if input.ndim == n + 2 else out[0]


def explicit_padding(
    padding: Any, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """``padding`` in any of its forms as ``(before, after)`` for each spatial axis."""
    if not isinstance(padding, str):
        return [(p, p) for p in ntuple("padding", padding, len(kernel), minimum=0)]
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding != "same":
        raise ArgumentError(
            f"padding must be integers or one of 'valid', 'same', but got {padding!r}"
        )
    if any(s != 1 for s in strides):
        raise ArgumentError(
            f"padding='same' needs stride 1, but got stride={tuple(strides)}; give the padding as "
            f"integers"
        )
    totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def same_dtype(input: Any, weight: Any, bias: Any) -> tuple[Any, Any, Any]:
    """The three as arrays of one dtype, which is not boolean; ``bias`` may be None."""
    input, weight, bias = in_low(input, weight, bias)
    input, weight = as_array("input", input), as_array("weight", weight)
    bias = None if bias is None else as_array("bias", bias)
    for name, x in (("input", input), ("weight", weight), ("bias", bias)):
        if x is not None and not jnp.issubdtype(x.dtype, jnp.number):
            raise DTypeError(f"{name} must be an array of numbers, but got {describe(x)}")
        if x is not None and x.dtype != input.dtype:
            raise DTypeError(
                f"input and {name} must have one dtype, but got {input.dtype} and {x.dtype}; "
                f"convert one of them, for example with input.astype({name}.dtype)"
            )
    return input, weight, bias


def check_ranks(function: str, input: jax.Array, weight: jax.Array, n: int) -> None:
    """Refuse input and weight whose ranks are not those of ``n`` spatial axes."""
    require_ndim("input", input, (n + 1, n + 2), f"(C, {AXES[n]}) or (N, C, {AXES[n]})")
    if weight.ndim != n + 2:
        raise ShapeError(
            f"{function}: weight must have {n + 2} axes, two for channels and {n} for the kernel, "
            f"but got {describe(weight)}"
        )
    if 0 in weight.shape[2:]:
        raise ShapeError(f"{function}: weight has an empty kernel: {describe(weight)}")


def check_bias(function: str, bias: jax.Array | None, channels: int) -> None:
    """Refuse a bias that is not one number for each output channel."""
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(
            f"{function}: bias must have the shape ({channels},), one number for each output "
            f"channel, but got {describe(bias)}"
        )


def add_channel_bias(out: jax.Array, bias: jax.Array | None) -> jax.Array:
    """``out`` (N, C, ...) plus ``bias`` (C,)."""
    if bias is None:
        return out
    return out + bias.reshape(1, -1, *(1,) * (out.ndim - 2))
