"""How long ``fn.summary`` takes for a model of 70 billion parameters: ``python -m benchmarks.summary``.

The bar is 2 seconds. Nothing is drawn or allocated, so the size of the parameters does not matter; the number
of modules does.
"""

from __future__ import annotations

import resource
import time

import jax.numpy as jnp

import funcnets as fn
from tests.look.models import Decoder


def main() -> None:
    model = Decoder()
    for _ in range(5):
        start = time.perf_counter()
        table = fn.summary(model, (2, 128), dtypes=jnp.int32)
        traced = time.perf_counter()
        str(table)
        told = time.perf_counter()
        print(
            f"{table.totals.parameters:,} parameters: {traced - start:.3f} s, and {told - traced:.3f} s as text"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
