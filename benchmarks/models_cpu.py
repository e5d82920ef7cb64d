"""Whole models on the CPU, one Adam step each: ``python -m benchmarks.models_cpu [rounds] [names...]``.

The models of ``benchmarks.zoo`` in torch (eager, ``torch.optim.Adam``, as many threads as this process has
cores), in funcnets by both faces, in flax.nnx and in equinox: same layers, same number of parameters, same
loss, same batch. The steps take turns in one process, and the ratios are to torch's of the same round. A slow
model gets fewer rounds, so that no table takes longer than about two minutes.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import jax

from benchmarks import harness, zoo
from benchmarks.zoo.recipes import CASES, Case

CONTENDERS = [
    "torch eager",
    "funcnets, stateful",
    "funcnets, pure",
    "flax.nnx, nnx.jit",
    "equinox, filter_jit",
]
NAMES = [name for name in CASES if name not in ("blocks24", "resnet50", "gpt2")]
SECONDS = 60.0  # of measuring for one table, beside the compilation and the warm-up


def steps(case: Case, names: list[str]) -> dict[str, Any]:
    """A train step for each contender, after the check that all have equally many parameters."""
    x, y = case.data()
    found = {}
    for name in names:
        kit = zoo.kit(name)
        model = kit.build(case.recipe, x)
        # torch's LSTM (and so funcnets') has a second bias; the other libraries have one.
        expected = case.parameters - (0 if hasattr(kit, "nn") else case.second_biases)
        if kit.count(model) != expected:
            raise AssertionError(
                f"{case.title}: {name} has {kit.count(model)} parameters, expected {expected}"
            )
        found[name] = kit.train(model, x, y, case.loss)
    return found


def measure(case: Case, rounds: int, names: list[str]) -> str:
    """The table of one model, with what the first step took (trace, compile and run)."""
    contenders, first = steps(case, names), []
    slowest = 0.0
    for name, step in contenders.items():
        start = time.perf_counter()
        jax.block_until_ready(step())
        first.append(f"{name} {time.perf_counter() - start:.1f}")
        start = time.perf_counter()
        jax.block_until_ready(step())
        slowest += max(0.02, time.perf_counter() - start)
    rounds = max(5, min(rounds, int(SECONDS / slowest)))
    times = harness.interleave(contenders, rounds=rounds, warmup=1 if slowest > 0.5 else 3)
    title = f"{case.title}: Adam step, {case.parameters} parameters, {rounds} rounds"
    return f"{harness.table(title, times)}\n  first step, seconds: {', '.join(first)}"


def main(rounds: int = 40, *models: str) -> str:
    """Measure the named models (all by default); print the tables as they come and return them."""
    names, missing = zoo.installed(CONTENDERS)
    cores = len(os.sched_getaffinity(0))
    text = [
        f"{harness.machine()}; torch eager with {cores} threads",
        *([missing] if missing else []),
    ]
    print(*text, sep="\n", flush=True)
    for model in models or NAMES:
        text.append("\n" + measure(CASES[model], rounds, names))
        print(text[-1], flush=True)
    return "\n".join(text)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 40, *sys.argv[2:])
