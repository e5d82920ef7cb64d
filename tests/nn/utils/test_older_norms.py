"""``nn.utils.weight_norm`` and ``nn.utils.spectral_norm``, with their parts on the module itself."""

from __future__ import annotations

import copy
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, ModeError, ShapeError, UnsupportedError
from funcnets.nn import utils
from funcnets.nn.utils import parametrizations
from tests import oracle

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
T = torch.nn.utils

ROWS = [
    ("weight_norm", {}, "Linear", (3, 4), (5, 3)),
    ("weight_norm", {"dim": None}, "Linear", (3, 4), (5, 3)),
    ("weight_norm", {"dim": 1, "name": "weight"}, "Conv1d", (3, 4, 2), (2, 3, 5)),
    ("weight_norm", {"name": "bias"}, "Linear", (3, 4), (5, 3)),
    ("weight_norm", {"name": "weight_hh_l0"}, "RNN", (3, 4), (5, 3)),
    ("spectral_norm", {}, "Linear", (3, 4), (5, 3)),
    ("spectral_norm", {"n_power_iterations": 3, "dim": 1}, "Linear", (3, 4), (5, 3)),
    ("spectral_norm", {}, "Conv2d", (2, 3, 2), (1, 2, 4, 4)),
    ("spectral_norm", {}, "ConvTranspose2d", (2, 3, 2), (1, 2, 3, 3)),
    ("spectral_norm", {"name": "bias"}, "Linear", (3, 4), (5, 3)),
]
IDS = [f"{r[0]}-{r[2]}-{'-'.join(map(str, r[1].values()))}" for r in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_equals_torch(row):
    name, kwargs, kind, args, shape = row
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    theirs = getattr(T, name)(getattr(torch.nn, kind)(*args), **kwargs)
    ours = getattr(utils, name)(getattr(nn, kind)(*args), **kwargs)
    assert not any(cell.has_value for cell in (*ours.parameters(), *ours.buffers()))
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    assert ours.state_dict()._metadata == state._metadata
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(state)
    theirs.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in ours.state_dict().items()})
    call = fn.jit(lambda x: fn.value_and_grad(lambda m: oracle.scalar(m(x)))(ours))
    for _ in range(2):
        theirs.zero_grad()
        outputs = oracle.leaves(theirs(torch.from_numpy(x)))
        sum((o * oracle.weights_like(o)).sum() for o in outputs).backward()
        named = dict(fn.core.layer.flatten(call(x)[1]))
        for n, p in theirs.named_parameters():
            np.testing.assert_allclose(named[n], p.grad, rtol=3e-4, atol=3e-5, err_msg=n)
        for n, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[n], value, rtol=1e-4, atol=1e-5)
    ours.eval()
    theirs.eval()
    oracle.close(ours(x), theirs(torch.from_numpy(x)), "output", 1e-4, 1e-5)
    tensor = kwargs.get("name", "weight")
    arguments = [tensor] if "name" in kwargs else []
    assert getattr(utils, f"remove_{name}")(ours, *arguments) is ours
    getattr(T, f"remove_{name}")(theirs, *arguments)
    assert type(ours) is getattr(nn, kind)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    assert isinstance(getattr(ours, tensor), nn.Parameter)
    np.testing.assert_allclose(
        getattr(ours, tensor).data, getattr(theirs, tensor).detach(), rtol=1e-4, atol=1e-5
    )
    assert not ours._forward_pre_hooks
    assert not ours._state_dict_hooks
    oracle.close(ours(x), theirs(torch.from_numpy(x)), "output", 1e-4, 1e-5)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_the_start_is_that_of_the_plain_layer(name):
    key = jax.random.key(3)
    layer = nn.Sequential(getattr(utils, name)(nn.Linear(3, 4)))
    params, state = fn.functionalize(layer).init(key)
    weight = fn.functionalize(nn.Sequential(nn.Linear(3, 4))).init(key)[0]["0"]["weight"]
    own = params["0"]
    np.testing.assert_array_equal(
        own["weight_v" if name == "weight_norm" else "weight_orig"], weight
    )
    if name == "weight_norm":
        np.testing.assert_allclose(own["weight_g"][:, 0], np.linalg.norm(weight, axis=1), rtol=1e-6)
    else:
        np.testing.assert_allclose(np.linalg.norm(state["0"]["weight_u"]), 1, rtol=1e-6)
        assert state["0"]["weight_v"].shape == (3,)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        jax.jit(fn.functionalize(layer).init)(key),
        (params, state),
    )
    fn.manual_seed(4)
    plain = nn.Linear(3, 4)
    fn.manual_seed(4)
    layer = getattr(utils, name)(nn.Linear(3, 4))
    original = layer.weight_v if name == "weight_norm" else layer.weight_orig
    np.testing.assert_array_equal(original, plain.weight)
    # A value that is there is taken over.
    plain.weight.data = jnp.ones((4, 3))
    getattr(utils, name)(plain)
    original = plain.weight_v if name == "weight_norm" else plain.weight_orig
    np.testing.assert_array_equal(original, 1)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(name, copied):
    layer = getattr(utils, name)(nn.Linear(3, 4))
    twin = copied(layer)
    np.testing.assert_array_equal(twin.weight, layer.weight)
    getattr(utils, f"remove_{name}")(twin)
    assert type(twin) is nn.Linear
    assert not twin._forward_pre_hooks
    assert len(layer._forward_pre_hooks) == (name == "spectral_norm")
    layer(jnp.ones(3))
    assert isinstance(layer, nn.Linear)
    assert type(layer) is not nn.Linear


