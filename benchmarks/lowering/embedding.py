"""Looking rows up: ``python -m benchmarks.lowering embedding``.

``jnp`` is ``jnp.take``, ``in use`` the public function (a row of NaN for an index out of range), ``clip``
and ``promise`` the gathers that do not look, ``loop`` the gradient added up row by row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.lowering import measure
from funcnets import functional as F

SIZES = [  # rows, length of a row, shape of the indices
    (65, 128, (64, 128)),
    (100, 64, (32, 64)),
    (1000, 128, (32, 64)),
    (10000, 256, (8, 128)),
]


def gather(mode: str):
    def form(weight: jax.Array, index: jax.Array) -> jax.Array:
        return weight.at[index].get(mode=mode, wrap_negative_indices=False)

    return form


@jax.custom_vjp
def loop(weight: jax.Array, index: jax.Array) -> jax.Array:
    return F.embedding(index, weight)


def _forward(weight: jax.Array, index: jax.Array):
    return loop(weight, index), (weight, index.ravel())


def _backward(kept: tuple[jax.Array, jax.Array], g: jax.Array):
    weight, index = kept
    rows = g.reshape(-1, weight.shape[1])

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        row = lax.dynamic_index_in_dim(total, index[i]) + lax.dynamic_index_in_dim(rows, i)
        return lax.dynamic_update_index_in_dim(total, row, index[i], 0)

    return lax.fori_loop(0, index.size, add, jnp.zeros_like(weight)), None


loop.defvjp(_forward, _backward)


def main(rounds: int = 15) -> None:
    forms = {
        "jnp": lambda weight, index: jnp.take(weight, index, axis=0),
        "in use": lambda weight, index: F.embedding(index, weight),
        "clip": gather("clip"),
        "promise": gather("promise_in_bounds"),
        "loop": loop,
    }
    for rows, length, shape in SIZES:
        weight = jax.random.normal(jax.random.key(0), (rows, length))
        index = jax.random.randint(jax.random.key(1), shape, 0, rows)
        title = f"{rows} x {length}, {shape}"
        measure.compare(title, forms, (weight, index), rounds=rounds, chosen="in use")
