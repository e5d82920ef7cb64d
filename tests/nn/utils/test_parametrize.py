"""``nn.utils.parametrize`` against PyTorch's, and in the two faces."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, ModuleAccessError, ShapeError, UnsupportedError
from funcnets.nn.utils import parametrize as P

Q = torch.nn.utils.parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return jnp.triu(x) + jnp.triu(x, 1).T

    def right_inverse(self, a):
        return jnp.triu(a)


class TorchSymmetric(torch.nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).T

    def right_inverse(self, a):
        return a.triu()


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


class TorchDouble(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class Split(nn.Module):
    """A weight as a product with a vector."""

    def forward(self, a, b):
        return a * b

    def right_inverse(self, w):
        return w / 2, 2 * jnp.ones_like(w)


class TorchSplit(torch.nn.Module):
    def forward(self, a, b):
        return a * b

    def right_inverse(self, w):
        return w / 2, 2 * torch.ones_like(w)


class Shift(nn.Module):
    """Has a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.by = nn.Parameter((3, 3), fn.init.normal())

    def forward(self, x):
        return x + self.by

    def right_inverse(self, w):
        return w - self.by


class Of(nn.Module):
    """Any function and inverse."""

    def __init__(self, forward=None, inverse=None):
        super().__init__()
        self._forward = forward
        if inverse is not None:
            self.right_inverse = inverse

    def forward(self, *x):
        return x[0] if self._forward is None else self._forward(*x)


PAIRS = [
    ([Symmetric], [TorchSymmetric]),
    ([Double], [TorchDouble]),
    ([Split], [TorchSplit]),
    ([Symmetric, Double], [TorchSymmetric, TorchDouble]),
    ([Split, Symmetric], [TorchSplit, TorchSymmetric]),
]


@pytest.mark.parametrize(
    ("ours", "theirs"), PAIRS, ids=["-".join(c.__name__ for c in a) for a, _ in PAIRS]
)
def test_equals_torch(ours, theirs):
    plain = torch.nn.Linear(3, 3)
    a, b = nn.Linear(3, 3), copy.deepcopy(plain)
    a.load_state_dict(plain.state_dict())
    for mine, other in zip(ours, theirs, strict=True):
        assert P.register_parametrization(a, "weight", mine()) is a
        Q.register_parametrization(b, "weight", other())
    assert repr(a) == repr(b).replace("Torch", "")
    assert list(a.state_dict()) == list(b.state_dict())
    assert [n for n, _ in a.named_parameters()] == [n for n, _ in b.named_parameters()]
    for name, value in b.state_dict().items():  # right_inverse worked on the value there was
        np.testing.assert_allclose(a.state_dict()[name], value, rtol=1e-6)
    np.testing.assert_allclose(a.weight, b.weight.detach(), rtol=1e-6)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    (b(torch.from_numpy(x)) ** 2).sum().backward()
    grads = fn.jit(lambda x: fn.grad(lambda m: (m(x) ** 2).sum())(a))(x)
    named = dict(fn.core.layer.flatten(grads))
    for name, p in b.named_parameters():
        np.testing.assert_allclose(named[name], p.grad, rtol=1e-4, atol=1e-5)
    # Both ways, and removal.
    fresh = nn.Linear(3, 3)
    for mine in ours:
        P.register_parametrization(fresh, "weight", mine())
    fresh.load_state_dict(b.state_dict())
    np.testing.assert_allclose(fresh.weight, b.weight.detach(), rtol=1e-6)
    b.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in a.state_dict().items()})
    P.remove_parametrizations(a, "weight")
    value = b.weight.detach().clone()
    Q.remove_parametrizations(b, "weight")
    assert repr(a) == repr(b)
    assert type(a) is nn.Linear
    assert list(a.state_dict()) == list(b.state_dict())
    assert isinstance(a.weight, nn.Parameter)
    np.testing.assert_allclose(a.weight.data, value, rtol=1e-6)


def test_the_original_lives_on_in_an_optimizer():
    layer = nn.Linear(3, 3)
    weight = layer.weight
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    P.register_parametrization(layer, "weight", Symmetric())
    assert layer.parametrizations.weight.original is weight
    before = np.asarray(layer.weight)
    _, grads = fn.value_and_grad(lambda m: m(jnp.arange(3.0)).sum())(layer)
    optimizer.step(grads)
    after = np.asarray(layer.weight)
    assert (before != after).any()
    np.testing.assert_array_equal(after, after.T)
    P.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight is weight
    np.testing.assert_array_equal(np.tril(weight, -1), 0)


