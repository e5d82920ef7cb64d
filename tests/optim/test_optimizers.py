"""SGD, Adam and AdamW step for step against torch, in double precision, with every option."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from tests.core.toys import stepper
from tests.optim.helpers import (
    Net,
    TorchNet,
    assert_equal_torch,
    batches,
    pair,
    torch_step,
)

STEPS = 50

OPTIONS = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.05, "dampening": 0.3}),
    ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "maximize": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True, "maximize": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "dampening": 1.0, "weight_decay": 0.1, "maximize": True}),
    ("SGD", {"lr": 0.0, "momentum": 0.9}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95)}),
    ("Adam", {"lr": 0.05, "betas": (0.0, 0.0)}),
    ("Adam", {"lr": 0.05, "eps": 1e-2}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("Adam", {"lr": 0.05, "maximize": True}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "amsgrad": True, "maximize": True, "eps": 1e-3}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.0}),
    ("AdamW", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2}),
    ("AdamW", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05, "maximize": True}),
]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in o.items()) or 'defaults'}" for name, o in OPTIONS]


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)
def test_fifty_steps_equal_torch(name, options):
    ours, theirs = pair()
    optimizer = getattr(optim, name)(ours.parameters(), **options)
    reference = getattr(torch.optim, name)(theirs.parameters(), **options)
    step = stepper(ours, optimizer)
    for i, (x, y) in enumerate(batches(STEPS)):
        step(x, y)
        torch_step(theirs, reference, x, y)
        if i < 3 or i == STEPS - 1:
            assert_equal_torch(ours, theirs)
    assert len(step.traces) == 1
    assert all(p.dtype == jnp.float64 for p in ours.parameters())


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=IDS)
def test_the_pure_transformation_gives_the_same(name, options):
    ours, _ = pair()
    params, state = fn.get_variables(ours)
    _, apply = fn.functionalize(ours)
    tx = getattr(optim, f"{name.lower()}_tx")(**options)
    step = stepper(ours, getattr(optim, name)(ours.parameters(), **options))

    @jax.jit
    def pure_step(params, memory, x, y):
        grads = jax.grad(lambda p: ((apply(p, state, x)[0] - y) ** 2).mean())(params)
        updates, memory = tx.update(grads, memory, params)
        return optax.apply_updates(params, updates), memory

    memory = tx.init(params)
    for x, y in batches(5):
        step(x, y)
        params, memory = pure_step(params, memory, x, y)
    for value, other in zip(
        jax.tree.leaves(params), jax.tree.leaves(fn.get_variables(ours)[0]), strict=True
    ):
        np.testing.assert_allclose(value, other, rtol=1e-12, atol=1e-14)


def grouped(model, module) -> list[dict]:
    return [
        {"params": model.body.parameters(), "lr": 0.2, "weight_decay": 0.1},
        {"params": [model.head.weight]},
        {"params": model.head.bias, "lr": 0.01},
    ]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_groups_with_options_of_their_own(name):
    ours, theirs = pair()
    optimizer = getattr(optim, name)(grouped(ours, optim), lr=0.05)
    reference = getattr(torch.optim, name)(grouped(theirs, torch.optim), lr=0.05)
    assert [g["lr"] for g in optimizer.param_groups] == [0.2, 0.05, 0.01]
    step = stepper(ours, optimizer)
    for x, y in batches(10):
        step(x, y)
        torch_step(theirs, reference, x, y)
    assert_equal_torch(ours, theirs)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_group_added_between_the_steps(name):
    ours, theirs = pair()
    more = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(optim, name)(ours.head.parameters(), lr=0.05, **more)
    reference = getattr(torch.optim, name)(theirs.head.parameters(), lr=0.05, **more)
    step = stepper(ours, optimizer)
    for i, (x, y) in enumerate(batches(10)):
        if i == 5:
            optimizer.add_param_group({"params": ours.body.parameters(), "lr": 0.1})
            reference.add_param_group({"params": theirs.body.parameters(), "lr": 0.1})
        step(x, y)
        torch_step(theirs, reference, x, y)
    assert_equal_torch(ours, theirs)
    assert len(step.traces) == 2


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_parameters_unfrozen_between_the_steps_start_their_own_count(name):
    ours, theirs = pair()
    more = {"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {}
    for model in (ours, theirs):
        model.body.requires_grad_(False)
    optimizer = getattr(optim, name)(ours.parameters(), lr=0.05, **more)
    reference = getattr(torch.optim, name)(theirs.parameters(), lr=0.05, **more)
    step = stepper(ours, optimizer)
    for i, (x, y) in enumerate(batches(12)):
        if i == 6:
            for model in (ours, theirs):
                model.body.requires_grad_(True)
        step(x, y)
        torch_step(theirs, reference, x, y)
    assert_equal_torch(ours, theirs)


def test_two_modules_that_take_turns_under_one_adam():
    """torch counts the steps of each parameter; so does a memory of those that step together."""
    ours, theirs = pair()
    optimizer = optim.Adam([*ours.body.parameters(), *ours.head.parameters()], lr=0.05)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.05)
    for i, (x, y) in enumerate(batches(9)):
        part = "head" if i % 3 else "body"
        loss = lambda m, x=x, y=y: ((ours(jnp.asarray(x)) - y) ** 2).mean()  # noqa: E731
        optimizer.step(fn.grad(loss)(getattr(ours, part)))
        reference.zero_grad()
        ((theirs(torch.from_numpy(x)) - torch.from_numpy(y)) ** 2).mean().backward()
        for parameter in getattr(theirs, "body" if i % 3 else "head").parameters():
            parameter.grad = None
        reference.step()
    assert_equal_torch(ours, theirs)


SCHEDULES = {
    "SGD": [
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"dampening": 0.5},
        {"momentum": 0.0},
        {"momentum": 0.5, "dampening": 0.0, "nesterov": True},
        {"lr": 0.2, "maximize": True},
    ],
    "Adam": [
        {"betas": (0.5, 0.6)},
        {"weight_decay": 0.1},
        {"eps": 1e-3, "maximize": True},
        {"lr": 0.2},
        {"decoupled_weight_decay": True},
    ],
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_options_changed_between_the_steps(name):
    ours, theirs = pair()
    optimizer = getattr(optim, name)(ours.parameters(), lr=0.05)
    reference = getattr(torch.optim, name)(theirs.parameters(), lr=0.05)
    step, data = stepper(ours, optimizer), batches(100)
    for change in [{}, *SCHEDULES[name]]:
        optimizer.param_groups[0].update(change)
        reference.param_groups[0].update(change)
        for _ in range(4):
            x, y = next(data)
            step(x, y)
            torch_step(theirs, reference, x, y)
        assert_equal_torch(ours, theirs)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(jnp.array([1 + 2j, -0.5 + 0.3j, 0.1 - 1j]))

    def forward(self, target):
        return (jnp.abs(self.weight - target) ** 2 * jnp.array([1.0, 2.0, 3.0])).sum()


@pytest.mark.parametrize(("name", "options"), OPTIONS[2::4], ids=IDS[2::4])
def test_complex_parameters(name, options):
    options = {**options, "maximize": False}
    ours = Complex()
    theirs = torch.nn.Parameter(torch.tensor(np.array(ours.weight)))
    optimizer = getattr(optim, name)(ours.parameters(), **options)
    reference = getattr(torch.optim, name)([theirs], **options)
    target = np.array([0.5j, 1.0, -1 - 1j])
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    losses = []
    for _ in range(10):
        loss, grads = fn.value_and_grad(lambda m: m(jnp.asarray(target)))(ours)
        optimizer.step(grads)
        losses.append(float(loss))
        reference.zero_grad()
        ((theirs - torch.from_numpy(target)).abs() ** 2 * scale).sum().backward()
        reference.step()
    np.testing.assert_allclose(np.asarray(ours.weight), theirs.detach().numpy(), rtol=1e-6)
    assert losses[-1] < losses[0] or options["lr"] == 0


def test_single_precision_stays_single_where_double_is_enabled():
    ours, theirs = pair(jnp.float32)
    optimizer = optim.AdamW(ours.parameters(), lr=0.05, amsgrad=True)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.05, amsgrad=True)
    step = stepper(ours, optimizer)
    for x, y in batches(5, np.float32):
        step(x, y)
        torch_step(theirs, reference, x, y)
    assert all(p.dtype == jnp.float32 for p in ours.parameters())
    assert_equal_torch(ours, theirs, rtol=1e-5, atol=1e-6)
    assert len(step.traces) == 1


def test_the_models_of_this_file_are_the_same():
    assert [n for n, _ in Net().named_parameters()] == [n for n, _ in TorchNet().named_parameters()]
