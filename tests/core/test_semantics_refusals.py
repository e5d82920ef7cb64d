"""The numbered semantics of the design from 8 on: what is refused, and what the refusals say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.errors import StateLeakError, TreeError
from tests.core.toys import Affine, Average, Chain, Counter, Net, Noise, tree_equal

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
KEY = jax.random.key(7)


def _raw_scan(function, x):
    return jax.lax.scan(lambda c, _: (function(c), None), x, length=2)[0]


RAW = {
    "scan": _raw_scan,
    "jit": lambda f, x: jax.jit(f)(x),
    "vmap": lambda f, x: jax.vmap(f)(x),
    "grad": lambda f, x: jax.grad(lambda x: f(x).sum())(x),
    "checkpoint": lambda f, x: jax.checkpoint(f)(x),
    "cond": lambda f, x: jax.lax.cond(x.sum() > 0, f, f, x),
    "while": lambda f, x: jax.lax.while_loop(lambda c: c.sum() > 1e9, f, x),
}


class TestSemantics08NothingIsLostOrRepeated:
    @pytest.mark.parametrize("raw", RAW)
    @pytest.mark.parametrize("layer", [Counter, Noise])
    @pytest.mark.parametrize("face", ["eager", "fn.jit", "pure"])
    def test_a_raw_transformation_in_forward(self, raw, layer, face):
        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = layer()

            def forward(self, x):
                return RAW[raw](self.inner, x)

        model = Outer()
        fn.get_variables(model)
        calls = {
            "eager": lambda: model(X),
            "fn.jit": lambda: fn.jit(lambda x: model(x))(X),
            "pure": lambda: fn.functionalize(model).apply(
                *fn.get_variables(model), X, rng=KEY, training=True
            ),
        }
        with pytest.raises(
            StateLeakError, match=r"inside a raw JAX transformation .*fn\.scan"
        ) as caught:
            calls[face]()
        assert any("'inner' of Outer" in note for note in caught.value.__notes__)
        if layer is Counter:
            assert model.inner.count.item() == 0

    @pytest.mark.parametrize("layer", [Counter, Noise])
    def test_a_module_called_in_somebodys_jit(self, layer):
        model = layer()
        with pytest.raises(StateLeakError, match="fn.jit"):
            jax.jit(lambda x: model(x))(X)

    @pytest.mark.parametrize("layer", [Counter, Noise])
    @pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
    def test_also_where_fn_jit_has_a_program_already(self, layer, transform):
        model = layer()
        step = fn.jit(lambda x: model(x).sum())
        step(X)
        count = None if layer is Noise else model.count.item()
        with pytest.raises(StateLeakError):
            getattr(jax, transform)(step)(X)
        step(X)
        assert count is None or model.count.item() == 2

    def test_a_jitted_function_without_state_works_within_a_transformation(self):
        model = Affine(3, 2)
        step = fn.jit(lambda x: model(x).sum())
        step(X)
        expected = np.broadcast_to(np.asarray(model.weight).sum(0), X.shape)
        np.testing.assert_allclose(jax.grad(step)(X), expected, rtol=1e-6)
        assert jax.vmap(step)(X).shape == (5,)

    def test_writing_a_tracer_into_a_cell(self):
        model = Affine(2, 2)

        @jax.jit
        def leak(x):
            model.bias.data = x

        with pytest.raises(StateLeakError, match=r"tracer behind: float32\[2\].*fn\.jit"):
            leak(jnp.ones(2))
        assert model.bias.data.shape == (2,)

    def test_making_a_cell_of_a_tracer(self):
        with pytest.raises(StateLeakError, match="creating a Parameter from a traced array"):
            jax.jit(lambda x: nn.Parameter(x).sum())(X)

    def test_storing_a_tracer_in_a_plain_attribute(self):
        class Keeps(nn.Module):
            def forward(self, x):
                self.last = {"x": [x]}
                return x

        model = Keeps()
        model(X)
        assert model.last["x"][0] is X
        with pytest.raises(
            StateLeakError, match="plain attribute 'last' of Keeps.*register_buffer"
        ):
            fn.jit(lambda x: model(x))(X)
        assert model.last["x"][0] is X

    @pytest.mark.parametrize("lift", ["checkpoint", "vmap", "grad", "scan"])
    def test_a_lift_inside_a_raw_transformation_draws_no_key(self, lift):
        """Its key would be the same for every example and every step."""
        lifts = {
            "checkpoint": lambda f, x: fn.checkpoint(f)(x),
            "vmap": lambda f, x: fn.vmap(f)(x),
            "grad": lambda f, x: fn.grad(lambda x: f(x).sum())(x),
            "scan": lambda f, x: fn.scan(lambda c, _: (f(c), None), x, length=2)[0],
        }

        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.noise = Noise()

            def forward(self, x):
                x = self.noise(x)  # the call has its key by now
                return jax.vmap(lambda row: lifts[lift](self.noise, row))(x)

        with pytest.raises(StateLeakError, match="drawing a random key"):
            Outer()(X)

    def test_mode_dtype_and_seed_do_not_change_in_a_call(self):
        model = Affine(3, 2)
        weight = model.weight
        for action in (
            lambda: model.eval(),
            lambda: model.requires_grad_(False),
            lambda: model.half(),
            lambda: nn.init.zeros_(weight),
            lambda: fn.manual_seed(1),
            lambda: model.load_state_dict(model.state_dict()),
        ):
            with pytest.raises(StateLeakError, match="inside a call"):
                fn.jit(lambda x, action=action: action() and model(x))(X)
        assert model.training and model.weight.requires_grad and model.weight.dtype == jnp.float32


class TestSemantics09ExceptionsSayWhere:
    def notes(self, call):
        with pytest.raises(TypeError) as caught:
            call()
        return [n for n in getattr(caught.value, "__notes__", []) if n.startswith("In module")]

    def test_path_line_and_shapes_once(self):
        model = Net()
        (note,) = self.notes(lambda: model(jnp.ones((2, 7))))
        assert (
            note == "In module 'first' of Net: Affine(3, 4)\nwhich was called with: float32[2, 7]"
        )

    def test_the_root_itself_and_keyword_arguments(self):
        (note,) = self.notes(lambda: Affine(3, 2)(x=jnp.ones((2, 7))))
        assert (
            note == "In module Affine itself: Affine(3, 2)\nwhich was called with: x=float32[2, 7]"
        )

    @pytest.mark.parametrize("face", ["fn.jit", "pure", "grad", "checkpoint"])
    def test_the_same_in_every_face(self, face):
        model, x = Chain(Affine(3, 3), Chain(Affine(4, 4))), X
        params, state = fn.get_variables(model)
        calls = {
            "fn.jit": lambda: fn.jit(lambda x: model(x))(x),
            "pure": lambda: fn.functionalize(model).apply(params, state, x),
            "grad": lambda: fn.grad(lambda m: m(x).sum())(model),
            "checkpoint": lambda: fn.checkpoint(model)(x),
        }
        (note,) = self.notes(calls[face])
        assert (
            note == "In module '1.0' of Chain: Affine(4, 4)\nwhich was called with: float32[5, 3]"
        )

    def test_in_the_second_model_of_a_step_the_path_is_its_own(self):
        teacher, student = Affine(3, 3), Net()
        (note,) = self.notes(lambda: fn.jit(lambda x: (teacher(x), student(x[:, :2])))(X))
        assert note.startswith("In module 'first' of Net: Affine(3, 4)")

    def test_a_module_called_on_its_own_before_is_named_by_its_model(self):
        model = Net()
        (note,) = self.notes(lambda: fn.jit(lambda x: (model.first(x), model(x[:, :2])))(X))
        assert note.startswith("In module 'first' of Net: Affine(3, 4)")

    def test_a_broken_repr_does_not_hide_the_error(self):
        class Broken(Affine):
            def extra_repr(self):
                raise KeyError("no")

        with pytest.raises(TypeError, match="dot_general"):
            Broken(3, 2)(jnp.ones((2, 7)))


class TestSemantics10JitFindsTheModules:
    """In detail in test_jit.py."""

    def test_closed_over_passed_in_and_global(self):
        model = Counter()
        fn.jit(lambda x: model(x))(X)
        fn.jit(lambda m, x: m(x))(model, X)
        fn.jit(model)(X)
        assert model.count.item() == 3

    def test_a_stale_trace_is_never_run(self):
        model = Chain(Average(3))
        step = fn.jit(lambda x: model(x))
        trained = step(X)
        model.eval()
        np.testing.assert_allclose(step(X), X - model[0].mean.data[None], rtol=1e-6)
        model.train()
        np.testing.assert_array_equal(step(X), trained)
        model[0].momentum = 1.0
        step(X)
        np.testing.assert_allclose(model[0].mean.data, X.mean(0), rtol=1e-6)


class TestSemantics11TreesFitOrAreRefused:
    def broken(self):
        model = Net()
        params, state = fn.functionalize(model).init(KEY)
        params["first"]["wait"] = params["first"].pop("weight")
        params["last"]["bias"] = jnp.zeros(3)
        params["last"]["weight"] = 4.0
        return model, params, state

    def test_apply_lists_every_name_at_once(self):
        model, params, state = self.broken()
        with pytest.raises(TreeError) as caught:
            fn.functionalize(model).apply(params, state, X)
        assert str(caught.value).split("\n")[:5] == [
            "params do not fit Net:",
            "    missing: first.weight",
            "    unknown: first.wait",
            "    last.weight must be an array of shape (2, 4), but is 4.0",
            "    last.bias must have shape (2,), but has (3,)",
        ]

    def test_state_is_checked_too(self):
        model = Net()
        params, _ = fn.functionalize(model).init(KEY)
        with pytest.raises(TreeError, match=r"state do not fit Net:\n    missing: norm.mean"):
            fn.functionalize(model).apply(params, {}, X)
        with pytest.raises(TreeError, match="params must be a nested dict of arrays"):
            fn.functionalize(model).apply(None, {}, X)

    def test_set_variables_loads_all_or_nothing(self):
        model, params, state = self.broken()
        before = {k: np.array(v) for k, v in model.state_dict().items()}
        state = {"norm": {"mean": jnp.full(4, 9.0)}}
        with pytest.raises(TreeError, match="missing: first.weight"):
            fn.set_variables(model, params, state)
        with pytest.raises(TreeError, match="unknown: norm.men"):
            fn.set_variables(model, None, {"norm": {"men": jnp.ones(4), "mean": jnp.ones(4)}})
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    def test_what_fits_is_loaded(self):
        model = Net()
        params, state = fn.functionalize(model).init(KEY)
        fn.set_variables(model, params, state)
        assert tree_equal(fn.get_variables(model), (params, state))
        fn.set_variables(model, state={"norm": {"mean": np.full(4, 2.0, np.float32)}})
        assert (model.norm.mean == 2).all() and tree_equal(fn.get_variables(model)[0], params)
