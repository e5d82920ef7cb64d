"""Adamax and the seven that follow it: arguments, defaults and text are torch's, and so is what they refuse."""

from __future__ import annotations

import inspect
from typing import Any

import jax.numpy as jnp
import pytest
import torch

import funcnets as fn
from funcnets import optim
from funcnets.errors import ArgumentError, FuncnetsError, UnsupportedError
from tests.optim.helpers import Net, TorchNet

NAMES = ("Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")
SWITCHES = ("foreach", "capturable", "differentiable", "fused")


def parameters_of(library: Any, name: str) -> list[inspect.Parameter]:
    return list(inspect.signature(getattr(library.optim, name)).parameters.values())


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_torchs(name):
    strip = lambda rows: [(p.name, p.default, p.kind) for p in rows]  # noqa: E731
    ours, theirs = parameters_of(fn, name), parameters_of(torch, name)
    assert strip(ours) == strip(theirs)
    pure = list(inspect.signature(getattr(optim, f"{name.lower()}_tx")).parameters.values())
    wanted = [(p.name, p.default) for p in theirs if p.name not in ("params", *SWITCHES)]
    assert [(p.name, p.default) for p in pure] == wanted


#: A value for each argument that is not its default.
OTHERS = {
    "lr": 0.3,
    "betas": (0.5, 0.6),
    "eps": 1e-3,
    "weight_decay": 0.1,
    "momentum_decay": 0.2,
    "decoupled_weight_decay": True,
    "lr_decay": 0.4,
    "initial_accumulator_value": 0.7,
    "rho": 0.35,
    "alpha": 0.45,
    "momentum": 0.55,
    "centered": True,
    "etas": (0.25, 1.75),
    "step_sizes": (1e-3, 5.0),
    "lambd": 0.65,
    "t0": 3.0,
    "maximize": True,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_arrives(name):
    chosen = {p.name: OTHERS[p.name] for p in parameters_of(torch, name) if p.name in OTHERS}
    ours = getattr(optim, name)(Net().parameters(), **chosen)
    theirs = getattr(torch.optim, name)(TorchNet().parameters(), **chosen)
    assert ours.defaults == theirs.defaults
    assert all(ours.param_groups[0][key] == value for key, value in chosen.items())
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("named", [False, True], ids=["parameters", "named_parameters"])
@pytest.mark.parametrize("name", NAMES)
def test_text_of_groups_equals_torchs(name, named):
    def make(library, model):
        rows = lambda m: m.named_parameters() if named else m.parameters()  # noqa: E731
        groups = [{"params": rows(model.body), "lr": 0.5}, {"params": rows(model.head)}]
        return getattr(library.optim, name)(groups, lr=0.01)

    assert repr(make(fn, Net())) == repr(make(torch, TorchNet()))


REFUSED = [
    *((name, {"lr": -0.1}) for name in NAMES),
    *((name, {"lr": float("nan")}) for name in NAMES),
    *((name, {"weight_decay": -0.1}) for name in NAMES if name != "Rprop"),
    *((name, {"eps": -0.1}) for name in NAMES if name not in ("Rprop", "ASGD")),
    *((name, {"betas": (1.0, 0.9)}) for name in NAMES[:3]),
    *((name, {"betas": (0.9, -0.1)}) for name in NAMES[:3]),
    ("NAdam", {"momentum_decay": -1.0}),
    ("Adagrad", {"lr_decay": -0.1}),
    ("Adagrad", {"initial_accumulator_value": -0.1}),
    ("Adadelta", {"rho": -0.1}),
    ("Adadelta", {"rho": 1.1}),
    ("RMSprop", {"momentum": -0.1}),
    ("RMSprop", {"alpha": -0.1}),
    ("Rprop", {"etas": (0.0, 1.2)}),
    ("Rprop", {"etas": (1.0, 1.2)}),
    ("Rprop", {"etas": (0.5, 1.0)}),
    ("Rprop", {"etas": (1.2, 0.5)}),
]


@pytest.mark.parametrize(("name", "options"), REFUSED, ids=[f"{n}-{o}" for n, o in REFUSED])
def test_hyper_parameters_are_refused_in_torchs_words(name, options):
    with pytest.raises(ValueError) as theirs:
        getattr(torch.optim, name)(TorchNet().parameters(), **options)
    with pytest.raises(ArgumentError) as ours:
        getattr(optim, name)(Net().parameters(), **options)
    assert str(theirs.value) in str(ours.value)
    # A group's own options, which torch does not look at, are checked like the constructor's.
    with pytest.raises(ArgumentError) as ours:
        getattr(optim, name)([{"params": Net().parameters(), **options}])
    assert str(theirs.value) in str(ours.value)


@pytest.mark.parametrize(
    ("name", "flag"),
    [(n, p.name) for n in NAMES for p in parameters_of(torch, n) if p.name in SWITCHES],
)
def test_torchs_kernel_switches(name, flag):
    make = getattr(optim, name)
    with pytest.raises(UnsupportedError, match=rf"{name}\({flag}=True\).*leave it out"):
        make(Net().parameters(), **{flag: True})
    optimizer = make(Net().body.parameters(), **{flag: False})
    assert optimizer.defaults[flag] is False
    with pytest.raises(UnsupportedError, match=rf"{flag}=True.*leave it out"):
        optimizer.add_param_group({"params": Net().head.parameters(), flag: True})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("value", [0.9, (0.9,), (0.5, 1.2, 1.3), "ab", None])
@pytest.mark.parametrize(
    ("name", "option"),
    [("Adamax", "betas"), ("RAdam", "betas"), ("Rprop", "etas"), ("Rprop", "step_sizes")],
)
def test_pairs_that_are_none(name, option, value):
    with pytest.raises(FuncnetsError, match=f"{option} must be a pair of numbers"):
        getattr(optim, name)(Net().parameters(), **{option: value})


def test_the_averaging_rule_needs_the_parameters():
    tx = optim.asgd_tx()
    state = tx.init(jnp.zeros(2))
    with pytest.raises(ArgumentError, match=r"update\(grads, state, params\)"):
        tx.update(jnp.ones(2), state)
