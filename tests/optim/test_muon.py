"""Muon against torch: every option, the momentum in full precision and the direction in bfloat16."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim.muon import _orthogonal
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
    {"lr": 0.02, "momentum": 0.5},
    {"lr": 0.02, "nesterov": False, "weight_decay": 0.5},
    {"lr": 0.02, "weight_decay": 0.0, "ns_steps": 3, "eps": 1e-3},
    {"lr": 0.02, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 0.02, "adjust_lr_fn": "original", "ns_coefficients": (2.0, -1.5, 0.5)},
    {"lr": 0.02, "momentum": 0.0},
]


def matrices(model):
    return [model.body.weight, model.head.weight]


@pytest.mark.parametrize("options", OPTIONS, ids=[str(o) for o in OPTIONS])
def test_fifty_steps_equal_torch(options):
    ours, theirs = pair()
    for model in (ours, theirs):
        model.body.bias.requires_grad_(False)
        model.head.bias.requires_grad_(False)
    optimizer = optim.Muon(matrices(ours), **options)
    reference = torch.optim.Muon(matrices(theirs), **options)
    step = stepper(ours, optimizer)
    for x, y in batches(50):
        step(x, y)
        torch_step(theirs, reference, x, y)
    assert_equal_torch(ours, theirs)
    assert len(step.traces) == 1
    # The state of the one goes on in the other.
    optimizer.load_state_dict(reference.state_dict())
    assert set(optimizer.state_dict()["state"][1]) == {"momentum_buffer"}
    for x, y in batches(3):
        step(x, y)
        torch_step(theirs, reference, x, y)
    assert_equal_torch(ours, theirs)
    assert len(step.traces) == 1


@pytest.mark.parametrize("shape", [(3, 4), (16, 8), (128, 96)])
def test_the_direction_is_torchs_up_to_the_last_bit_of_bfloat16(shape):
    matrix = np.random.default_rng(0).standard_normal(shape)
    for dtype in (np.float64, np.float32):
        given = matrix.astype(dtype)
        expected = _zeropower_via_newtonschulz(
            torch.from_numpy(given), (3.4445, -4.775, 2.0315), 5, 1e-7
        )
        ours = _orthogonal(jnp.asarray(given), (3.4445, -4.775, 2.0315), 5, 1e-7)
        assert ours.dtype == jnp.bfloat16
        # Sums over many entries round differently: the last bits of entries of size 1 and below.
        atol = 0.0 if max(shape) <= 16 else 2.0**-7
        np.testing.assert_allclose(
            np.asarray(ours, np.float32), expected.float().numpy(), rtol=0, atol=atol
        )


def test_the_pure_transformation_gives_the_same():
    ours, _ = pair()
    params = {"a": ours.body.weight.data, "b": ours.head.weight.data}
    tx = optim.muon_tx(lr=0.02)
    memory = tx.init(params)
    optimizer = optim.Muon(matrices(ours), lr=0.02)
    for x, y in batches(2):
        grads = fn.grad(lambda m, x=x, y=y: ((m(jnp.asarray(x)) - y) ** 2).mean())(ours)
        optimizer.step(grads)
        mine = {"a": grads["body"]["weight"], "b": grads["head"]["weight"]}
        updates, memory = tx.update(mine, memory, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["a"], ours.body.weight.data, rtol=1e-12)
    np.testing.assert_allclose(params["b"], ours.head.weight.data, rtol=1e-12)


def test_bfloat16_parameters():
    ours, theirs = pair(jnp.bfloat16)
    optimizer = optim.Muon(matrices(ours), lr=0.02)
    reference = torch.optim.Muon(matrices(theirs), lr=0.02)
    step = stepper(ours, optimizer)
    for x, y in batches(5, np.float32):
        step(jnp.asarray(x, jnp.bfloat16), jnp.asarray(y, jnp.bfloat16))
        for model in (ours, theirs):
            assert str(model.head.weight.dtype).endswith("bfloat16")
        torch_step(theirs, reference, x, y)
    assert_equal_torch(ours, theirs, rtol=0.03, atol=0.03)


BAD = [
    {"lr": -0.1},
    {"momentum": -0.1},
    {"weight_decay": -0.1},
    {"adjust_lr_fn": "mine"},
]


@pytest.mark.parametrize("options", BAD, ids=str)
def test_hyper_parameters_are_refused_in_torchs_words(options):
    with pytest.raises(ValueError) as theirs:
        torch.optim.Muon(matrices(TorchNet()), **options)
    with pytest.raises(ArgumentError) as ours:
        optim.Muon(matrices(Net()), **options)
    assert str(theirs.value) in str(ours.value)


def test_other_refusals():
    for options, words in (
        ({"ns_steps": 100}, "must be less than 100"),
        ({"ns_coefficients": (1.0, 2.0)}, "exactly 3 values"),
    ):
        with pytest.raises(ArgumentError, match=words):
            optim.Muon(matrices(Net()), **options)
    with pytest.raises(ValueError) as theirs:
        torch.optim.Muon(TorchNet().parameters())
    with pytest.raises(ArgumentError) as ours:
        optim.Muon(Net().parameters())
    start = "Muon only supports 2D parameters whereas we found a parameter with size: "
    assert str(theirs.value).startswith(start)
    assert str(ours.value).startswith(start + "(4,)")
    with pytest.raises(DTypeError, match="complex"):
        optim.Muon([nn.Parameter(jnp.ones((2, 2), jnp.complex128))])
