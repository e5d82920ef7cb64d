"""Lazy layers against PyTorch, and the ways in which a shape gets known."""

from __future__ import annotations

import copy
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.core.lazy import LazyModuleMixin
from funcnets.errors import ArgumentError, ShapeError, StateDictError, UnsupportedError
from funcnets.nn.parameter import is_lazy

ROWS = [
    ("Linear", (4,), {}, (2, 3)),
    ("Linear", (4,), {"bias": False}, (3,)),
    ("Conv1d", (4, 3), {"stride": 2, "padding": 1}, (2, 3, 8)),
    ("Conv1d", (4, 3), {"bias": False, "padding_mode": "circular", "padding": 1}, (3, 8)),
    ("Conv2d", (4, (1, 3)), {"groups": 2, "dilation": 2}, (2, 2, 6, 7)),
    ("Conv2d", (4, 3), {"padding": "same"}, (3, 5, 5)),
    ("Conv3d", (2, 2), {}, (1, 3, 4, 4, 4)),
    ("ConvTranspose1d", (4, 3), {"stride": 2, "output_padding": 1}, (2, 3, 5)),
    ("ConvTranspose2d", (4, 3), {"groups": 2, "bias": False}, (2, 4, 4)),
    ("ConvTranspose3d", (2, 2), {"stride": 2, "padding": 1}, (1, 3, 3, 3, 3)),
    ("BatchNorm1d", (), {}, (4, 3)),
    ("BatchNorm1d", (), {"affine": False}, (4, 3, 5)),
    ("BatchNorm2d", (), {"bias": False, "momentum": None}, (4, 3, 2, 2)),
    ("BatchNorm3d", (1e-3,), {"track_running_stats": False}, (4, 3, 2, 2, 2)),
    ("InstanceNorm1d", (), {}, (4, 3, 5)),
    ("InstanceNorm2d", (), {"affine": False}, (4, 3, 2, 2)),
    ("InstanceNorm3d", (), {"track_running_stats": False, "eps": 1e-3}, (4, 3, 2, 2, 2)),
]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(ROWS)]


def pair(name, args, kwargs):
    return (
        getattr(torch.nn, f"Lazy{name}")(*args, **kwargs),
        getattr(nn, f"Lazy{name}")(*args, **kwargs),
    )


def sample(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def model():
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyBatchNorm1d(), nn.LazyLinear(2))


NAMES = ["0.weight", "0.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var",
         "3.weight", "3.bias"]  # fmt: skip
X = jnp.ones((5, 4)) * jnp.arange(5.0)[:, None]


def settled(m):
    return [tuple(p.shape) for p in m.parameters()] == [
        (8, 4), (8,), (8,), (8,), (2, 8), (2,)
    ]  # fmt: skip


