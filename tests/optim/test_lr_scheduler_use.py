"""Schedulers in training: no recompilation, the order of calls, plateaus, refusals, own schedulers."""

from __future__ import annotations

import copy
import math
import pickle
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import errors, nn, optim
from funcnets.optim import lr_scheduler, schedules, swa_utils
from tests.core.toys import stepper
from tests.optim.helpers import assert_equal_torch, batches, pair, torch_step

theirs = torch.optim.lr_scheduler


def sgd(groups: int = 1, **options) -> optim.Optimizer:
    cells = [{"params": [nn.Parameter(jnp.zeros(2))]} for _ in range(groups)]
    return optim.SGD(cells, **{"lr": 0.1, "momentum": 0.9, **options})


def stepped(groups: int = 1) -> optim.Optimizer:
    """An optimizer that needs no warning about the order of calls."""
    optimizer = sgd(groups)
    optimizer._opt_called = True
    return optimizer


# --- with the training step -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "make"),
    [
        ("SGD", {"momentum": 0.9}, lambda m, o: m.OneCycleLR(o, 0.2, 12)),
        ("Adam", {}, lambda m, o: m.OneCycleLR(o, 0.02, 12, three_phase=True)),
        ("SGD", {"momentum": 0.5, "nesterov": True}, lambda m, o: m.CyclicLR(o, 0.01, 0.1, 3)),
        ("AdamW", {"amsgrad": True}, lambda m, o: m.CyclicLR(o, 0.001, 0.01, 3)),
        ("RMSprop", {"momentum": 0.5}, lambda m, o: m.CyclicLR(o, 0.001, 0.01, 3)),
        ("SGD", {}, lambda m, o: m.CosineAnnealingWarmRestarts(o, 3)),
    ],
)
def test_training_is_torchs_and_compiles_once(kind, options, make):
    with jax.enable_x64(True):
        model, reference = pair()
        optimizer = getattr(optim, kind)(model.parameters(), lr=0.05, **options)
        other = getattr(torch.optim, kind)(reference.parameters(), lr=0.05, **options)
        mine, scheduler = make(lr_scheduler, optimizer), make(theirs, other)
        step = stepper(model, optimizer)
        for x, y in batches(11):
            step(x, y)
            torch_step(reference, other, x, y)
            mine.step()
            scheduler.step()
        assert len(step.traces) == 1
        assert_equal_torch(model, reference)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_resuming_with_the_optimizers_state_both_ways(kind):
    """Half of the cycle here and half in torch, and the other way round."""
    options = {"momentum": 0.9} if kind == "SGD" else {}
    with jax.enable_x64(True):

        def make():
            model, reference = pair()
            optimizer = getattr(optim, kind)(model.parameters(), lr=0.05, **options)
            other = getattr(torch.optim, kind)(reference.parameters(), lr=0.05, **options)
            schedulers = [
                m.OneCycleLR(o, 0.1, 8) for m, o in ((lr_scheduler, optimizer), (theirs, other))
            ]
            return model, reference, optimizer, other, *schedulers

        def run(made, data):
            model, reference, optimizer, other, *schedulers = made
            step = stepper(model, optimizer)
            for x, y in data:
                step(x, y)
                torch_step(reference, other, x, y)
                for scheduler in schedulers:
                    scheduler.step()
            assert len(step.traces) == 1

        data = list(batches(8))
        first, second = make(), make()
        run(first, data[:4])
        second[0].load_state_dict(first[1].state_dict())
        second[1].load_state_dict(
            {k: torch.tensor(np.array(v)) for k, v in first[0].state_dict().items()}
        )
        for i in (2, 4):
            mine, state = second[i], first[i + 1].state_dict()
            mine.load_state_dict(state)
            other, state = second[i + 1], first[i].state_dict()
            to_torch = lambda x: torch.tensor(np.array(x)) if isinstance(x, jax.Array) else x  # noqa: E731
            other.load_state_dict(jax.tree.map(to_torch, state) if i == 2 else state)
        run(second, data[4:])
        run(first, data[4:])
        assert_equal_torch(second[0], first[1])
        assert_equal_torch(first[0], second[1])
        assert second[2].param_groups[0]["lr"] == pytest.approx(first[3].param_groups[0]["lr"])


