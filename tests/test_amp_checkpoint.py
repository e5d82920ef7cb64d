"""``fn.checkpoint``: the memory that it saves, and that it changes no number."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np

import funcnets as fn
from funcnets import nn, optim
from funcnets.core.remat import compiler_options

POLICIES = jax.checkpoint_policies
X = jax.random.normal(jax.random.key(0), (2, 8, 8))


def encoder(depth: int, width: int = 8, dropout: float = 0.1) -> nn.Module:
    fn.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, 2, 4 * width, dropout=dropout, batch_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


def checkpointed(model: nn.Module, **options) -> nn.Module:
    for layer in model.layers:
        layer.forward = fn.checkpoint(layer.forward, **options)
    return model


def gradients(model: nn.Module, x: jax.Array):
    """The gradients of a scalar of the model as a function of its params, and those."""
    _, apply = fn.functionalize(model)
    params, state = fn.get_variables(model)

    def loss(params):
        out, _ = apply(params, state, x, rng=jax.random.key(1), training=True)
        return (out**3).sum()

    return jax.jit(jax.value_and_grad(loss), compiler_options=compiler_options()), params


def temporary_bytes(model: nn.Module, x: jax.Array) -> int:
    function, params = gradients(model, x)
    return function.lower(params).compile().memory_analysis().temp_size_in_bytes


class TestMemory:
    def test_of_24_blocks_at_least_half_is_saved(self):
        x = jnp.ones((4, 64, 16))
        stored = temporary_bytes(encoder(24, 16, 0.0), x)
        assert temporary_bytes(checkpointed(encoder(24, 16, 0.0)), x) < 0.5 * stored

    def test_a_policy_stores_some(self):
        x, some = jnp.ones((4, 64, 16)), POLICIES.dots_with_no_batch_dims_saveable
        nothing, products = (
            temporary_bytes(checkpointed(encoder(3, 16, 0.0), policy=policy), x)
            for policy in (None, some)
        )
        assert nothing < products

    def test_in_a_compiled_step(self):
        used = []
        for model in (encoder(4, 16, 0.0), checkpointed(encoder(4, 16, 0.0))):
            step = fn.jit(lambda x, m=model: fn.grad(lambda m: (m(x) ** 3).sum())(m))
            x = jnp.ones((4, 64, 16))
            step(x)
            program = step._last
            values = [c.data for c in program.donated], [c.data for c in program.kept]
            compiled = program.compiled.lower(*values, (x,), {}).compile()
            used.append(compiled.memory_analysis().temp_size_in_bytes)
        assert used[1] < 0.7 * used[0]


class TestNumbers:
    def test_values_and_gradients_with_dropout_are_those_without(self):
        (f, params), (g, _) = (gradients(m, X) for m in (encoder(1), checkpointed(encoder(1))))
        (value, grads), (again, those) = f(params), g(params)
        np.testing.assert_allclose(again, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(those), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)

    def test_draws_before_within_and_after_are_those_without(self):
        class Net(nn.Module):
            def __init__(self, wrap):
                super().__init__()
                self.drop, self.bn, self.wrap = nn.Dropout(), nn.BatchNorm1d(4), wrap

            def twice(self, x):
                return self.drop(self.bn(self.drop(x)))

            def forward(self, x):
                return self.drop(self.wrap(self.twice)(self.drop(x))) + self.wrap(self.drop)(x)

        x, outs = jnp.ones((64, 4)), []
        for wrap in (lambda f: f, fn.checkpoint):
            fn.manual_seed(0)
            model = Net(wrap)
            outs.append((model(x), fn.jit(model)(x), model.bn.running_mean.data))
        for plain, remat in zip(*outs, strict=True):
            np.testing.assert_allclose(remat, plain, rtol=1e-6)

    def test_steps_under_autocast(self):
        losses = []
        for wrap in (lambda f: f, fn.checkpoint):
            fn.manual_seed(0)
            model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout())
            model.forward = wrap(model.forward)
            optimizer = optim.SGD(model.parameters(), lr=0.1)

            @fn.jit
            def step(x, model=model, optimizer=optimizer):
                with fn.autocast():
                    loss, grads = fn.value_and_grad(lambda m: nn.MSELoss()(m(x), x))(model)
                optimizer.step(grads)
                return loss

            losses.append([float(step(X[0])) for _ in range(4)])
        assert losses[0][-1] != losses[0][0]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


class TestForms:
    def test_copies_have_blocks_of_their_own(self):
        model = checkpointed(encoder(1, dropout=0.0))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            np.testing.assert_array_equal(twin(X), model(X))
            for p in twin.parameters():
                p.data = jnp.zeros_like(p.data)
            assert (np.array(twin(X)) == 0).all() and not (np.array(model(X)) == 0).any()
        assert list(model.state_dict()) == list(encoder(1).state_dict())
        assert repr(model) == repr(encoder(1, dropout=0.0))

    def test_a_decorator_of_a_method(self):
        class Block(nn.Linear):
            @fn.checkpoint(policy=POLICIES.nothing_saveable)
            def forward(self, input):
                """Say hello."""
                return jnp.tanh(super().forward(input))

        class Again(nn.Linear):
            forward = fn.checkpoint(nn.Linear.forward)

        assert Block.forward.__doc__ == "Say hello."
        for block in (Block(3, 3), Again(3, 3)):
            _, apply = fn.functionalize(block)
            params, state = fn.get_variables(block)
            jaxpr = jax.make_jaxpr(lambda p: apply(p, state, jnp.ones(3))[0])(params)  # noqa: B023
            assert "checkpoint" in str(jaxpr) or "remat" in str(jaxpr)
            grads = fn.grad(lambda m: m(jnp.ones(3)).sum())(block)
            assert grads["weight"].shape == (3, 3)
