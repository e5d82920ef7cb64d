"""The state of an optimizer: the view of it, hooks, step counts, and options that are data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import optim
from funcnets.core.cell import Version
from funcnets.errors import DTypeError
from tests.core.toys import stepper
from tests.optim.exchange import make, run, trained
from tests.optim.helpers import Net, TorchNet, assert_equal_torch, memory_shapes, pair


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def test_the_state_of_a_parameter():
    model, optimizer, _ = trained("Adam", steps=0)
    assert optimizer.state[model.body.weight] == {}
    assert len(optimizer.state) == 0
    model, optimizer, _ = trained("Adam")
    entry = optimizer.state[model.body.weight]
    assert list(entry) == ["step", "exp_avg", "exp_avg_sq"]
    assert entry["exp_avg"].shape == (4, 3)
    assert list(map(id, optimizer.state)) == list(map(id, model.parameters()))
    with pytest.raises(TypeError):
        entry["step"] = 0
    with pytest.raises(AttributeError):
        optimizer.state = {}


def test_hooks_of_saving_and_loading():
    def attach(optimizer, log):
        def rename(opt, saved):
            log.append("post save")
            return {**saved, "extra": 1}

        def strip(opt, given):
            log.append("pre load")
            assert given.pop("extra") == 1  # of a shallow copy

        optimizer.register_state_dict_pre_hook(lambda opt: log.append("pre save"))
        optimizer.register_state_dict_pre_hook(lambda opt: log.append("first"), prepend=True)
        optimizer.register_state_dict_post_hook(rename)
        optimizer.register_load_state_dict_pre_hook(strip)
        return optimizer.register_load_state_dict_post_hook(lambda opt: log.append("post load"))

    logs = []
    for library, model in ((optim, Net()), (torch.optim, TorchNet())):
        optimizer, log = make(library, "Adam", model), []
        handle = attach(optimizer, log)
        saved = optimizer.state_dict()
        optimizer.load_state_dict(saved)
        assert saved["extra"] == 1
        handle.remove()
        optimizer.load_state_dict(saved)
        logs.append(log)
    assert logs[0] == logs[1]
    assert logs[0][:3] == ["first", "pre save", "post save"]


def test_hooks_of_steps():
    model, optimizer, step = trained("Adam")
    log = []
    halved = lambda opt, args, kwargs: ((jax.tree.map(lambda g: g * 0, args[0]),), kwargs)  # noqa: E731
    before = optimizer.register_step_pre_hook(halved)
    optimizer.register_step_post_hook(lambda opt, args, kwargs: log.append(opt))
    moments = np.array(optimizer.state[model.head.bias]["exp_avg"])
    run(1, [step], skip=2)
    assert log == [optimizer]
    assert len(step.traces) == 2  # hooks are part of the program
    np.testing.assert_allclose(optimizer.state[model.head.bias]["exp_avg"], 0.9 * moments)
    before.remove()
    loss = lambda m: (m(jnp.ones((1, 3))) ** 2).sum()  # noqa: E731
    assert optimizer.step(lambda: fn.value_and_grad(loss)(model)) > 0
    assert len(log) == 2
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: 1)
    with pytest.raises(DTypeError, match="tuple of"):
        optimizer.step(fn.grad(loss)(model))


def test_a_frozen_parameter_keeps_its_own_count():
    """As in torch, where the steps of each parameter are counted; and so when it steps again."""
    ours, theirs = pair()
    optimizer, reference = make(optim, "Adam", ours), make(torch.optim, "Adam", theirs)
    step = stepper(ours, optimizer)
    run(2, [step], [(theirs, reference)])
    for flag in (False, True):
        for model in (ours, theirs):
            model.head.bias.requires_grad_(flag)
        run(3, [step], [(theirs, reference)], skip=2)
    assert_equal_torch(ours, theirs)
    assert [float(s["step"]) for s in optimizer.state_dict()["state"].values()] == [8, 8, 8, 5]
    sizes = memory_shapes(optimizer)
    assert sizes.count(()) == 3  # body, head without its bias, and the bias


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_options_that_a_schedule_drives_do_not_trace_again(name):
    option, values = {
        "SGD": ("momentum", [0.85, 0.5, 0.95]),
        "AdamW": ("betas", [(0.85, 0.999), (0.7, 0.9), (0.95, 0.99)]),
    }[name]
    ours, theirs = pair()
    optimizer, reference = make(optim, name, ours), make(torch.optim, name, theirs)
    assert all(group.drive(option) for group in optimizer.param_groups)
    assert all(group.drive("weight_decay") for group in optimizer.param_groups)
    assert not optimizer.param_groups[0].drive("maximize")
    step = stepper(ours, optimizer)
    for i in range(8):
        for group in [*optimizer.param_groups, *reference.param_groups]:
            group[option] = values[i % 3]
            group["weight_decay"] = 0.1 * (i + 1)
        run(1, [step], [(theirs, reference)], skip=i)
    assert_equal_torch(ours, theirs)
    assert len(step.traces) == 1
    assert optimizer.state_dict()["param_groups"] == reference.state_dict()["param_groups"]
    version = Version.structure
    optimizer.param_groups[0]["max_lr"] = 1.0
    optimizer.param_groups[0]["weight_decay"] = 0.123
    reference.param_groups[0]["weight_decay"] = 0.123
    assert Version.structure == version
    for group in [*optimizer.param_groups, *reference.param_groups]:
        group["weight_decay"] = 0
    run(2, [step], [(theirs, reference)], skip=8)
    assert_equal_torch(ours, theirs)
    assert len(step.traces) == 2
    with pytest.raises(ValueError, match="must be like"):
        optimizer.param_groups[0][option] = (0.1, 0.2, 0.3)