# --- against torch ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_text_state_and_numbers_equal_torch(row):
    name, args, kwargs, shape = row
    theirs, ours = pair(name, args, kwargs)
    x = sample(shape)
    assert repr(ours) == repr(theirs)
    waiting = {n: repr(v) for n, v in theirs.state_dict().items() if torch.nn.parameter.is_lazy(v)}
    assert {n: repr(v) for n, v in ours.state_dict().items() if is_lazy(v)} == waiting
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    theirs(torch.from_numpy(x))
    ours(jnp.asarray(x))
    assert type(ours) is getattr(nn, name)
    assert type(theirs) is getattr(torch.nn, name)
    assert repr(ours) == repr(theirs)
    assert {n: tuple(v.shape) for n, v in ours.state_dict().items()} == {
        n: tuple(v.shape) for n, v in theirs.state_dict().items()
    }
    # The settled layer's values into another lazy one, which takes its shapes from them.
    _, fresh = pair(name, args, kwargs)
    fresh.load_state_dict(theirs.state_dict())
    assert type(fresh) is getattr(nn, f"Lazy{name}")
    np.testing.assert_allclose(
        fresh(jnp.asarray(x)), theirs(torch.from_numpy(x)).detach(), rtol=1e-4, atol=1e-5
    )
    assert repr(fresh) == repr(theirs)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(fresh.state_dict()[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_initial_values_are_those_of_the_class_it_becomes(row):
    name, args, kwargs, shape = row
    _, lazy = pair(name, args, kwargs)
    key = jax.random.key(3)
    params, state = fn.functionalize(lazy).init(key, jnp.asarray(sample(shape)))
    number = (
        "num_features" if "Norm" in name else "in_channels" if "Conv" in name else "in_features"
    )
    # InstanceNorm's own defaults are not those of its lazy class.
    if "Norm" in name:
        kwargs = {"affine": True, "track_running_stats": True, **kwargs}
    plain = getattr(nn, name)(getattr(lazy, number), *args, **kwargs)
    expected = fn.functionalize(plain).init(key)
    assert jax.tree.structure((params, state)) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, (params, state), expected)


def test_torchs_unsettled_state_dict_and_ours():
    theirs, ours = torch.nn.LazyLinear(3), nn.LazyLinear(3)
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    assert str(ours.load_state_dict(nn.LazyLinear(3).state_dict())) == (
        "<All keys matched successfully>"
    )
    assert is_lazy(ours.weight)
    assert is_lazy(ours.state_dict(keep_vars=True)["weight"])
    for source in (theirs, nn.LazyLinear(3)):
        with pytest.raises(StateDictError, match="weight is uninitialized"):
            nn.Linear(2, 3).load_state_dict(source.state_dict())


def test_the_distribution_is_torchs():
    lazy = nn.LazyLinear(500)
    lazy(jnp.ones(25))
    weight, bias = np.asarray(lazy.weight), np.asarray(lazy.bias)
    assert np.abs(weight).max() <= 0.2
    assert np.abs(weight).max() > 0.199
    assert abs(weight.std() - 0.2 / math.sqrt(3)) < 2e-3
    assert np.abs(bias).max() <= 0.2
    assert bias.std() > 0.1


def test_instance_norm_without_a_batch_and_without_cells():
    lazy = nn.LazyInstanceNorm1d()  # torch takes the length for the number of channels here
    assert lazy(jnp.ones((3, 4))).shape == (3, 4)
    assert lazy.num_features == 3
    lazy = nn.LazyInstanceNorm2d(affine=False, track_running_stats=False)
    lazy(jnp.ones((2, 3, 4, 4)))  # torch leaves num_features at 0 and warns at each call
    assert type(lazy) is nn.InstanceNorm2d
    assert lazy.num_features == 3


# --- cells ------------------------------------------------------------------------------------


def test_an_unsettled_cell_has_a_dtype_and_no_shape():
    weight = nn.LazyLinear(3, dtype=jnp.bfloat16).weight
    assert isinstance(weight, nn.Parameter)
    assert weight.dtype == jnp.bfloat16
    assert not weight.settled
    assert not weight.has_value
    assert weight.requires_grad
    assert repr(weight) == "<UninitializedParameter>"
    for read in (
        lambda: weight.shape, lambda: weight.ndim, lambda: weight.size(), lambda: weight.numel(),
        lambda: weight.data, lambda: weight + 1, lambda: weight[0], lambda: weight.mean(),
        lambda: np.asarray(weight), lambda: len(weight), lambda: nn.Parameter(weight),
        lambda: nn.init.uniform_(weight), lambda: 2 * weight,
    ):  # fmt: skip
        with pytest.raises(ShapeError, match="not known yet") as caught:
            read()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, RuntimeError)


def test_materialize():
    weight = nn.UninitializedParameter(requires_grad=False, dtype=jnp.float16)
    weight.materialize((2, 3), dtype=jnp.float32)
    assert type(weight) is nn.Parameter
    assert weight.settled
    assert not weight.has_value
    assert weight.dtype == jnp.float32
    assert not weight.requires_grad
    nn.init.ones_(weight)
    assert weight.sum() == 6
    buffer = nn.UninitializedBuffer(persistent=False)
    buffer.materialize([4], device="cpu")
    assert type(buffer) is nn.Buffer
    assert buffer.shape == (4,)
    assert not buffer.persistent
    for shape in (3, "ab", (2.0,), (-1,)):
        with pytest.raises(ArgumentError):
            nn.UninitializedBuffer().materialize(shape)
    with pytest.raises(UnsupportedError, match="UninitializedParameter"):
        nn.UninitializedBuffer(requires_grad=True)


def test_assigning_data_settles():
    weight = nn.UninitializedParameter()
    weight.data = jnp.ones((2, 2), jnp.bfloat16)
    assert type(weight) is nn.Parameter
    assert weight.shape == (2, 2)
    assert weight.dtype == jnp.bfloat16


