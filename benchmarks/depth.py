"""What depth costs: ``python -m benchmarks.depth``.

A transformer of equal blocks, in an ``nn.Sequential``, which is unrolled, and in an ``nn.Stack``. First the first
step of training (forward, backward, Adam), each measurement in a process of its own with no compilation
cache: the processor's seconds, which neighbours on the machine lengthen least, and those of the clock; of the
latter the seconds in XLA's compiler, and the rest: drawing the initial values, tracing, lowering, one run.
Then the time of later steps, all in one process, taking turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import funcnets as fn
from benchmarks import harness
from benchmarks.models import Block
from funcnets import nn, optim

CONTENDERS = ("unrolled", "Stack", "Stack, remat")


class Deep(nn.Module):
    def __init__(self, kind: str, depth: int, width: int) -> None:
        super().__init__()
        blocks = [Block(width, 4) for _ in range(depth)]
        if kind == "unrolled":
            self.blocks = nn.Sequential(*blocks)
        else:
            self.blocks = nn.Stack(blocks, remat=kind.endswith("remat"))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: jax.Array) -> jax.Array:
        return self.norm(self.blocks(x))


def train_step(kind: str, depth: int, width: int, batch: int, length: int) -> Callable[[], Any]:
    """A compiled train step of a fresh model; it is compiled when first called."""
    fn.manual_seed(0)
    model = Deep(kind, depth, width)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    x, y = jax.random.normal(jax.random.key(0), (2, batch, length, width))

    @fn.jit
    def step(x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = fn.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.step(grads)
        return loss

    return lambda: step(x, y)


def first_step(kind: str, depth: int, *shape: int) -> list[float]:
    """Of the first step in this process: processor seconds, seconds, those in the compiler, and the rest."""
    in_compiler: list[float] = []

    def note(event: str, duration_secs: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            in_compiler.append(duration_secs)

    step = train_step(kind, depth, *shape)
    jax.monitoring.register_event_duration_secs_listener(note)
    start, busy = time.perf_counter(), time.process_time()
    jax.block_until_ready(step())
    seconds, compiler = time.perf_counter() - start, sum(in_compiler)
    return [time.process_time() - busy, seconds, compiler, seconds - compiler]


FIGURES = ("processor", "clock", "  compiler", "  rest")


def in_own_process(*question: object) -> list[float]:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.depth", "--first", *map(str, question)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(figure) for figure in run.stdout.split()[-len(FIGURES) :]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", nargs="+", help="measure this one in this process")
    parser.add_argument("--depths", type=int, nargs=2, default=(12, 48))
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--steps", type=int, nargs="*", default=(12,), help="depths of later steps")
    options = parser.parse_args()
    if options.first:
        kind, *numbers = options.first
        print(*first_step(kind, *map(int, numbers)))
        return
    shape = (options.width, options.batch, options.length)
    few, many = options.depths
    print(harness.machine())
    print(
        f"blocks of width {shape[0]}, batch {shape[1]}, length {shape[2]}; medians of {options.rounds}"
    )
    print(f"first step: {few} blocks, {many} blocks, their ratio")
    found: dict[Any, list[list[float]]] = {}
    for _ in range(options.rounds):
        for depth in (few, many):
            for kind in options.contenders:
                found.setdefault((kind, depth), []).append(in_own_process(kind, depth, *shape))
    for kind in options.contenders:
        for i, name in enumerate(FIGURES):
            a, b = (statistics.median(row[i] for row in found[kind, d]) for d in (few, many))
            print(f"  {kind:14s} {name:12s} {a:8.2f} s {b:8.2f} s {b / a:8.2f}")
    for depth in options.steps:
        steps = {kind: train_step(kind, depth, *shape) for kind in options.contenders}
        times = harness.interleave(steps, rounds=20, target=0.1)
        print(harness.table(f"later steps, {depth} blocks", times))


if __name__ == "__main__":
    main()
