"""Drawing many initial values at once.

A model of a hundred parameters has few kinds of them. Compiling a kernel for each parameter is what
makes initialisation slow, so values are drawn together:

* with concrete Threefry keys (the usual case) the random bits are computed in NumPy, in blocks that
  fit the processor's cache, on all cores. A uniform draw needs no compilation at all; a normal one
  sends its blocks through one small compiled kernel, the same for every shape.
* under a trace, equal (initializer, shape, dtype) are drawn by one loop and taken apart.

Either way the bits are those of calling each initializer alone with its own key, because element ``i``
of a Threefry draw depends only on the key and on ``i``; tests hold that.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets.core.keys import threefry2x32
from funcnets.errors import ArgumentError
from funcnets.init import Constant, draw_dtype, finish, is_affine

Spec = tuple[Any, tuple[int, ...], Any]  # initializer, shape, dtype

#: Elements drawn at a time: what a core's cache holds.
BLOCK = 1 << 15


def draw(specs: Sequence[Spec], keys: np.ndarray | jax.Array) -> list[jax.Array]:
    """The initial value of every spec.

    Args:
        specs: ``(initializer, shape, dtype)`` each.
        keys: raw Threefry keys ``uint32[n, 2]`` in NumPy, or a vector of ``n`` typed keys.

    Returns:
        A list of arrays.
    """
    if isinstance(keys, np.ndarray):
        return _draw_concrete(specs, keys)
    return _draw_grouped(specs, keys)


def _draw_concrete(specs: Sequence[Spec], keys: np.ndarray) -> list[jax.Array]:
    values: list[Any] = [None] * len(specs)
    on_host = []
    for i, (rule, shape, dtype) in enumerate(specs):
        if isinstance(rule, Constant):
            values[i] = np.full(shape, rule.value, dtype)
        elif is_affine(rule) and draw_dtype(dtype) == jnp.float32:
            base, scale, shift = rule.affine(shape)
            drawn = _standard(base, keys[i], math.prod(shape)).reshape(shape)
            values[i] = finish(drawn, scale, shift).astype(dtype)
        else:
            key = jax.random.wrap_key_data(keys[i], impl="threefry2x32") if rule.needs_key else None
            values[i] = _one(rule, key, shape, dtype)
            continue
        on_host.append(i)
    for i, array in zip(on_host, jax.device_put([values[i] for i in on_host]), strict=True):
        values[i] = array
    return values


def _one(rule: Any, key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """What ``rule`` gives, which may be anybody's function."""
    value = jnp.asarray(rule(key, shape, dtype))
    if value.shape != shape:
        raise ArgumentError(
            f"the initializer {rule} gave shape {value.shape} for a cell of shape {shape}"
        )
    return value if value.dtype == dtype else value.astype(dtype)


def _standard(base: str, key: np.ndarray, size: int) -> np.ndarray:
    """``standard_draw(base, key, (size,), float32)`` of ``funcnets.init``, from a raw key."""
    out = np.empty(size, np.float32)

    def fill(start: int) -> None:
        stop = min(start + BLOCK, size)
        index = np.arange(start, stop, dtype=np.uint64)
        high, low = (index >> np.uint64(32)).astype(np.uint32), index.astype(np.uint32)
        x0, x1 = threefry2x32(key, high, low)
        # [0, 1) out of 32 bits: 23 of them as the mantissa of a number in [1, 2), minus 1.
        unit = (((x0 ^ x1) >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(
            1
        )
        if base == "uniform":
            out[start:stop] = unit * np.float32(2) - np.float32(1)
        else:
            out[start:stop] = _normal_kernel()(np.pad(unit, (0, BLOCK - len(unit))))[: len(unit)]

    starts = range(0, size, BLOCK)
    if len(starts) > 1:
        list(_threads().map(fill, starts))
    elif size:
        fill(0)
    return out


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    """NumPy lets go of the interpreter while it computes, so threads do run side by side."""
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="funcnets-draw")


@functools.cache
def _normal_kernel():
    """``jax.random.normal`` from its uniform draw on: the inverse error function."""

    def kernel(unit: jax.Array) -> jax.Array:
        low_end = np.nextafter(np.float32(-1), np.float32(0))
        uniform = jnp.maximum(low_end, unit * (np.float32(1) - low_end) + low_end)
        return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)

    return jax.jit(kernel)


def _draw_grouped(specs: Sequence[Spec], keys: jax.Array) -> list[jax.Array]:
    groups: dict[Any, list[int]] = {}
    for i, (rule, shape, dtype) in enumerate(specs):
        groups.setdefault((rule, shape, jnp.dtype(dtype)), []).append(i)
    values: list[Any] = [None] * len(specs)
    for (rule, shape, dtype), members in groups.items():
        if isinstance(rule, Constant):
            for i in members:
                values[i] = jnp.full(shape, rule.value, dtype)
        elif len(members) == 1:
            values[members[0]] = _one(rule, keys[members[0]], shape, dtype)
        else:
            # A loop and one flat split: XLA would fuse a vmapped draw into each of its slices, and
            # compile and compute it as often.
            flat = jax.lax.map(
                lambda key, rule=rule, shape=shape, dtype=dtype: _one(
                    rule, key, shape, dtype
                ).ravel(),
                keys[np.array(members)],
            )
            for i, part in zip(
                members, jax.lax.split(flat.ravel(), [math.prod(shape)] * len(members))
            ):
                values[i] = part.reshape(shape)
    return values
