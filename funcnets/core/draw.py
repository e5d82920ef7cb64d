"""Drawing many initial values at once.

A model of a hundred parameters has few kinds of them. Compiling a kernel for each parameter is what
makes initialisation slow, so values are drawn together:

* with concrete Threefry keys (the usual case) ``core/fill.py`` writes them into the memory of their
  arrays, so that hardly more is needed than the values take;
* under a trace, one loop draws all uniform ones, block after block, and another all normal ones.

Either way the bits are those of calling each initializer alone with its own key, because element ``i``
of a Threefry draw depends only on the key and on ``i``; tests hold that.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_context

from funcnets.core.fill import Job, fill, row
from funcnets.errors import ArgumentError
from funcnets.init import Constant, draw_dtype, is_affine

Spec = tuple[Any, tuple[int, ...], Any]  # initializer, shape, dtype

#: Arrays of more elements are drawn each on its own under a trace: that draw can be partitioned.
LARGE = 1 << 24
#: Dtypes that lie in a CPU's memory as NumPy has them.
_WRITABLE = [jnp.dtype(name) for name in ("float32", "bfloat16", "float16")]


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
    constant = [i for i, spec in enumerate(specs) if isinstance(spec[0], Constant)]
    drawn = [
        i
        for i, (rule, _, dtype) in enumerate(specs)
        if is_affine(rule) and draw_dtype(dtype) == jnp.float32
    ]
    with eval_context():  # a concrete key may be used within a trace
        filled = [
            _equal_rows(shape, dtype, rule.value) for rule, shape, dtype in _of(specs, constant)
        ]
        values = dict(zip(constant, jax.device_put(filled), strict=True))
        values |= zip(drawn, _draw_on_host(_of(specs, drawn), keys[drawn]), strict=True)
    for i, (rule, shape, dtype) in enumerate(specs):
        if i not in values:
            key = jax.random.wrap_key_data(keys[i], impl="threefry2x32") if rule.needs_key else None
            values[i] = _one(rule, key, shape, dtype)
    return [values[i] for i in range(len(specs))]


def _of(specs: Sequence[Spec], places: Sequence[int]) -> list[Spec]:
    return [specs[i] for i in places]


def _draw_on_host(specs: Sequence[Spec], keys: np.ndarray) -> list[jax.Array]:
    """The values of affine rules that are computed in float32."""

    def draw_into(memory: Sequence[np.ndarray]) -> None:
        rules = [rule.affine(shape) for rule, shape, _ in specs]
        fill([Job(*job[:2], *job[2]) for job in zip(memory, keys, rules, strict=True)])

    (device,) = jax.device_put(np.float32(0)).devices()  # wherever new arrays go
    if device.platform == "cpu" and all(jnp.dtype(dtype) in _WRITABLE for _, _, dtype in specs):
        # Arrays that the backend copied out of equal rows: unlike memory that it borrows from NumPy, a
        # step that they are donated to can take them over. They are written before anybody sees them.
        # (Of a single row it may borrow the memory, which is then as much our own.)
        arrays = jax.device_put([_equal_rows(shape, dtype, 0) for _, shape, dtype in specs])
        jax.block_until_ready(arrays)
        draw_into([_memory(array) for array in arrays])
        return arrays
    hosts = [np.empty(shape, dtype) for _, shape, dtype in specs]
    draw_into([host.reshape(-1) for host in hosts])
    return jax.device_put(hosts)


def _equal_rows(shape: tuple[int, ...], dtype: Any, value: Any) -> np.ndarray:
    """An array of one value, of which one row alone takes memory."""
    return np.broadcast_to(np.full(shape[1:], value, dtype), shape)


def _memory(array: jax.Array) -> np.ndarray:
    """The memory of an array on the CPU, flat and writable."""
    if not array.size:
        return np.empty(0, array.dtype)
    start = (ctypes.c_char * array.nbytes).from_address(array.unsafe_buffer_pointer())
    return np.frombuffer(memoryview(start), array.dtype)


def _one(rule: Any, key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """What ``rule`` gives, which may be anybody's function."""
    value = jnp.asarray(rule(key, shape, dtype))
    if value.shape != shape:
        raise ArgumentError(
            f"the initializer {rule} gave shape {value.shape} for a cell of shape {shape}"
        )
    return value if value.dtype == dtype else value.astype(dtype)


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

    def one_block(columns: Any) -> jax.Array:
        key, start, scale, shift = columns
        return row(base, block, key, np.uint32(0), start, scale, shift)

    data = jax.random.key_data(keys)[owner]
    flat = jax.lax.map(one_block, (data, start, scale[owner], shift[owner])).ravel()
    return [
        jax.lax.slice(flat, (at * block,), (at * block + size,)).reshape(shape).astype(dtype)
        for at, size, (_, shape, dtype) in zip(first, sizes, specs, strict=True)
    ]