def test_the_rate_changes_what_an_earlier_program_does():
    """Compiled before there was a scheduler; the notes it makes in the groups trace nothing again."""
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = stepper(model, optimizer)
    x, y = next(batches(1, np.float32))
    step(x, y)
    scheduler = swa_utils.SWALR(optimizer, 0.0, anneal_epochs=0)
    chain = lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(optimizer), scheduler])
    chain.step()
    before = np.array(model.weight)
    step(x, y)
    assert len(step.traces) == 1
    np.testing.assert_array_equal(before, np.array(model.weight))


def test_stepping_before_the_optimizer_warns_once():
    optimizer = sgd()
    scheduler = lr_scheduler.StepLR(optimizer, 3)
    with pytest.warns(UserWarning, match=r"before optimizer.step"):
        scheduler.step()
    scheduler.step()
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.parameters())
    step, (x, y) = stepper(model, optimizer), next(batches(1, np.float32))
    scheduler = lr_scheduler.StepLR(optimizer, 3)
    step(x, y)
    scheduler.step()  # a warning would be an error


def test_step_and_construction_are_refused_in_a_compiled_function():
    optimizer = stepped()
    made = [
        lr_scheduler.StepLR(optimizer, 1),
        lr_scheduler.ReduceLROnPlateau(optimizer),
        lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(optimizer, 0.5)]),
        lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3),
    ]
    made.append(lr_scheduler.SequentialLR(optimizer, [made[0], made[3]], [4]))
    for scheduler in made:
        before, options = scheduler.state_dict(), dict(optimizer.param_groups[0])

        @fn.jit
        def train_step(x, scheduler=scheduler):
            scheduler.step(*([x] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
            return x

        with pytest.raises(errors.StateLeakError, match=f"{type(scheduler).__name__}.step"):
            train_step(jnp.ones(()))
        assert scheduler.state_dict() == before
        assert dict(optimizer.param_groups[0]) == options
    with pytest.raises(errors.StateLeakError, match="return the metric"):
        jax.jit(made[1].step)(jnp.ones(()))


def test_rates_may_be_arrays():
    optimizer = stepped()
    optimizer.param_groups[0]["lr"] = jnp.asarray(0.5)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda epoch: np.float32(0.5) ** epoch)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25]
    assert type(optimizer.param_groups[0]["lr"]) is float


# --- plateaus ---------------------------------------------------------------------------------

PLATEAUS = [
    {},
    {"patience": 3, "factor": 0.5},
    {"patience": 0, "cooldown": 4, "threshold": 0.05},
    {"mode": "max", "patience": 2, "threshold": 0.01, "threshold_mode": "abs"},
    {"mode": "min", "patience": 2, "threshold": 0.02, "threshold_mode": "abs", "cooldown": 1},
    {"mode": "max", "patience": 1, "factor": 0.9, "min_lr": 0.02},
    {"patience": 1, "factor": 0.3, "eps": 1e-3},
]


def metrics() -> list[float]:
    rng = np.random.default_rng(3)
    falling = 1 / (1 + np.arange(300) / 20) + 0.05 * rng.standard_normal(300)
    falling[[20, 21]] = np.nan
    return [float(value) for value in falling]


@pytest.mark.parametrize("options", PLATEAUS)
def test_plateaus(options):
    mine, other = stepped(2), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    other.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5})
    mine.param_groups[1]["lr"] = 0.5
    scheduler = lr_scheduler.ReduceLROnPlateau(mine, **options)
    reference = theirs.ReduceLROnPlateau(other, **options)
    pure = schedules.reduce_lr_on_plateau(0.1, **options)
    note = jax.jit(lambda state, value: pure.update((), state, value=value)[1])
    state = pure.init(())
    for i, value in enumerate(metrics()):
        scheduler.step(value)
        reference.step(value)
        state = note(state, value)
        expected = [group["lr"] for group in other.param_groups]
        assert [group["lr"] for group in mine.param_groups] == expected
        np.testing.assert_allclose(state.lr, expected[0], rtol=1e-5, err_msg=str(i))
        if i == 150:
            assert scheduler.state_dict() == reference.state_dict()
            saved = reference.state_dict()
            scheduler = lr_scheduler.ReduceLROnPlateau(mine)
            scheduler.load_state_dict(saved)
            reference = theirs.ReduceLROnPlateau(other)
            reference.load_state_dict(scheduler.state_dict())
    assert scheduler.get_last_lr() == expected != [0.1, 0.5]


