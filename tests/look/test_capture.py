"""``fn.capture``: outputs by path, in both faces, compiled or not, differentiated or not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import layers, nn
from funcnets.errors import ArgumentError, DTypeError, StateLeakError


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), nn.Tanh())


X = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)


def by_hand(model):
    a = model[0](X)
    b = model[1][0](a)
    c = model[1][1](b)
    return {"0": a, "1.0": b, "1.1": c, "1": c, "2": jnp.tanh(c)}


def same(found, expected, ordered=True):
    # What leaves a function under jit has its keys sorted, as every dict.
    assert (list(found) if ordered else set(found)) == (
        list(expected) if ordered else set(expected)
    )
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-6, err_msg=path)


def test_every_module_in_both_faces_eager_and_compiled():
    model = network()
    expected = by_hand(model)
    out, found = fn.capture(model, X)
    same(found, expected)
    assert (out == model(X)).all()
    step = fn.jit(lambda x: fn.capture(model, x))
    same(step(X)[1], expected, ordered=False)
    layer, variables = fn.functionalize(model), fn.get_variables(model)
    (out, state), found = fn.capture(layer, *variables, X)
    same(found, expected)
    assert state == {}
    pure = jax.jit(lambda p, s, x: fn.capture(layer, p, s, x))
    same(pure(*variables, X)[1], expected, ordered=False)
    same(jax.jit(lambda x: fn.capture(model, x))(X)[1], expected, ordered=False)
    # The watch has gone, and so has what fn.jit knew of it.
    assert (step(X)[0] == fn.jit(model)(X)).all()


def test_names():
    model = network()
    paths = lambda names: list(fn.capture(model, X, names=names)[1])  # noqa: E731
    assert paths("1.1") == ["1.1"]
    assert paths(["2", "0"]) == ["0", "2"]
    assert paths("*") == ["0", "1", "2"]
    assert paths("1.*") == ["1.0", "1.1"]
    assert paths("1.**") == ["1.0", "1.1", "1"]
    assert paths("**.1") == ["1.1", "1"]
    assert paths("") == [""]
    assert paths(lambda path, module: isinstance(module, nn.Linear)) == ["0", "1.1"]
    with pytest.raises(ArgumentError, match=r"'7', 'a\.\*'; there are '0', '1', '1.0', '1.1', '2'"):
        paths(["0", "7", "a.*"])
    with pytest.raises(ArgumentError, match="names must be paths"):
        paths([3])
    with pytest.raises(DTypeError, match="takes a Module"):
        fn.capture(lambda x: x, X)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = self.a
        self.never = nn.Linear(3, 3)
        self.lstm = nn.LSTM(3, 2)

    def forward(self, x):
        return self.lstm(self.b(self.a(x)))[0]


def test_several_calls_give_a_list_and_tuples_stay_tuples():
    model = Shared()
    _, found = fn.capture(model, X)
    assert list(found) == ["a", "lstm"]
    np.testing.assert_array_equal(found["a"][0], model.a(X))
    np.testing.assert_array_equal(found["a"][1], model.a(model.a(X)))
    out, (h, c) = found["lstm"]
    assert out.shape == (2, 2) and h.shape == c.shape == (1, 2)
    assert list(fn.capture(model, X, names="b")[1]) == ["b"]


def test_buffers_and_random_draws_are_those_of_a_call():
    def build():
        fn.manual_seed(1)
        return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))

    plain, captured = build(), build()
    fn.manual_seed(2)
    expected = plain(X)
    fn.manual_seed(2)
    out, found = fn.capture(captured, X)
    assert (out == expected).all() and (found["1"] == expected).all()
    assert all((captured.state_dict()[k] == v).all() for k, v in plain.state_dict().items())
    layer = fn.functionalize(build())
    params, state = fn.get_variables(build())
    options = {"training": True, "rng": jax.random.key(0)}
    (out, news), _ = fn.capture(layer, params, state, X, **options)
    expected, new = layer.apply(params, state, X, **options)
    assert (out == expected).all()
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), news, new))


def test_gradients_may_depend_on_what_is_captured():
    model = network()

    def penalty(m):
        out, found = fn.capture(m, X, names="0")
        return out.sum() + (found["0"] ** 2).sum(), found

    grads, found = fn.grad(penalty, has_aux=True)(model)
    same(found, {"0": model[0](X)})
    direct = fn.grad(lambda m: m(X).sum() + (m[0](X) ** 2).sum())(model)
    for (name, a), (_, b) in zip(
        fn.core.layer.flatten(grads), fn.core.layer.flatten(direct), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=name)
    # Around the gradient, too: what is found leaves it.
    _, outside = fn.capture(
        Lifted(lambda inner, x: fn.grad(lambda m: m(x).sum())(inner)["weight"]), X, names="inner"
    )
    assert outside["inner"].shape == (2, 3)


class Lifted(nn.Module):
    def __init__(self, rule):
        super().__init__()
        self.inner, self.rule = nn.Linear(3, 3), rule

    def forward(self, x):
        return self.rule(self.inner, x)


def test_what_is_inside_of_the_lifts_leaves_them():
    rows = Lifted(lambda inner, x: fn.vmap(inner)(x))
    np.testing.assert_allclose(fn.capture(rows, X)[1]["inner"], rows.inner(X), rtol=1e-6)
    loop = Lifted(lambda inner, x: fn.scan(lambda c, _: (inner(c), None), x, length=4)[0])
    out, found = fn.jit(lambda x: fn.capture(loop, x))(X)
    assert found["inner"].shape == (4, 2, 3)
    np.testing.assert_allclose(found["inner"][-1], out, rtol=1e-6)
    np.testing.assert_allclose(found["inner"][0], loop.inner(X), rtol=1e-6)
    again = Lifted(lambda inner, x: fn.checkpoint(inner)(x))
    np.testing.assert_allclose(fn.capture(again, X)[1]["inner"], again.inner(X), rtol=1e-6)
    raw = Lifted(lambda inner, x: jax.vmap(inner)(x))
    with pytest.raises(StateLeakError, match="'inner' cannot be captured"):
        fn.capture(raw, X)
    assert fn.capture(raw, X, names="")[1][""].shape == (2, 3)


def test_the_blocks_of_a_stack_are_seen_one_by_one():
    stack = nn.Stack(nn.Linear(3, 3) for _ in range(3))
    out, found = fn.jit(lambda x: fn.capture(stack, x))(X)
    assert list(found) == ["0", "1", "2"]
    np.testing.assert_allclose(found["1"], stack[1](stack[0](X)), rtol=1e-6)
    np.testing.assert_allclose(out, found["2"])


def test_a_failed_call_leaves_no_watch_behind():
    model = network()
    with pytest.raises(ValueError, match="in_features"):
        fn.capture(model, jnp.ones((2, 5)))
    assert list(fn.capture(model, X)[1]) == list(by_hand(model))


def test_pairs_that_are_of_no_single_module():
    pair = layers.serial(layers.Linear(3, 4), layers.Tanh(), layers.Linear(4, 2))
    params, state = pair.init(jax.random.key(0))
    (out, _), found = fn.capture(pair, params, state, X)
    assert list(found) == ["(Linear)", "(Tanh)"]
    assert [value.shape for value in found["(Linear)"]] == [(2, 4), (2, 2)]
    assert (found["(Linear)"][1] == out).all()
    assert list(fn.capture(pair, params, state, X, names="(Tanh)")[1]) == ["(Tanh)"]
    with pytest.raises(ArgumentError, match=r"this pair is called '0'; there are '\(Linear\)'"):
        fn.capture(pair, params, state, X, names="0")
    _, inside = fn.capture(nn.Sequential(nn.FromLayer(layers.Linear(3, 2))), X)
    assert list(inside) == ["0.(Linear)", "0"]
