"""An optimizer here and its like in torch, with two groups, for the tests of their states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from funcnets import optim
from tests.core.toys import stepper
from tests.optim.helpers import Net, batches, pair, torch_step

#: Every optimizer whose state is exchanged, with options that make it keep all it can.
EXCHANGED = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "dampening": 0.3},
    "SGD plain": {"lr": 0.05},
    "Adam": {"lr": 0.02},
    "Adam amsgrad": {"lr": 0.02, "amsgrad": True, "weight_decay": 0.1},
    "AdamW": {"lr": 0.02},
    "Adamax": {"lr": 0.02},
    "NAdam": {"lr": 0.02},
    "RAdam": {"lr": 0.02},
    "Adagrad": {"lr": 0.02, "lr_decay": 0.1, "initial_accumulator_value": 0.1},
    "Adadelta": {"lr": 0.5},
    "RMSprop": {"lr": 0.01, "centered": True, "momentum": 0.5},
    "Rprop": {"lr": 0.01},
    "ASGD": {"lr": 0.02, "t0": 2},
    "Adafactor": {"lr": 0.02},
}
CASES = [name for name in EXCHANGED if hasattr(optim, name.split()[0])]


def make(library, name, model, **more):
    groups = [
        {"params": model.body.parameters(), "lr": 0.03},
        {"params": model.head.parameters()},
    ]
    return getattr(library, name.split()[0])(groups, **EXCHANGED[name], **more)


def to_torch(tree):
    """What a user of torch makes of our state_dict."""
    return jax.tree.map(
        lambda a: torch.from_numpy(np.array(a)) if isinstance(a, jax.Array) else a, tree
    )


def run(count, ours=None, theirs=None, skip=0):
    for i, (x, y) in enumerate(batches(skip + count)):
        if i >= skip:
            for step in ours or ():
                step(x, y)
            for model, optimizer in theirs or ():
                torch_step(model, optimizer, x, y)


def twin_of(model):
    other = Net(jnp.float64)
    other.load_state_dict(model.state_dict())
    return other


def trained(name="Adam", steps=2, **more):
    model, _ = pair()
    optimizer = make(optim, name, model, **more)
    step = stepper(model, optimizer)
    run(steps, [step])
    return model, optimizer, step


def assert_same_state(one, other):
    for i, entry in other["state"].items():
        for key, value in entry.items():
            np.testing.assert_array_equal(one["state"][i][key], value)
    assert one["param_groups"] == other["param_groups"]
