"""grad, checkpoint, scan, vmap and eval_shape: state and keys go through them, alone and in each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError
from tests.core.toys import Affine, Average, Chain, Counter, Noise, Traces, tree_equal

X = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
ONES = jnp.ones((4, 64))


class TestGrad:
    def test_names_values_and_the_scalar(self):
        model = Affine(3, 2)
        value, grads = fn.value_and_grad(lambda m: (m(X) ** 2).mean())(model)
        params, _ = fn.get_variables(model)
        apply = fn.functionalize(model).apply
        expected = jax.value_and_grad(lambda p: (apply(p, {}, X)[0] ** 2).mean())(params)
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        assert jax.tree.structure(grads) == jax.tree.structure(params) and type(grads) is dict
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected[1]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)

    def test_buffers_that_are_written_are_kept(self):
        model = Chain(Affine(3, 3), Average(3), Counter())
        fn.grad(lambda m: m(X).sum())(model)
        assert model[2].count.item() == 1 and not (model[1].mean == 0).any()

    def test_has_aux(self):
        model = Affine(3, 2)
        (value, aux), grads = fn.value_and_grad(
            lambda m: (m(X).sum(), {"y": m(X), "n": 3}), has_aux=True
        )(model)
        assert (
            aux["y"].shape == (4, 2)
            and aux["n"] == 3
            and value.shape == ()
            and set(grads) == {"weight", "bias"}
        )
        grads, aux = fn.grad(lambda m: (m(X).sum(), "text"), has_aux=True)(model)
        assert aux == "text"
        with pytest.raises(DTypeError, match=r"must return .scalar, aux., but gave"):
            fn.grad(lambda m: m(X).sum(), has_aux=True)(model)

    def test_argnums(self):
        a, b, x = Affine(3, 3), Affine(3, 2), X
        loss = lambda x, m, k, n: n(m(x)).sum() * k  # noqa: E731
        ga, gb = fn.grad(loss, argnums=(1, 3))(x, a, 2.0, b)
        assert ga["weight"].shape == (3, 3) and gb["weight"].shape == (2, 3)
        np.testing.assert_allclose(gb["bias"], 8.0)
        gx = fn.grad(loss)(x, a, 2.0, b)
        np.testing.assert_allclose(gx, jax.grad(lambda x: loss(x, a, 2.0, b))(x), rtol=1e-6)
        (last,) = fn.grad(loss, argnums=(-1,))(x, a, 2.0, b)
        np.testing.assert_allclose(last["weight"], gb["weight"])
        gx, gm = fn.grad(loss, argnums=(0, 1))(x, a, 2.0, b)
        assert gx.shape == x.shape and tree_equal(gm, ga)
        gd = fn.grad(lambda d, m: m(d["x"][0]).sum())({"x": [x]}, a)
        assert gd["x"][0].shape == x.shape

    def test_keyword_arguments_pass_through(self):
        model = Affine(3, 2)
        grads = fn.grad(lambda m, *, x, scale: m(x).sum() * scale)(model, x=X, scale=2.0)
        np.testing.assert_allclose(grads["bias"], 8.0)

    def test_refusals(self):
        model, shared = Affine(3, 2), Affine(3, 2)
        shared.weight = model.weight
        with pytest.raises(
            ArgumentError, match="argnums=2, but the function was called with 1 positional"
        ):
            fn.grad(lambda m: m(X).sum(), argnums=2)(model)
        with pytest.raises(ArgumentError, match="share a parameter"):
            fn.grad(lambda m, n: m(X).sum() + n(X).sum(), argnums=(0, 1))(model, shared)
        with pytest.raises(DTypeError, match="holds a Affine within a container"):
            fn.grad(lambda ms: ms[0](X).sum())([model])
        with pytest.raises(TypeError, match="scalar"):
            fn.grad(lambda m: m(X))(model)

    def test_second_derivatives(self):
        model = Affine(3, 1, bias=False)

        def sharpness(m):
            grads = fn.grad(lambda m: (m(X) ** 2).sum())(m)
            return (grads["weight"] ** 2).sum()

        got = fn.grad(sharpness)(model)["weight"]
        gram = 2 * np.asarray(X).T @ np.asarray(X)
        np.testing.assert_allclose(got, 2 * np.asarray(model.weight) @ gram @ gram, rtol=1e-4)

    def test_of_arrays_with_modules_closed_over(self):
        model = Chain(Counter(), Affine(3, 2))
        got = fn.grad(lambda x: model(x).sum())(X)
        np.testing.assert_allclose(
            got, np.broadcast_to(np.asarray(model[1].weight).sum(0), X.shape), rtol=1e-6
        )
        assert model[0].count.item() == 1

    def test_parameters_of_others_are_constants(self):
        teacher, student = Affine(3, 2), Affine(3, 2)
        grads = fn.grad(lambda m: ((m(X) - teacher(X)) ** 2).sum())(student)
        assert set(grads) == {"weight", "bias"} and (grads["bias"] != 0).all()

    def test_an_exception_writes_nothing(self):
        model = Counter()

        def loss(m):
            m(X)
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            fn.grad(loss)(model)
        assert model.count.item() == 0

    def test_random_layers(self):
        model = Noise()
        fn.manual_seed(2)
        a = fn.grad(lambda x: model(x).sum())(ONES)
        b = fn.grad(lambda x: model(x).sum())(ONES)
        fn.manual_seed(2)
        c = fn.grad(lambda x: model(x).sum())(ONES)
        np.testing.assert_array_equal(a, c)
        assert not (a == b).all() and set(np.unique(a)) == {0.0, 1.0}

    def test_the_stream_stands_still_without_random_layers(self):
        noise, model = Noise(), Affine(3, 2)
        fn.manual_seed(2)
        expected = noise(ONES)
        fn.manual_seed(2)
        fn.grad(lambda m: m(X).sum())(model)
        np.testing.assert_array_equal(noise(ONES), expected)


class TestCheckpoint:
    def model(self):
        return Chain(Affine(3, 8), Average(8), Counter(), Noise(), Affine(8, 2))

    @pytest.mark.parametrize("compiled", [False, True])
    def test_equals_plain_with_gradients_buffers_and_keys(self, compiled):
        results = []
        for remat in (False, True):
            fn.manual_seed(1)
            model = self.model()
            run = fn.checkpoint(model) if remat else model

            def step(x, run=run, model=model):
                return fn.value_and_grad(lambda m: (run(x) ** 2).mean())(model)

            model[3].p = 0  # the noise of a lift is another one
            results.append(((fn.jit(step) if compiled else step)(X), dict(model.state_dict())))
        for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert results[1][1]["2.count"].item() == 1

    def test_the_backward_pass_sees_the_same_noise(self):
        model = Noise()
        out, grad = fn.value_and_grad(lambda x: fn.checkpoint(model)(x * x).sum())(ONES)
        assert out == (grad / 2).sum() and 0 < out < ONES.size

    def test_noise_differs_from_call_to_call_and_repeats_with_the_seed(self):
        model = Chain(Noise())
        fn.manual_seed(1)
        first, second = fn.checkpoint(model)(ONES), fn.checkpoint(model)(ONES)
        fn.manual_seed(1)
        np.testing.assert_array_equal(fn.checkpoint(model)(ONES), first)
        assert not (first == second).all()

    def test_it_recomputes(self):
        model = Chain(Affine(3, 3))
        model.register_module("1", nn.Module())
        model[1].forward = jnp.tanh
        count = lambda run: str(jax.make_jaxpr(fn.grad(lambda x: run(x).sum()))(X)).count("= tanh")  # noqa: E731
        assert (count(model), count(fn.checkpoint(model))) == (1, 2)
        keep = fn.checkpoint(model, policy=jax.checkpoint_policies.everything_saveable)
        assert tree_equal(fn.grad(lambda x: keep(x).sum())(X), fn.grad(lambda x: model(x).sum())(X))

    def test_arguments_of_all_kinds(self):
        @fn.checkpoint
        def block(m, x, *, scale, how, flags):
            return m(x["a"]) * scale if how == "scaled" and flags[0] is None else None

        model = Affine(3, 2)
        got = block(model, {"a": X}, scale=2.0, how="scaled", flags=[None, 1])
        np.testing.assert_allclose(got, 2 * model(X), rtol=1e-6)
        assert block.__name__ == "block"


class TestScan:
    def test_buffers_are_carried(self):
        model = Chain(Counter(), Average(3, momentum=0.5))
        xs = jnp.stack([X, 2 * X, 3 * X])
        expected = Chain(Counter(), Average(3, momentum=0.5))
        _, ys = fn.scan(lambda c, x: (c, model(x)), 0, xs)
        loop = [expected(x) for x in xs]
        np.testing.assert_allclose(ys, jnp.stack(loop), rtol=1e-6)
        assert model[0].count.item() == 3
        np.testing.assert_allclose(model[1].mean.data, expected[1].mean.data, rtol=1e-6)

    def test_keys_differ_per_step_and_module(self):
        model = Chain(Noise(), Noise())
        _, (a, b) = fn.scan(lambda c, x: (c, (model[0](x), model[1](x))), 0, jnp.ones((5, 64)))
        rows = [np.asarray(r).tobytes() for r in (*a, *b)]
        assert len(set(rows)) == 10
        _, again = fn.scan(lambda c, x: (c, model[0](x)), 0, jnp.ones((5, 64)))
        assert not set(rows) & {np.asarray(r).tobytes() for r in again}

    @pytest.mark.parametrize("unroll", [1, 2, True])
    @pytest.mark.parametrize("reverse", [False, True])
    def test_reverse_and_unroll_as_lax(self, reverse, unroll):
        model = Affine(3, 3)
        weight, bias = model.weight.data, model.bias.data
        got = fn.scan(
            lambda h, x: (model(h) + x, h), jnp.zeros(3), X, reverse=reverse, unroll=unroll
        )
        pure = lambda h, x: (h @ weight.T + bias + x, h)  # noqa: E731
        expected = jax.lax.scan(pure, jnp.zeros(3), X, reverse=reverse)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)

    def test_without_xs(self):
        model = Counter()
        h, ys = fn.scan(lambda h, _: (model(h) + 1, None), jnp.zeros(()), length=4)
        assert (h.item(), ys, model.count.item()) == (4.0, None, 4)

    def test_of_length_zero(self):
        model = Chain(Counter(), Noise())
        h, ys = fn.scan(lambda h, x: (model(h), x), jnp.ones(2), jnp.ones((0, 3)))
        assert h.tolist() == [1.0, 1.0] and ys.shape == (0, 3) and model[0].count.item() == 0

    def test_gradients_through_it(self):
        model = Chain(Affine(3, 3), Counter())

        def loss(m, wrap):
            return fn.scan(lambda h, x: (jnp.tanh(wrap(m)(h) + x), None), jnp.zeros(3), X)[0].sum()

        plain = fn.grad(lambda m: loss(m, lambda m: m))(model)
        remat = fn.grad(lambda m: loss(m, lambda m: fn.checkpoint(m, prevent_cse=False)))(model)

        def unrolled(m):
            h = jnp.zeros(3)
            for x in X:
                h = jnp.tanh(m(h) + x)
            return h.sum()

        expected = fn.grad(unrolled)(model)
        for a, b, c in zip(*map(jax.tree.leaves, (plain, remat, expected)), strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-6)
        assert model[1].count.item() == 12

    def test_the_body_is_traced_a_fixed_number_of_times(self):
        model = Chain(Counter(), Noise())
        body = Traces(lambda h, x: (model(h), x))
        fn.scan(body, X, jnp.ones((50, 2)))
        assert (
            body.count <= 6
        )  # once for the buffer, once for the key, and what lax.scan itself asks for

    def test_refusals(self):
        with pytest.raises(
            ArgumentError, match=r"one common length, or length=, but got lengths \[2, 3\]"
        ):
            fn.scan(lambda h, x: (h, x), 0.0, (jnp.ones(2), jnp.ones(3)))
        with pytest.raises(ArgumentError, match=r"but got lengths \[\]"):
            fn.scan(lambda h, x: (h, x), 0.0)
        with pytest.raises(
            ArgumentError, match="leading axis of xs, but one of them is a single number"
        ):
            fn.scan(lambda h, x: (h, x), 0.0, jnp.ones(()))


class TestVmap:
    def test_parameters_are_shared_and_examples_mapped(self):
        model = Affine(3, 2)
        np.testing.assert_allclose(fn.vmap(model)(X), model(X), rtol=1e-6)

    def test_floating_buffers_are_averaged_and_counters_counted_once(self):
        model = Chain(Counter(), Average(3, momentum=1.0))
        fn.vmap(model)(jnp.stack([X, 3 * X]))
        assert model[0].count.item() == 1
        np.testing.assert_allclose(model[1].mean.data, 2 * X.mean(0), rtol=1e-5)

    def test_boolean_buffers(self):
        class Seen(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("seen", jnp.zeros((), bool))

            def forward(self, x):
                self.seen = x.sum() > 2
                return x

        model = Seen()
        fn.vmap(model)(jnp.asarray([[0.0, 1.0], [5.0, 5.0]]))
        assert model.seen.item() is True and model.seen.dtype == jnp.bool_

    def test_every_example_has_its_own_key(self):
        model = Noise()
        first, second = fn.vmap(model)(jnp.ones((6, 64))), fn.vmap(model)(jnp.ones((6, 64)))
        rows = [np.asarray(r).tobytes() for r in (*first, *second)]
        assert len(set(rows)) == 12

    @pytest.mark.parametrize(
        ("in_axes", "out_axes"), [(0, 0), (1, 0), (0, 1), ((1,), 1), ([0], 0), (-1, 0)]
    )
    def test_axes_as_jax(self, in_axes, out_axes):
        model = Chain(Counter(), Average(4).eval())
        x = jnp.arange(16.0).reshape(4, 4)
        got = fn.vmap(model, in_axes, out_axes)(x)
        axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        np.testing.assert_array_equal(got, jax.vmap(lambda x: x, axes, out_axes)(x))

    def test_modules_among_the_arguments(self):
        model = Affine(3, 2)
        pair = lambda m, x, y: m(x) + y  # noqa: E731
        expected = model(X) + 1.0
        for axes in (0, (None, 0, None), (0, 0, None)):
            y = jnp.ones((4, 2)) if axes == 0 else jnp.ones(2)
            np.testing.assert_allclose(fn.vmap(pair, axes)(model, X, y), expected, rtol=1e-6)
        with pytest.raises(ArgumentError, match="in_axes has 2 entries for 3 positional arguments"):
            fn.vmap(pair, (None, 0))(model, X, 1.0)

    def test_keyword_arguments_are_mapped(self):
        got = fn.vmap(lambda x, *, y: x * y)(X, y=jnp.arange(4.0))
        np.testing.assert_array_equal(got, X * jnp.arange(4.0)[:, None])

    def test_axis_size_and_axis_name(self):
        model = Noise()
        out = fn.vmap(lambda: model(jnp.ones(64)), axis_size=3)()
        assert len({np.asarray(r).tobytes() for r in out}) == 3
        np.testing.assert_allclose(
            fn.vmap(lambda x: jax.lax.pmean(x, "batch"), axis_name="batch")(X),
            jnp.broadcast_to(X.mean(0), X.shape),
            rtol=1e-6,
        )

    def test_in_itself(self):
        model = Chain(Counter(), Noise(), Average(64, momentum=1.0))
        noise = fn.vmap(fn.vmap(lambda x: (model(x), model[1](x))[1]))(jnp.ones((3, 5, 64)))
        assert model[0].count.item() == 1 and 0.2 < model[2].mean.data.mean() < 0.8
        assert len({np.asarray(r).tobytes() for r in noise.reshape(15, 64)}) == 15

    def test_per_example_gradients(self):
        model = Chain(Affine(3, 1), Counter())
        grads = fn.vmap(lambda x: fn.grad(lambda m: m(x).sum())(model))(X)
        np.testing.assert_allclose(grads["0"]["weight"][:, 0], X, rtol=1e-6)
        assert model[1].count.item() == 1