def test_assigning():
    layer = nn.Linear(3, 3)
    P.register_parametrization(layer, "weight", Symmetric())
    new = np.array([[1, 2, 3], [2, 4, 5], [3, 5, 6.0]], np.float32)
    layer.weight = new
    np.testing.assert_array_equal(layer.weight, new)
    np.testing.assert_array_equal(layer.parametrizations.weight.original, np.triu(new))
    params, _ = fn.functionalize(layer).init(
        jax.random.key(0)
    )  # and what init gives, as .data does
    np.testing.assert_array_equal(params["parametrizations"]["weight"]["original"], np.triu(new))
    P.register_parametrization(layer, "weight", Double())
    with pytest.raises(UnsupportedError, match="Double does not implement right_inverse"):
        layer.weight = new
    with pytest.raises(KeyError, match="already exists"):
        layer.weight = nn.Parameter(new)
    split = P.register_parametrization(nn.Linear(3, 3), "weight", Split())
    split.weight = new
    np.testing.assert_array_equal(split.weight, new)
    np.testing.assert_array_equal(split.parametrizations.weight.original1, 2)


def test_a_buffer():
    norm, theirs = nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    P.register_parametrization(norm, "running_mean", Double())
    Q.register_parametrization(theirs, "running_mean", TorchDouble())
    assert repr(norm) == repr(theirs).replace("Torch", "")
    assert list(norm.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in norm.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    norm.parametrizations.running_mean.original.data = jnp.ones(3)
    np.testing.assert_allclose(norm.eval()(2 * jnp.ones((4, 3))), np.zeros((4, 3)), atol=1e-6)
    P.remove_parametrizations(norm, "running_mean")
    assert isinstance(norm.running_mean, nn.Buffer)
    assert norm.running_mean.tolist() == [2.0, 2.0, 2.0]


def test_a_parametrized_buffer_may_be_written_in_a_call():
    class Negative(nn.Module):
        def forward(self, x):
            return -x

        def right_inverse(self, x):
            return -x

    plain, norm = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    P.register_parametrization(norm, "running_mean", Negative())
    x = jnp.arange(12.0).reshape(4, 3)
    plain(x)
    fn.jit(norm)(x)
    np.testing.assert_allclose(norm.running_mean, plain.running_mean, rtol=1e-6)
    norm(x)
    plain(x)
    np.testing.assert_allclose(norm.running_mean, plain.running_mean, rtol=1e-6)


# --- descriptions -----------------------------------------------------------------------------


def test_nothing_is_drawn_and_the_values_are_those_of_the_plain_layer():
    for rule in (Symmetric, Double, Split):
        fn.manual_seed(1)
        plain = nn.Linear(3, 3)
        fn.manual_seed(1)
        layer = P.register_parametrization(nn.Linear(3, 3), "weight", rule())
        assert not any(cell.has_value for cell in layer.parameters())
        expected = P.register_parametrization(copy.deepcopy(plain), "weight", rule())
        assert expected.bias.data.tolist() == layer.bias.data.tolist()
        fn.manual_seed(1)
        drawn = nn.Linear(3, 3)
        drawn.weight.data  # noqa: B018
        P.register_parametrization(drawn, "weight", rule())
        for a, b, c in zip(
            layer.parameters(), expected.parameters(), drawn.parameters(), strict=True
        ):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)
        assert layer.weight.shape == (3, 3)


def test_init_gives_what_the_plain_model_would_have():
    key = jax.random.key(7)
    plain, _ = fn.functionalize(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))).init(key)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for layer in model:
        P.register_parametrization(layer, "weight", Split())
    init, apply = fn.functionalize(model)
    params, state = init(key)
    assert state == {}
    for i in "01":
        own = params[i]["parametrizations"]["weight"]
        np.testing.assert_array_equal(own["original0"], plain[i]["weight"] / 2)
        np.testing.assert_array_equal(own["original1"], 2)
    compiled, _ = jax.jit(init)(key)
    jax.tree.map(np.testing.assert_array_equal, compiled, params)
    other, _ = init(jax.random.key(8))
    assert (other["0"]["parametrizations"]["weight"]["original0"] != own["original0"]).any()
    x = jnp.ones((2, 3))
    out, _ = jax.jit(apply)(params, state, x)
    np.testing.assert_allclose(
        out, fn.functionalize(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))).apply(plain, {}, x)[0],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    for layer in model:
        P.remove_parametrizations(layer, "weight")


