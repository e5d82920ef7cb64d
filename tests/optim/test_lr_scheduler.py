"""The schedulers against torch's: rates and momenta over 300 steps, state_dicts both ways."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import nn, optim
from funcnets.optim import lr_scheduler as ours

theirs = torch.optim.lr_scheduler
STEPS = 300

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*before.*optimizer.step")


class Wave:
    """A callable object, whose attributes are state."""

    def __init__(self, period: float) -> None:
        self.period = period

    def __call__(self, epoch: float) -> float:
        return 1 + 0.5 * math.sin(epoch / self.period)


def slow(epoch: float) -> float:
    return 0.99**epoch


def nearly_one(epoch: float) -> float:
    return 1 - 0.1 / (1 + epoch)


#: Each makes a scheduler of the module it is given, for an optimizer with two groups.
CASES: dict[str, Callable[[Any, Any], Any]] = {
    "lambda": lambda m, o: m.LambdaLR(o, slow),
    "lambdas": lambda m, o: m.LambdaLR(o, [slow, Wave(7)]),
    "multiplicative": lambda m, o: m.MultiplicativeLR(o, nearly_one),
    "multiplicatives": lambda m, o: m.MultiplicativeLR(o, [nearly_one, Wave(5)]),
    "step": lambda m, o: m.StepLR(o, 30),
    "step gamma": lambda m, o: m.StepLR(o, 7, 0.9),
    "multistep": lambda m, o: m.MultiStepLR(o, [30, 80, 80, 250], gamma=0.3),
    "constant": lambda m, o: m.ConstantLR(o),
    "constant long": lambda m, o: m.ConstantLR(o, factor=0.7, total_iters=120),
    "constant none": lambda m, o: m.ConstantLR(o, factor=0.7, total_iters=0),
    "linear": lambda m, o: m.LinearLR(o),
    "linear down": lambda m, o: m.LinearLR(o, 1.0, 0.01, total_iters=200),
    "linear none": lambda m, o: m.LinearLR(o, total_iters=0),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.98),
    "polynomial": lambda m, o: m.PolynomialLR(o),
    "polynomial 2": lambda m, o: m.PolynomialLR(o, total_iters=200, power=2.5),
    "polynomial none": lambda m, o: m.PolynomialLR(o, total_iters=0),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 300),
    "cosine again": lambda m, o: m.CosineAnnealingLR(o, 35, eta_min=0.003),
    "restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 11),
    "restarts longer": lambda m, o: m.CosineAnnealingWarmRestarts(o, 10, 2, eta_min=0.001),
    "restarts 3": lambda m, o: m.CosineAnnealingWarmRestarts(o, 1, T_mult=3),
    "cyclic": lambda m, o: m.CyclicLR(o, 0.001, 0.1, step_size_up=20),
    "cyclic 2": lambda m, o: m.CyclicLR(
        o, [0.001, 0.01], [0.1, 0.2], 20, 35, "triangular2", base_momentum=[0.5, 0.6]
    ),
    "cyclic exp": lambda m, o: m.CyclicLR(
        o, 0.001, 0.1, 13, 0, "exp_range", 0.99, max_momentum=0.95
    ),
    "cyclic own": lambda m, o: m.CyclicLR(
        o, 0.001, 0.1, 13, scale_fn=slow, scale_mode="iterations", cycle_momentum=False
    ),
    "cyclic object": lambda m, o: m.CyclicLR(o, 0.001, 0.1, 13, scale_fn=Wave(2)),
    "one cycle": lambda m, o: m.OneCycleLR(o, 0.1, total_steps=STEPS),
    "one cycle epochs": lambda m, o: m.OneCycleLR(
        o, [0.1, 0.4], epochs=3, steps_per_epoch=100, anneal_strategy="linear", pct_start=0.2
    ),
    "one cycle 3": lambda m, o: m.OneCycleLR(
        o,
        0.1,
        STEPS,
        three_phase=True,
        base_momentum=[0.7, 0.8],
        max_momentum=[0.9, 0.99],
        div_factor=10.0,
        final_div_factor=50,
    ),
    "one cycle plain": lambda m, o: m.OneCycleLR(o, 0.1, STEPS, 1, 1, 0.0, cycle_momentum=False),
    "chained": lambda m, o: m.ChainedScheduler(
        [m.ConstantLR(o, 0.1, 20), m.ExponentialLR(o, 0.99), m.StepLR(o, 50, 0.5)], optimizer=o
    ),
    "chained cosine": lambda m, o: m.ChainedScheduler(
        [m.LinearLR(o, 0.1, 1, 20), m.CosineAnnealingLR(o, 60, 0.001)]
    ),
    "sequential": lambda m, o: m.SequentialLR(
        o, [m.ConstantLR(o, 0.1, 20), m.ExponentialLR(o, 0.99)], [20]
    ),
    "sequential 3": lambda m, o: m.SequentialLR(
        o,
        [
            m.LinearLR(o, 0.1, 1, 30),
            m.CosineAnnealingLR(o, 100),
            m.CosineAnnealingWarmRestarts(o, 30),
        ],
        milestones=[30, 130],
    ),
    "sequential of lambdas": lambda m, o: m.SequentialLR(
        o, [m.MultiplicativeLR(o, nearly_one), m.LambdaLR(o, slow), m.PolynomialLR(o, 50)], [40, 90]
    ),
    "sequential of chain": lambda m, o: m.SequentialLR(
        o,
        [m.ChainedScheduler([m.StepLR(o, 5, 0.9), m.LinearLR(o, total_iters=8)]), m.StepLR(o, 9)],
        [25],
    ),
    "sequential at once": lambda m, o: m.SequentialLR(
        o, [m.ConstantLR(o), m.StepLR(o, 9), m.ExponentialLR(o, 0.9)], [0, 17]
    ),
}


def optimizers(beta: bool = False) -> tuple[optim.Optimizer, torch.optim.Optimizer]:
    """Two groups with rates 0.05 and 0.5, in both libraries."""
    cells = [nn.Parameter(jnp.zeros(2)) for _ in range(2)]
    tensors = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    kind, options = ("Adam", {}) if beta else ("SGD", {"momentum": 0.9})

    def make(library, params):
        groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}]
        return getattr(library, kind)(groups, lr=0.05, **options)

    return make(optim, cells), make(torch.optim, tensors)


def momenta(optimizer: Any) -> list[float]:
    return [g["betas"][0] if "betas" in g else g["momentum"] for g in optimizer.param_groups]


def rates(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def assert_same(mine: Any, other: Any, message: str = "") -> None:
    np.testing.assert_allclose(
        rates(mine) + momenta(mine),
        rates(other) + momenta(other),
        rtol=1e-11,
        atol=1e-16,
        err_msg=message,
    )


@pytest.mark.parametrize("case", CASES)
def test_rates_and_momenta_over_300_steps(case):
    beta = ("cycl" in case and "2" in case) or case == "one cycle"
    mine, other = optimizers(beta)
    scheduler, reference = CASES[case](ours, mine), CASES[case](theirs, other)
    assert_same(mine, other, "at the start")
    assert scheduler.get_last_lr() == rates(mine)
    for step in range(STEPS):
        if case == "restarts 3" and step == 120:
            break
        scheduler.step()
        reference.step()
        assert_same(mine, other, f"after {step + 1} steps")
        assert scheduler.get_last_lr() == rates(mine)
        assert getattr(scheduler, "last_epoch", None) == getattr(reference, "last_epoch", None)
    assert type(mine.param_groups[0]["lr"]) in (float, int)


def loosely(state: Any) -> Any:
    """A state_dict to compare: numbers rounded, and without torch's deprecated bookkeeping."""
    if isinstance(state, dict):
        return {k: loosely(v) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return [loosely(v) for v in state]
    if isinstance(state, (int, float)) and not isinstance(state, bool):
        return pytest.approx(state, rel=1e-10)
    return state


def carry_over(source: Any, target: Any) -> None:
    """What loading the optimizer's state_dict does to the options."""
    for old, new in zip(source.param_groups, target.param_groups, strict=True):
        for name, value in old.items():
            if name != "params":
                new[name] = copy.deepcopy(value)


@pytest.mark.parametrize("case", CASES)
def test_state_dicts_both_ways(case):
    """After 17 steps ours goes to torch and torch's to ours; both go on equal for as many."""
    pair, swapped = optimizers(), optimizers()
    scheduler, reference = CASES[case](ours, pair[0]), CASES[case](theirs, pair[1])
    mine, other = CASES[case](ours, swapped[0]), CASES[case](theirs, swapped[1])
    for _ in range(17):
        scheduler.step()
        reference.step()
    assert scheduler.state_dict() == loosely(reference.state_dict())
    mine.load_state_dict(reference.state_dict())
    other.load_state_dict(scheduler.state_dict())
    carry_over(pair[1], swapped[0])
    carry_over(pair[0], swapped[1])
    for step in range(17):
        for one in (scheduler, reference, mine, other):
            one.step()
        assert_same(swapped[0], pair[1], f"torch's in ours, step {step}")
        assert_same(swapped[1], pair[0], f"ours in torch's, step {step}")
    assert mine.state_dict() == loosely(other.state_dict())


@pytest.mark.parametrize(
    "case",
    [
        *("step", "multistep", "constant", "linear", "exponential", "polynomial 2", "cosine again"),
        *("lambda", "restarts longer", "restarts", "cyclic", "one cycle"),
    ],
)
def test_step_to_an_epoch(case):
    mine, other = optimizers()
    scheduler, reference = CASES[case](ours, mine), CASES[case](theirs, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for epoch in (3, 4, 40, 2, 0, 161, 70):
            scheduler.step(epoch)
            reference.step(epoch)
            assert_same(mine, other, f"epoch {epoch}")
            scheduler.step()
            reference.step()
            assert_same(mine, other, f"after epoch {epoch}")
    assert scheduler.last_epoch == reference.last_epoch


def test_an_epoch_is_deprecated_but_not_a_fraction_of_restarts():
    mine, other = optimizers()
    with pytest.warns(UserWarning, match="deprecated"):
        ours.StepLR(mine, 3).step(2)
    scheduler = ours.CosineAnnealingWarmRestarts(mine, 4, 2)
    reference = theirs.CosineAnnealingWarmRestarts(other, 4, 2)
    carry_over(other, mine)
    for epoch in np.arange(0.0, 40.0, 0.3):
        scheduler.step(epoch)
        reference.step(epoch)
        assert_same(mine, other)


def test_a_restart_at_the_epoch_where_it_belongs():
    """torch's logarithm rounds 5 down to 4.999..., and gives the minimum there."""
    mine, _ = optimizers()
    scheduler = ours.CosineAnnealingWarmRestarts(mine, 1, T_mult=3)
    scheduler.step(121)
    assert rates(mine) == [0.05, 0.5]
    assert (scheduler.T_cur, scheduler.T_i) == (0, 243)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.split()[0] not in ("chained", "sequential")]
)
def test_resuming_by_last_epoch(case):
    kind = type(CASES[case](ours, optimizers()[0])).__name__
    pair = optimizers()
    for optimizer in pair:
        for group in optimizer.param_groups:
            group["initial_lr"], group["lr"] = 0.3, 0.2
            group.update(max_lr=0.5, min_lr=0.01, base_momentum=0.7, max_momentum=0.9)
    arguments = {
        "LambdaLR": (slow,),
        "MultiplicativeLR": (nearly_one,),
        "StepLR": (4,),
        "MultiStepLR": ([9, 12],),
        "ExponentialLR": (0.9,),
        "CosineAnnealingLR": (8,),
        "CosineAnnealingWarmRestarts": (7,),
        "CyclicLR": (0.1, 0.6, 5),
        "OneCycleLR": (0.5, 40),
    }.get(kind, ())
    schedulers = [
        getattr(module, kind)(optimizer, *arguments, last_epoch=5)
        for module, optimizer in zip((ours, theirs), pair, strict=True)
    ]
    assert_same(*pair)
    for _ in range(12):
        for scheduler in schedulers:
            scheduler.step()
        assert_same(*pair)
