"""FromLayer: names, initial values, keys, modes, state and refusals of pairs written by hand."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import layers, nn, optim
from funcnets.errors import (
    ArgumentError,
    DTypeError,
    ModeError,
    RngError,
    StateLeakError,
    TreeError,
)

KEY = jax.random.key(7)


class Dense(NamedTuple):
    weight: jax.Array
    bias: jax.Array


def init(key):
    first, second = jax.random.split(key)
    dense = Dense(jax.random.normal(first, (3, 3)) * 0.1, jax.random.normal(second, (3,)))
    return {"dense": dense, "more": [2.0, (jnp.ones(3),)]}, {"calls": jnp.zeros((), jnp.int32)}


def apply(params, state, x, *, rng=None, training=None):
    (factor, (shift,)), dense = params["more"], params["dense"]
    shape = (1,) * (x.ndim - 1) + (3,)
    out = (x @ dense.weight + dense.bias.reshape(shape)) * factor + shift.reshape(shape)
    return out, {"calls": state["calls"] + 1}


NAMES = ["dense.weight", "dense.bias", "more.0", "more.1.0", "calls"]
PAIR = fn.Layer(init, apply)


def identity_of(params, state):
    return (lambda key: (params, state)), (lambda p, s, x, rng=None, training=None: (x, s))


# --- names and text ---------------------------------------------------------------------------


def test_names_and_printed_text():
    model = nn.FromLayer(PAIR)
    assert repr(model) == (
        "FromLayer(\n"
        "  calls: int32[]\n"
        "  (dense): Branch(weight: float32[3, 3], bias: float32[3])\n"
        "  (more): Branch(\n"
        "    0: float32[]\n"
        "    (1): Branch(0: float32[3])\n"
        "  )\n"
        ")"
    )
    assert not any(cell.has_value for cell in model.parameters())
    assert sorted(model.state_dict()) == sorted(NAMES)


@pytest.mark.parametrize(
    ("params", "state", "names"),
    [
        (jnp.ones(2), (), ["params"]),
        ({}, jnp.ones(2), ["state"]),
        ((), None, []),
        ([jnp.ones(2), {"a": jnp.ones(2)}], (jnp.ones(2),) * 0, ["0", "1.a"]),
        ({"bn": {"weight": jnp.ones(2)}}, {"bn": {"mean": jnp.ones(2)}}, ["bn.weight", "bn.mean"]),
        ({3: jnp.ones(1)}, (jnp.ones(1), [jnp.ones(1)]), ["3", "0", "1.0"]),
    ],
)
def test_any_tree(params, state, names):
    model = nn.FromLayer(identity_of(params, state))
    assert sorted(model.state_dict()) == sorted(names)
    x = jnp.ones(3)
    assert model(x).tolist() == x.tolist()
    pure = fn.functionalize(model)
    _, new_state = pure.apply(*pure.init(KEY), x)
    assert len(jax.tree.leaves(new_state)) == len(jax.tree.leaves(state))


def test_integers_among_params_are_not_trained():
    model = nn.FromLayer(identity_of({"w": jnp.ones(2), "n": jnp.arange(2)}, {}))
    params, state = fn.functionalize(model).init(KEY)
    assert (list(params), list(state)) == (["w"], ["n"])
    assert model.n.dtype == jnp.int32


# --- initial values ---------------------------------------------------------------------------


def flat(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def in_order(params, state):
    dense, more = params["dense"], params["more"]
    return flat([dense["weight"], dense["bias"], more["0"], more["1"]["0"], state["calls"]])


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_initial_values_are_those_of_the_pair():
    pure = fn.functionalize(nn.FromLayer(PAIR))
    assert_equal(in_order(*pure.init(KEY)), flat(init(KEY)))
    assert_equal(in_order(*pure.init(KEY)), flat(init(KEY)))
    other = jax.random.key(8)
    assert_equal(in_order(*jax.jit(pure.init)(other)), flat(jax.jit(init)(other)))
    keys = jax.random.split(KEY, 2)
    assert_equal(in_order(*jax.vmap(pure.init)(keys)), flat(jax.vmap(init)(keys)))


def test_a_constant_key_under_a_trace():
    rule = nn.FromLayer(PAIR).dense.weight.initializer
    compiled = jax.jit(lambda: init(KEY)[0]["dense"].weight)()
    np.testing.assert_array_equal(jax.jit(lambda: rule(KEY, (3, 3)))(), compiled)
    np.testing.assert_array_equal(rule(KEY, (3, 3)), init(KEY)[0]["dense"].weight)


def test_initial_values_within_a_model():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.blocks = nn.ModuleList([nn.FromLayer(PAIR), nn.FromLayer(PAIR)])

    params, state = fn.functionalize(Model()).init(KEY)
    for name in "01":
        key = fn.child_key(fn.child_key(KEY, "blocks"), name)
        assert_equal(in_order(params["blocks"][name], state["blocks"][name]), flat(init(key)))


def test_a_functionalized_module_comes_back():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    pair = fn.functionalize(module)
    ours = fn.functionalize(nn.FromLayer(pair))
    variables = pair.init(KEY)
    assert jax.tree.structure(ours.init(KEY)) == jax.tree.structure(variables)
    assert_equal(flat(ours.init(KEY)), flat(variables))
    x = jnp.ones((2, 3))
    theirs = pair.apply(*variables, x, training=True)
    assert_equal(flat(ours.apply(*variables, x, training=True)), flat(theirs))


def test_values_of_the_stateful_face_are_of_one_draw():
    drawn = []

    def counted(key):
        out = init(key)
        drawn.append(out)
        return out

    fn.manual_seed(3)
    model = nn.FromLayer((counted, apply))
    del drawn[:]  # what eval_shape saw
    ours = in_order(*fn.get_variables(model))
    assert len(drawn) == 1
    assert_equal(ours, flat(drawn[0]))
    fn.manual_seed(3)
    again = nn.FromLayer(PAIR)
    for name, value in list(again.state_dict().items())[::-1]:  # asked for one by one, last first
        np.testing.assert_array_equal(value, model.state_dict()[name])
    assert not (nn.FromLayer(PAIR).dense.weight == model.dense.weight).all()


def test_nothing_stays_behind_after_a_draw():
    model = nn.FromLayer(PAIR)
    draw = model.calls.initializer.draw
    fn.functionalize(model).init(KEY)
    assert not draw._rest[1]


def test_converted_cells_draw_in_their_dtype():
    model = nn.FromLayer(PAIR).bfloat16()
    assert {str(v.dtype) for v in model.state_dict().values()} == {"bfloat16", "int32"}
    params, _ = fn.functionalize(model).init(KEY)
    assert params["dense"]["weight"].dtype == jnp.bfloat16


# --- calls ------------------------------------------------------------------------------------


def test_a_call_writes_the_state():
    model = nn.FromLayer(PAIR)
    x = jnp.ones((2, 3))
    params, _ = fn.get_variables(model)
    model(x)
    out = model(x)
    assert int(model.calls) == 2
    dense = params["dense"]
    expected = (x @ dense["weight"] + dense["bias"][None]) * 2.0 + 1.0
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_the_same_in_both_faces_and_under_transformations():
    model = nn.Sequential(nn.FromLayer(PAIR), nn.Linear(3, 2))
    pure = fn.functionalize(model)
    params, state = fn.get_variables(model)
    x = jnp.ones(3)
    out, new_state = jax.jit(pure.apply)(params, state, x)
    np.testing.assert_allclose(out, model(x), rtol=1e-5)
    assert int(new_state["0"]["calls"]) == int(model[0].calls) == 1
    assert jax.vmap(lambda x: pure.apply(params, state, x)[0])(jnp.ones((4, 3))).shape == (4, 2)
    gradients = jax.grad(lambda p: pure.apply(p, state, x)[0].sum())(params)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)


def test_training_a_model_with_one():
    model = nn.Sequential(nn.FromLayer(PAIR), nn.Linear(3, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.01)

    @fn.jit
    def step(x):
        loss, grads = fn.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        optimizer.step(grads)
        return loss

    losses = [float(step(jnp.ones(3))) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert int(model[0].calls) == 4


def test_the_array_that_init_returns_stays_its_owners():
    table = jnp.ones(3)
    pair = (
        (lambda key: ({"a": table, "b": table}, {})),
        (lambda p, s, x, rng=None, training=None: ((p["a"] * p["b"] * x).sum(), s)),
    )
    model = nn.FromLayer(pair)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @fn.jit
    def step(x):
        optimizer.step(fn.grad(lambda m: m(x))(model))

    step(jnp.ones(3))
    step(jnp.ones(3))
    assert table.tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(model.a, model.b)
    assert float(model.a[0]) < 1


def modes():
    seen = []

    def apply(params, state, x, *, rng=None, training=None, **kwargs):
        seen.append((training, rng is not None, kwargs))
        return x, state

    return nn.FromLayer((lambda key: ({}, {}), apply)), seen


def test_the_mode_is_handed_over_if_it_is_known():
    model, seen = modes()
    x = jnp.ones(1)
    model(x)
    model.eval()(x)
    pure = fn.functionalize(model.train())
    pure.apply({}, {}, x)
    pure.apply({}, {}, x, training=True, rng=KEY)
    pure.apply({}, {}, x, training=False, factor=2)
    # No key was asked for, so none was drawn.
    assert seen == [
        (True, False, {}),
        (False, False, {}),
        (None, False, {}),
        (True, False, {}),
        (False, False, {"factor": 2}),
    ]


def test_a_key_is_handed_over_if_it_is_asked_for():
    pair = layers.serial(layers.Dropout(0.5), layers.Dropout(0.5))
    model = nn.Sequential(nn.FromLayer(pair), nn.FromLayer(pair))
    x = jnp.ones(64)
    first, second = model(x), model(x)
    assert not (first == second).all()
    assert model.eval()(x).tolist() == x.tolist()
    model.train()
    pure = fn.functionalize(model)
    with pytest.raises(ModeError, match="training=True"):
        pure.apply({}, {}, x)
    with pytest.raises(RngError, match="rng="):
        pure.apply({}, {}, x, training=True)
    a, _ = pure.apply({}, {}, x, training=True, rng=KEY)
    b, _ = jax.jit(lambda x: pure.apply({}, {}, x, training=True, rng=KEY))(x)
    np.testing.assert_array_equal(a, b)
    assert pure.apply({}, {}, x, training=False)[0].tolist() == x.tolist()
    halves = fn.vmap(model)(jnp.ones((2, 64)))
    assert not (halves[0] == halves[1]).all()


def test_state_is_not_lost_in_a_raw_transformation():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.FromLayer(PAIR)

        def forward(self, x):
            return jax.vmap(self.inner)(x)

    with pytest.raises(StateLeakError, match="buffer 'calls'"):
        Model()(jnp.ones((2, 3)))


def test_copies_and_pickles():
    model = nn.FromLayer(PAIR)
    value = model(jnp.ones(3))
    model2 = copy.deepcopy(model)
    np.testing.assert_array_equal(model2(jnp.ones(3)), value)
    assert int(model.calls) == 1
    assert int(model2.calls) == 2
    simple = nn.FromLayer((simple_init, simple_apply))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(simple)).w, simple.w)


def simple_init(key):
    return {"w": jax.random.normal(key, (3,))}, {}


def simple_apply(params, state, x, *, rng=None, training=None):
    return params["w"] * x, state


# --- refusals ---------------------------------------------------------------------------------


def ok(params, state, x, *, rng=None, training=None):
    return x, state


@pytest.mark.parametrize(
    ("pair", "error", "match"),
    [
        (3, DTypeError, "pair must be a pair of functions"),
        ((init,), DTypeError, "pair of functions"),
        ((init, 3), DTypeError, "pair of functions"),
        (nn.Linear(1, 1), DTypeError, "got a Module"),
        ((lambda rng, shape: (shape, {}), ok), ArgumentError, r"init\(key\), but its init takes \(rng, shape\)"),
        ((init, lambda p, x: x), ArgumentError, "its apply takes"),
        ((init, lambda p, s, x, rng=None: x), ArgumentError, "training"),
        ((lambda key: {"w": jnp.ones(2)}, ok), ArgumentError, r"must return \(params, state\)"),
        (identity_of({"a.b": jnp.ones(2)}, {}), ArgumentError, "can't contain"),
        (identity_of({"": jnp.ones(2)}, {}), ArgumentError, "empty string"),
        (identity_of({"forward": jnp.ones(2)}, {}), ArgumentError, "'forward' already exists"),
        (identity_of({"a": jnp.ones(2)}, {"a": jnp.ones(2)}), ArgumentError, "'a' already exists"),
        (identity_of({"a": jnp.ones(2)}, {"a": {"b": jnp.ones(2)}}), ArgumentError, "already exists"),
        (identity_of({"a": {"b": jnp.ones(2)}}, {"a": jnp.ones(2)}), ArgumentError, "already exists"),
        (identity_of({}, {"key": KEY}), DTypeError, "state 'key' is a PRNG key"),
        (identity_of({"a": "text"}, {}), TypeError, "not a valid JAX type"),
    ],
)  # fmt: skip
def test_pairs_that_are_refused(pair, error, match):
    with pytest.raises(error, match=match):
        nn.FromLayer(pair)


def test_what_apply_returns_is_checked():
    def returning(result):
        model = nn.FromLayer((init, lambda p, s, x, rng=None, training=None: result(x, s)))
        return lambda: model(jnp.ones(3))

    with pytest.raises(DTypeError, match=r"apply must return \(out, new_state\)"):
        returning(lambda x, s: x)()
    with pytest.raises(TreeError, match="structure that init gives"):
        returning(lambda x, s: (x, {}))()
    with pytest.raises(TreeError, match="structure that init gives"):
        returning(lambda x, s: (x, {**s, "more": x}))()
    assert (
        nn.FromLayer((lambda key: ({}, {}), lambda p, s, x, rng=None, training=None: (x, None)))(3)
        == 3
    )
