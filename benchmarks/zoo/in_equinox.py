"""Equinox: models of one example under ``jax.vmap``, states threaded, everything donated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.zoo import in_jax
from benchmarks.zoo.recipes import RATE


class Each(eqx.Module):
    """A layer of vectors, for vectors and for sequences of them."""

    layer: Any

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        sequence = x.ndim == (1 if isinstance(self.layer, eqx.nn.Embedding) else 2)
        return (jax.vmap(self.layer) if sequence else self.layer)(x)


class Residual(eqx.nn.StatefulLayer):
    branch: Any
    shortcut: Any

    def __call__(self, x: jax.Array, state: Any, *, key: Any = None) -> Any:
        out, state = self.branch(x, state)
        if self.shortcut is not None:
            x, state = self.shortcut(x, state)
        return out + x, state


class Lstm(eqx.Module):
    cells: list[eqx.nn.LSTMCell]

    def __call__(self, xs: jax.Array, *, key: Any = None) -> jax.Array:
        for cell in self.cells:

            def step(carry: Any, x: jax.Array, cell: Any = cell) -> Any:
                carry = cell(x, carry)
                return carry, carry[0]

            zeros = jnp.zeros(cell.hidden_size, xs.dtype)
            _, xs = jax.lax.scan(step, (zeros, zeros), xs)
        return xs


class SelfAttention(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    causal: bool = eqx.field(static=True)

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool)) if self.causal else None
        return self.attention(x, x, x, mask=mask)


class LanguageModel(eqx.nn.StatefulLayer):
    token: eqx.nn.Embedding
    position: eqx.nn.Embedding
    body: Any

    def __call__(self, tokens: jax.Array, state: Any, *, key: Any = None) -> Any:
        x = jax.vmap(self.token)(tokens) + self.position.weight[: len(tokens)]
        x, state = self.body(x, state)
        return x @ self.token.weight.T, state


class Equinox(in_jax.Peer):
    channels_last = False

    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self.last = jax.random.key(0)

    def key(self) -> jax.Array:
        self.last, key = jax.random.split(self.last)
        return key

    def relu(self) -> Any:
        return eqx.nn.Lambda(jax.nn.relu)

    def gelu(self) -> Any:
        return eqx.nn.Lambda(functools.partial(jax.nn.gelu, approximate=False))

    def flatten(self) -> Any:
        return eqx.nn.Lambda(jnp.ravel)

    def average(self) -> Any:
        return eqx.nn.Lambda(lambda x: x.mean((1, 2)))

    def max_pool(self, kernel: int, stride: int | None = None, padding: int = 0) -> Any:
        return eqx.nn.MaxPool2d(kernel, stride or kernel, padding)

    def linear(self, a: int, b: int) -> Any:
        return Each(eqx.nn.Linear(a, b, key=self.key()))

    def conv(
        self,
        a: int,
        b: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> Any:
        return eqx.nn.Conv2d(
            a, b, kernel, stride, padding, groups=groups, use_bias=bias, key=self.key()
        )

    def batch_norm(self, channels: int) -> Any:
        return eqx.nn.BatchNorm(channels, axis_name="batch", mode="batch")

    def layer_norm(self, width: int) -> Any:
        return Each(eqx.nn.LayerNorm(width))

    def embedding(self, vocabulary: int, width: int) -> Any:
        return Each(eqx.nn.Embedding(vocabulary, width, key=self.key()))

    def lstm(self, features: int, hidden: int, layers: int) -> Any:
        sizes = [(features, hidden)] + [(hidden, hidden)] * (layers - 1)
        return Lstm([eqx.nn.LSTMCell(a, b, key=self.key()) for a, b in sizes])

    def attention(self, width: int, heads: int, causal: int) -> Any:
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        layer = eqx.nn.MultiheadAttention(heads, width, **biases, key=self.key())  # pyright: ignore
        return SelfAttention(layer, bool(causal))

    def language_model(self, vocabulary: int, positions: int, width: int, body: Any) -> Any:
        token = eqx.nn.Embedding(vocabulary, width, key=self.key())
        position = eqx.nn.Embedding(positions, width, key=self.key())
        return LanguageModel(token, position, body)  # pyright: ignore

    def residual(self, branch: Any, shortcut: Any = None) -> Any:
        return Residual(branch, shortcut)  # pyright: ignore

    def chain(self, *layers: Any) -> Any:
        return eqx.nn.Sequential(layers)

    def build(self, recipe: Callable[[Any], Any], x: np.ndarray) -> Any:
        model = self.cast(eqx.nn.make_with_state(lambda: recipe(self))())
        jax.block_until_ready(eqx.filter(model, eqx.is_array))
        return model

    def count(self, model: Any) -> int:
        return sum(a.size for a in jax.tree.leaves(eqx.filter(model[0], eqx.is_inexact_array)))

    def output(self, model: Any, x: np.ndarray) -> Callable[[], Any]:
        given = self.array(x)
        net, state = eqx.nn.inference_mode(model[0]), model[1]

        @eqx.filter_jit
        def compiled(net: Any, state: Any, x: jax.Array) -> jax.Array:
            return jax.vmap(net, axis_name="batch", in_axes=(0, None))(x, state)[0]

        return lambda: compiled(net, state, given)

    def train(self, model: Any, x: np.ndarray, y: np.ndarray, loss: str) -> Callable[[], Any]:
        tx = optax.adam(RATE)
        batch = self.array(x), self.array(y)
        held = [*model, tx.init(eqx.filter(model[0], eqx.is_inexact_array))]

        @eqx.filter_jit(donate="all-except-first")
        def step(batch: Any, net: Any, state: Any, memory: Any) -> Any:
            @functools.partial(eqx.filter_value_and_grad, has_aux=True)
            def objective(net: Any) -> Any:
                run = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
                out, new = run(batch[0], state)
                return in_jax.objective(loss, out, batch[1]), new

            (value, new), grads = objective(net)
            updates, memory = tx.update(grads, memory, eqx.filter(net, eqx.is_inexact_array))
            return eqx.apply_updates(net, updates), new, memory, value

        def call() -> Any:
            *held[:], value = step(batch, *held)
            return value

        return call