def test_left_unparametrized_it_starts_as_the_plain_layer_did():
    key = jax.random.key(0)
    model = nn.Sequential(P.register_parametrization(nn.Linear(3, 3), "weight", Double()))
    P.remove_parametrizations(model[0], "weight", leave_parametrized=False)
    got, _ = fn.functionalize(model).init(key)
    expected, _ = fn.functionalize(nn.Sequential(nn.Linear(3, 3))).init(key)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_a_parametrization_with_parameters():
    layer = nn.Linear(3, 3)
    weight = np.asarray(layer.weight)
    P.register_parametrization(layer, "weight", Shift())
    assert list(layer.state_dict()) == [
        "bias", "parametrizations.weight.original", "parametrizations.weight.0.by"
    ]  # fmt: skip
    np.testing.assert_allclose(layer.weight, weight, rtol=1e-5, atol=1e-6)
    grads = fn.grad(lambda m: m(jnp.ones(3)).sum())(layer)["parametrizations"]["weight"]
    np.testing.assert_array_equal(grads["original"], grads["0"]["by"])


def test_large_layers_are_described_only():
    layer = nn.Linear(10**6, 10**6)
    P.register_parametrization(layer, "weight", Symmetric())
    P.register_parametrization(layer, "weight", Double())
    x = jax.ShapeDtypeStruct((2, 10**6), jnp.float32)
    assert fn.eval_shape(layer, x).shape == (2, 10**6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("drawn", [False, True])
def test_copies_are_independent(copied, drawn):
    model = nn.Sequential(nn.Linear(3, 3))
    P.register_parametrization(model[0], "weight", Split())
    if drawn:
        model[0].weight  # noqa: B018
    twin = copied(model)
    np.testing.assert_array_equal(twin[0].weight, model[0].weight)
    assert repr(twin) == repr(model)
    assert type(twin[0]) is not type(model[0])
    P.remove_parametrizations(twin[0], "weight")
    assert type(twin[0]) is nn.Linear
    assert P.is_parametrized(model[0])
    assert model[0].weight.shape == (3, 3)


def test_under_jit_registering_and_removing_is_seen():
    layer, x = nn.Linear(3, 3), jnp.ones(3)
    step = fn.jit(lambda: layer(x))
    first = step()
    P.register_parametrization(layer, "weight", Double())
    np.testing.assert_allclose(step() - layer.bias, 2 * (first - layer.bias), rtol=1e-5)
    P.remove_parametrizations(layer, "weight", leave_parametrized=False)
    np.testing.assert_array_equal(step(), first)


# --- the cache --------------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.count = self.count + 1
        return x


def test_cached():
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Counting())
    count = layer.parametrizations.weight[0]
    count.count.data = jnp.zeros((), jnp.int32)
    x = jnp.ones(3)
    with P.cached():
        layer(layer(x))
        with P.cached():
            layer(x)
        layer(x)
    assert int(count.count) == 1
    layer(layer(x))
    assert int(count.count) == 3
    fn.jit(lambda: layer(layer(x)))()
    assert int(count.count) == 5

    @fn.jit
    def both():
        with P.cached():
            return layer(layer(x)), fn.grad(lambda m: layer(m(x)).sum())(layer)

    both()
    assert int(count.count) == 7  # once in the call, once within the gradient's own
    other = P.register_parametrization(nn.Linear(3, 3), "weight", Double())
    with P.cached():
        inside = jax.jit(lambda x: x @ other.weight)(x)
        np.testing.assert_array_equal(inside, x @ other.weight)
        np.testing.assert_array_equal(fn.jit(lambda: other.weight)(), other.weight)


def test_cached_within_a_raw_loop_leaks_nothing():
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double())

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            with P.cached():
                h, _ = jax.lax.scan(lambda h, _: (self.layer(h), None), x, None, length=3)
                return self.layer(h)

    x, expected = jnp.ones(3), jnp.ones(3)
    for _ in range(4):
        expected = layer(expected)
    np.testing.assert_allclose(fn.jit(Loop())(x), expected, rtol=1e-5)


# --- helpers ----------------------------------------------------------------------------------


def test_is_parametrized_and_the_class_before():
    layer = nn.Linear(3, 3)
    assert not P.is_parametrized(layer)
    assert P.type_before_parametrizations(layer) is nn.Linear
    P.register_parametrization(layer, "weight", Double())
    assert P.is_parametrized(layer)
    assert P.is_parametrized(layer, "weight")
    assert not P.is_parametrized(layer, "bias")
    assert isinstance(layer, nn.Linear)
    assert type(layer).__name__ == "ParametrizedLinear"
    P.register_parametrization(layer, "bias", Double())
    P.remove_parametrizations(layer, "weight")
    assert P.type_before_parametrizations(layer) is nn.Linear
    assert P.is_parametrized(layer, "bias")


