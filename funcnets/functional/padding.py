"""Padding: constants, reflection, replication and wrapping around the borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnets._args import as_array, as_int, choice, describe
from funcnets.errors import ArgumentError, ShapeError

__all__ = ["pad"]

_NUMPY_MODE = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(
    input: jax.Array, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> jax.Array:
    """Pads the trailing axes of an array.

    ``pad`` lists the elements to add before and after, the last axis first:
    ``(left, right)`` for the last axis, ``(left, right, top, bottom)`` for the last two, and so on.
    A negative number removes elements instead.

    Args:
        input: array of any dtype. The modes other than ``'constant'`` take one to three spatial
            axes after the channels, all of them in ``pad``: ``(C, L)`` or ``(N, C, L)`` with two
            numbers, ``(C, H, W)`` or ``(N, C, H, W)`` with four, ``(C, D, H, W)`` or
            ``(N, C, D, H, W)`` with six.
        pad: an even number of integers, at most two for each axis.
        mode: ``'constant'``, ``'reflect'`` (mirrored at the border element, which is not
            repeated), ``'replicate'`` (the border element repeated) or ``'circular'`` (wrapped
            around).
        value: what ``'constant'`` fills with, 0 if None; the other modes take none.

    Returns:
        The padded array, of the dtype of ``input``.

    Raises:
        ArgumentError: an odd number of numbers in ``pad``, too many of them, an unknown mode, or
            a ``value`` where it has no meaning.
        ShapeError: an axis too short to reflect, to wrap around, or to remove from.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> x = jnp.arange(3.0).reshape(1, 1, 3)
        >>> F.pad(x, (2, 1))[0, 0].tolist()
        [0.0, 0.0, 0.0, 1.0, 2.0, 0.0]
        >>> F.pad(x, (2, 1), mode="reflect")[0, 0].tolist()
        [2.0, 1.0, 0.0, 1.0, 2.0, 1.0]

    References:
        torch.nn.functional.pad
    """
    input = as_array("input", input)
    choice("mode", mode, ("constant", *_NUMPY_MODE))
    pairs = _pairs(pad, input)
    if mode in ("constant", "circular"):
        _check_crop(input, pairs)
    if mode == "constant":
        config = [(max(lo, 0), max(hi, 0), 0) for lo, hi in pairs]
        return lax.pad(_crop(input, pairs), _fill(value, input.dtype), config)
    _check_borders(input, pairs, len(pad), mode, value)
    grow = [(max(lo, 0), max(hi, 0)) for lo, hi in pairs]
    if mode == "circular":  # What is left after cropping is what repeats.
        return jnp.pad(_crop(input, pairs), grow, mode=_NUMPY_MODE[mode])
    return _crop(jnp.pad(input, grow, mode=_NUMPY_MODE[mode]), pairs)


def _pairs(pad: Sequence[int], input: jax.Array) -> list[tuple[int, int]]:
    """``pad`` as one ``(before, after)`` for each axis, the first axis first."""
    if not isinstance(pad, (Sequence, np.ndarray)) or isinstance(pad, str):
        raise ArgumentError(f"pad must be a sequence of integers, but got {describe(pad)}")
    numbers = [as_int("pad", p) for p in pad]
    if len(numbers) % 2:
        raise ArgumentError(
            f"pad must hold two numbers for each axis, before and after, but got {len(numbers)}"
        )
    if len(numbers) > 2 * input.ndim:
        raise ArgumentError(
            f"pad must hold at most {2 * input.ndim} numbers for input {describe(input)}, "
            f"but got {len(numbers)}"
        )
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (input.ndim - len(pairs)) + pairs
    return pairs


def _check_crop(input: jax.Array, pairs: list[tuple[int, int]]) -> None:
    """Refuse to remove more than there is."""
    for axis, (lo, hi) in enumerate(pairs):
        if input.shape[axis] + min(lo, 0) + min(hi, 0) < 0:
            raise ShapeError(
                f"pad removes more than there is along axis {axis} of input {describe(input)}: "
                f"{(lo, hi)}"
            )


def _crop(x: jax.Array, pairs: list[tuple[int, int]]) -> jax.Array:
    """``x`` without what the negative numbers remove."""
    if all(lo >= 0 and hi >= 0 for lo, hi in pairs):
        return x
    starts = [max(-lo, 0) for lo, _ in pairs]
    stops = [n - max(-hi, 0) for n, (_, hi) in zip(x.shape, pairs, strict=True)]
    return lax.slice(x, starts, stops)


def _check_borders(
    input: jax.Array, pairs: list[tuple[int, int]], count: int, mode: str, value: Any
) -> None:
    """What ``mode`` cannot do with ``input``."""
    if value is not None and value != 0:
        raise ArgumentError(f"value has a meaning in mode='constant' only, but mode is {mode!r}")
    n = count // 2
    if n not in (1, 2, 3) or input.ndim not in (n + 1, n + 2):
        raise ArgumentError(
            f"mode={mode!r} pads all of one to three spatial axes: 2 numbers for 2D or 3D input, "
            f"4 for 3D or 4D, 6 for 4D or 5D, but got {count} for {input.ndim}D input "
            f"{describe(input)}"
        )
    if mode != "circular" and 0 in input.shape[-n - 1 :]:
        raise ShapeError(
            f"only the batch axis of input may have length 0 in mode={mode!r}, "
            f"but got {describe(input)}"
        )
    for axis in range(input.ndim - n, input.ndim):
        (lo, hi), size = pairs[axis], input.shape[axis]
        if mode == "reflect":
            most, limit = size - 1, "less than the size of its axis"
        elif mode == "circular":
            most = size + min(lo, 0) + min(hi, 0)
            limit = "at most the size of its axis after cropping"
        else:
            continue
        if max(lo, hi) > most:
            raise ShapeError(
                f"pad must be {limit} in mode={mode!r}, but got {(lo, hi)} along axis {axis} of "
                f"input {describe(input)}"
            )
    if mode != "circular":
        for axis in range(input.ndim - n, input.ndim):
            if input.shape[axis] + sum(pairs[axis]) < 1:
                raise ShapeError(
                    f"pad leaves nothing of axis {axis} of input {describe(input)}: {pairs[axis]}"
                )


def _fill(value: Any, dtype: Any) -> jax.Array:
    """``value`` as a scalar of ``dtype``, truncated towards zero if ``dtype`` is integer."""
    if value is None:
        return jnp.zeros((), dtype)
    if hasattr(value, "dtype") and value.shape == () and not np.iscomplexobj(value):
        return lax.convert_element_type(value, dtype)
    if not isinstance(value, (bool, int, float)):
        raise ArgumentError(f"value must be a real number, but got {describe(value)}")
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        if not info.min <= value <= info.max:
            raise ArgumentError(f"value={value!r} does not fit into {jnp.dtype(dtype).name}")
        value = int(value)
    return jnp.asarray(value, dtype)
