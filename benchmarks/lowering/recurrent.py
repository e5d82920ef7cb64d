"""A direction of a recurrent layer: where the input is projected, and how the gradients are formed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.lowering.measure import compare
from funcnets.functional._lower_recurrent import scan_cell
from funcnets.functional.linear import linear
from funcnets.functional.recurrent_cell import GRU, LSTM, TANH, Kind, Weights

KINDS = {"rnn": TANH, "lstm": LSTM, "gru": GRU}
#: (time, batch, input, hidden)
SHAPES = [(64, 32, 128, 128), (64, 32, 16, 128), (32, 64, 256, 256), (32, 8, 32, 64)]


def plain(kind: Kind, inside: bool) -> Callable[..., Any]:
    """A loop as one writes it, with JAX's own gradients; the input is projected in it or before it."""

    def form(x: jax.Array, *arrays: jax.Array) -> jax.Array:
        weights = Weights(*arrays)

        def project(x: jax.Array) -> jax.Array:
            return linear(x, weights.ih, weights.b_ih)

        def step(state: Any, x: jax.Array) -> Any:
            x = project(x) if inside else x
            state = kind.step(x, linear(state[0], weights.hh, weights.b_hh), state)
            return state, state[0]

        return lax.scan(step, zeros(kind, x, weights), x if inside else project(x))[1]

    return form


def used(kind: Kind) -> Callable[..., Any]:
    def form(x: jax.Array, *arrays: jax.Array) -> jax.Array:
        weights = Weights(*arrays)
        return scan_cell(kind, False, x, zeros(kind, x, weights), weights, None)[0]

    return form


def zeros(kind: Kind, x: jax.Array, weights: Weights) -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros((x.shape[1], size)) for size in kind.state_sizes(weights))


def main(rounds: int = 20) -> None:
    for name, kind in KINDS.items():
        forms = {"hoisted": plain(kind, False), "inside": plain(kind, True), "funcnets": used(kind)}
        for t, n, inputs, hidden in SHAPES:
            gates = kind.gates * hidden
            shapes = [(t, n, inputs), (gates, inputs), (gates, hidden), (gates,), (gates,)]
            keys = jax.random.split(jax.random.key(0), len(shapes))
            args = tuple(0.1 * jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
            title = f"{name} T{t} N{n} I{inputs} H{hidden}"
            compare(title, forms, args, rounds=rounds, chosen="funcnets")
