"""The maximum over windows, one axis at a time, choosing among equal elements as PyTorch does.

The first of several equal maxima wins, and gets the whole gradient; the last NaN wins over
everything. Both rules survive going axis by axis from the last one to the first, so a window of
``k * k`` elements costs ``2 * k`` comparisons, and the derivative is that of plain ``where``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnets.functional._window import Window, index_dtype, strided, volume

__all__ = ["Best", "answer", "max_over", "positions", "running_max", "with_indices"]

_UNROLLED = 8  # Longer kernels are covered by doubling, in a logarithmic number of steps.


class Best(NamedTuple):
    """Candidates for the maximum, and where they stand in the flattened spatial axes if asked."""

    value: jax.Array
    index: jax.Array | None = None


def positions(x: jax.Array, n: int) -> jax.Array:
    """For each element its place in the flattened last ``n`` axes."""
    spatial = x.shape[-n:]
    flat = lax.iota(index_dtype(), volume(spatial)).reshape((1,) * (x.ndim - n) + spatial)
    return jnp.broadcast_to(flat, x.shape)


def answer(best: Best) -> Any:
    """What a pooling function returns: the values, and the indices if they were asked for."""
    return best.value if best.index is None else tuple(best)


def with_indices(pool: Callable[..., Any]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The function that PyTorch calls ``<pool>_with_indices``."""

    @wraps(pool)
    def function(*args: Any, **kwargs: Any) -> tuple[jax.Array, jax.Array]:
        return pool(*args, **{**kwargs, "return_indices": True})

    function.__name__ = function.__qualname__ = pool.__name__ + "_with_indices"
    function.__doc__ = f"``{pool.__name__}`` with ``return_indices=True``."
    return function


# One compiled program for an eager call instead of one for each comparison; part of the caller's
# program under jit.
@partial(jax.jit, static_argnums=1, inline=True)
def max_over(input: jax.Array, windows: tuple[Window, ...]) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window over the last axes of ``input``, and its place."""
    n = len(windows)
    best = Best(input, positions(input, n))
    for axis in reversed(range(n)):
        best = running_max(best, input.ndim - n + axis, windows[axis])
    return answer(best)


def running_max(best: Best, axis: int, w: Window) -> Best:
    """The best of each window along ``axis``."""
    best, inside = _padded(best, axis, w)

    def cut(start: int, count: int, stride: int = 1) -> tuple[Best, np.ndarray]:
        part = jax.tree.map(lambda x: strided(x, axis, start, count, stride), best)
        return part, inside[start : start + (count - 1) * stride + 1 : stride]

    if w.kernel <= _UNROLLED:
        result, known = cut(0, w.count, w.stride)
        for t in range(1, w.kernel):
            tap, fresh = cut(t * w.dilation, w.count, w.stride)
            result, known = _better(result, tap, known, axis), known | fresh
        return result
    covered = 1
    while covered < w.kernel:  # Each element stands for the `covered` ones from it on.
        step = min(covered, w.kernel - covered)
        count = len(inside) - step * w.dilation
        (left, known), (right, fresh) = cut(0, count), cut(step * w.dilation, count)
        best, inside = _better(left, right, known, axis), known | fresh
        covered += step
    return cut(0, w.count, w.stride)[0]


def _padded(best: Best, axis: int, w: Window) -> tuple[Best, np.ndarray]:
    """``best`` with the lowest number around it, and which elements along ``axis`` are real."""
    inside = np.pad(np.ones(w.length, bool), (w.low, w.high))
    if inside.all():
        return best, inside
    config = [(0, 0, 0)] * best.value.ndim
    config[axis] = (w.low, w.high, 0)
    dtype = best.value.dtype
    integer = jnp.issubdtype(dtype, jnp.integer)
    lowest = jnp.asarray(jnp.iinfo(dtype).min if integer else -jnp.inf, dtype)
    value = lax.pad(best.value, lowest, config)
    if best.index is None:
        return Best(value), inside
    return Best(value, lax.pad(best.index, jnp.zeros((), best.index.dtype), config)), inside


def _better(left: Best, right: Best, known: np.ndarray, axis: int) -> Best:
    """The larger of two neighbours; ``known`` tells where ``left`` has met a real element."""
    wins = right.value > left.value
    if jnp.issubdtype(right.value.dtype, jnp.floating):
        wins |= jnp.isnan(right.value)
    if not known.all():  # Padding never wins, not even over -inf, so that an index is always real.
        shape = [1] * wins.ndim
        shape[axis] = len(known)
        wins |= ~known.reshape(shape)
    return jax.tree.map(lambda a, b: jnp.where(wins, b, a), left, right)
