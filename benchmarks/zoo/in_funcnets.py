"""Funcnets: the stateful face (``fn.jit``) and the pure one (``jax.jit``, optax, donated arrays)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnets as fn
from benchmarks.zoo.recipes import RATE
from benchmarks.zoo.torch_names import TorchNames
from funcnets import nn, optim
from funcnets.nn import functional as F


class Stateful(TorchNames):
    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(nn, F)
        fn.manual_seed(0)
        self.dtype = jnp.dtype(dtype)

    def array(self, a: np.ndarray) -> jax.Array:
        return jnp.asarray(a, self.dtype if a.dtype == np.float32 else None)

    def build(self, recipe: Callable[[Any], nn.Module], x: np.ndarray) -> nn.Module:
        model = recipe(self).to(self.dtype)
        jax.block_until_ready(fn.get_variables(model))
        return model

    def objective(self, kind: str, out: jax.Array, y: jax.Array) -> jax.Array:
        if kind == "mean_square":
            y = y.astype(jnp.float32)
        return self.loss(kind, out.astype(jnp.float32), y)

    def output(self, model: nn.Module, x: np.ndarray) -> Callable[[], Any]:
        given, compiled = self.array(x), fn.jit(model.eval())
        return lambda: compiled(given)

    def train(self, model: nn.Module, x: np.ndarray, y: np.ndarray, loss: str) -> Callable[[], Any]:
        optimizer = optim.Adam(model.parameters(), lr=RATE)
        given, target = self.array(x), self.array(y)

        @fn.jit
        def step(x: jax.Array, y: jax.Array) -> jax.Array:
            value, grads = fn.value_and_grad(lambda m: self.objective(loss, m(x), y))(model)
            optimizer.step(grads)
            return value

        return lambda: step(given, target)


class Pure(Stateful):
    def output(self, model: nn.Module, x: np.ndarray) -> Callable[[], Any]:
        apply = jax.jit(functools.partial(fn.functionalize(model).apply, training=False))
        params, state = fn.get_variables(model)
        given = self.array(x)
        return lambda: apply(params, state, given)[0]

    def train(self, model: nn.Module, x: np.ndarray, y: np.ndarray, loss: str) -> Callable[[], Any]:
        _, apply = fn.functionalize(model)
        tx = optax.adam(RATE)
        given, target = self.array(x), self.array(y)

        @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
        def step(params: Any, state: Any, memory: Any, x: jax.Array, y: jax.Array) -> Any:
            def objective(params: Any) -> Any:
                out, new = apply(params, state, x, training=True)
                return self.objective(loss, out, y), new

            (value, state), grads = jax.value_and_grad(objective, has_aux=True)(params)
            updates, memory = tx.update(grads, memory, params)
            return optax.apply_updates(params, updates), state, memory, value

        params, state = jax.tree.map(jnp.copy, fn.get_variables(model))
        held = [params, state, tx.init(params)]

        def call() -> Any:
            *held[:], value = step(*held, given, target)
            return value

        return call
