"""The numbered semantics of the design, one group of tests each."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import init, nn
from funcnets.errors import ModeError, RngError
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
        for got, expected in zip(
            jax.tree.leaves(run(params, state, X, KEY)), jax.tree.leaves(eager), strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)

    def test_grad_vmap_and_scan_take_it_as_it_is(self):
        init_, apply = fn.functionalize(Chain(Affine(3, 3), Average(3)))
        params, state = init_(KEY)
        grads = jax.grad(lambda p: apply(p, state, X, training=True)[0].var())(params)
        assert jax.tree.structure(grads) == jax.tree.structure(params)
        outs, states = jax.vmap(lambda x: apply(params, state, x, training=True))(
            jnp.stack([X, 2 * X])
        )
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
            out, _ = fn.functionalize(child).apply(
                params.get(name, {}), state.get(name, {}), x, training=False
            )
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
        weights = [
            params["0"]["weight"],
            params["1"]["weight"],
            other["0"]["weight"],
            other["1"]["weight"],
        ]
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
        assert (d.weight == b.weight).all() and (
            c.weight == a.weight
        ).all()  # asked for in another order
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
        assert jax.tree.map(jnp.shape, params) == {
            "encode": {"weight": (3, 3)},
            "decode": {"bias": (3,)},
        }
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
            self.seen.append(
                (self.weight, self.table, *self.parameters(), *dict(self.named_buffers()).values())
            )
            return self.weight + self.table

    def test_in_an_eager_call_they_are_concrete(self):
        model = self.Look()
        model()
        assert all(
            isinstance(a, jax.Array) and not isinstance(a, jax.core.Tracer) for a in model.seen[0]
        )
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
        with pytest.raises(
            ModeError, match=r"Average behaves differently .* training=True\) or training=False"
        ):
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
