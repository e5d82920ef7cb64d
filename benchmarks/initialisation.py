"""How long a model takes to get its first values: ``python -m benchmarks.initialisation``.

Every figure is from a process of its own, with no compilation cache: the seconds beyond the imports until
all parameters of a transformer of 24 blocks (d = 256) exist, and those that ``jax.jit(init)`` takes to
trace and compile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

PREPARE = """
import time, jax, jax.numpy as jnp, numpy as np
import funcnets as fn
from benchmarks.models import Transformer
jax.devices()  # starting the backend is not initialisation
start = time.perf_counter()
model = Transformer(24, 256, 4)
"""
QUESTIONS = {
    "stateful, cold": "values = fn.get_variables(model); jax.block_until_ready(values)",
    "pure, cold": "values = fn.functionalize(model).init(jax.random.key(0)); jax.block_until_ready(values)",
    "jax.jit(init), trace and compile": (
        "init = jax.jit(fn.functionalize(model).init); init.lower(jax.random.key(0)).compile()"
    ),
}


def measure(code: str) -> float:
    program = PREPARE + code + "\nprint(time.perf_counter() - start)"
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return float(run.stdout.split()[-1])


def main(rounds: int = 5) -> None:
    times: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in range(rounds):
        for name, code in QUESTIONS.items():
            times[name].append(measure(code))
    print("24 blocks, d = 256, 18.9 million parameters; seconds beyond the imports, a process each")
    for name, values in times.items():
        print(
            f"  {name:34s} median {statistics.median(values):.3f}  min {min(values):.3f}  max {max(values):.3f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
