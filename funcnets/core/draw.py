"""Drawing many initial values at once.

A model of a hundred parameters has few kinds of them. Compiling a kernel for each parameter is what
makes initialisation slow, so values are drawn together:

* with concrete Threefry keys (the usual case) the random bits are computed in NumPy, in blocks that
  fit the processor's cache, on all cores. A uniform draw needs no compilation at all; a normal one
  sends its blocks through one small compiled kernel, the same for every shape.
* under a trace, one loop draws all uniform ones, block after block, and another all normal ones.

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
from jax.extend.random import threefry_2x32

from funcnets.core.keys import threefry2x32
from funcnets.errors import ArgumentError
from funcnets.init import Constant, draw_dtype, finish, is_affine, rounded

Spec = tuple[Any, tuple[int, ...], Any]  # initializer, shape, dtype

#: Elements drawn at a time: what a core's cache holds.
BLOCK = 1 << 15
#: Arrays of more elements are drawn each on its own under a trace: that draw can be partitioned.
LARGE = 1 << 24


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
    return _draw_traced(specs, keys)


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
        unit = _unit(x0 ^ x1, np)
        if base == "normal":
            short = len(unit)
            unit = _normal_kernel()(np.pad(unit, (0, BLOCK - short)))[:short]
        else:
            unit = _finish_draw(base, unit)
        out[start:stop] = unit

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


def _unit(bits: Any, numpy: Any) -> Any:
    """[0, 1) out of 32 random bits: 23 of them as the mantissa of a number in [1, 2), minus 1."""
    mantissa = (bits >> np.uint32(9)) | np.uint32(0x3F800000)
    if numpy is np:
        return mantissa.view(np.float32) - np.float32(1)
    return jax.lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)


def _finish_draw(base: str, unit: Any) -> Any:
    """What ``jax.random`` makes of its draw on [0, 1): uniform on [-1, 1), or standard normal."""
    if base == "uniform":
        return unit * np.float32(2) - np.float32(1)
    low_end = np.nextafter(np.float32(-1), np.float32(0))
    uniform = jnp.maximum(low_end, unit * (np.float32(1) - low_end) + low_end)
    return rounded(np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform))


@functools.cache
def _normal_kernel() -> Any:
    return jax.jit(functools.partial(_finish_draw, "normal"))


def _draw_traced(specs: Sequence[Spec], keys: jax.Array) -> list[jax.Array]:
    values: list[Any] = [None] * len(specs)
    blocks: dict[str, list[int]] = {}
    groups: dict[Any, list[int]] = {}
    threefry = str(jax.random.key_impl(keys)) == "threefry2x32"
    for i, (rule, shape, dtype) in enumerate(specs):
        if isinstance(rule, Constant):
            values[i] = jnp.full(shape, rule.value, dtype)
        elif (
            threefry
            and is_affine(rule)
            and draw_dtype(dtype) == jnp.float32
            and 0 < math.prod(shape) <= LARGE
        ):
            blocks.setdefault(rule.affine(shape)[0], []).append(i)
        else:
            groups.setdefault((rule, shape, jnp.dtype(dtype)), []).append(i)
    for base, members in blocks.items():
        drawn = _draw_blocks(base, [specs[i] for i in members], keys[np.array(members)])
        for i, value in zip(members, drawn, strict=True):
            values[i] = value
    for (rule, shape, dtype), members in groups.items():
        if len(members) == 1 or math.prod(shape) > LARGE:
            for i in members:
                values[i] = _one(rule, keys[i], shape, dtype)
        else:
            draw_one = functools.partial(_one, rule, shape=shape, dtype=dtype)
            for i, value in zip(
                members, jax.lax.map(draw_one, keys[np.array(members)]), strict=True
            ):
                values[i] = value
    return values


def _draw_blocks(base: str, specs: Sequence[Spec], keys: jax.Array) -> list[jax.Array]:
    """All draws of one base by one loop over blocks of elements, so that one kernel is compiled.

    It has to be a loop: a draw that is vmapped XLA fuses into each of its slices, and compiles and
    computes it as often.
    """
    sizes = [math.prod(shape) for _, shape, _ in specs]
    # The smallest waste: elements drawn beyond an array's end, and some overhead for each block.
    block = min(
        (1 << power for power in range(8, 18)),
        key=lambda block: sum(-(-size // block) * (block + 2048) for size in sizes),
    )
    counts = [-(-size // block) for size in sizes]
    owner = np.repeat(np.arange(len(specs)), counts)
    first = np.cumsum([0, *counts[:-1]])
    start = ((np.arange(len(owner)) - first[owner]) * block).astype(np.uint32)
    affine = [rule.affine(shape)[1:] for rule, shape, _ in specs]
    scale, shift = np.array(affine, np.float32).T

    def one_block(row: Any) -> jax.Array:
        key, start, scale, shift = row
        low = start + jnp.arange(block, dtype=jnp.uint32)
        bits = threefry_2x32(key, jnp.concatenate([jnp.zeros_like(low), low]))
        drawn = _finish_draw(base, _unit(bits[:block] ^ bits[block:], jnp)) * scale
        return jnp.where(shift == 0, drawn, rounded(drawn) + shift)

    data = jax.random.key_data(keys)[owner]
    flat = jax.lax.map(one_block, (data, start, scale[owner], shift[owner])).ravel()
    return [
        jax.lax.slice(flat, (at * block,), (at * block + size,)).reshape(shape).astype(dtype)
        for at, size, (_, shape, dtype) in zip(first, sizes, specs, strict=True)
    ]
