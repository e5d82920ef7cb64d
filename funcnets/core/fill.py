"""Filling memory with initial values, block after block, without temporaries of any size.

The bits are those of ``jax.random`` with a Threefry key, whose element ``i`` depends on the key and on
``i`` alone. There are two ways to them:

* NumPy, in blocks that stay in a core's cache, in memory that is used again for every block, on all
  cores: some 10 ns an element. A uniform draw needs no compilation; a normal one sends its blocks
  through one small compiled kernel, the same for every shape.
* One compiled kernel for a batch of rows, each with a key, a place and a scale of its own, so that
  arrays of every shape share it: 2 to 5 ns an element after a seventh of a second, and some 50 MB, for
  the compiler. It pays for large models.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnets.core.keys import threefry2x32
from funcnets.init import rounded

__all__ = ["Job", "fill", "row"]

#: Elements that NumPy draws at a time: three blocks lie in a core's cache.
BLOCK = 1 << 16
#: The same where several threads draw: theirs are longer, since each operation of NumPy waits for the
#: interpreter, which only one thread has at a time.
SHARED_BLOCK = 1 << 18
#: From more elements than this, of one kind of draw in all, compiling the kernel pays.
COMPILED = 1 << 25
#: What the kernel draws in one call.
ROWS, COLUMNS = 128, 2048

_LOW = 0xFFFFFFFF


class Job(NamedTuple):
    """Memory to fill: ``out[i] = standard_draw(base, key)[i] * scale + shift``, for a flat ``out``."""

    out: np.ndarray
    key: np.ndarray
    base: str
    scale: float
    shift: float


def fill(jobs: Sequence[Job]) -> None:
    """Do all jobs, whose memory may be of any dtype that a float32 can be rounded to."""
    by_blocks: list[Job] = []
    for base in ("uniform", "normal"):
        some = [job for job in jobs if job.base == base and job.out.size]
        if sum(job.out.size for job in some) > COMPILED:
            _fill_rows(base, some)
        else:
            by_blocks += some
    workers = os.cpu_count() or 1
    if workers == 1 or sum(job.out.size for job in by_blocks) <= SHARED_BLOCK:
        _fill_blocks(_blocks(by_blocks, BLOCK), BLOCK)
    else:  # whoever is done with a block takes the next
        shared = iter(list(_blocks(by_blocks, SHARED_BLOCK)))
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(_fill_blocks, [shared] * workers, [SHARED_BLOCK] * workers))


def _blocks(jobs: Sequence[Job], size: int) -> Iterator[tuple[Job, int]]:
    for job in jobs:
        for at in range(0, job.out.size, size):
            yield job, at


def _fill_blocks(blocks: Iterator[tuple[Job, int]], size: int) -> None:
    count, memory = np.arange(size, dtype=np.uint32), np.zeros((3, size), np.uint32)
    for job, at in blocks:
        out = job.out[at : at + size]
        x0, x1, spare = memory[:, : len(out)]
        x0[:] = at >> 32
        np.add(count[: len(out)], np.uint32(at & _LOW), out=x1)
        threefry2x32(job.key, x0, x1, spare)
        # 23 of the random bits as the mantissa of a number in [1, 2), minus 1.
        x0 ^= x1
        x0 >>= np.uint32(9)
        x0 |= np.uint32(0x3F800000)
        drawn, value = x0.view(np.float32), spare.view(np.float32)
        drawn -= np.float32(1)
        if job.base == "uniform":
            drawn *= np.float32(2)
            drawn -= np.float32(1)
        else:
            whole = memory[0].view(np.float32)
            for i in range(0, len(out), BLOCK):
                whole[i : i + BLOCK] = _normal_kernel()(whole[i : i + BLOCK])
        np.multiply(drawn, np.float32(job.scale), out=value)
        if job.shift != 0:
            value += np.float32(job.shift)
        out[:] = value


@functools.cache
def _normal_kernel() -> Any:
    return jax.jit(functools.partial(_standard, "normal"))


def _fill_rows(base: str, jobs: Sequence[Job]) -> None:
    counts = [-(-job.out.size // COLUMNS) for job in jobs]
    ends = np.cumsum(counts)
    firsts = ends - counts
    # The last call is filled up with rows that nobody takes.
    owner = np.repeat(np.arange(len(jobs)), counts)
    owner = np.pad(owner, (0, -len(owner) % ROWS), mode="edge")
    at = (np.arange(len(owner)) - firsts[owner]).astype(np.uint64) * np.uint64(COLUMNS)
    columns = (
        np.array([job.key for job in jobs], np.uint32)[owner],
        (at >> np.uint64(32)).astype(np.uint32),
        at.astype(np.uint32),
        np.array([job.scale for job in jobs], np.float32)[owner],
        np.array([job.shift for job in jobs], np.float32)[owner],
    )
    kernel = _row_kernel(base)
    for begin in range(0, len(owner), ROWS):
        end = begin + ROWS
        drawn = np.asarray(kernel(*(column[begin:end] for column in columns))).reshape(-1)
        for j in range(owner[begin], owner[end - 1] + 1):
            low, high = max(firsts[j], begin), min(ends[j], end)
            out = jobs[j].out[(low - firsts[j]) * COLUMNS : (high - firsts[j]) * COLUMNS]
            out[:] = drawn[(low - begin) * COLUMNS :][: len(out)]


@functools.cache
def _row_kernel(base: str) -> Any:
    return jax.jit(jax.vmap(functools.partial(row, base, COLUMNS)))


def row(base: str, length: int, key: Any, high: Any, low: Any, scale: Any, shift: Any) -> jax.Array:
    """``length`` consecutive values, in JAX, from the element ``high * 2**32 + low`` on."""
    x0, x1 = threefry2x32(key, high, low + jnp.arange(length, dtype=jnp.uint32))
    mantissa = ((x0 ^ x1) >> np.uint32(9)) | np.uint32(0x3F800000)
    unit = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1)
    scaled = _standard(base, unit) * scale
    return jnp.where(shift == 0, scaled, rounded(scaled) + shift)


def _standard(base: str, unit: jax.Array) -> jax.Array:
    """What ``jax.random`` makes of its draw on [0, 1): uniform on [-1, 1), or standard normal."""
    if base == "uniform":
        return unit * np.float32(2) - np.float32(1)
    low_end = np.nextafter(np.float32(-1), np.float32(0))
    uniform = jnp.maximum(low_end, unit * (np.float32(1) - low_end) + low_end)
    return rounded(np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform))
