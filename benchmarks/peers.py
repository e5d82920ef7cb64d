"""The models of ``benchmarks.models`` in flax.nnx and equinox, each as its documentation writes a train step."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.models import attend
from funcnets import functional as F


def installed() -> dict[str, Callable[..., Callable[[], Any]]]:
    """The peers that can be imported, by name."""
    found: dict[str, Callable[..., Callable[[], Any]]] = {}
    if importlib.util.find_spec("flax"):
        found["flax.nnx, nnx.jit"] = nnx_step
    if importlib.util.find_spec("equinox"):
        found["equinox, filter_jit"] = equinox_step
    return found


def nnx_step(sizes: Any, x: jax.Array, y: jax.Array, rate: float) -> Callable[[], Any]:
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
            self.heads = heads
            self.norm1, self.norm2 = (
                nnx.LayerNorm(width, rngs=rngs),
                nnx.LayerNorm(width, rngs=rngs),
            )
            self.qkv, self.proj = (
                nnx.Linear(width, 3 * width, rngs=rngs),
                nnx.Linear(width, width, rngs=rngs),
            )
            self.up, self.down = (
                nnx.Linear(width, 4 * width, rngs=rngs),
                nnx.Linear(4 * width, width, rngs=rngs),
            )

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + self.proj(attend(self.qkv(self.norm1(x)), self.heads))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            kind, shape = sizes
            if kind == "mlp":
                layers = [nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(shape)]
                self.norm = None
            else:
                depth, width, heads = shape
                layers = [Block(width, heads, rngs) for _ in range(depth)]
                self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.layers = nnx.List(layers)

        def __call__(self, x: jax.Array) -> jax.Array:
            if self.norm is not None:
                for layer in self.layers:
                    x = layer(x)
                return self.norm(x)
            *hidden, last = self.layers
            for layer in hidden:
                x = F.relu(layer(x))
            return last(x)

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    return lambda: step(model, optimizer, x, y)


def equinox_step(sizes: Any, x: jax.Array, y: jax.Array, rate: float) -> Callable[[], Any]:
    import equinox as eqx

    class Block(eqx.Module):
        norm1: Any
        norm2: Any
        qkv: Any
        proj: Any
        up: Any
        down: Any
        heads: int = eqx.field(static=True)

        def __init__(self, width: int, heads: int, key: jax.Array) -> None:
            keys = jax.random.split(key, 4)
            self.heads = heads
            self.norm1, self.norm2 = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
            self.qkv = eqx.nn.Linear(width, 3 * width, key=keys[0])
            self.proj = eqx.nn.Linear(width, width, key=keys[1])
            self.up = eqx.nn.Linear(width, 4 * width, key=keys[2])
            self.down = eqx.nn.Linear(4 * width, width, key=keys[3])

        def __call__(self, x: jax.Array) -> jax.Array:  # one example: (length, width)
            qkv = jax.vmap(self.qkv)(jax.vmap(self.norm1)(x))
            x = x + jax.vmap(self.proj)(attend(qkv[None], self.heads)[0])
            return x + jax.vmap(self.down)(F.gelu(jax.vmap(self.up)(jax.vmap(self.norm2)(x))))

    class Model(eqx.Module):
        layers: list
        norm: Any

        def __init__(self, key: jax.Array) -> None:
            kind, shape = sizes
            if kind == "mlp":
                keys = jax.random.split(key, len(shape) - 1)
                pairs = itertools.pairwise(shape)
                self.layers = [
                    eqx.nn.Linear(a, b, key=k) for (a, b), k in zip(pairs, keys, strict=True)
                ]
                self.norm = None
            else:
                depth, width, heads = shape
                self.layers = [Block(width, heads, k) for k in jax.random.split(key, depth)]
                self.norm = eqx.nn.LayerNorm(width)

        def __call__(self, x: jax.Array) -> jax.Array:
            if self.norm is not None:
                for layer in self.layers:
                    x = layer(x)
                return jax.vmap(self.norm)(x)
            *hidden, last = self.layers
            for layer in hidden:
                x = F.relu(layer(x))
            return last(x)

    tx = optax.adam(rate)
    model = Model(jax.random.key(0))
    held = [model, tx.init(eqx.filter(model, eqx.is_inexact_array))]

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, model: Any, memory: Any) -> Any:
        x, y = batch
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(x) - y) ** 2))(
            model
        )
        updates, memory = tx.update(grads, memory, model)
        return eqx.apply_updates(model, updates), memory, loss

    def call() -> Any:
        held[0], held[1], loss = step((x, y), *held)
        return loss

    return call
