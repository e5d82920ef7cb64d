"""Adafactor against torch, with every option; and SparseAdam, which is refused."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, DTypeError, UnsupportedError
from tests.core.toys import stepper
from tests.optim.helpers import (
    Net,
    TorchNet,
    assert_equal_torch,
    batches,
    pair,
    torch_step,
)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


OPTIONS = [
    {},
    {"lr": 0.5, "beta2_decay": -0.5},
    {"lr": 0.1, "eps": (1e-3, 0.3), "d": 2.0},
    {"lr": 0.1, "weight_decay": 0.2, "maximize": True},
    {"lr": 0.1, "eps": (1.0, 1e-3), "weight_decay": 0.01},
]


@pytest.mark.parametrize("options", OPTIONS, ids=[str(o) for o in OPTIONS])
def test_fifty_steps_equal_torch(options):
    ours, theirs = pair()
    optimizer = optim.Adafactor(ours.parameters(), **options)
    reference = torch.optim.Adafactor(theirs.parameters(), **options)
    step = stepper(ours, optimizer)
    for x, y in batches(50):
        step(x, y)
        torch_step(theirs, reference, x, y)
    assert_equal_torch(ours, theirs)
    assert len(step.traces) == 1


def test_more_dimensions_and_numbers_equal_torch_and_the_pure_face():
    values = {
        "cube": np.random.default_rng(0).standard_normal((2, 3, 4)),
        "number": np.array(0.5),
        "vector": np.array([1.0, -2.0]),
    }

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in values.items():
                setattr(self, name, nn.Parameter(jnp.asarray(value)))

        def forward(self):
            return (self.cube**3).sum() * self.number + (self.vector**2).sum()

    model = Holder()
    params, _ = fn.get_variables(model)
    optimizer, tx = optim.Adafactor(model.parameters(), lr=0.1), optim.adafactor_tx(lr=0.1)
    memory = tx.init(params)
    theirs = {name: torch.nn.Parameter(torch.from_numpy(v.copy())) for name, v in values.items()}
    reference = torch.optim.Adafactor(theirs.values(), lr=0.1)
    for _ in range(5):
        grads = fn.grad(lambda m: m())(model)
        optimizer.step(grads)
        updates, memory = tx.update(grads, memory, params)
        params = optax.apply_updates(params, updates)
        reference.zero_grad()
        loss = (theirs["cube"] ** 3).sum() * theirs["number"] + (theirs["vector"] ** 2).sum()
        loss.backward()
        reference.step()
    for name, tensor in theirs.items():
        np.testing.assert_allclose(getattr(model, name), tensor.detach(), rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(params[name], tensor.detach(), rtol=1e-6, err_msg=name)
    shapes = {n: tuple(v.shape) for n, v in reference.state[theirs["cube"]].items()}
    assert {n: v.shape for n, v in optimizer.state[model.cube].items()} == shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_precisions(dtype):
    ours, theirs = pair(jnp.dtype(dtype))
    optimizer = optim.Adafactor(ours.parameters(), lr=0.05, weight_decay=0.1)
    reference = torch.optim.Adafactor(theirs.parameters(), lr=0.05, weight_decay=0.1)
    step = stepper(ours, optimizer)
    for x, y in batches(8, np.float32):
        step(jnp.asarray(x, dtype), jnp.asarray(y, dtype))
        torch_step(theirs, reference, x, y)
    assert {p.dtype.name for p in ours.parameters()} == {dtype}
    tolerance = 1e-5 if dtype == "float32" else 0.05
    assert_equal_torch(ours, theirs, rtol=tolerance, atol=tolerance)


BAD = [
    {"lr": -0.1},
    {"beta2_decay": 0.1},
    {"eps": (-1.0, 1e-3)},
    {"eps": (None, -1.0)},
    {"d": 0.5},
    {"weight_decay": -0.1},
]


@pytest.mark.parametrize("options", BAD, ids=str)
def test_hyper_parameters_are_refused_in_torchs_words(options):
    with pytest.raises(ValueError) as theirs:
        torch.optim.Adafactor(TorchNet().parameters(), **options)
    with pytest.raises(ArgumentError) as ours:
        optim.Adafactor(Net().parameters(), **options)
    assert str(theirs.value) == str(ours.value)


def test_other_refusals():
    with pytest.raises(UnsupportedError, match="leave it out"):
        optim.Adafactor(Net().parameters(), foreach=True)
    with pytest.raises(ArgumentError, match="pair"):
        optim.Adafactor(Net().parameters(), eps=1e-3)
    with pytest.raises(DTypeError, match="complex"):
        optim.Adafactor([nn.Parameter(jnp.ones(2, jnp.complex128))])
    with pytest.raises(ArgumentError, match="needs them"):
        optim.adafactor_tx().update(jnp.ones(2), optim.adafactor_tx().init(jnp.ones(2)))
    with pytest.raises(UnsupportedError, match=r"optim\.Adam\(params, lr=0\.5"):
        optim.SparseAdam(Net().parameters(), lr=0.5)


@pytest.mark.parametrize("name", ["Adafactor", "LBFGS", "Muon", "SparseAdam"])
def test_arguments_are_torchs(name):
    ours = inspect.signature(getattr(optim, name)).parameters.values()
    theirs = inspect.signature(getattr(torch.optim, name)).parameters.values()
    assert [(p.name, p.default, p.kind) for p in ours] == [
        (p.name, p.default, p.kind) for p in theirs
    ]
    if name == "SparseAdam":
        return
    make = lambda library, model: getattr(library.optim, name)([model.head.weight])  # noqa: E731
    assert repr(make(fn, Net())) == repr(make(torch, TorchNet()))
