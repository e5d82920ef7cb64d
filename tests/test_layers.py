"""Ready pairs and combinators: same numbers as the modules, keys, state, refusals."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import layers, nn
from funcnets.errors import (
    ArgumentError,
    DTypeError,
    ModeError,
    RngError,
    ShapeError,
    TreeError,
)

KEY = jax.random.key(7)


def same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def notes(caught):
    return "\n".join(getattr(caught.value, "__notes__", []))


# --- ready pairs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        ("Linear", (3, 2), (4, 3)),
        ("Conv1d", (3, 2, 2), (1, 3, 5)),
        ("BatchNorm1d", (3,), (4, 3)),
        ("ReLU", (), (4,)),
    ],
)
def test_a_ready_pair_is_the_functionalized_class(name, args, shape):
    ours = getattr(layers, name)(*args)
    theirs = fn.functionalize(getattr(nn, name)(*args))
    assert isinstance(ours, fn.Layer)
    variables = ours.init(KEY)
    same(variables, theirs.init(KEY))
    x = jnp.ones(shape)
    same(ours.apply(*variables, x, training=True), theirs.apply(*variables, x, training=True))


def test_every_class_that_computes_is_there():
    classes = {n for n, c in vars(nn).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    missing = classes - set(layers.__all__)
    assert missing == layers._NOT_LAYERS
    for name in layers.__all__:
        assert callable(getattr(layers, name))
        assert name in dir(layers)
    for name in classes - missing:
        make = getattr(layers, name)
        signature = inspect.signature(make)
        assert signature.parameters == inspect.signature(getattr(nn, name)).parameters
        assert signature.return_annotation is fn.Layer
        assert make.__name__ == name
        assert make.__module__ == "funcnets.layers"
        assert f"functionalize(nn.{name}(...))" in make.__doc__
        assert ">>>" not in make.__doc__


def test_a_ready_pair_refuses_what_the_class_refuses():
    with pytest.raises(ArgumentError, match="in_features"):
        layers.Linear(-1, 2)
    with pytest.raises(TypeError, match="unexpected"):
        layers.Linear(1, 2, bais=False)


# --- serial -----------------------------------------------------------------------------------


def pairs_and_modules():
    pairs = layers.serial(
        layers.Linear(3, 4),
        layers.ReLU(),
        layers.serial(layers.Linear(4, 4), layers.BatchNorm1d(4)),
        layers.Linear(4, 2),
    )
    modules = nn.Sequential(
        nn.Linear(3, 4),
        nn.ReLU(),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        nn.Linear(4, 2),
    )
    return pairs, fn.functionalize(modules)


def test_serial_is_sequential():
    ours, theirs = pairs_and_modules()
    variables = ours.init(KEY)
    same(variables, theirs.init(KEY))
    x = jax.random.normal(jax.random.key(1), (5, 3))
    for training in (True, False):
        out, state = ours.apply(*variables, x, training=training)
        expected, other = theirs.apply(*variables, x, training=training)
        same(state, other)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_serial_under_the_transformations():
    ours, _ = pairs_and_modules()
    same(jax.jit(ours.init)(KEY), ours.init(KEY))
    stacked = jax.vmap(ours.init)(jax.random.split(KEY, 2))
    assert stacked[0]["2"]["0"]["weight"].shape == (2, 4, 4)
    params, state = ours.init(KEY)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    out, new_state = ours.apply(params, state, x, training=True)
    compiled = jax.jit(lambda p, s, x: ours.apply(p, s, x, training=True))(params, state, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        compiled,
        (out, new_state),
    )
    assert int(new_state["2"]["1"]["num_batches_tracked"]) == 1
    assert int(state["2"]["1"]["num_batches_tracked"]) == 0

    def loss(params, x):
        return ours.apply(params, state, x, training=False)[0].sum()

    gradients = jax.grad(loss)(params, x)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)
    one_by_one = jnp.stack([loss(params, row[None]) for row in x])
    np.testing.assert_allclose(
        jax.vmap(lambda r: loss(params, r[None]))(x), one_by_one, rtol=1e-4, atol=1e-5
    )


def test_serial_of_nothing_is_the_identity():
    init, apply = layers.serial()
    assert init(KEY) == ({}, {})
    x = jnp.ones(3)
    assert apply({}, {}, x) == (x, {}) or apply({}, {}, x)[0] is x


def test_every_child_has_its_own_key():
    init, apply = layers.parallel(
        layers.Dropout(0.5), layers.Dropout(0.5), layers.serial(layers.Dropout(0.5))
    )
    x = jnp.ones(64)
    (a, b, c), _ = apply(*init(KEY), (x, x, x), rng=KEY, training=True)
    for one, other in ((a, b), (a, c), (b, c)):
        assert not (one == other).all()
    (again, _, _), _ = apply({}, {}, (x, x, x), rng=KEY, training=True)
    same(again, a)
    alone, _ = layers.Dropout(0.5).apply({}, {}, x, rng=fn.child_key(KEY, "0"), training=True)
    same(alone, a)


def test_mode_and_rng_are_passed_on():
    init, apply = layers.serial(layers.Linear(3, 3), layers.serial(layers.Dropout(0.5)))
    variables = init(KEY)
    with pytest.raises(ModeError, match="training=True") as caught:
        apply(*variables, jnp.ones(3))
    assert "In layer '0' of serial.\nIn layer '1' of serial." in notes(caught)
    with pytest.raises(RngError, match="rng="):
        apply(*variables, jnp.ones(3), training=True)
    assert apply(*variables, jnp.ones(3), training=False)[0].shape == (3,)


def test_trees_that_do_not_fit_are_refused():
    init, apply = layers.serial(layers.Linear(3, 2), layers.ReLU())
    params, state = init(KEY)
    x = jnp.ones(3)
    with pytest.raises(
        TreeError, match=r"params do not fit serial:\n    unknown: 2, linear\n.*are: 0, 1"
    ):
        apply({**params, "2": {}, "linear": {}}, state, x)
    with pytest.raises(TreeError, match="state do not fit serial:\n    unknown: 7"):
        apply(params, {"7": {}}, x)
    with pytest.raises(TreeError, match="missing: weight, bias") as caught:
        apply({}, state, x)
    assert "In layer '0' of serial." in notes(caught)
    with pytest.raises(TreeError, match="missing: bias\n    unknown: gain"):
        apply({"0": {"weight": params["0"]["weight"], "gain": x}}, state, x)
    with pytest.raises(TreeError, match="unknown: weight") as caught:
        apply({**params, "1": {"weight": x}}, state, x)
    assert "In layer '1' of serial." in notes(caught)
    with pytest.raises(TreeError, match="must be a dict"):
        apply([params], state, x)
    with pytest.raises(TreeError, match="it has no layers"):
        layers.fan_out(2).apply({"0": x}, {}, x)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (3, DTypeError, "layer 1 of serial must be a pair of functions"),
        (nn.ReLU(), DTypeError, r"fn.functionalize\(module\)"),
        ((1, 2), DTypeError, "pair of functions"),
        ((lambda rng, shape: None, lambda p, x, **kw: x), ArgumentError, r"must have init\(key\)"),
        ((lambda key: ({}, {}), lambda p, x: x), ArgumentError, "must have apply"),
    ],
)
def test_what_is_not_a_pair_is_refused(bad, error, match):
    with pytest.raises(error, match=match):
        layers.serial(layers.ReLU(), bad)


def test_pairs_written_by_hand_take_part():
    def init(key):
        return (jnp.full(3, 2.0),), ()

    def apply(params, state, x, *, rng=None, training=None):
        assert state == ()
        assert training is False
        return params[0] * x, state

    model = layers.serial((init, apply), layers.residual((init, apply)))
    params, state = model.init(KEY)
    assert params.keys() == state.keys() == {"0", "1"}
    out, new_state = model.apply(params, state, jnp.ones(3), training=False)
    assert out.tolist() == [6.0, 6.0, 6.0]
    assert new_state == state


# --- the others -------------------------------------------------------------------------------


def test_a_branching_model():
    model = layers.serial(
        layers.fan_out(3),
        layers.parallel(layers.Linear(3, 2), layers.Identity(), layers.Linear(3, 2)),
        layers.fan_in_concat(),
        layers.fan_out(2),
        layers.fan_in_sum(),
    )
    params, state = model.init(KEY)
    assert state == {}
    assert jax.tree.map(jnp.shape, params) == {
        "1": {"0": {"bias": (2,), "weight": (2, 3)}, "2": {"bias": (2,), "weight": (2, 3)}}
    }
    x = jnp.ones((4, 3))
    out, _ = model.apply(params, state, x)
    branches = [x @ params["1"][i]["weight"].T + params["1"][i]["bias"][None] for i in "02"]
    np.testing.assert_allclose(
        out, 2 * jnp.concatenate([branches[0], x, branches[1]], -1), rtol=1e-5
    )


def test_parallel_takes_lists_and_refuses_other_lengths():
    apply = layers.parallel(layers.Identity(), layers.ReLU()).apply
    out, _ = apply({}, {}, [jnp.ones(2), -jnp.ones(2)])
    assert isinstance(out, tuple)
    assert out[1].tolist() == [0.0, 0.0]
    with pytest.raises(
        ShapeError, match="tuple of 2 inputs, one for each layer, but got tuple of 1"
    ):
        apply({}, {}, (jnp.ones(2),))
    with pytest.raises(ShapeError, match="but got"):
        apply({}, {}, jnp.ones((2, 2)))


def test_residual():
    init, apply = layers.residual(layers.Linear(3, 3))
    params, state = init(KEY)
    x = jnp.ones((2, 3))
    plain, _ = layers.Linear(3, 3).apply(params["0"], {}, x)
    np.testing.assert_allclose(apply(params, state, x)[0], x + plain)
    init, apply = layers.residual(layers.Linear(3, 2))
    with pytest.raises(ShapeError, match=r"one shape, but got float32\[2, 3\], float32\[2, 2\]"):
        apply(*init(KEY), x)


def test_fan_in():
    a, b = jnp.ones((2, 3)), jnp.ones((2, 4))
    total, concat = layers.fan_in_sum().apply, layers.fan_in_concat(0).apply
    assert concat({}, {}, (a, a))[0].shape == (4, 3)
    assert total({}, {}, [a])[0].shape == (2, 3)
    for apply in (total, concat):
        with pytest.raises(ShapeError, match="float32"):
            apply({}, {}, (a, b))
        with pytest.raises(ShapeError, match="float32"):
            apply({}, {}, (a, a[0]))
        with pytest.raises(ShapeError, match="takes a tuple"):
            apply({}, {}, a)
        with pytest.raises(ShapeError, match="takes a tuple"):
            apply({}, {}, ())
        with pytest.raises(DTypeError, match="takes arrays"):
            apply({}, {}, (1.0, 2.0))
    with pytest.raises(ShapeError, match="axis=2"):
        layers.fan_in_concat(2).apply({}, {}, (a, a))
    with pytest.raises(ArgumentError, match="axis"):
        layers.fan_in_concat(1.5)
    with pytest.raises(ArgumentError, match="n must be positive"):
        layers.fan_out(0)


def test_stateless():
    init, apply = layers.stateless(jnp.tanh)
    assert init(KEY) == ({}, {})
    same(apply({}, {}, jnp.ones(3), training=True), (jnp.tanh(jnp.ones(3)), {}))
    with pytest.raises(DTypeError, match="takes a function"):
        layers.stateless(3)
