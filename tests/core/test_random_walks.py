"""Random programs of a user, run eagerly and under ``fn.jit``: the same outputs and the same state.

This is what catches a stale trace, a lost write, a donated array that somebody holds, or a stream
that advances in one face and not in the other.
"""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from tests.core.toys import Affine, Average, Chain, Counter, Noise

XS = [
    jnp.asarray(np.random.default_rng(i).normal(size=(n, 3)), jnp.float32)
    for i, n in enumerate((2, 2, 5))
]


class User:
    """A model, a compiled or an eager way to use it, and things held from earlier."""

    def __init__(self, compiled):
        fn.manual_seed(0)
        self.model = Chain(Affine(3, 3), Average(3), Noise(0.3), Counter())
        self.compiled, self.steps, self.held, self.log = compiled, {}, [], []

    def step(self, name, function):
        """``function`` under fn.jit, one and the same for the same name, or as it is."""
        if not self.compiled:
            return function
        return self.steps.setdefault(name, fn.jit(function))

    # --- what a user does ---

    def call(self, rng):
        x = XS[rng.integers(3)]
        self.log.append(self.step("call", lambda m, x: m(x))(self.model, x))

    def closure(self, rng):
        x = XS[rng.integers(3)]
        self.log.append(self.step("closure", lambda x: self.model(x))(x))

    def train(self, rng):
        def step(model, x):
            value, grads = fn.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
            params, _ = fn.get_variables(model)
            fn.set_variables(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
            return value

        self.log.append(self.step("train", step)(self.model, XS[rng.integers(3)]))

    def scan(self, rng):
        step = self.step("scan", lambda m, xs: fn.scan(lambda c, x: (m(c) + x, None), XS[0], xs)[0])
        self.log.append(step(self.model, jnp.stack([XS[0], XS[1]])))

    def mode(self, rng):
        list(self.model.modules())[rng.integers(5)].train(bool(rng.integers(2)))

    def freeze(self, rng):
        cells = list(self.model.parameters())
        cells[rng.integers(len(cells))].requires_grad = bool(rng.integers(2))

    def momentum(self, rng):
        self.model[1].momentum = float(rng.choice([0.25, 0.5]))

    def replace(self, rng):
        self.model.set_submodule("0", Affine(3, 3, bias=bool(rng.integers(2))))

    def initialise(self, rng):
        nn.init.normal_(self.model[0].weight, std=0.5)

    def assign(self, rng):
        self.model[3].count = int(rng.integers(10))
        self.model[1].mean.data = jnp.full(3, float(rng.integers(3)))

    def in_place(self, rng):
        self.model[0].weight *= 0.5

    def hold(self, rng):
        arrays = [
            *self.model.state_dict().values(),
            self.model[3].count.data,
            *jax.tree.leaves(fn.get_variables(self.model)),
        ]
        self.held.append((arrays, [np.array(a) for a in arrays]))

    def load(self, rng):
        if self.held:
            arrays = self.held[rng.integers(len(self.held))][1]
            saved = self.model.state_dict()
            if len(saved) <= len(arrays) and all(
                a.shape == s.shape for a, s in zip(arrays, saved.values(), strict=False)
            ):
                self.model.load_state_dict(dict(zip(saved, arrays, strict=False)))

    def clone(self, rng):
        self.model = copy.deepcopy(self.model)

    def fail(self, rng):
        def step(model, x):
            model(x)
            raise ZeroDivisionError

        before = {k: np.array(v) for k, v in self.model.state_dict().items()}
        # Only the compiled call puts the stream back; so without noise.
        p, self.model[2].p = self.model[2].p, 0
        run = fn.jit(step) if self.compiled else step
        with pytest.raises(ZeroDivisionError):
            run(self.model, XS[0]) if self.compiled else self.eager_failure()
        self.model[2].p = p
        for name, value in self.model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    def eager_failure(self):
        handle = self.model.register_forward_hook(lambda m, a, out: 1 / 0)
        try:
            self.model(XS[0])
        finally:
            handle.remove()

    def seed(self, rng):
        fn.manual_seed(int(rng.integers(3)))

    ACTIONS = (
        call, call, closure, closure, train, train, scan, mode, mode, freeze, momentum, replace, initialise, assign,
        in_place, hold, load, clone, fail, seed,
    )  # fmt: skip

    def walk(self, seed, length):
        rng = np.random.default_rng(seed)
        for _ in range(length):
            action = self.ACTIONS[rng.integers(len(self.ACTIONS))]
            action(self, rng)
            for arrays, copies in self.held:
                for array, kept in zip(arrays, copies, strict=True):
                    np.testing.assert_array_equal(
                        array, kept, err_msg=f"held before {action.__name__}"
                    )
            self.log.append({k: np.array(v) for k, v in self.model.state_dict().items()})
        return self.log


@pytest.mark.parametrize("seed", range(4))
def test_eager_and_compiled_agree(seed):
    eager, compiled = User(False).walk(seed, 20), User(True).walk(seed, 20)
    for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
