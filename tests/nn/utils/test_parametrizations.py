"""orthogonal, weight_norm and spectral_norm of ``nn.utils.parametrizations`` against PyTorch's."""

from __future__ import annotations

import copy
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, ModeError, ShapeError
from funcnets.nn.utils import parametrizations, parametrize
from tests import oracle

T = torch.nn.utils.parametrizations
X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)

ROWS = [
    ("weight_norm", {}),
    ("weight_norm", {"dim": None}),
    ("weight_norm", {"dim": 1}),
    ("weight_norm", {"dim": -1}),
    ("weight_norm", {"dim": -2}),
    ("spectral_norm", {}),
    ("spectral_norm", {"n_power_iterations": 3, "dim": 1, "eps": 1e-6}),
    ("orthogonal", {}),
    ("orthogonal", {"orthogonal_map": "cayley"}),
    ("orthogonal", {"orthogonal_map": "matrix_exp"}),
    ("orthogonal", {"orthogonal_map": "householder"}),
    ("orthogonal", {"use_trivialization": False}),
    ("orthogonal", {"orthogonal_map": "cayley", "use_trivialization": False}),
]
IDS = [f"{name}-{'-'.join(map(str, kwargs.values()))}" for name, kwargs in ROWS]


def pair(name, kwargs, ours, theirs):
    """The same parametrization in both, with the same values, away from where it starts."""
    getattr(T, name)(theirs, **kwargs)
    getattr(parametrizations, name)(ours, **kwargs)
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def compare(ours, theirs, x, steps=2):
    """Text, names, and several training steps' outputs, gradients and buffers."""
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    grad = fn.jit(lambda x: fn.value_and_grad(lambda m: oracle.scalar(m(x)))(ours))
    for _ in range(steps):
        theirs.zero_grad()
        out = theirs(torch.from_numpy(x))
        (out * oracle.weights_like(out)).sum().backward()
        _, gradients = grad(x)
        named = dict(fn.core.layer.flatten(gradients))
        for name, p in theirs.named_parameters():
            np.testing.assert_allclose(named[name], p.grad, rtol=3e-4, atol=3e-5, err_msg=name)
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(
                ours.state_dict()[name], value, rtol=3e-4, atol=3e-5, err_msg=name
            )
    ours.eval()
    theirs.eval()
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), rtol=3e-4, atol=3e-5)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
@pytest.mark.parametrize("size", [5, 2, 3])
def test_equals_torch(row, size):
    compare(*pair(*row, nn.Linear(3, size), torch.nn.Linear(3, size)), X)


@pytest.mark.parametrize(
    ("kind", "args", "shape"),
    [
        ("Conv1d", (3, 4, 2), (2, 3, 5)),
        ("Conv2d", (2, 4, (1, 3)), (1, 2, 4, 4)),
        ("ConvTranspose2d", (2, 4, 2), (1, 2, 3, 3)),
    ],
)
@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
def test_convolutions_equal_torch(name, kind, args, shape):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    compare(*pair(name, {}, getattr(nn, kind)(*args), getattr(torch.nn, kind)(*args)), x)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_a_vector_equals_torch(name):
    compare(*pair(name, {"name": "bias"}, nn.Linear(3, 4), torch.nn.Linear(3, 4)), X)


def test_several_tensors_of_a_recurrent_layer():
    ours, theirs = nn.RNN(3, 4), torch.nn.RNN(3, 4)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        T.weight_norm(theirs, name)
        parametrizations.weight_norm(ours, name)
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype(np.float32)
    for a, b in zip(ours(x), theirs(torch.from_numpy(x)), strict=True):
        np.testing.assert_allclose(a, b.detach(), rtol=1e-5, atol=1e-6)
    params, _ = fn.functionalize(ours).init(jax.random.key(0))
    own = params["parametrizations"]
    assert not np.isclose(own["weight_ih_l0"]["original0"], own["weight_hh_l0"]["original0"]).any()


