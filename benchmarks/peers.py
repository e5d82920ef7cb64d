"""The models of ``benchmarks.models`` in flax.nnx, equinox and torch, each as its documentation writes it.

A peer is a function of the sizes, an input, a target and a learning rate. It gives the calls to be measured,
by name: a forward pass and an Adam step for each way in which the library can be compiled.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.models import attend
from funcnets import functional as F

Calls = dict[str, dict[str, Callable[[], Any]]]


def installed() -> list[Callable[..., Calls]]:
    """The peers that can be imported."""
    peers = {"flax": nnx_calls, "equinox": equinox_calls, "torch": torch_calls}
    return [calls for name, calls in peers.items() if importlib.util.find_spec(name)]


def nnx_calls(sizes: Any, x: jax.Array, y: jax.Array, rate: float) -> Calls:
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

    def forward(model: Any, x: jax.Array) -> jax.Array:
        return model(x)

    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    jit_forward, jit_step = nnx.jit(forward), nnx.jit(step)
    graph, held = nnx.split((model, optimizer))
    held = [jax.tree.map(jnp.copy, held)]

    @jax.jit
    def split_forward(state: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, state)[0](x)

    @functools.partial(jax.jit, donate_argnums=0)
    def split_step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        both = nnx.merge(graph, state)
        loss = step(*both, x, y)
        return nnx.state(both), loss

    def call_split_step() -> Any:
        held[0], loss = split_step(held[0], x, y)
        return loss

    # Last: what is given to cached_partial must not be changed by other means.
    other = nnx.clone(model)
    other_optimizer = nnx.Optimizer(other, optax.adam(rate), wrt=nnx.Param)
    cached_forward = nnx.cached_partial(jit_forward, other)
    cached_step = nnx.cached_partial(nnx.jit(step), other, other_optimizer)
    return {
        "flax.nnx, nnx.jit": {
            "forward": lambda: jit_forward(model, x),
            "Adam step": lambda: jit_step(model, optimizer, x, y),
        },
        "flax.nnx, cached_partial": {
            "forward": lambda: cached_forward(x),
            "Adam step": lambda: cached_step(x, y),
        },
        "flax.nnx, split and merge": {
            "forward": lambda: split_forward(held[0], x),
            "Adam step": call_split_step,
        },
    }


def equinox_calls(sizes: Any, x: jax.Array, y: jax.Array, rate: float) -> Calls:
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

    def loss_of(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    def update(model: Any, memory: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = eqx.filter_value_and_grad(loss_of)(model, x, y)
        updates, memory = tx.update(grads, memory, model)
        return eqx.apply_updates(model, updates), memory, loss

    filter_forward = eqx.filter_jit(lambda model, x: jax.vmap(model)(x))

    @eqx.filter_jit(donate="all-except-first")
    def filter_step(batch: Any, model: Any, memory: Any) -> Any:
        return update(model, memory, *batch)

    params, static = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    def partition_forward(params: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(params, static))(x)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def partition_step(params: Any, memory: Any, x: jax.Array, y: jax.Array) -> Any:
        model, memory, loss = update(eqx.combine(params, static), memory, x, y)
        return eqx.filter(model, eqx.is_inexact_array), memory, loss

    def copy(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, tree)

    whole = [copy(model), tx.init(params)]
    parted = [copy(params), tx.init(params)]

    def call_filter_step() -> Any:
        whole[0], whole[1], loss = filter_step((x, y), *whole)
        return loss

    def call_partition_step() -> Any:
        parted[0], parted[1], loss = partition_step(*parted, x, y)
        return loss

    return {
        "equinox, filter_jit": {
            "forward": lambda: filter_forward(whole[0], x),
            "Adam step": call_filter_step,
        },
        "equinox, partition": {
            "forward": lambda: partition_forward(parted[0], x),
            "Adam step": call_partition_step,
        },
    }


def torch_calls(sizes: Any, x: jax.Array, y: jax.Array, rate: float) -> Calls:
    import torch
    from torch import nn
    from torch.nn import functional as T

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            qkv = self.qkv(self.norm1(x)).chunk(3, -1)
            q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in qkv)
            out = T.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(out.transpose(1, 2).flatten(2))
            return x + self.down(T.gelu(self.up(self.norm2(x))))

    kind, shape = sizes
    layers: list[nn.Module] = []
    if kind == "mlp":
        for a, b in itertools.pairwise(shape):
            layers += [nn.Linear(a, b), nn.ReLU()]
        layers.pop()
    else:
        depth, width, heads = shape
        layers = [*(Block(width, heads) for _ in range(depth)), nn.LayerNorm(width)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    inputs, targets = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(y))

    def step() -> Any:
        optimizer.zero_grad()
        loss = T.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def forward() -> Any:
        with torch.no_grad():
            return model(inputs)

    return {"torch, eager": {"forward": forward, "Adam step": step}}
