"""``functional_call`` against ``torch.func.functional_call``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.func import functional_call as torch_call

import funcnets as fn
from funcnets import nn
from funcnets.core.functional_call import functional_call
from funcnets.errors import (
    ArgumentError,
    DTypeError,
    StateDictError,
    StateLeakError,
    UnsupportedError,
)

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def both():
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    ours = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x, scale=1.0):
        return scale * self.b(self.a(x))


def test_equals_torch():
    ours, theirs = both()
    given = {"0.weight": np.ones((2, 3), np.float32), "1.running_mean": np.ones(2, np.float32)}
    mine = {n: jnp.asarray(a) for n, a in given.items()}
    other = {n: torch.from_numpy(a.copy()) for n, a in given.items()}
    out = functional_call(ours, mine, X)
    expected = torch_call(theirs, other, torch.from_numpy(X))
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-5, atol=1e-5)
    # What is written goes into the dict, or into the module where nothing was given.
    np.testing.assert_allclose(mine["1.running_mean"], other["1.running_mean"], rtol=1e-5)
    np.testing.assert_array_equal(mine["0.weight"], given["0.weight"])
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_gradients_equal_torch_and_trace():
    ours, theirs = both()
    params = dict(fn.core.layer.flatten(fn.get_variables(ours)[0]))
    buffers = {n: b.data for n, b in ours.named_buffers()}

    def loss(params, x):
        return (functional_call(ours, (params, dict(buffers)), (x,)) ** 3).sum()

    gradients = jax.jit(jax.grad(loss))(params, X)
    (theirs(torch.from_numpy(X)) ** 3).sum().backward()
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(gradients[name], p.grad, rtol=1e-3, atol=1e-3)
    with pytest.raises(StateLeakError):  # the buffers that are not given would be written
        jax.grad(lambda p: functional_call(ours, p, (X,)).sum())(params)
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    ours.eval()
    outs = jax.vmap(lambda p: functional_call(ours, p, X))(stacked)
    np.testing.assert_allclose(outs[0], ours(X), rtol=1e-5, atol=1e-6)


def test_nested_trees_and_the_stateful_lifts():
    ours, _ = both()
    params, state = fn.functionalize(ours).init(jax.random.key(0))
    expected, new = fn.functionalize(ours).apply(params, state, X, training=True)
    out = functional_call(ours, [params, state], X)
    np.testing.assert_array_equal(out, expected)
    jax.tree.map(np.testing.assert_array_equal, state, new)
    count = int(ours[1].num_batches_tracked)
    fn.jit(lambda p: functional_call(ours, p, X))(params)
    assert int(ours[1].num_batches_tracked) == count + 1
    dropout = nn.Dropout(0.5)
    fn.manual_seed(0)
    first = functional_call(dropout, {}, jnp.ones(100))
    assert (functional_call(dropout, {}, jnp.ones(100)) != first).any()


def test_keyword_arguments_tied_and_parametrized_cells():
    m, w = Tied(), jnp.zeros((3, 3))
    np.testing.assert_allclose(
        functional_call(m, {"a.weight": w}, (X,), {"scale": 2.0}),
        2 * np.broadcast_to(m.b.bias.data, (4, 3)), rtol=1e-6,
    )  # fmt: skip
    for given in ({"b.weight": w}, {"a.weight": w, "b.weight": w}):
        functional_call(m, given, X)
    functional_call(m, {"a.weight": w, "a.bias": w[0], "b.bias": w[0]}, X, strict=True)
    with pytest.raises(ArgumentError, match=r"\['a.weight', 'b.weight'\], which are tied"):
        functional_call(m, {"a.weight": w, "b.weight": w + 1}, X)
    with pytest.raises(UnsupportedError, match="tie_weights"):
        functional_call(m, {"a.weight": w}, X, tie_weights=False)
    functional_call(m, {"a.bias": w[0]}, X, tie_weights=False)
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    name = "parametrizations.weight.original0"
    out = functional_call(layer, {name: jnp.zeros((2, 1)), "bias": jnp.ones(2)}, X)
    np.testing.assert_array_equal(out, 1)


def test_it_settles_lazy_modules():
    m = nn.LazyLinear(2)
    functional_call(m, {"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)}, X)
    assert type(m) is nn.Linear
    assert not m.weight.has_value


def test_what_is_refused():
    ours, _ = both()
    with pytest.raises(StateDictError, match=r"Unexpected key\(s\): 'weight', 'zzz'"):
        functional_call(ours, {"zzz": X, "weight": X}, X)
    with pytest.raises(StateDictError, match=r"Missing key\(s\): '0.bias', '1.bias'"):
        functional_call(ours, {"0.weight": X}, X, strict=True)
    with pytest.raises(ArgumentError, match="multiple dictionaries"):
        functional_call(ours, ({"0.bias": X}, {"0.bias": X}), X)
    for wrong in ([1, 2], 3, "abc"):
        with pytest.raises(DTypeError, match="must be a dict"):
            functional_call(ours, wrong, X)
    with pytest.raises(DTypeError, match="takes a Module"):
        functional_call(lambda x: x, {}, X)


def test_the_deprecated_place():
    with pytest.warns(FutureWarning, match="functional_call"):
        out = nn.utils.stateless.functional_call(nn.Linear(3, 1), {"bias": jnp.ones(1)}, X)
    assert out.shape == (4, 1)