def test_plateau_arguments():
    optimizer = stepped(2)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.05, 0.0])
    for value in (jnp.ones(()), np.ones(1), 1):
        scheduler.step(value)
    assert scheduler.get_last_lr() == [0.05, pytest.approx(1e-3)]
    with pytest.raises(errors.ShapeError, match="one number"):
        scheduler.step(np.ones(2))
    assert scheduler.last_epoch == 3
    with pytest.warns(UserWarning, match="deprecated"):
        scheduler.step(1.0, epoch=9)
    assert scheduler.last_epoch == 9 and not scheduler.in_cooldown
    for arguments, match in (
        ({"factor": 1.0}, "Factor"),
        ({"mode": "low"}, "mode"),
        ({"threshold_mode": "near"}, "threshold_mode"),
        ({"min_lr": [0.1]}, "min_lr must have the same length"),
    ):
        with pytest.raises(errors.ArgumentError, match=match):
            lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)


def test_a_group_that_came_later():
    optimizer = stepped()
    plateaus = [lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=m) for m in (0, [0.0])]
    steps = lr_scheduler.StepLR(optimizer, 1)
    optimizer.add_param_group({"params": nn.Parameter(jnp.zeros(1)), "lr": 1.0})
    for plateau in plateaus:
        plateau.best = -math.inf
    plateaus[0].step(1.0)
    assert optimizer.param_groups[1]["lr"] == 0.1
    with pytest.raises(errors.ArgumentError, match="append to its min_lrs"):
        plateaus[1].step(1.0)
    assert plateaus[1].last_epoch == 0
    # A scheduler whose rates come from the groups goes on with the new one, as in torch.
    steps.step()
    assert steps.get_last_lr() == [pytest.approx(0.001), pytest.approx(0.01)]
    with pytest.raises(errors.ArgumentError, match="after the last add_param_group"):
        steps._assign([0.1])


# --- refusals ---------------------------------------------------------------------------------


def bad(make, error=errors.ArgumentError):
    return make, error


REFUSED = {
    "not an Optimizer": bad(lambda o: lr_scheduler.StepLR("sgd", 3), errors.DTypeError),
    "no option 'lr'": bad(
        lambda o: lr_scheduler.StepLR(
            optim.Optimizer([nn.Parameter(jnp.zeros(1))], optim.sgd_tx()), 3
        )
    ),
    "'initial_lr' is not specified": bad(lambda o: lr_scheduler.StepLR(o, 3, last_epoch=4)),
    "step_size must be positive": bad(lambda o: lr_scheduler.StepLR(o, 0)),
    "T_max must be positive": bad(lambda o: lr_scheduler.CosineAnnealingLR(o, 0)),
    "Expected 2 lr_lambdas": bad(lambda o: lr_scheduler.LambdaLR(o, [abs])),
    "should be a function": bad(lambda o: lr_scheduler.MultiplicativeLR(o, 0.5), errors.DTypeError),
    "Constant multiplicative factor": bad(lambda o: lr_scheduler.ConstantLR(o, 1.5)),
    "Starting multiplicative": bad(lambda o: lr_scheduler.LinearLR(o, 0.0)),
    "Ending multiplicative": bad(lambda o: lr_scheduler.LinearLR(o, 0.5, 2.0)),
    "integer T_0": bad(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 0)),
    "T_mult >= 1": bad(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 1, 0)),
    "eta_min": bad(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 1, 1, "0")),
    "mode must be one of": bad(lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, mode="flat")),
    "step_size_up must": bad(lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 0)),
    "base_lr must have the same length": bad(lambda o: lr_scheduler.CyclicLR(o, [0.1], 1.0)),
    "max_momentum must have": bad(lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, max_momentum=[0.9])),
    "must support momentum": bad(
        lambda o: lr_scheduler.CyclicLR(optim.Adagrad([nn.Parameter(jnp.zeros(1))]), 0.1, 1.0)
    ),
    "either total_steps OR": bad(lambda o: lr_scheduler.OneCycleLR(o, 0.1, epochs=3)),
    "integer total_steps": bad(lambda o: lr_scheduler.OneCycleLR(o, 0.1, 0)),
    "integer steps_per_epoch": bad(
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, epochs=1, steps_per_epoch=-1)
    ),
    "pct_start": bad(lambda o: lr_scheduler.OneCycleLR(o, 0.1, 9, pct_start=1.5)),
    "anneal_strategy": bad(lambda o: lr_scheduler.OneCycleLR(o, 0.1, 9, anneal_strategy="sin")),
    "at least one scheduler": bad(lambda o: lr_scheduler.ChainedScheduler([])),
    "takes schedulers, but got 3 at index 0": bad(
        lambda o: lr_scheduler.ChainedScheduler([3]), errors.DTypeError
    ),
    "does not support `ReduceLROnPlateau`": bad(
        lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ReduceLROnPlateau(o)])
    ),
    "same optimizer": bad(
        lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(stepped(), 1)], [])
    ),
    "one milestone fewer": bad(
        lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [1])
    ),
    "ascending": bad(
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.StepLR(o, 1) for _ in range(3)], [5, 4]
        )
    ),
    "only the first may be": bad(
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.StepLR(o, 1),
                lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 1)]),
            ],
            [5],
        )
    ),
    "must define get_lr": bad(lambda o: lr_scheduler.LRScheduler(o), errors.UnsupportedError),
}