def test_the_pure_face_of_spectral_norm():
    layer = utils.spectral_norm(nn.Linear(3, 4))
    init, apply = fn.functionalize(layer)
    params, state = init(jax.random.key(0))
    x = jnp.ones(3)
    with pytest.raises(ModeError):
        apply(params, state, x)
    _, new = jax.jit(lambda: apply(params, state, x, training=True))()
    assert (new["weight_u"] != state["weight_u"]).any()
    _, same = apply(params, state, x, training=False)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    u = np.asarray(layer.weight_u)
    layer.weight  # noqa: B018  (reading it is no step)
    np.testing.assert_array_equal(layer.weight_u, u)


def test_together_with_parametrizations():
    theirs, ours = torch.nn.Linear(3, 4), nn.Linear(3, 4)
    for library, module in ((T, theirs), (utils, ours)):
        library.weight_norm(module)
        library.parametrizations.weight_norm(module, "bias", dim=None)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    utils.parametrize.remove_parametrizations(ours, "bias")
    assert repr(ours) == "Linear(in_features=3, out_features=4, bias=True)"
    utils.remove_weight_norm(ours)
    assert type(ours) is nn.Linear
    both = utils.weight_norm(utils.spectral_norm(nn.Linear(3, 4)), "bias")
    assert both(jnp.ones(3)).shape == (4,)


def test_weight_norm_is_deprecated():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        utils.weight_norm(nn.Linear(3, 4))
        utils.spectral_norm(nn.Linear(3, 4))
    assert [w.category for w in caught] == [FutureWarning]
    assert "parametrizations.weight_norm" in str(caught[0].message)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_what_is_refused(name):
    register, remove = getattr(utils, name), getattr(utils, f"remove_{name}")
    layer = register(nn.Linear(3, 2))
    with pytest.raises(ArgumentError, match=f"Cannot register two {name} hooks") as caught:
        register(layer)
    assert isinstance(caught.value, RuntimeError)
    with pytest.raises(UnsupportedError, match="assign to"):
        layer.weight = jnp.ones((2, 3))
    with pytest.raises(ArgumentError, match=f"{name} of 'bias' not found in Linear"):
        remove(layer, "bias")
    with pytest.raises(ArgumentError, match="'nothing'"):
        register(nn.Linear(3, 2), "nothing")
    with pytest.raises(ArgumentError, match="'bias'"):
        register(nn.Linear(3, 2, bias=False), "bias")
    with pytest.raises(ShapeError, match="not known yet"):
        register(nn.LazyLinear(2))
    with pytest.raises(ArgumentError, match="dim must be in the range"):
        register(nn.Linear(3, 2), dim=2)
    if name == "spectral_norm":
        with pytest.raises(ArgumentError, match="n_power_iterations"):
            register(nn.Linear(3, 2), n_power_iterations=0)
    taken = nn.Linear(3, 2)
    taken.weight_v = 1
    with pytest.raises(KeyError, match="weight_v"):
        register(taken)
    assert isinstance(taken.weight, nn.Parameter)


def test_the_newer_weight_norm_loads_the_older_one():
    older, newer = utils.weight_norm(nn.Linear(3, 4)), parametrizations.weight_norm(nn.Linear(3, 4))
    newer.load_state_dict(older.state_dict())
    np.testing.assert_array_equal(newer.weight, older.weight)