# --- where they start -------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=IDS)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (3, 3)])
def test_nothing_is_drawn_and_the_start_is_torchs(row, shape):
    name, kwargs = row
    theirs = torch.nn.Linear(*shape)
    ours = nn.Linear(*shape)
    ours.load_state_dict(theirs.state_dict())
    getattr(parametrizations, name)(ours, **kwargs)
    getattr(T, name)(theirs, **kwargs)
    unconstrained = kwargs.get("use_trivialization") is False and "orthogonal_map" in kwargs
    a, b = np.asarray(ours.eval().weight), theirs.eval().weight.detach()
    if name == "weight_norm" or unconstrained:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    elif name == "orthogonal":
        square = a.T @ a if shape[1] >= shape[0] else a @ a.T
        np.testing.assert_allclose(square, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    else:  # u and v are random at first
        np.testing.assert_allclose(np.linalg.norm(a, 2), 1, atol=0.05)
    # From a seed, and from a key: as the plain layer.
    fn.manual_seed(2)
    plain = nn.Linear(*shape)
    fn.manual_seed(2)
    layer = getattr(parametrizations, name)(nn.Linear(*shape), **kwargs)
    assert not any(cell.has_value for cell in (*layer.parameters(), *layer.buffers()))
    expected = getattr(parametrizations, name)(
        nn.Linear(*shape), **kwargs
    )  # with the value put in before
    parametrize.remove_parametrizations(expected, "weight")
    expected.load_state_dict(plain.state_dict())
    getattr(parametrizations, name)(expected, **kwargs)
    np.testing.assert_allclose(layer.eval().weight, expected.eval().weight, rtol=1e-2, atol=1e-2)
    init, apply = fn.functionalize(layer)
    key = jax.random.key(1)
    params, state = init(key)
    jitted = jax.jit(init)(key)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), jitted, (params, state)
    )
    start, _ = fn.functionalize(plain).init(key)
    if name == "spectral_norm":
        original = params["parametrizations"]["weight"]["original"]
        np.testing.assert_array_equal(original, start["weight"])
        return
    fn.set_variables(plain, start)
    getattr(parametrizations, name)(plain, **kwargs)
    x = jnp.ones(shape[0])
    out, _ = apply(params, state, x, training=False)
    np.testing.assert_allclose(out, plain.eval()(x), rtol=2e-2, atol=2e-2)


# --- weight norm ------------------------------------------------------------------------------


def test_weight_norm_takes_the_older_state_dict():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Linear(3, 4)))
    ours = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)))
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    np.testing.assert_allclose(ours(X), theirs(torch.from_numpy(X)).detach(), rtol=1e-5, atol=1e-6)


def test_weight_norm_in_half_precision():
    layer = parametrizations.weight_norm(nn.Linear(300, 4)).half()
    layer.weight = 100 * jnp.ones((4, 300), jnp.float16)
    assert layer.parametrizations.weight.original0.dtype == jnp.float16
    np.testing.assert_allclose(layer.weight, 100, rtol=1e-2)
    with pytest.raises(ArgumentError, match="dim must be in the range"):
        parametrizations.weight_norm(nn.Linear(3, 4), dim=2)


# --- spectral norm ----------------------------------------------------------------------------


def vectors(layer):
    rule = layer.parametrizations.weight[0]
    return np.asarray(rule._u), np.asarray(rule._v)


