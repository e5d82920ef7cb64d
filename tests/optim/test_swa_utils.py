"""Averaged models, SWALR and update_bn against torch's."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, DTypeError, StateDictError, StateLeakError, TreeError
from funcnets.optim import swa_utils
from tests.core.toys import stepper
from tests.optim.helpers import assert_equal_torch, batches, pair, torch_step

theirs = torch.optim.swa_utils


def modules(library, **options):
    """A network with batch normalisation, a frozen parameter and a tied one."""
    net = library.Sequential(
        library.Linear(3, 4, **options),
        library.BatchNorm1d(4, **options),
        library.Linear(4, 4, **options),
    )
    net[2].weight.requires_grad_(False)
    net.append(library.Linear(4, 4, **options))
    net[3].bias = net[2].bias
    return net


def networks(dtype=jnp.float64):
    torch.manual_seed(1)
    other = modules(torch.nn).to(getattr(torch, jnp.dtype(dtype).name))
    mine = modules(nn, dtype=dtype)
    mine.load_state_dict(other.state_dict())
    return mine, other


def change(mine, other, i):
    """The same new parameters and buffers in both."""
    rng = np.random.default_rng(i)
    state = {
        name: rng.standard_normal(value.shape)
        if value.is_floating_point()
        else np.asarray(5 * i + 3)
        for name, value in other.state_dict().items()
    }
    state["3.bias"] = state["2.bias"]
    other.load_state_dict({name: torch.from_numpy(np.asarray(v)) for name, v in state.items()})
    mine.load_state_dict({name: jnp.asarray(v) for name, v in state.items()})


def own(averaged, current, count):
    return 0.3 * averaged + 0.7 * current + count / 100


AVERAGES = {
    "swa": lambda m: {},
    "swa fn": lambda m: {"avg_fn": m.get_swa_avg_fn()},
    "swa multi": lambda m: {"multi_avg_fn": m.get_swa_multi_avg_fn()},
    "ema": lambda m: {"avg_fn": m.get_ema_avg_fn(0.9)},
    "ema multi": lambda m: {"multi_avg_fn": m.get_ema_multi_avg_fn(0.3)},
    "own": lambda m: {"avg_fn": own},
    "swa buffers": lambda m: {"use_buffers": True},
    "ema buffers": lambda m: {"avg_fn": m.get_ema_avg_fn(0.9), "use_buffers": True},
    "ema multi buffers": lambda m: {
        "multi_avg_fn": m.get_ema_multi_avg_fn(0.9),
        "use_buffers": True,
    },
}


@pytest.mark.parametrize("case", AVERAGES)
def test_averages(case):
    with jax.enable_x64(True):
        mine, other = networks()
        # torch divides by its counter, or the counter, in single precision.
        near = {"rtol": 1e-6, "atol": 1e-7} if case in ("swa multi", "own") else {"rtol": 1e-12}
        averaged = swa_utils.AveragedModel(mine, **AVERAGES[case](swa_utils))
        reference = theirs.AveragedModel(other, **AVERAGES[case](theirs))
        assert list(averaged.state_dict()) == list(reference.state_dict())
        for i in range(5):
            change(mine, other, i)
            with jax.numpy_dtype_promotion("standard" if case == "own" else "strict"):
                averaged.update_parameters(mine)
            reference.update_parameters(other)
            assert_equal_torch(averaged, reference, **near)
        assert averaged.module[3].bias is averaged.module[2].bias
        assert not averaged.module[2].weight.requires_grad
        assert averaged.n_averaged.dtype == "int64"
        # A state_dict of torch's goes on from where it was.
        other_average = swa_utils.AveragedModel(mine, **AVERAGES[case](swa_utils))
        other_average.load_state_dict(reference.state_dict())
        change(mine, other, 9)
        with jax.numpy_dtype_promotion("standard" if case == "own" else "strict"):
            other_average.update_parameters(mine)
        reference.update_parameters(other)
        assert_equal_torch(other_average, reference, **near)


def test_averaging_within_the_training_step():
    with jax.enable_x64(True):
        model, other = pair()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        reference = torch.optim.SGD(other.parameters(), lr=0.1)
        averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.8))
        average = theirs.AveragedModel(other, multi_avg_fn=theirs.get_ema_multi_avg_fn(0.8))
        apart = copy.deepcopy(averaged)
        traces = []

        @fn.jit
        def step(x, y):
            traces.append(1)
            _, grads = fn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
            optimizer.step(grads)
            averaged.update_parameters(model)

        for x, y in batches(4):
            step(x, y)
            apart.update_parameters(model)
            torch_step(other, reference, x, y)
            average.update_parameters(other)
        assert len(traces) == 1 and int(averaged.n_averaged) == 4
        assert_equal_torch(averaged, average)
        assert_equal_torch(apart, average)
        x = next(batches(1))[0]
        np.testing.assert_allclose(averaged(x), average(torch.from_numpy(x)).detach(), rtol=1e-6)


def test_the_update_is_compiled_once():
    calls = []

    def rule(averaged, current, count):
        calls.append(1)
        return averaged + current

    model = nn.Linear(2, 1, bias=False)
    averaged = swa_utils.AveragedModel(model, avg_fn=rule)
    for _ in range(3):
        averaged.update_parameters(model)
    assert len(calls) == 1
    np.testing.assert_allclose(averaged.module.weight, 3 * np.array(model.weight), rtol=1e-6)


def test_the_model_may_have_another_precision():
    """Small steps are not lost in an average of single precision of a model of half precision."""
    model = nn.Linear(2, 1, bias=False)
    averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.999))
    model.to(jnp.bfloat16)
    model.weight.data = jnp.ones((1, 2), jnp.bfloat16)
    averaged.update_parameters(model)
    model.weight.data = jnp.full((1, 2), 2, jnp.bfloat16)
    averaged.update_parameters(model)
    assert averaged.module.weight.dtype == jnp.float32
    np.testing.assert_allclose(averaged.module.weight, [[1.001, 1.001]], rtol=1e-6)
    half = swa_utils.AveragedModel(model)
    for _ in range(3):
        half.update_parameters(model)
    assert half.module.weight.dtype == jnp.bfloat16 and half.module.weight[0, 0] == 2


def test_the_pure_functions():
    tree = {"a": jnp.zeros(2), "n": jnp.asarray(10)}
    new = {"a": jnp.ones(2), "n": jnp.asarray(20)}
    moved = jax.jit(
        lambda t, n: jax.tree.map(lambda a, b: swa_utils.get_swa_avg_fn()(a, b, 2), t, n)
    )(tree, new)
    np.testing.assert_allclose(moved["a"], [1 / 3, 1 / 3], rtol=1e-6)
    assert moved["n"] == 13 and moved["n"].dtype == tree["n"].dtype
    for make in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(ArgumentError, match="Invalid decay value 1.5"):
            make(1.5)


def test_refusals():
    model = nn.Linear(2, 1)
    with pytest.raises(ArgumentError, match="Only one of"):
        swa_utils.AveragedModel(model, avg_fn=own, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    with pytest.raises(DTypeError, match="must be a Module"):
        swa_utils.AveragedModel(lambda x: x)
    averaged = swa_utils.AveragedModel(model)
    with pytest.raises(TreeError, match=r"(?s)weight should have the shape \(1, 2\).*"):
        averaged.update_parameters(nn.Linear(3, 1))
    with pytest.raises(TreeError, match=r"(?s)bias is missing"):
        averaged.update_parameters(nn.Linear(2, 1, bias=False))
    with pytest.raises(TreeError, match=r"(?s)bias is unknown here"):
        swa_utils.AveragedModel(nn.Linear(2, 1, bias=False)).update_parameters(model)
    in_place = swa_utils.AveragedModel(model, multi_avg_fn=lambda a, c, n: None)
    with pytest.raises(DTypeError, match="must return the list of 2 new averages"):
        in_place.update_parameters(model)
    wrong = swa_utils.AveragedModel(model, avg_fn=lambda a, c, n: a.sum())
    with pytest.raises(TreeError, match="must have its parameter's shape"):
        wrong.update_parameters(model)
    with pytest.raises(StateLeakError):
        jax.jit(lambda: averaged.update_parameters(model))()
    assert int(averaged.n_averaged) == int(in_place.n_averaged) == 0


# --- update_bn --------------------------------------------------------------------------------


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(3, momentum=0.3)
        self.drop = nn.Dropout(0.5)
        self.second = nn.BatchNorm1d(3, momentum=None)
        self.second.eval()

    def forward(self, x):
        return self.second(2 * self.first(x) + 1)


class TorchMixed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.BatchNorm1d(3, momentum=0.3)
        self.second = torch.nn.BatchNorm1d(3, momentum=None)

    def forward(self, x):
        return self.second(2 * self.first(x) + 1)


@pytest.mark.parametrize("form", ["arrays", "tuples", "tensors"])
def test_update_bn(form):
    rng = np.random.default_rng(0)
    data = [rng.standard_normal((4, 3)).astype(np.float32) for _ in range(5)]
    mine, other = Mixed(), TorchMixed()
    mine(jnp.asarray(data[0]))
    loader = {
        "arrays": data,
        "tuples": [(jnp.asarray(x), None) for x in data],
        "tensors": [[torch.from_numpy(x), torch.zeros(4)] for x in data],
    }[form]
    swa_utils.update_bn(loader, mine, device="cpu")
    theirs.update_bn([torch.from_numpy(x) for x in data], other)
    assert_equal_torch(mine, other, rtol=1e-5, atol=1e-6)
    assert (mine.first.momentum, mine.second.momentum) == (0.3, None)
    assert [m.training for m in mine.modules()] == [True, True, True, False]


def test_update_bn_fails_without_a_trace():
    model = Mixed().eval()
    model.first.running_mean.data = jnp.full(3, 7.0)
    before = {name: np.array(value) for name, value in model.state_dict().items()}

    def broken():
        yield jnp.ones((4, 3))
        raise OSError("the disk is gone")

    for loader, error in ((broken(), OSError), ([], ArgumentError)):
        with pytest.raises(error):
            swa_utils.update_bn(loader, model)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(before[name], np.array(value), err_msg=name)
        assert not any(m.training for m in model.modules())
        assert model.first.momentum == 0.3
    swa_utils.update_bn([], nn.Linear(2, 1))  # nothing to do


# --- SWALR ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*before.*optimizer.step")
@pytest.mark.parametrize(
    "options",
    [
        {"swa_lr": 0.05},
        {"swa_lr": [0.05, 0.3], "anneal_epochs": 25, "anneal_strategy": "linear"},
        {"swa_lr": 0.05, "anneal_epochs": 0},
        {"swa_lr": 0.05, "anneal_epochs": 1},
    ],
)
def test_swalr(options):
    mine = optim.SGD([{"params": [nn.Parameter(jnp.zeros(1))], "lr": r} for r in (0.1, 0.2)])
    other = torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": r} for r in (0.1, 0.2)]
    )
    scheduler, reference = swa_utils.SWALR(mine, **options), theirs.SWALR(other, **options)
    decay, falling = (
        m.lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.99)
        for m, o in ((optim, mine), (torch.optim, other))
    )
    for step in range(60):
        # As in torch's recipe: the usual schedule first, then the move to the rate of averaging.
        for one, two in ((decay, falling), (scheduler, reference)):
            if (one is decay) == (step < 20):
                one.step()
                two.step()
        expected = [group["lr"] for group in other.param_groups]
        got = [group["lr"] for group in mine.param_groups]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        if step == 25:
            ours_state, state = scheduler.state_dict(), reference.state_dict()
            assert set(ours_state) == set(state)
            for name, value in state.items():
                assert ours_state[name] == (
                    value if isinstance(value, str) else pytest.approx(value)
                )
            saved = reference.state_dict()
            reference.load_state_dict(scheduler.state_dict())
            scheduler.load_state_dict(saved)
    with pytest.raises(StateDictError, match="anneal_epochs is missing"):
        scheduler.load_state_dict(decay.state_dict())


def test_swalr_arguments():
    optimizer = optim.SGD([nn.Parameter(jnp.zeros(1))], lr=0.1)
    for arguments, match in (
        ({"swa_lr": [0.1, 0.2]}, "swa_lr must have the same length"),
        ({"swa_lr": 0.1, "anneal_strategy": "sin"}, "anneal_strategy must be one of"),
        ({"swa_lr": 0.1, "anneal_epochs": -1}, "anneal_epochs must be equal or greater than 0"),
        ({"swa_lr": 0.1, "anneal_epochs": 1.5}, "anneal_epochs must be equal or greater than 0"),
    ):
        with pytest.raises(ArgumentError, match=match):
            swa_utils.SWALR(optimizer, **arguments)
    assert "swa_lr" not in optimizer.param_groups[0]


def test_the_recipe():
    """Train, average, move the rate, and compute the statistics of the averaged network."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    averaged = swa_utils.AveragedModel(model)
    scheduler = swa_utils.SWALR(optimizer, 0.05, anneal_epochs=2)
    step, data = stepper(model, optimizer), list(batches(6, np.float32))
    for x, y in data:
        step(x, y)
        averaged.update_parameters(model)
        scheduler.step()
    swa_utils.update_bn((x for x, _ in data), averaged)
    assert scheduler.get_last_lr() == [0.05] and len(step.traces) == 1
    hidden = np.concatenate([np.array(averaged.module[0](jnp.asarray(x))) for x, _ in data])
    np.testing.assert_allclose(averaged.module[1].running_mean, hidden.mean(0), rtol=1e-4)
    assert averaged.eval()(jnp.asarray(data[0][0])).shape == (4, 2)
