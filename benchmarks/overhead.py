"""What the framework costs around a train step: ``python -m benchmarks.overhead``.

One Adam step with donated buffers, for a tiny MLP, a deep one and a transformer: by hand on a plain dict,
through the pure face, through the stateful face, and the same in flax.nnx and equinox where they are
installed (the ``bench`` extra). Ratios are to the hand-written step of the same round.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import funcnets as fn
from benchmarks import harness, models, peers
from funcnets import nn, optim

RATE = 1e-3


def mean_square(out: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((out - y) ** 2)


def by_hand(forward: Any, params: Any, x: jax.Array, y: jax.Array) -> Callable[[], Any]:
    tx = optax.adam(RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, memory: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda p: mean_square(forward(p, x), y))(params)
        updates, memory = tx.update(grads, memory, params)
        return optax.apply_updates(params, updates), memory, loss

    held = [jax.tree.map(jnp.copy, params), tx.init(params)]

    def call() -> Any:
        held[0], held[1], loss = step(held[0], held[1], x, y)
        return loss

    return call


def pure(model: nn.Module, params: Any, x: jax.Array, y: jax.Array) -> Callable[[], Any]:
    _, apply = fn.functionalize(model)
    return by_hand(lambda p, x: apply(p, {}, x, training=True)[0], params, x, y)


def stateful(model: nn.Module, x: jax.Array, y: jax.Array) -> Callable[[], Any]:
    optimizer = optim.Adam(model.parameters(), lr=RATE)

    @fn.jit
    def step(x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = fn.value_and_grad(lambda m: mean_square(m(x), y))(model)
        optimizer.step(grads)
        return loss

    return lambda: step(x, y)


def cases() -> dict[
    str, tuple[Callable[[], nn.Module], Any, tuple[int, ...], tuple[int, ...], Any]
]:
    """Name to (model, forward by hand, input shape, output shape, arguments for the peers)."""
    tiny, deep = [8, 16, 32, 4], [16] * 49
    return {
        "MLP 8-16-32-4, batch 32": (
            lambda: models.MLP(tiny),
            models.mlp_by_hand,
            (32, 8),
            (32, 4),
            ("mlp", tiny),
        ),
        "MLP 48 layers of 16, batch 32": (
            lambda: models.MLP(deep),
            models.mlp_by_hand,
            (32, 16),
            (32, 16),
            ("mlp", deep),
        ),
        "transformer, 12 layers of 64, batch 4 x 32": (
            lambda: models.Transformer(12, 64, 4),
            models.transformer_by_hand(4),
            (4, 32, 64),
            (4, 32, 64),
            ("transformer", (12, 64, 4)),
        ),
    }


def main(rounds: int = 60) -> None:
    print(harness.machine(), flush=True)
    for title, (make, forward, in_shape, out_shape, sizes) in cases().items():
        fn.manual_seed(0)
        model = make()
        params, _ = fn.get_variables(model)
        x = jax.random.normal(jax.random.key(0), in_shape)
        y = jax.random.normal(jax.random.key(1), out_shape)
        contenders = {
            "by hand, plain dict": by_hand(forward, params, x, y),
            "funcnets, pure": pure(model, params, x, y),
            "funcnets, stateful": stateful(model, x, y),
        } | {name: make_peer(sizes, x, y, RATE) for name, make_peer in peers.installed().items()}
        print(
            "\n"
            + harness.table(f"{title}: Adam step", harness.interleave(contenders, rounds=rounds)),
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
