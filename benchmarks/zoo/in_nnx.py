"""flax.nnx, as its documentation writes a model and a train step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.zoo import in_jax
from benchmarks.zoo.recipes import RATE


class Residual(nnx.Module):
    def __init__(self, branch: Any, shortcut: Any) -> None:
        self.branch, self.shortcut = branch, shortcut

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.branch(x) + (x if self.shortcut is None else self.shortcut(x))


class SelfAttention(nnx.Module):
    def __init__(self, width: int, heads: int, causal: int, rngs: nnx.Rngs) -> None:
        self.causal = bool(causal)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        mask = nnx.make_causal_mask(x[..., 0], dtype=bool) if self.causal else None
        return self.attention(x, mask=mask)


class LanguageModel(nnx.Module):
    def __init__(
        self, vocabulary: int, positions: int, width: int, body: Any, rngs: nnx.Rngs
    ) -> None:
        self.token = nnx.Embed(vocabulary, width, rngs=rngs)
        self.position = nnx.Embed(positions, width, rngs=rngs)
        self.body = body

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.token(tokens) + self.position(jnp.arange(tokens.shape[1]))
        return self.token.attend(self.body(x))


class Nnx(in_jax.Peer):
    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(dtype)
        self.rngs = nnx.Rngs(0)

    def relu(self) -> Any:
        return nnx.relu

    def gelu(self) -> Any:
        return functools.partial(nnx.gelu, approximate=False)

    def flatten(self) -> Any:
        return in_jax.flatten

    def average(self) -> Any:
        return in_jax.average

    def max_pool(self, kernel: int, stride: int | None = None, padding: int = 0) -> Any:
        window, strides = (kernel, kernel), (stride or kernel,) * 2
        pads: Any = in_jax.pairs(padding)
        return lambda x: nnx.max_pool(x, window, strides, pads)

    def linear(self, a: int, b: int) -> Any:
        return nnx.Linear(a, b, rngs=self.rngs)

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
        return nnx.Conv(
            a,
            b,
            (kernel, kernel),
            strides=stride,
            padding=in_jax.pairs(padding),
            feature_group_count=groups,
            use_bias=bias,
            rngs=self.rngs,
        )

    def batch_norm(self, channels: int) -> Any:
        return nnx.BatchNorm(channels, rngs=self.rngs)

    def layer_norm(self, width: int) -> Any:
        return nnx.LayerNorm(width, rngs=self.rngs)

    def embedding(self, vocabulary: int, width: int) -> Any:
        return nnx.Embed(vocabulary, width, rngs=self.rngs)

    def lstm(self, features: int, hidden: int, layers: int) -> Any:
        sizes = [(features, hidden)] + [(hidden, hidden)] * (layers - 1)
        cells = [nnx.OptimizedLSTMCell(a, b, rngs=self.rngs) for a, b in sizes]
        return nnx.Sequential(*(nnx.RNN(cell, rngs=self.rngs) for cell in cells))

    def attention(self, width: int, heads: int, causal: int) -> Any:
        return SelfAttention(width, heads, causal, self.rngs)

    def language_model(self, vocabulary: int, positions: int, width: int, body: Any) -> Any:
        return LanguageModel(vocabulary, positions, width, body, self.rngs)

    def residual(self, branch: Any, shortcut: Any = None) -> Any:
        return Residual(branch, shortcut)

    def chain(self, *layers: Any) -> Any:
        return nnx.Sequential(*layers)

    def build(self, recipe: Callable[[Any], Any], x: np.ndarray) -> Any:
        model = recipe(self)
        nnx.update(model, self.cast(nnx.state(model)))
        jax.block_until_ready(nnx.state(model))
        return model

    def count(self, model: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    def output(self, model: Any, x: np.ndarray) -> Callable[[], Any]:
        given = self.array(x)
        model.eval()
        compiled = nnx.jit(lambda model, x: model(x))
        return lambda: compiled(model, given)

    def train(self, model: Any, x: np.ndarray, y: np.ndarray, loss: str) -> Callable[[], Any]:
        optimizer = nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param)
        given, target = self.array(x), self.array(y)

        @nnx.jit
        def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
            def objective(model: Any) -> jax.Array:
                return in_jax.objective(loss, model(x), y)

            value, grads = nnx.value_and_grad(objective)(model)
            optimizer.update(model, grads)
            return value

        return lambda: step(model, optimizer, given, target)
