"""The numbered semantics of the design, one group of tests each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import init, nn
from funcnets.errors import ModeError, RngError, StateLeakError, TreeError
from tests.core.toys import Affine, Average, Chain, Counter, Net, Noise, tree_equal

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
KEY = jax.random.key(7)


class TestSemantics01OneSignature:
    """init(key) -> (params, state); apply(params, state, *args, rng, training, **kwargs)."""

    def test_a_layer_unpacks_into_init_and_apply(self):
        layer = fn.functionalize(Net())
        assert isinstance(layer, fn.Layer) and isinstance(layer, tuple)
        assert layer._fields == ("init", "apply")
        assert (layer.init, layer.apply) == tuple(layer)

    def test_init_gives_two_dicts_and_apply_the_output_and_a_dict(self):
        init_, apply = fn.functionalize(Net())
        params, state = init_(KEY)
        assert type(params) is dict and type(state) is dict
        out, new = apply(params, state, X, rng=KEY, training=True)
        assert out.shape == (5, 2)
        assert jax.tree.structure(new) == jax.tree.structure(state)

    def test_a_layer_without_state_has_the_same_signature(self):
        init_, apply = fn.functionalize(Affine(3, 2))
        params, state = init_(KEY)
        assert state == {}
        out, new = apply(params, state, X)
        assert out.shape == (5, 2) and new == {}

    def test_keyword_arguments_reach_forward(self):
        class Two(nn.Module):
            def forward(self, a, *, b):
                return a - b

        out, _ = fn.functionalize(Two()).apply({}, {}, jnp.ones(2), b=jnp.full(2, 3.0))
        assert out.tolist() == [-2.0, -2.0]

    def test_apply_is_pure(self):
        model = Net()
        fn.get_variables(model)
        before = {k: np.array(v) for k, v in model.state_dict().items()}
        init_, apply = fn.functionalize(model)
        params, state = init_(KEY)
        kept = jax.tree.map(np.array, (params, state))
        first = apply(params, state, X, rng=KEY, training=True)
        second = apply(params, state, X, rng=KEY, training=True)
        assert tree_equal(first, second)
        assert not tree_equal(first[1], state)
        assert tree_equal((params, state), kept)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])

    def test_init_leaves_the_module_without_values(self):
        model = Net()
        fn.functionalize(model).init(KEY)
        assert not any(p.has_value for p in model.parameters())

    def test_both_are_deterministic_under_jit_and_the_same_as_eager(self):
        init_, apply = fn.functionalize(Net())
        params, state = init_(KEY)
        run = jax.jit(lambda p, s, x, k: apply(p, s, x, rng=k, training=True))
        eager = apply(params, state, X, rng=KEY, training=True)
        for got, expected in zip(jax.tree.leaves(run(params, state, X, KEY)), jax.tree.leaves(eager), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)

    def test_grad_vmap_and_scan_take_it_as_it_is(self):
        init_, apply = fn.functionalize(Chain(Affine(3, 3), Average(3)))
        params, state = init_(KEY)
        grads = jax.grad(lambda p: apply(p, state, X, training=True)[0].var())(params)
        assert jax.tree.structure(grads) == jax.tree.structure(params)
        outs, states = jax.vmap(lambda x: apply(params, state, x, training=True))(jnp.stack([X, 2 * X]))
        assert outs.shape == (2, 5, 3) and states["1"]["mean"].shape == (2, 3)

        def body(state, x):
            out, state = apply(params, state, x, training=True)
            return state, out

        final, outs = jax.lax.scan(body, state, jnp.stack([X] * 4))
        loop = state
        for _ in range(4):
            loop = body(loop, X)[0]
        np.testing.assert_allclose(final["1"]["mean"], loop["1"]["mean"], rtol=1e-6)

    @pytest.mark.parametrize("key", [0, jnp.zeros(2, jnp.uint32), jax.random.split(KEY), None])
    def test_something_else_than_a_key_is_refused(self, key):
        with pytest.raises(RngError, match="key must be one typed PRNG key"):
            fn.functionalize(Affine(2, 2)).init(key)

    def test_something_else_than_a_mode_is_refused(self):
        with pytest.raises(TypeError, match="training must be True, False or None, but got 'yes'"):
            fn.functionalize(Noise()).apply({}, {}, X, training="yes")


class TestSemantics02ParamsAreWhatIsTrained:
    def test_buffers_and_frozen_parameters_are_state(self):
        model = Net()
        model.first.requires_grad_(False)
        params, state = fn.functionalize(model).init(KEY)
        assert jax.tree.map(jnp.shape, params) == {"last": {"weight": (2, 4), "bias": (2,)}}
        assert jax.tree.map(jnp.shape, state) == {
            "first": {"weight": (4, 3), "bias": (4,)},
            "norm": {"mean": (4,)},
        }

    def test_what_is_frozen_gets_no_gradient(self):
        model = Net().eval()
        model.first.weight.requires_grad = False
        grads = fn.grad(lambda m: m(X).sum())(model)
        assert set(grads["first"]) == {"bias"}
        assert set(grads["last"]) == {"weight", "bias"}

    def test_values_do_not_depend_on_freezing(self):
        model = Net()
        free, _ = fn.functionalize(model).init(KEY)
        model.first.requires_grad_(False)
        _, frozen = fn.functionalize(model).init(KEY)
        assert tree_equal(free["first"], frozen["first"])

    def test_a_pair_made_before_follows_the_change(self):
        model = Affine(3, 2)
        init_, apply = fn.functionalize(model)
        model.requires_grad_(False)
        params, state = init_(KEY)
        assert params == {} and set(state) == {"weight", "bias"}
        assert apply(params, state, X)[1].keys() == state.keys()


class TestSemantics03PlainNestedDicts:
    def test_paths_are_state_dict_keys(self):
        model = Chain(Net(), Counter())
        params, state = fn.get_variables(model)
        rows = dict(fn.core.layer.flatten(params)) | dict(fn.core.layer.flatten(state))
        assert rows.keys() == model.state_dict().keys()
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(rows[name], value)

    def test_every_node_is_a_plain_dict(self):
        def check(tree):
            for value in tree.values():
                if not isinstance(value, jax.Array):
                    assert type(value) is dict
                    check(value)

        for tree in fn.functionalize(Chain(Net(), Net())).init(KEY):
            check(tree)

    def test_a_childs_params_are_the_sub_dict_under_its_name(self):
        model = Net()
        params, state = fn.functionalize(model).init(KEY)
        for name in ("first", "norm", "last"):
            child = getattr(model, name)
            p, s = fn.functionalize(child).init(fn.child_key(KEY, name))
            assert tree_equal(params.get(name, {}), p) and tree_equal(state.get(name, {}), s)
            x = X if name == "first" else jnp.ones((5, 4))
            out, _ = fn.functionalize(child).apply(params.get(name, {}), state.get(name, {}), x, training=False)
            assert out.shape == (5, 2 if name == "last" else 4)


class TestSemantics04InitialValues:
    def test_another_layer_elsewhere_changes_nothing(self):
        small = fn.functionalize(Chain(Affine(3, 4), Affine(4, 2))).init(KEY)[0]

        class Larger(Chain):
            def __init__(self):
                super().__init__(Affine(3, 4), Affine(4, 2), Affine(2, 2))
                self.scale = nn.Parameter((7,), init.normal())

        large = fn.functionalize(Larger()).init(KEY)[0]
        assert tree_equal(small, {k: large[k] for k in ("0", "1")})

    def test_the_order_of_registration_does_not_matter(self):
        class Swapped(nn.Module):
            def __init__(self):
                super().__init__()
                self.b = Affine(2, 2)
                self.a = Affine(2, 2)

        class Plain(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = Affine(2, 2)
                self.b = Affine(2, 2)

        a, b = (fn.functionalize(m()).init(KEY)[0] for m in (Swapped, Plain))
        assert tree_equal(a["a"], b["a"]) and tree_equal(a["b"], b["b"])

    def test_paths_and_keys_differ(self):
        params, _ = fn.functionalize(Chain(Affine(4, 4), Affine(4, 4))).init(KEY)
        other, _ = fn.functionalize(Chain(Affine(4, 4), Affine(4, 4))).init(jax.random.key(8))
        weights = [params["0"]["weight"], params["1"]["weight"], other["0"]["weight"], other["1"]["weight"]]
        assert len({np.asarray(w).tobytes() for w in weights}) == 4

    def test_eager_jit_and_vmap_give_the_same_bits(self):
        init_, _ = fn.functionalize(Net())
        eager = init_(KEY)
        assert tree_equal(eager, jax.jit(init_)(KEY))
        keys = jnp.stack([jax.random.key(1), KEY])
        both = jax.vmap(init_)(keys)
        assert tree_equal(eager, jax.tree.map(lambda a: a[1], both))
        both = jax.jit(jax.vmap(init_))(keys)
        assert tree_equal(eager, jax.tree.map(lambda a: a[1], both))

    def test_sharded_gives_the_same_bits(self):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("d",))
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
        init_, _ = fn.functionalize(Chain(Affine(8, 8), Affine(8, 4)))
        sharded = jax.jit(init_, out_shardings=rows)(KEY)
        assert sharded[0]["0"]["weight"].sharding == rows
        assert tree_equal(jax.tree.map(np.asarray, sharded), jax.tree.map(np.asarray, init_(KEY)))

    def test_get_variables_hands_the_stateful_values_to_the_pure_face(self):
        model = Net().eval()
        params, state = fn.get_variables(model)
        out, _ = fn.functionalize(model).apply(params, state, X, training=False)
        np.testing.assert_array_equal(out, model(X))

    def test_tickets_are_handed_out_in_creation_order(self):
        fn.manual_seed(3)
        a, b = Affine(2, 2), Affine(2, 2)
        fn.manual_seed(3)
        c, d = Affine(2, 2), Affine(2, 2)
        assert (d.weight == b.weight).all() and (c.weight == a.weight).all()  # asked for in another order
        assert not (a.weight == b.weight).any()


class TestSemantics05TiedCells:
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = Affine(3, 3, bias=False)
            self.decode = Affine(3, 3)
            self.decode.weight = self.encode.weight

        def forward(self, x):
            return self.decode(self.encode(x))

    def test_params_hold_it_once_under_its_first_path(self):
        params, state = fn.functionalize(self.Tied()).init(KEY)
        assert jax.tree.map(jnp.shape, params) == {"encode": {"weight": (3, 3)}, "decode": {"bias": (3,)}}
        assert state == {}

    def test_state_dict_lists_every_name(self):
        model = self.Tied()
        saved = model.state_dict()
        assert list(saved) == ["encode.weight", "decode.weight", "decode.bias"]
        np.testing.assert_array_equal(saved["encode.weight"], saved["decode.weight"])
        assert [n for n, _ in model.named_parameters()] == ["encode.weight", "decode.bias"]

    def test_its_gradient_is_the_sum_over_its_uses(self):
        model = self.Tied()
        model.encode.weight.data = jnp.eye(3)
        model.decode.bias.data = jnp.zeros(3)
        x = jnp.asarray([[1.0, 2.0, 3.0]])
        grads = fn.grad(lambda m: m(x).sum())(model)
        # d/dW sum(W W x) = 1 (W x)^T + (W^T 1) x^T, with W the identity
        np.testing.assert_allclose(grads["encode"]["weight"], 2 * np.ones((3, 1)) * np.asarray(x))

    def test_writing_one_name_writes_the_other(self):
        model = self.Tied()
        model.decode.weight.data = jnp.full((3, 3), 2.0)
        assert model.encode.weight is model.decode.weight
        assert (model.encode.weight == 2).all()

    def test_a_shared_module_is_walked_once(self):
        shared = Affine(2, 2)
        model = Chain(shared, shared)
        assert fn.functionalize(model).init(KEY)[0].keys() == {"0"}
        assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
        out, _ = fn.functionalize(model).apply(*fn.get_variables(model), jnp.ones((1, 2)))
        np.testing.assert_array_equal(out, shared(shared(jnp.ones((1, 2)))))


class TestSemantics06ArraysInside:
    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter((2,))
            self.register_buffer("table", jnp.ones(2))
            self.seen = []

        def forward(self):
            self.seen.append((self.weight, self.table, *self.parameters(), *dict(self.named_buffers()).values()))
            return self.weight + self.table

    def test_in_an_eager_call_they_are_concrete(self):
        model = self.Look()
        model()
        assert all(isinstance(a, jax.Array) and not isinstance(a, jax.core.Tracer) for a in model.seen[0])
        assert len(model.seen[0]) == 4

    def test_under_fn_jit_they_are_tracers(self):
        model = self.Look()
        fn.jit(lambda: model())()
        assert all(isinstance(a, jax.core.Tracer) for a in model.seen[-1])

    def test_in_a_function_under_fn_jit_too(self):
        model, seen = Affine(2, 2), []
        fn.jit(lambda: seen.append(model.weight) or model.weight.sum())()
        assert isinstance(seen[-1], jax.core.Tracer) and not isinstance(seen[-1], nn.Parameter)

    def test_numpy_params_arrive_as_jax_arrays(self):
        model = self.Look()
        params, state = {"weight": np.zeros(2, np.float32)}, {"table": np.ones(2, np.float32)}
        _, new = fn.functionalize(model).apply(params, state)
        assert all(isinstance(a, jax.Array) for a in model.seen[-1])
        assert isinstance(new["table"], jax.Array)

    def test_outside_they_are_cells(self):
        model = self.Look()
        assert isinstance(model.weight, nn.Parameter) and isinstance(model.table, nn.Buffer)
        assert isinstance(model.weight.data, jax.Array)
        assert model.weight.requires_grad and not model.table.requires_grad


class TestSemantics07ModeAndRngAreExplicit:
    def test_a_mode_dependent_layer_needs_training(self):
        init_, apply = fn.functionalize(Chain(Affine(3, 3), Average(3)))
        params, state = init_(KEY)
        with pytest.raises(ModeError, match=r"Average behaves differently .* training=True\) or training=False"):
            apply(params, state, X)

    def test_a_random_layer_needs_rng(self):
        _, apply = fn.functionalize(Chain(Noise()))
        with pytest.raises(RngError, match=r"Noise draws random numbers .* rng=jax.random.key"):
            apply({}, {}, X, training=True)

    def test_neither_is_needed_where_it_does_not_matter(self):
        params, state = fn.functionalize(Affine(3, 2)).init(KEY)
        assert fn.functionalize(Affine(3, 2)).apply(params, state, X)[0].shape == (5, 2)
        assert fn.functionalize(Noise()).apply({}, {}, X, training=False)[0] is X

    def test_training_wins_over_the_modules_flag(self):
        model = Average(3).eval()
        apply = fn.functionalize(model).apply
        state = {"mean": jnp.ones(3)}
        _, new = apply({}, state, X, training=True)
        assert not tree_equal(new, state)
        _, new = apply({}, state, X, training=False)
        assert tree_equal(new, state)

    def test_a_submodule_set_apart_keeps_its_own_mode(self):
        model = Chain(Average(3), Average(3))
        model[0].eval()
        state = {"0": {"mean": jnp.zeros(3)}, "1": {"mean": jnp.zeros(3)}}
        _, new = fn.functionalize(model).apply({}, state, X, training=True)
        assert tree_equal(new["0"], state["0"]) and not tree_equal(new["1"], state["1"])
        _, new = fn.functionalize(model).apply({}, state, X, training=False)
        assert tree_equal(new, state)

    def test_and_in_an_evaluated_model_one_that_trains(self):
        model = Chain(Average(3), Average(3)).eval()
        model[0].train()
        state = {"0": {"mean": jnp.zeros(3)}, "1": {"mean": jnp.zeros(3)}}
        _, new = fn.functionalize(model).apply({}, state, X, training=False)
        assert not tree_equal(new["0"], state["0"]) and tree_equal(new["1"], state["1"])


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
            "pure": lambda: fn.functionalize(model).apply(*fn.get_variables(model), X, rng=KEY, training=True),
        }
        with pytest.raises(StateLeakError, match=r"inside a raw JAX transformation .*fn\.scan") as caught:
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
        with pytest.raises(StateLeakError, match="plain attribute 'last' of Keeps.*register_buffer"):
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
        assert note == "In module 'first' of Net: Affine(3, 4)\nwhich was called with: float32[2, 7]"

    def test_the_root_itself_and_keyword_arguments(self):
        (note,) = self.notes(lambda: Affine(3, 2)(x=jnp.ones((2, 7))))
        assert note == "In module Affine itself: Affine(3, 2)\nwhich was called with: x=float32[2, 7]"

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
        assert note == "In module '1.0' of Chain: Affine(4, 4)\nwhich was called with: float32[5, 3]"

    def test_in_the_second_model_of_a_step_the_path_is_its_own(self):
        teacher, student = Affine(3, 3), Net()
        (note,) = self.notes(lambda: fn.jit(lambda x: (teacher(x), student(x[:, :2])))(X))
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