@pytest.mark.parametrize("match", REFUSED)
def test_refused_arguments(match):
    make, error = REFUSED[match]
    optimizer = stepped(2)
    with pytest.raises(error, match=match):
        make(optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]


def test_one_step_too_many_changes_nothing():
    optimizer = stepped()
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=3)
    chain = lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(optimizer, 0.5), scheduler])
    for _ in range(3):
        chain.step()
    before, options = chain.state_dict(), dict(optimizer.param_groups[0])
    with pytest.raises(ValueError, match="Tried to step 4 times"):
        chain.step()
    assert chain.state_dict() == before
    assert dict(optimizer.param_groups[0]) == options


def test_where_torch_divides_by_zero():
    assert lr_scheduler.OneCycleLR(stepped(), 0.5, 10, pct_start=0.1).get_last_lr() == [0.5]
    scheduler = lr_scheduler.ConstantLR(stepped(), factor=0.0, total_iters=2)
    seen = []
    for _ in range(3):
        seen += scheduler.get_last_lr()
        scheduler.step()
    assert seen == [0.0, 0.0, 0.1]
    with pytest.warns(UserWarning, match="deprecated"):
        lr_scheduler.LinearLR(stepped(), total_iters=0).step(2)


def test_get_lr_is_for_step_only():
    scheduler = lr_scheduler.ExponentialLR(stepped(), 0.5)
    with pytest.warns(UserWarning, match="get_last_lr"):
        assert scheduler.get_lr() == [0.05]
    assert scheduler.get_last_lr() == [0.1]


# --- state ------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_said_at_once():
    optimizer = stepped(2)
    scheduler = lr_scheduler.StepLR(optimizer, 3)
    before = scheduler.state_dict()
    state = lr_scheduler.CosineAnnealingLR(stepped(1), 7).state_dict() | {"gamma": "half"}
    with pytest.raises(errors.StateDictError) as caught:
        scheduler.load_state_dict(state)
    for text in ("step_size is missing", "T_max is not", "eta_min is not", "base_lrs", "gamma"):
        assert text in str(caught.value)
    with pytest.raises(errors.StateDictError, match="expected a dict"):
        scheduler.load_state_dict([1])
    assert scheduler.state_dict() == before


