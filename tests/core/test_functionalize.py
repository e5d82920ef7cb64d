"""The pure face: trees, keys, nesting, and moving values between the two faces."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import init, nn
from funcnets.errors import DTypeError, RngError, StateLeakError, TreeError
from tests.core.toys import Affine, Average, Chain, Counter, Net, Noise, tree_equal

X = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)
KEY = jax.random.key(3)


class TestInit:
    def test_buffers_too_have_initializers_and_keys(self):
        class Holder(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Buffer((5,), init.normal())

        one = fn.functionalize(Holder()).init(KEY)[1]["table"]
        other = fn.functionalize(Holder()).init(jax.random.key(4))[1]["table"]
        assert not (one == other).any()

    def test_the_value_is_the_initializers_with_the_folded_key(self):
        rule = init.orthogonal(2.0)

        class Holder(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Module()
                self.inner.w = nn.Parameter((3, 3), rule)

        params, _ = fn.functionalize(Holder()).init(KEY)
        key = fn.child_key(fn.child_key(KEY, "inner"), "w")
        np.testing.assert_array_equal(params["inner"]["w"], rule(key, (3, 3)))

    def test_other_kinds_of_keys(self):
        for impl in ("rbg", "unsafe_rbg"):
            key = jax.random.key(0, impl=impl)
            init_ = fn.functionalize(Net()).init
            eager, compiled = init_(key), jax.jit(init_)(key)
            assert tree_equal(eager, compiled)
            assert float(jnp.std(eager[0]["first"]["weight"])) > 0

    def test_a_hundred_equal_layers_compile_to_a_small_program(self):
        init_ = fn.functionalize(Chain(*(Affine(8, 8) for _ in range(100)))).init
        small = fn.functionalize(Chain(*(Affine(8, 8) for _ in range(4)))).init
        # What makes numbers of random bits.
        count = lambda f: str(jax.make_jaxpr(f)(KEY)).count("bitcast_convert_type[")  # noqa: E731
        assert 1 <= count(init_) == count(small) <= 4

    def test_reinitialised_parameters(self):
        model = Affine(2, 2)
        nn.init.constant_(model.weight, 0.25)
        params, _ = fn.functionalize(model).init(KEY)
        assert (params["weight"] == 0.25).all()

    def test_eval_shape_of_a_giant(self):
        init_, apply = fn.functionalize(Affine(10**6, 10**6))
        params, state = jax.eval_shape(init_, KEY)
        assert params["weight"].shape == (10**6, 10**6)
        out, _ = jax.eval_shape(apply, params, state, jax.ShapeDtypeStruct((2, 10**6), jnp.float32))
        assert out.shape == (2, 10**6)


class TestApply:
    def test_state_is_threaded(self):
        _, apply = fn.functionalize(Counter())
        state = {"count": jnp.zeros((), jnp.int32)}
        for _ in range(3):
            _, state = apply({}, state, X)
        assert state["count"].item() == 3

    def test_state_that_is_only_read_comes_back_as_it_is(self):
        _, apply = fn.functionalize(Average(3))
        state = {"mean": jnp.ones(3)}
        out, new = apply({}, state, X, training=False)
        assert new["mean"] is state["mean"]
        np.testing.assert_array_equal(out, X - 1)

    def test_frozen_parameters_come_back_too(self):
        model = Affine(3, 2).requires_grad_(False)
        params, state = fn.functionalize(model).init(KEY)
        assert tree_equal(fn.functionalize(model).apply(params, state, X)[1], state)

    def test_the_same_rng_gives_the_same_noise_and_another_one_another(self):
        _, apply = fn.functionalize(Noise())
        draw = lambda key: apply({}, {}, jnp.ones(64), rng=key, training=True)[0]  # noqa: E731
        assert tree_equal(draw(KEY), draw(KEY))
        assert not tree_equal(draw(KEY), draw(jax.random.key(4)))
        assert tree_equal(draw(KEY), jax.jit(draw)(KEY))

    def test_streams_differ_per_module_and_per_draw(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = Noise(), Noise()

            def forward(self, x):
                return [
                    self.a(x),
                    self.a(x),
                    self.b(x),
                    x * jax.random.uniform(self.make_rng(), x.shape),
                ]

        outs, _ = fn.functionalize(Twice()).apply({}, {}, jnp.ones(64), rng=KEY, training=True)
        assert len({np.asarray(o).tobytes() for o in outs}) == 4

    def test_anothers_draws_do_not_disturb_a_modules_stream(self):
        alone = fn.functionalize(Chain(nn.Module(), Noise())[1]).apply
        both = fn.functionalize(Chain(Noise(), Noise())).apply
        first, _ = both({}, {}, jnp.ones(64), rng=KEY, training=True)
        quiet = Chain(Noise(p=0), Noise())
        second, _ = fn.functionalize(quiet).apply({}, {}, jnp.ones(64), rng=KEY, training=True)
        mask, _ = fn.functionalize(Chain(Noise(), Noise(p=0))).apply(
            {}, {}, jnp.ones(64), rng=KEY, training=True
        )
        assert tree_equal(first, mask * second)
        assert alone({}, {}, jnp.ones(64), rng=KEY, training=True)[0].shape == (64,)

    def test_other_kinds_of_rng_keys(self):
        out, _ = fn.functionalize(Noise()).apply(
            {}, {}, jnp.ones(64), rng=jax.random.key(0, impl="rbg"), training=True
        )
        assert 0 < out.sum() < 64

    @pytest.mark.parametrize("rng", [0, jnp.zeros(2, jnp.uint32), jax.random.split(KEY)])
    def test_a_bad_rng(self, rng):
        with pytest.raises(RngError, match="rng must be one typed PRNG key"):
            fn.functionalize(Noise()).apply({}, {}, X, rng=rng, training=True)

    def test_static_training_under_jit(self):
        apply = jax.jit(fn.functionalize(Average(3)).apply, static_argnames="training")
        state = {"mean": jnp.zeros(3)}
        assert not tree_equal(apply({}, state, X, training=True)[1], state)
        assert tree_equal(apply({}, state, X, training=False)[1], state)

    def test_a_foreign_parameter_is_refused(self):
        foreign = Affine(3, 3)

        class Uses(nn.Module):
            def forward(self, x):
                return foreign(x)

        with pytest.raises(
            StateLeakError, match=r"reads a Parameter of shape \(3, 3\) that is not part of"
        ):
            fn.functionalize(Uses()).apply({}, {}, X)

    def test_apply_inside_a_forward(self):
        """A module may run another's pure face, a hypernetwork say."""
        inner = Chain(Affine(3, 3), Noise())
        run = fn.functionalize(inner).apply

        class Hyper(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(jnp.ones(()))
                self.count = Counter()

            def forward(self, x, params):
                params = jax.tree.map(lambda p: p * self.scale, params)
                out, _ = run(params, {}, self.count(x), training=False)
                return out

        model, params = Hyper(), fn.functionalize(inner).init(KEY)[0]
        expected = run(params, {}, X, training=False)[0]
        np.testing.assert_array_equal(model(X, params), expected)
        np.testing.assert_allclose(fn.jit(lambda p: model(X, p))(params), expected, rtol=1e-6)
        assert model.count.count.item() == 2

    def test_flat_dotted_names_fit_as_well(self):
        model = Net().eval()
        params, state = fn.get_variables(model)
        flat = dict(fn.core.layer.flatten(params))
        out, _ = fn.functionalize(model).apply(flat, state, X, training=False)
        np.testing.assert_array_equal(out, model(X))

    def test_mixed_precision_takes_the_params_given(self):
        params, _ = fn.functionalize(Affine(3, 2)).init(KEY)
        params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
        out, _ = fn.functionalize(Affine(3, 2)).apply(params, {}, X.astype(jnp.bfloat16))
        assert out.dtype == jnp.bfloat16

    def test_what_only_looks_like_an_array(self):
        params, _ = jax.eval_shape(fn.functionalize(Affine(3, 2)).init, KEY)
        with pytest.raises(
            TreeError, match=r"weight must be an array of shape \(2, 3\), but is float32\[2, 3\]"
        ):
            fn.functionalize(Affine(3, 2)).apply(params, {}, X)

    def test_a_layer_added_later_is_asked_for(self):
        model = Chain(Affine(3, 3))
        layer = fn.functionalize(model)
        params, state = layer.init(KEY)
        model.register_module("1", Affine(3, 2))
        with pytest.raises(TreeError, match=r"missing: 1\.weight, 1\.bias"):
            layer.apply(params, state, X)
        assert layer.apply(*layer.init(KEY), X)[0].shape == (4, 2)

    def test_something_else_than_a_module(self):
        with pytest.raises(DTypeError, match="functionalize takes a Module, but got function"):
            fn.functionalize(lambda x: x)

    def test_threads_do_not_share_frames(self):
        import concurrent.futures

        model = Net()
        init_, apply = fn.functionalize(model)
        keys = jax.random.split(KEY, 8)

        def work(key):
            params, state = init_(key)
            return apply(params, state, X, rng=key, training=True)

        alone = [work(key) for key in keys]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            together = list(pool.map(work, keys))
        assert all(tree_equal(a, b) for a, b in zip(alone, together, strict=True))


class TestVariables:
    def test_they_follow_training(self):
        model = Counter()
        model(X)
        assert fn.get_variables(model)[1]["count"].item() == 1

    def test_they_survive_donated_steps(self):
        model = Counter()
        step = fn.jit(lambda x: model(x))
        step(X)
        _, state = fn.get_variables(model)
        step(X)
        step(X)
        assert state["count"].item() == 1

    def test_setting_keeps_the_callers_arrays(self):
        model, mine = Affine(2, 1), jnp.ones((1, 2))
        fn.set_variables(model, {"weight": mine, "bias": np.zeros(1)})
        cells = list(model.parameters())

        @fn.jit
        def update():
            for cell in cells:
                cell.data = cell.data + 1

        update()
        update()
        assert (mine == 1).all() and (model.weight == 3).all() and (model.bias == 2).all()

    def test_integers_for_what_is_trained(self):
        model = Affine(2, 1)
        before = np.array(model.bias)
        with pytest.raises(DTypeError, match="can require gradients, but this one is int32"):
            fn.set_variables(model, {"bias": np.zeros(1), "weight": np.ones((1, 2), np.int32)})
        np.testing.assert_array_equal(model.bias, before)

    def test_setting_in_a_call_is_a_write(self):
        model = Affine(2, 1)

        @fn.jit
        def halve():
            params, _ = fn.get_variables(model)
            fn.set_variables(model, jax.tree.map(lambda p: p / 2, params))

        before = np.array(model.weight)
        halve()
        np.testing.assert_array_equal(model.weight, before / 2)

    def test_setting_tracers_outside_is_refused(self):
        model = Affine(2, 1, bias=False)
        with pytest.raises(StateLeakError, match="set_variables"):
            jax.jit(lambda w: fn.set_variables(model, {"weight": w}))(jnp.ones((1, 2)))

    def test_setting_does_not_change_the_initial_values(self):
        model = Affine(2, 2)
        first = fn.functionalize(model).init(KEY)
        fn.set_variables(model, {"weight": jnp.ones((2, 2)), "bias": jnp.ones(2)})
        assert tree_equal(fn.functionalize(model).init(KEY), first)

    def test_dtype_follows_the_array(self):
        model = Affine(2, 2)
        fn.set_variables(model, {"weight": jnp.ones((2, 2), jnp.bfloat16), "bias": jnp.ones(2)})
        assert model.weight.dtype == jnp.bfloat16 and model.bias.dtype == jnp.float32


class TestChildKey:
    def test_it_is_a_fold(self):
        from funcnets.core.keys import name_hash

        got = jax.random.key_data(fn.child_key(KEY, "fc"))
        np.testing.assert_array_equal(
            got, jax.random.key_data(jax.random.fold_in(KEY, np.uint32(name_hash("fc"))))
        )

    def test_traced_and_of_any_kind(self):
        assert (
            jax.jit(functools.partial(fn.child_key, name="fc"))(KEY) == fn.child_key(KEY, "fc")
        ).all()
        assert fn.child_key(jax.random.key(0, impl="rbg"), "x").shape == ()
        with pytest.raises(RngError):
            fn.child_key(3, "fc")
