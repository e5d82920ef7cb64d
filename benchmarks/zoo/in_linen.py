"""flax.linen: shapes are found by running the model, variables are a dict, the step is plain ``jax.jit``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.zoo import in_jax
from benchmarks.zoo.recipes import RATE


class Residual(nn.Module):
    branch: Any
    shortcut: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.branch(x) + (x if self.shortcut is None else self.shortcut(x))


class BatchNorm(nn.Module):
    """Its mode follows from what is mutable, as there are no arguments to pass through ``Sequential``."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.BatchNorm(use_running_average=not self.is_mutable_collection("batch_stats"))(x)


class SelfAttention(nn.Module):
    heads: int
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mask = nn.make_causal_mask(x[..., 0], dtype=bool) if self.causal else None
        return nn.MultiHeadDotProductAttention(self.heads)(x, mask=mask)


class LanguageModel(nn.Module):
    vocabulary: int
    positions: int
    width: int
    body: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        token = nn.Embed(self.vocabulary, self.width)
        position = nn.Embed(self.positions, self.width)(jnp.arange(tokens.shape[1]))
        return token.attend(self.body(token(tokens) + position))


class Linen(in_jax.Peer):
    def relu(self) -> Any:
        return nn.relu

    def gelu(self) -> Any:
        return functools.partial(nn.gelu, approximate=False)

    def flatten(self) -> Any:
        return in_jax.flatten

    def average(self) -> Any:
        return in_jax.average

    def max_pool(self, kernel: int, stride: int | None = None, padding: int = 0) -> Any:
        window, strides = (kernel, kernel), (stride or kernel,) * 2
        pads: Any = in_jax.pairs(padding)
        return lambda x: nn.max_pool(x, window, strides, pads)

    def linear(self, a: int, b: int) -> Any:
        return nn.Dense(b)

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
        return nn.Conv(
            b,
            (kernel, kernel),
            strides=stride,
            padding=in_jax.pairs(padding),
            feature_group_count=groups,
            use_bias=bias,
        )

    def batch_norm(self, channels: int) -> Any:
        return BatchNorm()

    def layer_norm(self, width: int) -> Any:
        return nn.LayerNorm()

    def embedding(self, vocabulary: int, width: int) -> Any:
        return nn.Embed(vocabulary, width)

    def lstm(self, features: int, hidden: int, layers: int) -> Any:
        return nn.Sequential([nn.RNN(nn.OptimizedLSTMCell(hidden)) for _ in range(layers)])

    def attention(self, width: int, heads: int, causal: int) -> Any:
        return SelfAttention(heads, bool(causal))

    def language_model(self, vocabulary: int, positions: int, width: int, body: Any) -> Any:
        return LanguageModel(vocabulary, positions, width, body)

    def residual(self, branch: Any, shortcut: Any = None) -> Any:
        return Residual(branch, shortcut)

    def chain(self, *layers: Any) -> Any:
        return nn.Sequential(layers)

    def build(self, recipe: Callable[[Any], Any], x: np.ndarray) -> Any:
        net = recipe(self)
        variables = self.cast(jax.jit(net.init)(jax.random.key(0), self.array(x)))
        return net, jax.block_until_ready(variables)

    def count(self, model: Any) -> int:
        return sum(a.size for a in jax.tree.leaves(model[1]["params"]))

    def output(self, model: Any, x: np.ndarray) -> Callable[[], Any]:
        net, variables = model
        given, compiled = self.array(x), jax.jit(net.apply)
        return lambda: compiled(variables, given)

    def train(self, model: Any, x: np.ndarray, y: np.ndarray, loss: str) -> Callable[[], Any]:
        net, variables = model
        tx = optax.adam(RATE)
        batch = self.array(x), self.array(y)

        @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(params: Any, state: Any, memory: Any, x: jax.Array, y: jax.Array) -> Any:
            def objective(params: Any) -> Any:
                given = {"params": params, **state}
                out, new = net.apply(given, x, mutable=list(state))
                return in_jax.objective(loss, out, y), new

            (value, new), grads = jax.value_and_grad(objective, has_aux=True)(params)
            updates, memory = tx.update(grads, memory, params)
            return optax.apply_updates(params, updates), new, memory, value

        params, state = variables["params"], {k: v for k, v in variables.items() if k != "params"}
        held = [params, state, tx.init(params)]

        def call() -> Any:
            *held[:], value = step(*held, *batch)
            return value

        return call