def test_nested_states_are_checked_before_anything_is_loaded():
    def make():
        optimizer = stepped()
        first, second = (
            lr_scheduler.StepLR(optimizer, 3),
            lr_scheduler.ExponentialLR(optimizer, 1.0),
        )
        return lr_scheduler.SequentialLR(optimizer, [first, second], [5])

    scheduler, other = make(), make()
    other.step()
    state = other.state_dict()
    state["_schedulers"][1] = {"gamma": None}
    before = scheduler.state_dict()
    with pytest.raises(
        errors.StateDictError, match=r"_schedulers\[1\] \(ExponentialLR\): base_lrs is"
    ):
        scheduler.load_state_dict(state)
    with pytest.raises(errors.StateDictError, match="states of 2 schedulers"):
        scheduler.load_state_dict(state | {"_schedulers": state["_schedulers"][:1]})
    with pytest.raises(errors.StateDictError, match="expected a dict"):
        scheduler.load_state_dict(3)
    assert scheduler.state_dict() == before
    scheduler.load_state_dict(other.state_dict())
    assert scheduler.state_dict() == other.state_dict()


def test_a_state_dict_is_independent_and_takes_what_files_make_of_it():
    scheduler = lr_scheduler.MultiStepLR(stepped(), [2, 5, 5])
    state = scheduler.state_dict()
    state["milestones"][2] = 7
    state["base_lrs"][0] = 9.0
    assert scheduler.milestones == {2: 1, 5: 2} and scheduler.base_lrs == [0.1]
    state = scheduler.state_dict()
    as_read = {
        **state,
        "milestones": {"3": np.int64(1)},
        "last_epoch": np.asarray(4),
        "base_lrs": (jnp.asarray(0.25),),
        "verbose": False,
    }
    scheduler.load_state_dict(as_read)
    assert scheduler.milestones == Counter({3: 1}) and isinstance(scheduler.milestones, Counter)
    assert scheduler.last_epoch == 4 and scheduler.base_lrs == [0.25]
    assert not hasattr(scheduler, "verbose")
    for wrong in ({"soon": 1}, {3: "twice"}, [3]):
        with pytest.raises(errors.StateDictError, match="milestones should be"):
            scheduler.load_state_dict(state | {"milestones": wrong})
    assert scheduler.milestones == {3: 1}


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, epoch):
        return self.factor


def test_functions_and_their_states():
    scheduler = lr_scheduler.LambdaLR(stepped(2), [Scale(0.5), abs])
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [{"factor": 0.5}, None]
    with pytest.raises(errors.StateDictError, match=r"lr_lambdas\[1\] has attributes.*takes none"):
        scheduler.load_state_dict(state | {"lr_lambdas": [None, {"factor": 1}]})
    with pytest.raises(errors.StateDictError, match=r"lr_lambdas\[0\] should be None or a dict"):
        scheduler.load_state_dict(state | {"lr_lambdas": [3, None]})
    with pytest.raises(errors.StateDictError, match="a list of 2"):
        scheduler.load_state_dict(state | {"lr_lambdas": []})
    with pytest.raises(errors.StateDictError, match="lr_lambdas is missing"):
        scheduler.load_state_dict({k: v for k, v in state.items() if k != "lr_lambdas"})
    scheduler.load_state_dict(state | {"lr_lambdas": [{"factor": 0.25}, None]})
    assert scheduler.lr_lambdas[0].factor == 0.25
    plain = lr_scheduler.CyclicLR(stepped(), 0.1, 1.0)
    with pytest.raises(errors.StateDictError, match=r"_scale_fn_custom\[0\] has attributes"):
        plain.load_state_dict(plain.state_dict() | {"_scale_fn_custom": {"factor": 1}})


class Halving(lr_scheduler.LRScheduler):
    """As somebody would write it for PyTorch."""

    def __init__(self, optimizer, every, last_epoch=-1):
        self.every = every
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        if self.last_epoch and self.last_epoch % self.every == 0:
            return [group["lr"] / 2 for group in self.optimizer.param_groups]
        return [group["lr"] for group in self.optimizer.param_groups]


def test_own_schedulers_copies_and_pickles():
    scheduler = Halving(stepped(), 2)
    twin = copy.deepcopy(scheduler)
    for _ in range(4):
        scheduler.step()
    assert scheduler.get_last_lr() == [0.025] and twin.get_last_lr() == [0.1]
    assert scheduler.optimizer is not twin.optimizer
    twin.load_state_dict(scheduler.state_dict())
    assert (twin.every, twin.last_epoch) == (2, 4)
    state = pickle.loads(pickle.dumps(scheduler.state_dict()))
    assert state == scheduler.state_dict()
    assert isinstance(scheduler, lr_scheduler.LRScheduler)
