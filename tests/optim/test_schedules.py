"""The pure schedules give the schedulers' numbers, compiled, and drive transformations."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from funcnets import optim
from funcnets.errors import ArgumentError
from funcnets.optim import lr_scheduler, schedules

theirs = torch.optim.lr_scheduler
swa = torch.optim.swa_utils
STEPS = 300
LR = 0.1

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*before.*optimizer.step")


def slow(epoch):
    return 0.99**epoch


def nearly_one(epoch):
    return 1 - 0.1 / (1 + epoch)


#: The pure schedule, torch's scheduler, and the pure schedule of the momentum, if there is one.
CASES = {
    "lambda": (schedules.lambda_lr(LR, slow), lambda o: theirs.LambdaLR(o, slow)),
    "multiplicative": (
        schedules.multiplicative_lr(LR, nearly_one),
        lambda o: theirs.MultiplicativeLR(o, nearly_one),
    ),
    "step": (schedules.step_lr(LR, 30), lambda o: theirs.StepLR(o, 30)),
    "step 7": (schedules.step_lr(LR, 7, 0.9), lambda o: theirs.StepLR(o, 7, 0.9)),
    "multistep": (
        schedules.multi_step_lr(LR, [80, 30, 80, 250], 0.3),
        lambda o: theirs.MultiStepLR(o, [30, 80, 80, 250], 0.3),
    ),
    "no milestones": (schedules.multi_step_lr(LR, []), lambda o: theirs.MultiStepLR(o, [])),
    "constant": (schedules.constant_lr(LR, 0.7, 120), lambda o: theirs.ConstantLR(o, 0.7, 120)),
    "linear": (schedules.linear_lr(LR), theirs.LinearLR),
    "linear down": (
        schedules.linear_lr(LR, 1.0, 0.01, 200),
        lambda o: theirs.LinearLR(o, 1.0, 0.01, 200),
    ),
    "linear none": (
        schedules.linear_lr(LR, total_iters=0),
        lambda o: theirs.LinearLR(o, total_iters=0),
    ),
    "exponential": (schedules.exponential_lr(LR, 0.98), lambda o: theirs.ExponentialLR(o, 0.98)),
    "polynomial": (
        schedules.polynomial_lr(LR, 200, 2.5),
        lambda o: theirs.PolynomialLR(o, 200, 2.5),
    ),
    "cosine": (
        schedules.cosine_annealing_lr(LR, 35, 0.003),
        lambda o: theirs.CosineAnnealingLR(o, 35, 0.003),
    ),
    "restarts": (
        schedules.cosine_annealing_warm_restarts(LR, 11),
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 11),
    ),
    "restarts 2": (
        schedules.cosine_annealing_warm_restarts(LR, 10, 2, 0.001),
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 10, 2, 0.001),
    ),
    "cyclic": (
        schedules.cyclic_lr(0.001, LR, 20),
        lambda o: theirs.CyclicLR(o, 0.001, LR, 20),
        schedules.cyclic_momentum(step_size_up=20),
    ),
    "cyclic 2": (
        schedules.cyclic_lr(0.001, LR, 20, 35, "triangular2"),
        lambda o: theirs.CyclicLR(o, 0.001, LR, 20, 35, "triangular2", base_momentum=0.5),
        schedules.cyclic_momentum(0.5, 0.9, 20, 35, "triangular2"),
    ),
    "cyclic exp": (
        schedules.cyclic_lr(0.001, LR, 13, 0, "exp_range", 0.99),
        lambda o: theirs.CyclicLR(o, 0.001, LR, 13, 0, "exp_range", 0.99),
        schedules.cyclic_momentum(0.8, 0.9, 13, 0, "exp_range", 0.99),
    ),
    "cyclic own": (
        schedules.cyclic_lr(0.001, LR, 13, scale_fn=slow, scale_mode="iterations"),
        lambda o: theirs.CyclicLR(o, 0.001, LR, 13, scale_fn=slow, scale_mode="iterations"),
    ),
    "one cycle": (
        schedules.one_cycle_lr(LR, STEPS),
        lambda o: theirs.OneCycleLR(o, LR, STEPS),
        schedules.one_cycle_momentum(total_steps=STEPS),
    ),
    "one cycle linear": (
        schedules.one_cycle_lr(LR, None, 3, 100, 0.2, "linear", 10.0, 50.0),
        lambda o: theirs.OneCycleLR(
            o, LR, None, 3, 100, 0.2, "linear", div_factor=10.0, final_div_factor=50.0
        ),
        schedules.one_cycle_momentum(0.85, 0.95, None, 3, 100, 0.2, "linear"),
    ),
    "one cycle 3": (
        schedules.one_cycle_lr(LR, STEPS, three_phase=True),
        lambda o: theirs.OneCycleLR(o, LR, STEPS, three_phase=True, base_momentum=0.7),
        schedules.one_cycle_momentum(0.7, total_steps=STEPS, three_phase=True),
    ),
    "swa": (schedules.swa_lr(LR, 0.01), lambda o: swa.SWALR(o, 0.01)),
    "swa linear": (
        schedules.swa_lr(LR, 0.5, 100, "linear"),
        lambda o: swa.SWALR(o, 0.5, 100, "linear"),
    ),
    "swa at once": (schedules.swa_lr(LR, 0.01, 0), lambda o: swa.SWALR(o, 0.01, 0)),
    "chained": (
        schedules.chained(
            LR, [schedules.constant_lr(1.0, 0.1, 20), schedules.cosine_annealing_lr(1.0, 200)]
        ),
        lambda o: theirs.ChainedScheduler(
            [theirs.ConstantLR(o, 0.1, 20), theirs.CosineAnnealingLR(o, 200)]
        ),
    ),
    "sequential": (
        schedules.sequential_lr(
            [
                schedules.linear_lr(LR, 0.1, 1, 30),
                schedules.cosine_annealing_lr(LR, 100),
                schedules.exponential_lr(LR, 0.98),
            ],
            [30, 130],
        ),
        lambda o: theirs.SequentialLR(
            o,
            [
                theirs.LinearLR(o, 0.1, 1, 30),
                theirs.CosineAnnealingLR(o, 100),
                theirs.ExponentialLR(o, 0.98),
            ],
            [30, 130],
        ),
    ),
}


@pytest.fixture(scope="module")
def compiled():
    """All schedules at all counts, in one program for each precision."""
    everything = {name: [case[0], *case[2:]] for name, case in CASES.items()}

    def run(counts):
        return {name: [jax.vmap(s)(counts) for s in pair] for name, pair in everything.items()}

    single = jax.jit(run)(jnp.arange(STEPS))
    with jax.enable_x64(True):
        double = jax.jit(run)(jnp.arange(STEPS))
    return single, double


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_of_torch(case, compiled):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    scheduler = CASES[case][1](optimizer)
    expected: list[list[float]] = [[], []]
    for _ in range(STEPS):
        expected[0].append(optimizer.param_groups[0]["lr"])
        expected[1].append(optimizer.param_groups[0]["momentum"])
        scheduler.step()
    for values, dtype, tolerance in zip(
        compiled, ("float32", "float64"), (2e-5, 1e-11), strict=True
    ):
        for got, numbers in zip(values[case], expected, strict=False):
            assert got.dtype == dtype
            np.testing.assert_allclose(got, numbers, rtol=tolerance, atol=tolerance * LR / 10)


def test_every_scheduler_has_a_pure_form_with_its_arguments():
    pairs = {
        "ChainedScheduler": "chained",
        "CosineAnnealingWarmRestarts": "cosine_annealing_warm_restarts",
    }
    for name in theirs.__all__:
        if name == "LRScheduler":
            continue
        snake = "".join("_" + c.lower() if c.isupper() else c for c in name.removesuffix("LR"))
        pure = pairs.get(name, snake.strip("_").replace("l_r_", "lr_") + "_lr")
        pure = "reduce_lr_on_plateau" if name == "ReduceLROnPlateau" else pure
        assert pure in schedules.__all__, name
        if name in pairs and pure == "chained":
            continue
        known = set(inspect.signature(getattr(schedules, pure)).parameters)
        wanted = set(inspect.signature(getattr(theirs, name)).parameters)
        momentum = {"cycle_momentum", "base_momentum", "max_momentum"}
        known |= {"schedulers"} if "schedules" in known else set()
        assert wanted - {"optimizer", "last_epoch"} - momentum <= known, name
        ours = list(inspect.signature(getattr(lr_scheduler, name)).parameters.values())
        for mine, other in zip(
            ours, inspect.signature(getattr(theirs, name)).parameters.values(), strict=True
        ):
            assert (mine.name, mine.default) == (other.name, other.default)


def test_they_take_numbers_arrays_and_drive_transformations():
    rate = schedules.one_cycle_lr(LR, 10)
    assert rate(3).item() == rate(jnp.int32(3)).item() == rate(3.0).item()
    assert rate(9).item() == rate(500).item()  # after the last step it stays
    tx = optim.sgd_tx(schedules.step_lr(0.5, 1, 0.5))
    state = tx.init(jnp.zeros(1))
    seen = []
    for _ in range(3):
        updates, state = tx.update(jnp.ones(1), state, jnp.zeros(1))
        seen.append(updates.item())
    assert seen == [-0.5, -0.25, -0.125]
    # A traced initial rate, as a hyper-parameter that is searched over.
    slope = jax.grad(lambda lr: schedules.polynomial_lr(lr, 4)(2))(1.0)
    assert slope == 0.5


def test_a_schedule_of_the_momentum():
    schedule = schedules.one_cycle_momentum(0.5, 0.9, 6)
    rates = schedules.one_cycle_lr(0.1, 6)
    static = ("dampening", "weight_decay", "nesterov", "maximize")
    with jax.numpy_dtype_promotion("standard"):
        tx = optax.inject_hyperparams(optim.sgd_tx, static_args=static)(lr=rates, momentum=schedule)
        update = jax.jit(tx.update)
        params = jnp.zeros(2)
        state = tx.init(params)
        other = torch.nn.Parameter(torch.zeros(2))
        reference = torch.optim.SGD([other], lr=0.1)
        scheduler = theirs.OneCycleLR(reference, 0.1, 6, base_momentum=0.5, max_momentum=0.9)
        for i in range(6):
            updates, state = update(jnp.full(2, i + 1.0), state, params)
            params = optax.apply_updates(params, updates)
            other.grad = torch.full((2,), i + 1.0)
            reference.step()
            scheduler.step()
    np.testing.assert_allclose(params, other.detach().numpy(), rtol=1e-5)


def test_a_plateau_is_a_part_of_a_transformation():
    tx = optax.chain(
        optim.sgd_tx(lr=1.0), schedules.reduce_lr_on_plateau(0.5, factor=0.5, patience=0)
    )
    state = tx.init(jnp.zeros(2, jnp.bfloat16))

    @jax.jit
    def step(state, value):
        return tx.update(jnp.ones(2, jnp.bfloat16), state, value=value)

    seen = []
    for value in (1.0, 1.0, 0.5, 0.6):
        updates, state = step(state, value)
        seen.append(updates[0].item())
    assert updates.dtype == jnp.bfloat16
    assert seen == [-0.5, -0.25, -0.25, -0.125]
    updates, after = tx.update(jnp.ones(2, jnp.bfloat16), state)  # without a metric nothing counts
    assert after == state and updates[0] == -0.125


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: schedules.step_lr(0.1, 0), "step_size must be positive"),
        (lambda: schedules.constant_lr(0.1, 2.0), "factor must be"),
        (lambda: schedules.linear_lr(0.1, 0.0), "greater than 0"),
        (lambda: schedules.linear_lr(0.1, 1.0, -1.0), "end_factor must be"),
        (lambda: schedules.cosine_annealing_lr(0.1, -1), "T_max must be positive"),
        (lambda: schedules.cosine_annealing_warm_restarts(0.1, 0), "T_0 must be positive"),
        (lambda: schedules.cosine_annealing_warm_restarts(0.1, 1, 0), "T_mult must be positive"),
        (lambda: schedules.cyclic_lr(0.1, 1.0, mode="flat"), "mode must be one of"),
        (lambda: schedules.cyclic_lr(0.1, 1.0, 0), "step_size_up must be positive"),
        (lambda: schedules.one_cycle_lr(0.1), "either total_steps OR"),
        (lambda: schedules.one_cycle_lr(0.1, 5, pct_start=2), "pct_start must be"),
        (lambda: schedules.one_cycle_lr(0.1, 5, anneal_strategy="sin"), "anneal_strategy"),
        (lambda: schedules.swa_lr(0.1, 0.2, -1), "anneal_epochs must be"),
        (lambda: schedules.chained(0.1, []), "at least one"),
        (lambda: schedules.sequential_lr([], []), "one milestone fewer"),
        (lambda: schedules.sequential_lr([abs, abs, abs], [3, 2]), "ascending"),
        (lambda: schedules.reduce_lr_on_plateau(0.1, factor=1.0), "Factor"),
    ],
)
def test_refused_arguments(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()