@pytest.mark.parametrize("name", [None, "weight"])
def test_transfer(name):
    source, theirs = nn.Linear(3, 3), torch.nn.Linear(3, 3)
    target, their_target = nn.Linear(3, 3), torch.nn.Linear(3, 3)
    assert P.transfer_parametrizations_and_params(source, target) is target
    assert not P.is_parametrized(target)
    P.register_parametrization(source, "weight", Symmetric())
    P.register_parametrization(source, "bias", Split())
    Q.register_parametrization(theirs, "weight", TorchSymmetric())
    Q.register_parametrization(theirs, "bias", TorchSplit())
    P.transfer_parametrizations_and_params(source, target, name)
    Q.transfer_parametrizations_and_params(theirs, their_target, name)
    assert repr(target) == repr(their_target).replace("Torch", "")
    assert list(target.state_dict()) == list(their_target.state_dict())
    np.testing.assert_array_equal(target.weight, source.weight)
    assert target.parametrizations.weight.original is source.parametrizations.weight.original
    empty = nn.Identity()
    P.transfer_parametrizations_and_params(source, empty)
    np.testing.assert_array_equal(empty.bias, source.bias)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (Of(lambda x: x[:1]), r"keep shape and dtype.*\[3, 3\].*\[1, 3\]"),
        (Of(lambda x: x.astype(jnp.float16)), "keep shape and dtype.*float16"),
        (Of(lambda x: (x, x)), "must return an array, but got"),
        (Of(inverse=lambda x: 3), "'right_inverse' must return an array or a list"),
        (Of(inverse=lambda x: (x, 3)), "element 1 is 3"),
        (Of(inverse=lambda x: x.astype(jnp.float16)), "right_inverse must keep dtype"),
    ],
    ids=range(6),
)
def test_what_a_parametrization_must_not_do(rule, match):
    layer = nn.Linear(3, 3)
    before = repr(layer)
    with pytest.raises(ArgumentError, match=match):
        P.register_parametrization(layer, "weight", rule)
    assert repr(layer) == before
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.shape == (3, 3)
    np.testing.assert_array_equal(
        fn.functionalize(layer).init(jax.random.key(0))[0]["weight"],
        fn.functionalize(nn.Linear(3, 3)).init(jax.random.key(0))[0]["weight"],
    )


def test_unsafe_allows_another_shape():
    layer = P.register_parametrization(
        nn.Linear(3, 3, bias=False), "weight", Of(lambda x: x[:1]), unsafe=True
    )
    assert layer(jnp.ones(3)).shape == (1,)
    layer = nn.Linear(3, 3)
    P.register_parametrization(layer, "weight", Of(inverse=lambda x: x[:2]), unsafe=True)
    assert layer.parametrizations.weight.original.shape == (2, 3)


def test_a_second_parametrization_is_checked():
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double())
    for rule in (Of(lambda x: x[:1]), Of(inverse=lambda x: x[:1]), Of(lambda x: 1.0)):
        with pytest.raises(ArgumentError):
            P.register_parametrization(layer, "weight", rule)
    assert len(layer.parametrizations.weight) == 1
    P.register_parametrization(layer, "weight", Of(lambda x: x[:1]), unsafe=True)
    assert layer.parametrizations.weight.unsafe


def test_other_refusals():
    layer = nn.Linear(3, 3, bias=False)
    for name in ("nothing", "bias", "in_features"):
        with pytest.raises(ArgumentError, match=f"does not have a parameter.*'{name}'"):
            P.register_parametrization(layer, name, Double())
    with pytest.raises(ArgumentError, match="does not have a parametrization on weight"):
        P.remove_parametrizations(layer, "weight")
    with pytest.raises(ArgumentError, match="requires one or more modules"):
        P.ParametrizationList([], layer.weight)
    with pytest.raises(ShapeError, match="'weight' is not known yet"):
        P.register_parametrization(nn.LazyLinear(3), "weight", Double())
    with pytest.raises(ArgumentError, match="sequence of tensors"):
        P.remove_parametrizations(
            P.register_parametrization(layer, "weight", Split()), "weight", leave_parametrized=False
        )
    with pytest.raises(ModuleAccessError, match="nothing"):
        layer.nothing  # noqa: B018
    fickle = P.register_parametrization(nn.Linear(3, 3), "weight", Of(inverse=lambda x: x))
    fickle.parametrizations.weight[0].right_inverse = lambda x: (x, x)
    with pytest.raises(ArgumentError, match="must return one array"):
        fickle.weight = jnp.ones((3, 3))
    fickle.parametrizations.weight[0].right_inverse = lambda x: x.astype(jnp.float16)
    with pytest.raises(ArgumentError, match="keep dtype"):
        fickle.weight = jnp.ones((3, 3))
