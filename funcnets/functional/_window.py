"""Windows that slide over the trailing axes: sizes, checks, taps. Shared by pooling and unfolding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import describe, ntuple
from funcnets.errors import ArgumentError, ShapeError

__all__ = [
    "AXES",
    "Window",
    "check_spatial",
    "exact_ints",
    "flag",
    "index_dtype",
    "pool_windows",
    "strided",
    "taps",
    "volume",
]

AXES = {1: "L", 2: "H, W", 3: "D, H, W"}
"""The names of one, two and three spatial axes, for messages."""


class Window(NamedTuple):
    """How a window slides along one axis."""

    length: int
    kernel: int
    stride: int
    dilation: int
    low: int
    high: int
    count: int


def index_dtype() -> jnp.dtype:
    """int64 where JAX has it (``jax_enable_x64``), int32 otherwise."""
    return jnp.result_type(int)


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, but got {describe(value)}")
    return value


def exact_ints(name: str, value: Any, n: int, *, minimum: int) -> tuple[int, ...]:
    """One int repeated ``n`` times or exactly ``n`` of them; unlike ``ntuple``, a 1-tuple is one."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) != n:
        raise ArgumentError(f"{name} must be one integer or {n} of them, but got {value!r}")
    return ntuple(name, value, n, minimum=minimum)


def check_spatial(function: str, x: jax.Array, n: int, *, channels: bool = True) -> None:
    """Refuse what is not ``(N, C, ...)`` or ``(C, ...)`` with ``n`` spatial axes, or is empty.

    Only the batch may be empty; ``channels=False`` allows no channels too.
    """
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"{function}: expected {n + 1}D input (C, {AXES[n]}) or {n + 2}D input "
            f"(N, C, {AXES[n]}), but got {x.ndim}D input {describe(x)}"
        )
    if 0 in x.shape[x.ndim - n - channels :]:
        raise ShapeError(
            f"{function}: only the batch axis of input may have length 0, but got {describe(x)}"
        )


def pool_windows(
    function: str,
    input: jax.Array,
    n: int,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> list[Window]:
    """The checked arguments of a pooling function as one ``Window`` for each spatial axis."""
    kernels = ntuple("kernel_size", kernel_size, n, minimum=1)
    strides = kernels if stride is None else ntuple("stride", stride, n, minimum=1)
    pads = ntuple("padding", padding, n, minimum=0)
    dilations = ntuple("dilation", dilation, n, minimum=1)
    flag("ceil_mode", ceil_mode)
    check_spatial(function, input, n)
    windows = []
    for length, k, s, p, d in zip(input.shape[-n:], kernels, strides, pads, dilations, strict=True):
        if 2 * p > k:
            raise ArgumentError(
                f"{function}: padding must be at most half of kernel_size, "
                f"but got padding={p} and kernel_size={k}"
            )
        span = d * (k - 1) + 1
        free = length + 2 * p - span
        count = -(-free // s) + 1 if ceil_mode else free // s + 1
        if ceil_mode and (count - 1) * s >= length + p:
            count -= 1  # A window has to begin inside the input or in its left padding.
        if count < 1:
            raise ShapeError(
                f"{function}: a window of {span} elements (kernel_size={k}, dilation={d}) does not "
                f"fit into {length} with padding={p}: input is {describe(input)}"
            )
        high = max(0, (count - 1) * s + span - length - p)
        windows.append(Window(length, k, s, d, p, high, count))
    return windows


def strided(x: jax.Array, axis: int, start: int, count: int, stride: int) -> jax.Array:
    """``count`` elements of ``x`` along ``axis``, from ``start``, ``stride`` apart."""
    if count == 0:
        return lax.slice_in_dim(x, 0, 0, axis=axis)
    return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)


def taps(x: jax.Array, axis: int, w: Window) -> list[jax.Array]:
    """For each position of the kernel the elements of the padded ``x`` that it meets."""
    return [strided(x, axis, t * w.dilation, w.count, w.stride) for t in range(w.kernel)]


def volume(sizes: Sequence[int]) -> int:
    """The number of elements of a block of these sizes."""
    return math.prod(sizes)
