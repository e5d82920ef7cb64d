"""Drawing many initial values at once.

A model of a hundred parameters has few kinds of them. Compiling a kernel for each parameter is what
makes initialisation slow, so values are drawn together:

* with concrete Threefry keys (the usual case), element ``i`` of a draw depends only on the key and
  on ``i``. Small uniform draws are computed in NumPy, without any compilation; larger ones in
  blocks of one fixed size by one small compiled kernel for all shapes, then cut and shaped on the
  host.
* under a trace, equal (initializer, shape, dtype) are drawn by one ``vmap``ped kernel and taken apart.

Either way the bits are those of calling each initializer alone with its own key; tests hold that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np

from funcnets.core.keys import threefry2x32
from funcnets.init import Constant, draw_dtype, finish, is_affine

Spec = tuple[Any, tuple[int, ...], Any]  # initializer, shape, dtype

#: Up to this many elements a uniform draw is made in NumPy (about 40 ns an element, no compilation).
HOST_LIMIT = 1 << 13
#: Elements that the compiled kernel draws at a time.
BLOCK = 1 << 16


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
            values[i] = rule(key, shape, dtype)
            continue
        on_host.append(i)
    for i, array in zip(on_host, jax.device_put([values[i] for i in on_host]), strict=True):
        values[i] = array
    return values


def _standard(base: str, key: np.ndarray, size: int) -> np.ndarray:
    if base == "uniform" and size <= HOST_LIMIT:
        index = np.arange(size, dtype=np.uint32)
        high, low = threefry2x32(key, np.zeros_like(index), index)
        return _unit(high ^ low) * np.float32(2) - np.float32(1)
    # Blocks are started one after the other and fetched afterwards, so that they overlap.
    kernel = _block_kernel(base)
    blocks = [kernel(key, np.uint32(i)) for i in range(math.ceil(size / BLOCK))]
    out = np.empty(len(blocks) * BLOCK, np.float32)
    for i, block in enumerate(blocks):
        out[i * BLOCK : (i + 1) * BLOCK] = block
    return out[:size]


def _unit(bits: np.ndarray) -> np.ndarray:
    """[0, 1) out of 32 bits: 23 of them as the mantissa of a number in [1, 2), minus 1."""
    return ((bits >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


@functools.cache
def _block_kernel(base: str):
    def kernel(key, block):
        # The 64-bit counter of element i is i itself; a block starts at block * BLOCK.
        low = jax.lax.iota(jnp.uint32, BLOCK) + block * np.uint32(BLOCK)
        high = jnp.broadcast_to(block >> np.uint32(32 - int(math.log2(BLOCK))), (BLOCK,))
        bits = jnp.bitwise_xor(*jax.extend.random.threefry2x32_p.bind(
            jnp.broadcast_to(key[0], (BLOCK,)), jnp.broadcast_to(key[1], (BLOCK,)), high, low
        ))
        unit = jax.lax.bitcast_convert_type(
            (bits >> np.uint32(9)) | np.uint32(0x3F800000), jnp.float32
        ) - np.float32(1)
        if base == "uniform":
            return jnp.maximum(np.float32(-1), unit * np.float32(2) - np.float32(1))
        # jax.random.normal: the inverse error function of a uniform draw on (-1, 1).
        low_end = np.nextafter(np.float32(-1), np.float32(0))
        spread = np.float32(1) - low_end
        uniform = jnp.maximum(low_end, unit * spread + low_end)
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
            values[members[0]] = rule(keys[members[0]], shape, dtype)
        else:
            drawn = jax.vmap(lambda key, rule=rule, shape=shape, dtype=dtype: rule(key, shape, dtype))(
                keys[np.array(members)]
            )
            for row, i in enumerate(members):
                values[i] = drawn[row]
    return values
