"""Lifts in each other, and eval_shape."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from tests.core.toys import Affine, Average, Chain, Counter, Net, Noise

X = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)


LIFTS = {
    "grad": lambda f, x: fn.grad(lambda x: f(x).sum())(x),
    "checkpoint": lambda f, x: fn.checkpoint(f)(x),
    "scan": lambda f, x: fn.scan(lambda c, r: (c, f(r)), 0, x)[1],
    "vmap": lambda f, x: fn.vmap(f)(x),
    "jit": lambda f, x: fn.jit(f)(x),
}


class Within(nn.Module):
    """One lift in another, around buffers and (with ``p``) random draws."""

    def __init__(self, outer, inner, p=0.5):
        super().__init__()
        self.outer, self.inner = LIFTS[outer], LIFTS[inner]
        self.affine, self.count = Affine(8, 8), Counter()
        self.noise, self.mean = Noise(p), Average(8)

    def body(self, x):
        return jnp.tanh(self.affine(self.mean(self.noise(self.count(x)))))

    def forward(self, x):
        return self.outer(lambda x: self.inner(self.body, x), x)


#: How often the body runs: a scan over the first axis of (2, 3, 2, 8), or over the second in another lift.
STEPS = {("scan", "scan"): 6, ("vmap", "scan"): 3}
REAL = [name for name in LIFTS if name != "jit"]
PAIRS = [(a, b) for a in REAL for b in REAL] + [("jit", "scan"), ("vmap", "jit"), ("jit", "jit")]
SOME = [("grad", "vmap"), ("vmap", "scan"), ("scan", "checkpoint"), ("checkpoint", "grad")]


class TestNesting:
    """Every lift in every other."""

    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3, 2, 8)), jnp.float32)

    @pytest.mark.parametrize(("outer", "inner"), PAIRS)
    def test_buffers(self, outer, inner):
        steps = STEPS.get((outer, inner), 2 if "scan" in (outer, inner) else 1)
        model = Within(outer, inner, p=0)
        step = fn.jit(lambda x: model(x))
        outs = [step(self.x) for _ in range(3)]
        assert all(o.shape == self.x.shape and bool(jnp.isfinite(o).all()) for o in outs)
        assert model.count.count.item() == 3 * steps
        mean = np.asarray(self.x).mean((0, 1, 2))
        if "scan" not in (outer, inner):  # of three calls, half of the way each
            np.testing.assert_allclose(model.mean.mean, mean * (1 - 0.5**3), rtol=1e-4, atol=1e-6)
        else:
            assert not (model.mean.mean == 0).any()

    @pytest.mark.parametrize(("outer", "inner"), [*SOME, ("scan", "scan"), ("vmap", "vmap")])
    def test_keys(self, outer, inner):
        model = Noise()
        step = fn.jit(lambda x: LIFTS[outer](lambda x: LIFTS[inner](lambda x: model(x) * x, x), x))
        x = jnp.ones((2, 3, 128))
        rows = [np.asarray(r).tobytes() for _ in range(3) for r in step(x).reshape(-1, 128)]
        assert len(set(rows)) == (1 if {"grad"} == {outer, inner} else 18)
        fn.manual_seed(0)
        assert np.asarray(step(x)).reshape(-1, 128)[0].tobytes() == rows[0]

    @pytest.mark.parametrize(("outer", "inner"), [("grad", "scan"), ("vmap", "checkpoint")])
    def test_the_pure_face(self, outer, inner):
        model = Within(outer, inner)
        apply = jax.jit(fn.functionalize(model).apply, static_argnames="training")
        params, state = fn.get_variables(model)
        (out, new), (again, _) = (
            apply(params, state, self.x, rng=jax.random.key(0), training=True) for _ in "12"
        )
        np.testing.assert_array_equal(out, again)
        assert out.shape == self.x.shape
        assert new["count"]["count"].item() == (2 if "scan" in (outer, inner) else 1)
        assert not (new["mean"]["mean"] == 0).any()
        assert model.count.count.item() == 0 and (model.mean.mean == 0).all()

    @pytest.mark.parametrize(("outer", "inner"), [("grad", "scan"), ("scan", "vmap")])
    def test_the_eager_face_computes_the_same(self, outer, inner):
        fn.manual_seed(0)
        eager = Within(outer, inner)
        expected = [eager(self.x) for _ in range(2)]
        fn.manual_seed(0)
        compiled = Within(outer, inner)
        step = fn.jit(lambda x: compiled(x))
        for e in expected:
            np.testing.assert_allclose(step(self.x), e, rtol=1e-5, atol=1e-5)
        for a, b in zip(compiled.state_dict().values(), eager.state_dict().values(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    def test_a_training_step_of_everything(self):
        model = Net()

        @fn.jit
        def step(xs):
            def loss(m):
                body = lambda total, x: (total + fn.checkpoint(m)(x).var(), None)  # noqa: E731
                return fn.scan(body, jnp.zeros(()), xs)[0]

            value, grads = fn.value_and_grad(loss)(model)
            params, _ = fn.get_variables(model)
            fn.set_variables(model, jax.tree.map(lambda p, g: p - 0.05 * g, params, grads))
            return value

        losses = [float(step(jnp.stack([X] * 3))) for _ in range(30)]
        assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


class TestEvalShape:
    def test_a_trillion_parameters(self):
        model = Affine(10**6, 10**6)
        out = fn.eval_shape(model, jax.ShapeDtypeStruct((2, 10**6), jnp.float32))
        assert (out.shape, out.dtype) == ((2, 10**6), jnp.float32)
        assert not model.weight.has_value

    @pytest.mark.parametrize("lift", ["grad", "checkpoint", "scan", "vmap", "jit"])
    def test_through_the_lifts(self, lift):
        model = Chain(Affine(10**6, 10**6), Counter(), Noise())
        x = jax.ShapeDtypeStruct((2, 3, 10**6), jnp.float32)
        out = fn.eval_shape(lambda x: model(LIFTS[lift](model, x)), x)
        assert out.shape == x.shape
        assert not model[0].weight.has_value and model[1].count.item() == 0

    def test_values_made_in_a_deeper_trace_stay_there(self):
        model = Affine(3, 3)
        with jax.check_tracer_leaks():
            out = fn.eval_shape(
                lambda x: model(jax.lax.scan(lambda h, _: (model(h), None), x, length=2)[0]), X
            )
        assert out.shape == (4, 3)

    def test_the_random_stream_stands_still(self):
        noise = Noise()
        fn.manual_seed(1)
        expected = noise(X)
        fn.manual_seed(1)
        fn.eval_shape(noise, X)
        np.testing.assert_array_equal(noise(X), expected)

    def test_constants_and_structures(self):
        model = Affine(3, 2)
        out = fn.eval_shape(lambda m, x, how: {how: [m(x), None]}, model, X, how="y")
        assert out["y"][0].shape == (4, 2) and out["y"][1] is None

    def test_errors_come_with_the_module(self):
        with pytest.raises(TypeError) as caught:
            fn.eval_shape(Net(), jnp.ones((2, 9)))
        assert caught.value.__notes__[0].startswith("In module 'first' of Net")

    def test_in_a_pure_call_the_mode_is_the_calls(self):
        seen = []

        class Asks(nn.Module):
            def forward(self, x):
                fn.eval_shape(lambda x: seen.append(self.training) or x, x)
                return x

        for mode in (True, False):
            fn.functionalize(Asks()).apply({}, {}, X, training=mode)
        assert seen == [True, False]