def test_a_call_may_write_the_first_value_of_an_unsettled_buffer():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", nn.UninitializedBuffer())

        def forward(self, x):
            self.seen = x
            return x

    m = Last()
    m(jnp.ones((2, 3)))
    assert type(m.seen) is nn.Buffer
    assert m.seen.shape == (2, 3)
    with pytest.raises(ShapeError, match="not known yet"):
        fn.jit(Last())(jnp.ones((2, 3)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_before_and_after(copied):
    m = model()
    twin = copied(m)
    assert repr(twin) == repr(m)
    assert settled((twin(X), twin)[1])
    assert is_lazy(m[0].weight)
    assert type(m[0]) is nn.LazyLinear
    again = copied(twin)
    np.testing.assert_array_equal(again.eval()(X), twin.eval()(X))
    assert settled((m(X), m)[1])


def test_conversion_before():
    m = model().bfloat16().to("cpu")
    assert m[0].weight.dtype == jnp.bfloat16
    assert is_lazy(m[0].weight)
    assert m(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    m = nn.LazyLinear(2).requires_grad_(False)
    m(X)
    assert not any(p.requires_grad for p in m.parameters())


# --- the stateful face ------------------------------------------------------------------------


def loss(m, x):
    return (m(x) ** 2).mean()


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m(X),
        lambda m: fn.jit(m)(X),
        lambda m: fn.jit(lambda x: m(x))(X),
        lambda m: fn.eval_shape(m, X),
        lambda m: fn.eval_shape(m, jax.ShapeDtypeStruct(X.shape, X.dtype)),
        lambda m: fn.value_and_grad(loss)(m, X),
        lambda m: fn.grad(lambda m: loss(m, X))(m),
        lambda m: fn.jit(lambda x: fn.value_and_grad(loss)(m, x))(X),
        lambda m: fn.checkpoint(m)(X),
        lambda m: fn.scan(lambda c, x: (c, m(x)), 0, X[None]),
        lambda m: fn.vmap(m)(X[None]),
        lambda m: fn.jit(fn.checkpoint(m))(X),
        lambda m: jax.jit(lambda x: m.eval()(x))(X),
    ],
    ids=lambda c: "",
)
def test_the_first_call_settles(call):
    m = model()
    call(m)
    assert settled(m)
    assert not any(map(is_lazy, m.buffers()))
    assert [type(c).__name__ for c in m] == ["Linear", "ReLU", "BatchNorm1d", "Linear"]
    assert not m[0]._forward_pre_hooks
    assert "_initialize_hook" not in m[0].__dict__
    assert m(X).shape == (5, 2)


def test_a_shape_alone_draws_nothing():
    m = model()
    fn.eval_shape(m, jax.ShapeDtypeStruct((5, 10**9), jnp.float32))
    assert m[0].weight.shape == (8, 10**9)
    assert not any(c.has_value for c in m.parameters())


def test_training_is_that_of_the_settled_model():
    def train(m):
        optimizer = optim.SGD(m.parameters(), lr=0.1)

        @fn.jit
        def step(x):
            value, grads = fn.value_and_grad(loss)(m, x)
            optimizer.step(grads)
            return value

        return [float(step(X)) for _ in range(3)], m.state_dict()

    lazy, plain = (
        model(),
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2)),
    )
    fn.eval_shape(lazy, X)
    plain.load_state_dict(lazy.state_dict())
    got, expected = train(lazy), train(plain)
    assert got[0] == expected[0]
    jax.tree.map(np.testing.assert_array_equal, dict(got[1]), dict(expected[1]))


def test_running_statistics_of_the_first_batch_are_kept_under_jit():
    lazy, plain = nn.LazyBatchNorm1d(), nn.BatchNorm1d(4)
    fn.jit(lazy)(X)
    plain(X)
    np.testing.assert_allclose(lazy.running_mean, plain.running_mean, rtol=1e-6)
    assert int(lazy.num_batches_tracked) == 1


def test_an_optimizer_may_be_made_before_but_not_used():
    m = nn.LazyLinear(1)
    optimizer = optim.SGD(m.named_parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ShapeError, match="not known yet"):
        optimizer.step({"weight": jnp.ones((1, 4)), "bias": jnp.ones(1)})
    _, grads = fn.value_and_grad(loss)(m, X)
    before = np.asarray(m.weight)
    optimizer.step(grads)
    assert (np.asarray(m.weight) != before).any()


def test_errors_tell_the_layer():
    m = nn.Sequential(nn.LazyConv2d(4, 3, groups=2))
    with pytest.raises(ArgumentError, match="divisible by groups") as caught:
        m(jnp.ones((1, 3, 5, 5)))
    assert "'0' of Sequential: LazyConv2d(0, 4," in caught.value.__notes__[0]
    with pytest.raises(ShapeError, match=r"expected 3D or 4D input for LazyConv2d.*2D"):
        m(jnp.ones((3, 5)))
    with pytest.raises(ShapeError, match="4D"):
        nn.LazyBatchNorm2d()(jnp.ones((3, 5)))
    with pytest.raises(ArgumentError, match="out_channels must be divisible"):
        nn.LazyConv1d(3, 3, groups=2)
    assert m(jnp.ones((1, 4, 5, 5))).shape == (1, 4, 3, 3)


# --- loading ----------------------------------------------------------------------------------