def test_spectral_norm_writes_its_buffers_in_training_only():
    layer = parametrizations.spectral_norm(nn.Linear(3, 4))
    plain = copy.deepcopy(layer)
    before = vectors(layer)
    layer.eval()(X)
    for a, b in zip(vectors(layer), before, strict=True):
        np.testing.assert_array_equal(a, b)
    layer.train()
    fn.jit(layer)(X)
    after = vectors(layer)
    assert (after[0] != before[0]).any()
    plain(X)  # eagerly
    for a, b in zip(vectors(plain), after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # The pure face.
    _init, apply = fn.functionalize(layer)
    params, state = fn.get_variables(layer)
    with pytest.raises(ModeError):
        apply(params, state, X)
    _, same = apply(params, state, X, training=False)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    _, new = jax.jit(lambda p, s: apply(p, s, X, training=True))(params, state)
    layer(X)
    np.testing.assert_allclose(
        new["parametrizations"]["weight"]["0"]["_u"], vectors(layer)[0], rtol=1e-5, atol=1e-6
    )
    # One step however often the weight is read.
    again = copy.deepcopy(layer)
    with parametrize.cached():
        layer(X)
        layer(X)
    again(X)
    for a, b in zip(vectors(again), vectors(layer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gan_of_spectral_norms_trains():
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(3, 8)), nn.ReLU(),
        parametrizations.spectral_norm(nn.Linear(8, 1)),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    @fn.jit
    def step(real, fake):
        value, grads = fn.value_and_grad(lambda m: (m(fake) - m(real)).mean())(model)
        optimizer.step(grads)
        return value

    losses = [float(step(X, -X)) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert np.linalg.norm(model.eval()[0].weight, 2) == pytest.approx(1, abs=0.05)


def test_spectral_norm_after_another_parametrization():
    layer = parametrizations.weight_norm(nn.Linear(3, 4))
    parametrizations.spectral_norm(layer)
    assert not any(cell.has_value for cell in (*layer.parameters(), *layer.buffers()))
    assert np.linalg.norm(layer.eval().weight, 2) == pytest.approx(1, abs=0.05)
    params, state = fn.functionalize(layer).init(jax.random.key(0))
    fn.set_variables(layer, params, state)
    assert np.linalg.norm(layer.weight, 2) == pytest.approx(1, abs=0.05)
    theirs = T.spectral_norm(T.weight_norm(torch.nn.Linear(3, 4)))
    assert repr(layer) == repr(theirs)
    assert list(layer.state_dict()) == list(theirs.state_dict())


# --- orthogonal -------------------------------------------------------------------------------


def test_orthogonal_of_batches_and_complex_matrices():
    for shape, kwargs in (
        ((2, 4, 3), {}),
        ((2, 3, 4), {}),
        ((2, 3, 3), {"orthogonal_map": "cayley"}),
    ):

        class Holder(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(jnp.asarray(theirs.w.detach().numpy()))  # noqa: B023

        class TorchHolder(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.w = torch.nn.Parameter(torch.randn(shape))  # noqa: B023

        theirs = TorchHolder()
        ours = parametrizations.orthogonal(Holder(), "w", **kwargs)
        T.orthogonal(theirs, "w", **kwargs)
        np.testing.assert_allclose(ours.w, theirs.w.detach(), rtol=1e-4, atol=1e-5)
    for name in (None, "cayley", "matrix_exp"):
        theirs = torch.nn.Linear(3, 2, dtype=torch.complex64)
        ours = nn.Linear(3, 2, dtype=jnp.complex64)
        ours.load_state_dict(theirs.state_dict())
        parametrizations.orthogonal(ours, orthogonal_map=name)
        T.orthogonal(theirs, orthogonal_map=name)
        np.testing.assert_allclose(
            ours.weight, theirs.weight.detach().resolve_conj(), rtol=1e-4, atol=1e-5
        )
        with torch.no_grad():
            theirs.parametrizations.weight.original.add_(0.3 - 0.2j)
        ours.load_state_dict(theirs.state_dict())
        np.testing.assert_allclose(
            ours.weight, theirs.weight.detach().resolve_conj(), rtol=1e-4, atol=1e-5
        )
    with pytest.raises(ArgumentError, match="complex"):
        parametrizations.orthogonal(
            nn.Linear(3, 2, dtype=jnp.complex64), orthogonal_map="householder"
        )


def test_orthogonal_keeps_an_orthogonal_weight_and_takes_assignments():
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0].astype(np.float32)
    layer = nn.Linear(4, 4)
    layer.weight.data = q
    parametrizations.orthogonal(layer)
    np.testing.assert_array_equal(layer.weight, q)
    layer.weight = -q.T
    np.testing.assert_allclose(layer.weight, -q.T, atol=1e-6)
    with pytest.raises(ShapeError, match=r"\(4, 4\).*\(3, 3\)"):
        layer.weight = np.eye(3)
    plain = parametrizations.orthogonal(
        nn.Linear(4, 4), orthogonal_map="cayley", use_trivialization=False
    )
    with pytest.raises(NotImplementedError, match="use_trivialization"):
        plain.weight = q
    tall = parametrizations.orthogonal(nn.Linear(2, 4), use_trivialization=False)
    tall.weight = q[:, :2]
    np.testing.assert_allclose(tall.weight, q[:, :2], atol=1e-6)


def test_orthogonal_in_half_precision_and_after_training():
    layer = parametrizations.orthogonal(nn.Linear(4, 6)).bfloat16()
    assert layer.weight.dtype == jnp.bfloat16
    layer = parametrizations.orthogonal(nn.Linear(4, 6))
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    x = jnp.ones((5, 4))
    for _ in range(5):
        _, grads = fn.value_and_grad(lambda m: m(x).sum())(layer)
        optimizer.step(grads)
    np.testing.assert_allclose(layer.weight.T @ layer.weight, np.eye(4), atol=1e-5)
    batched = jax.vmap(lambda w: w @ layer.weight.T)(jnp.ones((3, 4)))
    assert batched.shape == (3, 6)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
def test_what_all_refuse(name):
    register = getattr(parametrizations, name)
    with pytest.raises(ArgumentError, match="'nothing'"):
        register(nn.Linear(3, 2), "nothing")
    with pytest.raises(ArgumentError, match="'bias'"):
        register(nn.Linear(3, 2, bias=False), "bias")
    with pytest.raises(ShapeError, match="not known yet"):
        register(nn.LazyLinear(2))
    lazy = nn.LazyLinear(2)
    fn.eval_shape(lazy, X)
    assert register(lazy)(X).shape == (4, 2)


def test_what_each_refuses():
    with pytest.raises(ArgumentError, match=r"range of \[-2, 1\]"):
        parametrizations.spectral_norm(nn.Linear(3, 2), dim=2)
    with pytest.raises(ArgumentError, match="n_power_iterations must be positive"):
        parametrizations.spectral_norm(nn.Linear(3, 2), n_power_iterations=0)
    with pytest.raises(ArgumentError, match="matrix"):
        parametrizations.orthogonal(nn.Linear(3, 2), "bias")
    with pytest.raises(ArgumentError, match="orthogonal_map"):
        parametrizations.orthogonal(nn.Linear(3, 2), orthogonal_map="qr")
