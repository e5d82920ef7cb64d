"""Interleaved timing: the contenders take turns, so that a machine that slows down slows them all."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def machine() -> str:
    """What the figures were measured on."""
    import os

    devices = ", ".join(sorted({d.device_kind for d in jax.devices()}))
    return f"Python {platform.python_version()}, jax {jax.__version__}, {os.cpu_count()} cores, {devices}"


def arguments(rounds: int = 40) -> tuple[int, list[str]]:
    """What follows ``python -m benchmarks...``: a number of rounds, and words that choose among the cases."""
    given = sys.argv[1:]
    if given and given[0].isdigit():
        rounds = int(given.pop(0))
    return rounds, given


def interleave(
    contenders: dict[str, Callable[[], Any]],
    *,
    rounds: int = 60,
    target: float = 0.02,
    warmup: int = 5,
) -> dict[str, list[float]]:
    """Seconds per call of each contender, ``rounds`` times, in turn and in a changing order.

    Args:
        contenders: name to a function without arguments whose result can be waited for.
        rounds: how often each is measured.
        target: about how many seconds one measurement should take.
        warmup: calls before anything is measured.

    Returns:
        Name to the list of measurements, entry ``i`` of all of them being from the same round.
    """
    repeats = {}
    for name, call in contenders.items():
        for _ in range(warmup):
            jax.block_until_ready(call())
        start = time.perf_counter()
        for _ in range(5):
            out = call()
        jax.block_until_ready(out)
        repeats[name] = max(1, round(target / ((time.perf_counter() - start) / 5)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = np.random.default_rng(0)
    names = list(contenders)
    for _ in range(rounds):
        for name in order.permutation(names):
            call, count = contenders[name], repeats[name]
            start = time.perf_counter()
            for _ in range(count):
                out = call()
            jax.block_until_ready(out)
            times[name].append((time.perf_counter() - start) / count)
    return times


def table(title: str, times: dict[str, list[float]]) -> str:
    """Median and quartiles in microseconds, and the median of the ratios to the first contender."""
    first = next(iter(times.values()))
    lines = [
        title,
        f"  {'':24s} {'median us':>10s} {'quartiles':>19s} {'ratio':>7s} {'quartiles':>13s}",
    ]
    for name, values in times.items():
        q1, q2, q3 = (1e6 * q for q in statistics.quantiles(values, n=4))
        r1, r2, r3 = statistics.quantiles([v / f for v, f in zip(values, first, strict=True)], n=4)
        lines.append(f"  {name:24s} {q2:10.1f} {q1:9.1f} {q3:9.1f} {r2:7.3f} {r1:6.3f} {r3:6.3f}")
    return "\n".join(lines)
