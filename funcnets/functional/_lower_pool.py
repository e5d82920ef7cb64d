"""How windows are reduced: one small table for the maximum, one for the sum, and their forms.

On a CPU the native ``reduce_window`` and above all its gradients run far below what the machine can
do, so there windows become shifted slices; everywhere else the native operation is used. Which it is
gets decided when a program is compiled, so that a traced program is right on every platform.
``python -m benchmarks.lowering pool`` prints the ratios behind the tables.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnets.functional._maximum import Best, running_max
from funcnets.functional._window import Window, strided

__all__ = ["MAX_FORMS", "SUM_FORMS", "max_form", "sum_form", "window_max", "window_sum"]

Windows = tuple[Window, ...]

_FEW = 9  # Elements of a window that are better compared one by one in the gradient, too.
_LONGEST = 16  # Elements that are compared, or along an axis added, one by one.


def max_form(windows: Windows, dtype: np.dtype) -> str:
    """The form of the maximum on a CPU.

    chain   small or overlapping windows: comparisons axis by axis, whose own derivative takes a
            fifth to a half of the native one's time
    blocks  large ones side by side, up to global pooling: a reduction finds the maximum and another
            one its place, where the chain is slower than the native operation
    """
    large = math.prod(w.kernel for w in windows) > _FEW
    floating = jnp.issubdtype(dtype, jnp.floating)
    return "blocks" if large and floating and _side_by_side(windows) else "chain"


def sum_form(windows: Windows) -> str:
    """The form of the sum on a CPU.

    slices  short windows: a tenth (side by side) to a half (overlapping) of the native one's time
    blocks  a single one, and long ones side by side: a sum over axes
    native  long overlapping ones
    """
    long = any(w.kernel > _LONGEST for w in windows)
    single = all(w.count == 1 for w in windows)
    if _side_by_side(windows) and (long or single):
        return "blocks"
    return "native" if long else "slices"


# Compiled, also for the sake of eager calls, and not inlined: the choice by platform, met alone in an
# eager gradient, would be compiled every time. So is `window_sum`.
@partial(jax.jit, static_argnums=1)
def window_max(x: jax.Array, windows: Windows) -> jax.Array:
    """The maximum of each window over the last axes of ``x``."""
    form = MAX_FORMS[max_form(windows, x.dtype)]
    if any(w.dilation > 1 for w in windows):  # The native gradient knows no dilation.
        return form(x, windows)
    return _on_cpu(x, windows, form, _max_native)


@partial(jax.jit, static_argnums=1)
def window_sum(x: jax.Array, windows: Windows) -> jax.Array:
    """The sum of each window over the last axes of ``x``, around which there are zeros."""
    return _on_cpu(x, windows, SUM_FORMS[sum_form(windows)], _sum_native)


Form = Callable[[jax.Array, Windows], jax.Array]


def _on_cpu(x: jax.Array, windows: Windows, form: Form, native: Form) -> jax.Array:
    if form is native:
        return native(x, windows)
    return lax.platform_dependent(
        x, cpu=lambda x: form(x, windows), default=lambda x: native(x, windows)
    )


def _side_by_side(windows: Windows) -> bool:
    """Whether the windows stand side by side and within the input."""
    return all(
        w.stride == w.kernel and w.dilation == 1 and w.low == 0 and w.high == 0 for w in windows
    )


# --- the maximum ----------------------------------------------------------------------------------


def _max_native(x: jax.Array, windows: Windows) -> jax.Array:
    integer = jnp.issubdtype(x.dtype, jnp.integer)
    lowest = jnp.iinfo(x.dtype).min if integer else -jnp.inf
    return _reduce_window(x, windows, lowest, lax.max)


def _max_chain(x: jax.Array, windows: Windows) -> jax.Array:
    best = Best(x)
    for axis in reversed(range(len(windows))):
        best = running_max(best, x.ndim - len(windows) + axis, windows[axis])
    return best.value


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_blocks(x: jax.Array, windows: Windows) -> jax.Array:
    if math.prod(w.kernel for w in windows) <= _LONGEST:
        return _max_chain(x, windows)
    return _blocks(x, windows).max(_within(x, windows))


@_max_blocks.defjvp
def _(windows: Windows, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """The tangent at the first element that equals the maximum, or at the last NaN."""
    (x,), (x_dot,) = primals, tangents
    y = _max_blocks(x, windows)
    axes = _within(x, windows)
    blocks = _blocks(lax.stop_gradient(x), windows)
    largest = lax.expand_dims(lax.stop_gradient(y), axes)
    sizes = [blocks.shape[i] if i in axes else 1 for i in range(blocks.ndim)]
    place = lax.iota(jnp.int32, math.prod(sizes)).reshape(sizes)
    behind = place.size
    place = jnp.broadcast_to(place, blocks.shape)
    candidates = jnp.where(jnp.isnan(blocks), -place, jnp.where(blocks == largest, place, behind))
    wins = candidates == candidates.min(axes, keepdims=True)
    return y, jnp.where(wins, _blocks(x_dot, windows), 0).sum(axes)


def _within(x: jax.Array, windows: Windows) -> tuple[int, ...]:
    """The axes of ``_blocks`` along which the elements of a window lie."""
    return tuple(range(x.ndim - len(windows) + 1, x.ndim + len(windows), 2))


def _blocks(x: jax.Array, windows: Windows) -> jax.Array:
    """``x`` with each windowed axis as two, the windows and the elements of a window."""
    lead = x.shape[: x.ndim - len(windows)]
    ends = (*lead, *(w.count * w.kernel for w in windows))
    pairs = itertools.chain.from_iterable((w.count, w.kernel) for w in windows)
    return lax.slice(x, (0,) * x.ndim, ends).reshape(*lead, *pairs)


# --- the sum --------------------------------------------------------------------------------------


def _sum_native(x: jax.Array, windows: Windows) -> jax.Array:
    return _reduce_window(x, windows, 0, lax.add)


def _sum_blocks(x: jax.Array, windows: Windows) -> jax.Array:
    return _blocks(x, windows).sum(_within(x, windows))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum_slices(x: jax.Array, windows: Windows) -> jax.Array:
    for axis, w in enumerate(windows, x.ndim - len(windows)):
        x = _padded(x, axis, w.low, w.high)
        x = functools.reduce(
            lax.add, [strided(x, axis, t, w.count, w.stride) for t in range(w.kernel)]
        )
    return x


@_sum_slices.defjvp
def _(windows: Windows, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """The same sum, written so that its transpose is a broadcast or a sum of slices."""
    (x,), (x_dot,) = primals, tangents
    y = _sum_slices(x, windows)
    if _side_by_side(windows):
        return y, _sum_blocks(x_dot, windows)
    for axis, w in enumerate(windows, x.ndim - len(windows)):
        reach = w.kernel - 1
        x_dot = _padded(x_dot, axis, w.low, w.high)
        shifted = [_padded(x_dot, axis, reach - t, t) for t in range(w.kernel)]
        x_dot = strided(functools.reduce(lax.add, shifted), axis, reach, w.count, w.stride)
    return y, x_dot


def _padded(x: jax.Array, axis: int, low: int, high: int) -> jax.Array:
    if low == high == 0:
        return x
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (low, high, 0)
    return lax.pad(x, np.zeros((), x.dtype), config)


def _reduce_window(x: jax.Array, windows: Windows, start: float, operation: Callable) -> jax.Array:
    lead = (1,) * (x.ndim - len(windows))
    return lax.reduce_window(
        x,
        np.asarray(start, x.dtype),
        operation,
        lead + tuple(w.kernel for w in windows),
        lead + tuple(w.stride for w in windows),
        [(0, 0)] * len(lead) + [(w.low, w.high) for w in windows],
    )


MAX_FORMS: dict[str, Form] = {
    "native": _max_native,
    "chain": _max_chain,
    "blocks": _max_blocks,
}
SUM_FORMS: dict[str, Form] = {"native": _sum_native, "slices": _sum_slices, "blocks": _sum_blocks}