def test_loaded_values_survive_the_first_call_and_must_fit_it():
    lazy, plain = nn.LazyLinear(3), nn.Linear(4, 3)
    lazy.load_state_dict(plain.state_dict())
    assert lazy.weight.shape == (3, 4)
    assert repr(lazy).startswith("LazyLinear(in_features=0")
    with pytest.raises(ShapeError, match=r"\(3, 5\).*loaded has shape \(3, 4\)"):
        lazy(jnp.ones((2, 5)))
    np.testing.assert_array_equal(lazy(X), plain(X))
    # Of one cell only: the other one is drawn.
    lazy = nn.LazyLinear(3)
    lazy.load_state_dict({"weight": np.ones((3, 4))}, strict=False)
    lazy(X)
    assert (np.asarray(lazy.weight) == 1).all()
    assert (np.asarray(lazy.bias) != 0).any()


def test_nothing_is_half_loaded():
    lazy = nn.LazyLinear(3)
    with pytest.raises(StateDictError, match="Missing key"):
        lazy.load_state_dict({"weight": np.ones((3, 4))})
    assert is_lazy(lazy.weight)


# --- the pure face ----------------------------------------------------------------------------


def test_init_with_an_example():
    for example in (X, jax.ShapeDtypeStruct(X.shape, X.dtype), np.asarray(X)):
        m = model()
        init, apply = fn.functionalize(m)
        params, state = init(jax.random.key(0), example)
        assert params["0"]["weight"].shape == (8, 4)
        assert state["2"]["running_mean"].shape == (8,)
        assert not any(c.has_value for c in m.parameters())
        out, state = apply(params, state, X, training=True)
        assert out.shape == (5, 2)
        assert state["2"]["num_batches_tracked"] == 1


def test_init_with_an_example_traces():
    key = jax.random.key(0)
    expected = fn.functionalize(model()).init(key, X)
    compiled = jax.jit(fn.functionalize(model()).init)(key, X)
    jax.tree.map(np.testing.assert_array_equal, compiled, expected)
    shapes = jax.eval_shape(fn.functionalize(model()).init, key, X)
    assert jax.tree.map(lambda s: s.shape, shapes) == jax.tree.map(jnp.shape, expected)
    inside = fn.jit(lambda key: fn.functionalize(model()).init(key, X))(key)
    jax.tree.map(np.testing.assert_array_equal, inside, expected)


def test_init_takes_keyword_examples_and_refuses_what_does_not_fit():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.LazyLinear(2), nn.LazyLinear(2)

        def forward(self, x, *, y=None):
            return self.a(x) if y is None else self.a(x) + self.b(y)

    init, _ = fn.functionalize(Two())
    with pytest.raises(ShapeError, match=r"b\.weight, b\.bias are not known"):
        init(jax.random.key(0), X)
    params, _ = init(jax.random.key(0), X, y=jnp.ones((5, 7)))
    assert params["a"]["weight"].shape == (2, 4)
    assert params["b"]["weight"].shape == (2, 7)
    with pytest.raises(ShapeError):
        fn.functionalize(nn.Linear(3, 2)).init(jax.random.key(0), X)


def test_init_without_an_example_names_every_cell():
    m = model()
    with pytest.raises(ShapeError) as caught:
        fn.functionalize(m).init(jax.random.key(0))
    assert ", ".join(NAMES) in str(caught.value)
    assert "init(key, example)" in str(caught.value)
    with pytest.raises(ShapeError, match=r"0\.weight, 0\.bias, 2\.weight"):
        fn.get_variables(m)


def test_variables_settle_the_shapes():
    params, state = fn.functionalize(model()).init(jax.random.key(0), X)
    m = model()
    out, _ = fn.functionalize(m).apply(params, state, X, training=False)
    assert settled(m)
    assert type(m[0]) is nn.Linear
    m = model()
    fn.set_variables(m, params, state)
    np.testing.assert_array_equal(m.eval()(X), out)
    m = model()
    wrong = {**params, "3": {"weight": params["3"]["weight"]}}
    with pytest.raises(fn.errors.TreeError, match=r"missing: 3\.bias"):
        fn.set_variables(m, wrong, state)
    assert is_lazy(m[0].weight)


# --- a lazy module of one's own ---------------------------------------------------------------


class Scale(LazyModuleMixin, nn.Module):
    def __init__(self, fill=True):
        super().__init__()
        self.scale, self.fill = nn.UninitializedParameter(), fill

    def initialize_parameters(self, x):
        if self.fill:
            self.scale.materialize(x.shape[-1:])
            nn.init.constant_(self.scale, 2.0)

    def forward(self, x):
        return x * jnp.broadcast_to(self.scale, x.shape)


def test_a_lazy_module_of_ones_own():
    m = Scale()
    np.testing.assert_array_equal(fn.jit(m)(X), 2 * X)
    assert type(m) is Scale
    assert m.scale.shape == (4,)
    with pytest.raises(ShapeError, match="module Scale has not been fully initialized"):
        Scale(fill=False)(X)

    class Without(LazyModuleMixin, nn.Linear):
        pass

    with pytest.raises(UnsupportedError, match="initialize_parameters is not implemented"):
        Without(4, 2)(X)
