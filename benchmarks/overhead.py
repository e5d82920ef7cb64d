"""What the framework costs around a model: ``python -m benchmarks.overhead [rounds] [case ...]``.

A forward pass, and an Adam step with donated buffers, of MLPs and a transformer that are small enough for
the framework to be seen: by hand on a plain dict, through the pure face, through the stateful face, and
the same in flax.nnx, equinox and torch where they are installed (the ``bench`` extra). Ratios are to the
hand-written call of the same round.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import funcnets as fn
from benchmarks import harness, models, peers
from funcnets import nn, optim

RATE = 1e-3
Calls = dict[str, Callable[[], Any]]


def mean_square(out: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((out - y) ** 2)


def by_hand(forward: Any, params: Any, x: jax.Array, y: jax.Array) -> Calls:
    tx = optax.adam(RATE)
    compiled = jax.jit(forward)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, memory: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda p: mean_square(forward(p, x), y))(params)
        updates, memory = tx.update(grads, memory, params)
        return optax.apply_updates(params, updates), memory, loss

    held = [jax.tree.map(jnp.copy, params), tx.init(params)]

    def call() -> Any:
        held[0], held[1], loss = step(held[0], held[1], x, y)
        return loss

    return {"forward": lambda: compiled(held[0], x), "Adam step": call}


def pure(model: nn.Module, params: Any, x: jax.Array, y: jax.Array) -> Calls:
    _, apply = fn.functionalize(model)
    return by_hand(lambda p, x: apply(p, {}, x, training=True)[0], params, x, y)


def stateful(model: nn.Module, x: jax.Array, y: jax.Array) -> Calls:
    optimizer = optim.Adam(model.parameters(), lr=RATE)
    forward = fn.jit(lambda x: model(x))

    @fn.jit
    def step(x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = fn.value_and_grad(lambda m: mean_square(m(x), y))(model)
        optimizer.step(grads)
        return loss

    return {"forward": lambda: forward(x), "Adam step": lambda: step(x, y)}


Case = tuple[Callable[[], nn.Module], Any, tuple[int, ...], tuple[int, ...], Any]


def cases() -> dict[str, Case]:
    """Name to (model, forward by hand, input shape, output shape, arguments for the peers)."""
    found: dict[str, Case] = {}
    for name, sizes in (
        ("MLP 8-16-32-4", [8, 16, 32, 4]),
        ("MLP of 48 layers of 16", [16] * 49),
        ("MLP of 200 layers of 16", [16] * 201),
    ):
        make = functools.partial(models.MLP, sizes)
        shapes = (32, sizes[0]), (32, sizes[-1])
        found[f"{name}, batch 32"] = (make, models.mlp_by_hand, *shapes, ("mlp", sizes))
    shape = (4, 32, 64)
    found["transformer, 12 layers of 64, batch 4 x 32"] = (
        lambda: models.Transformer(12, 64, 4),
        models.transformer_by_hand(4),
        shape,
        shape,
        ("transformer", (12, 64, 4)),
    )
    return found


def contenders(case: Case) -> dict[str, Calls]:
    """The calls of every contender of a case."""
    make, forward, in_shape, out_shape, sizes = case
    fn.manual_seed(0)
    model = make()
    params, _ = fn.get_variables(model)
    x = jax.random.normal(jax.random.key(0), in_shape)
    y = jax.random.normal(jax.random.key(1), out_shape)
    found = {
        "by hand, plain dict": by_hand(forward, params, x, y),
        "funcnets, pure": pure(model, params, x, y),
        "funcnets, stateful": stateful(model, x, y),
    }
    for calls in peers.installed():
        found |= calls(sizes, x, y, RATE)
    return found


def main(rounds: int = 40, only: Sequence[str] = ()) -> str:
    """The tables, which are also printed as they are made."""
    tables = []
    for title, case in cases().items():
        if only and not any(word in title for word in only):
            continue
        calls = contenders(case)
        for what in ("forward", "Adam step"):
            times = harness.interleave({name: c[what] for name, c in calls.items()}, rounds=rounds)
            tables.append(harness.table(f"{title}: {what}", times))
            print("\n" + tables[-1], flush=True)
    return "\n\n".join(tables)


if __name__ == "__main__":
    print(harness.machine(), flush=True)
    main(*harness.arguments())
