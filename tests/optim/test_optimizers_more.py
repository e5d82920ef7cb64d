"""Adamax, NAdam, RAdam, Adagrad, Adadelta, RMSprop, Rprop and ASGD against torch, with every option.

Each case is a group of one optimizer, so that one program steps all cases of an optimizer at once.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim

STEPS = 50

CASES: dict[str, list[dict[str, Any]]] = {
    "Adamax": [
        {},
        {"lr": 0.05, "betas": (0.8, 0.95)},
        {"lr": 0.05, "betas": (0.0, 0.0)},
        {"lr": 0.05, "eps": 1e-2},
        {"lr": 0.05, "weight_decay": 0.1},
        {"lr": 0.05, "maximize": True},
        {"lr": 0.05, "weight_decay": 0.1, "maximize": True, "eps": 1e-3},
    ],
    "NAdam": [
        {},
        {"lr": 0.05, "betas": (0.8, 0.95)},
        {"lr": 0.05, "betas": (0.0, 0.0)},
        {"lr": 0.05, "eps": 1e-2},
        {"lr": 0.05, "momentum_decay": 0.3},
        {"lr": 0.05, "momentum_decay": 0.0},
        {"lr": 0.05, "weight_decay": 0.1},
        {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True},
        {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
        {"lr": 0.05, "maximize": True},
    ],
    "RAdam": [
        {},
        {"lr": 0.05, "betas": (0.8, 0.95)},
        {"lr": 0.05, "betas": (0.9, 0.7)},
        {"lr": 0.05, "betas": (0.9, 0.5)},
        {"lr": 0.05, "betas": (0.0, 0.0)},
        {"lr": 0.05, "eps": 1e-2},
        {"lr": 0.05, "weight_decay": 0.1},
        {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True},
        {"lr": 0.05, "maximize": True},
    ],
    "Adagrad": [
        {},
        {"lr": 0.05, "lr_decay": 0.1},
        {"lr": 0.05, "weight_decay": 0.1},
        {"lr": 0.05, "eps": 1e-2},
        {"lr": 0.05, "maximize": True},
        {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-3, "maximize": True},
    ],
    "Adadelta": [
        {},
        {"lr": 0.5, "rho": 0.5},
        {"rho": 0.0},
        {"rho": 1.0},
        {"eps": 1e-2},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"lr": 2.0, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1, "maximize": True},
    ],
    "RMSprop": [
        {},
        {"alpha": 0.5},
        {"alpha": 0.0},
        {"eps": 1e-2},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"centered": True},
        {"centered": True, "momentum": 0.5, "alpha": 0.9},
        {"maximize": True},
        {"momentum": 0.5, "centered": True, "weight_decay": 0.1, "eps": 1e-3, "maximize": True},
    ],
    "Rprop": [
        {},
        {"lr": 0.1, "etas": (0.3, 1.5)},
        {"lr": 0.1, "step_sizes": (1e-3, 0.05)},
        {"lr": 1e-8},
        {"lr": 0.05, "maximize": True},
        {"lr": 0.05, "etas": (0.7, 1.1), "step_sizes": (0.01, 1.0), "maximize": True},
    ],
    "ASGD": [
        {},
        {"lr": 0.1, "lambd": 0.1},
        {"lr": 0.1, "lambd": 0.1, "alpha": 0.3},
        {"lr": 0.1, "t0": 5},
        {"lr": 0.1, "t0": 0.0},
        {"lr": 0.1, "weight_decay": 0.1},
        {"lr": 0.1, "maximize": True},
        {"lr": 0.1, "lambd": 0.5, "t0": 20, "weight_decay": 0.1, "maximize": True},
    ],
}
EACH = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]
IDS = [f"{n}-{'-'.join(f'{k}={v}' for k, v in CASES[n][i].items()) or 'defaults'}" for n, i in EACH]
WEIGHT = np.array([[0.4, -0.3], [0.2, 0.9], [-0.7, 0.1]])
FACTOR = np.array([1 + 2j, -0.5 + 0.3j])


class Toy(nn.Module):
    """A real and a complex parameter; the loss grows slowly, so that going up it stays finite."""

    def __init__(self, dtype: Any = np.float64, with_complex: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(jnp.asarray(WEIGHT, dtype))
        if with_complex:
            self.factor = nn.Parameter(jnp.asarray(FACTOR, np.result_type(dtype, np.complex64)))

    def forward(self, x, y):
        dtype = self.weight.dtype
        loss = jnp.log1p((x.astype(dtype) @ self.weight - y.astype(dtype)) ** 2).mean()
        if hasattr(self, "factor"):
            loss = loss + jnp.log1p(jnp.abs(self.factor) ** 2).mean()
        return loss


class TorchToy(torch.nn.Module):
    def __init__(self, dtype: Any = torch.float64, with_complex: bool = True) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(WEIGHT, dtype=dtype))
        if with_complex:
            kind = torch.complex64 if dtype == torch.float32 else torch.complex128
            self.factor = torch.nn.Parameter(torch.tensor(FACTOR, dtype=kind))

    def forward(self, x: Any, y: Any) -> Any:
        dtype = self.weight.dtype
        loss = torch.log1p((x.to(dtype) @ self.weight - y.to(dtype)) ** 2).mean()
        if hasattr(self, "factor"):
            loss = loss + torch.log1p(self.factor.abs() ** 2).mean()
        return loss


def batches(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((4, 3)), rng.standard_normal((4, 2))) for _ in range(count)]


class Sum(nn.Module):
    def __init__(self, toys: list[Toy]) -> None:
        super().__init__()
        self.toys = nn.ModuleList(toys)

    def forward(self, x, y):
        return sum(toy(x, y).astype(jnp.float32) for toy in self.toys)


def ours_by_groups(name: str, toys: list[Toy], cases: list[dict[str, Any]]) -> tuple[Any, Any]:
    """The optimizer with a group for each case, and its compiled step."""
    groups = [{"params": t.parameters(), **c} for t, c in zip(toys, cases, strict=True)]
    optimizer, model, traces = getattr(optim, name)(groups), Sum(toys), []

    @fn.jit
    def step(x, y):
        traces.append(1)
        optimizer.step(fn.grad(lambda m: m(x, y))(model))

    step.traces = traces
    return optimizer, step


def torchs_by_groups(name: str, toys: Any, cases: Any, more: dict[str, Any] | None = None) -> Any:
    groups = [{"params": t.parameters(), **c} for t, c in zip(toys, cases, strict=True)]
    return getattr(torch.optim, name)(groups, **(more or {}))


def torch_gradients(toys: list[Any], x: np.ndarray, y: np.ndarray) -> None:
    for toy in toys:
        toy.zero_grad()
        toy(torch.from_numpy(x), torch.from_numpy(y)).backward()


def values(toys: Any) -> list[dict[str, np.ndarray]]:
    return [{n: np.array(v) for n, v in toy.state_dict().items()} for toy in toys]


def torch_values(toys: Any) -> list[dict[str, np.ndarray]]:
    return [
        {n: v.double().numpy().copy() if not v.is_complex() else v.numpy().copy() for n, v in rows}
        for rows in (toy.state_dict().items() for toy in toys)
    ]


def assert_close(ours: Any, theirs: Any, rtol: float, atol: float, what: Any = "") -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        wide = value if np.iscomplexobj(value) else np.asarray(value, np.float64)
        np.testing.assert_allclose(wide, theirs[name], rtol, atol, err_msg=f"{what} {name}")


# --- step for step ----------------------------------------------------------------------------


@functools.cache
def stateful_run(name: str) -> tuple[list[Any], list[Any], int]:
    """Both libraries over 50 steps, with another learning rate from the 30th on."""
    cases = CASES[name]
    with jax.enable_x64(True):
        toys, theirs = [Toy() for _ in cases], [TorchToy() for _ in cases]
        optimizer, step = ours_by_groups(name, toys, cases)
        reference = torchs_by_groups(name, theirs, cases)
        rows: tuple[list[Any], list[Any]] = ([], [])
        for i, (x, y) in enumerate(batches(STEPS)):
            if i == 30:
                for group in [*optimizer.param_groups, *reference.param_groups]:
                    group["lr"] *= 0.5
            step(x, y)
            torch_gradients(theirs, x, y)
            reference.step()
            if i < 8 or i >= STEPS - 3 or i in (29, 30, 31):
                rows[0].append(values(toys))
                rows[1].append(torch_values(theirs))
    return *rows, len(step.traces)


@pytest.mark.parametrize(("name", "case"), EACH, ids=IDS)
def test_fifty_steps_equal_torch(name, case):
    ours, theirs, traces = stateful_run(name)
    assert traces == 1
    for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one[case]["weight"].dtype == np.float64
        assert one[case]["factor"].dtype == np.complex128
        assert_close(one[case], other[case], rtol=1e-6, atol=1e-9, what=i)
    moved = np.abs(ours[-1][case]["weight"] - WEIGHT).max()
    assert moved > 1e-3 or CASES[name][case].get("lr") == 1e-8


@functools.cache
def pure_run(name: str) -> tuple[Any, Any, list[Any], list[Any]]:
    """``*_tx`` with a falling learning rate, on the gradients that torch sees, in one scan."""
    cases, make = CASES[name], getattr(optim, f"{name.lower()}_tx")
    theirs = [TorchToy() for _ in cases]
    reference = torchs_by_groups(name, theirs, cases)
    rates = [group["lr"] for group in reference.param_groups]
    gradients = []
    for i, (x, y) in enumerate(batches(STEPS)):
        for group, rate in zip(reference.param_groups, rates, strict=True):
            group["lr"] = rate * 0.97**i
        torch_gradients(theirs, x, y)
        gradients.append([{n: p.grad.numpy() for n, p in t.named_parameters()} for t in theirs])
        reference.step()
    kept = [
        {n: {k: v.numpy() for k, v in reference.state[p].items()} for n, p in t.named_parameters()}
        for t in theirs
    ]
    with jax.enable_x64(True):
        schedules = [lambda n, rate=rate: rate * 0.97 ** n.astype(float) for rate in rates]
        txs = [make(**{**c, "lr": s}) for c, s in zip(cases, schedules, strict=True)]
        params: Any = [{"weight": jnp.asarray(WEIGHT), "factor": jnp.asarray(FACTOR)}] * len(cases)

        def one(carry, grads):
            params, memories = carry
            results = [
                tx.update(g, m, p) for tx, g, m, p in zip(txs, grads, memories, params, strict=True)
            ]
            news = [optax.apply_updates(p, r[0]) for p, r in zip(params, results, strict=True)]
            return (news, [r[1] for r in results]), None

        @jax.jit
        def run(params, gradients):
            memories = [tx.init(p) for tx, p in zip(txs, params, strict=True)]
            return jax.lax.scan(one, (params, memories), gradients)[0]

        stacked = jax.tree.map(lambda *rows: np.stack(rows), *gradients)
        params, memories = jax.device_get(run(params, stacked))
    return params, memories, torch_values(theirs), kept


@pytest.mark.parametrize(("name", "case"), EACH, ids=IDS)
def test_the_pure_transformation_and_its_state_equal_torchs(name, case):
    params, memories, theirs, kept = pure_run(name)
    assert_close(params[case], theirs[case], rtol=1e-6, atol=1e-9)
    (memory,) = [m for m in memories[case] if hasattr(m, "step")]
    fields = {k for k in memory._fields if not isinstance(getattr(memory, k), tuple)}
    for leaf, state in kept[case].items():
        assert fields == set(state)
        for key, value in state.items():
            ours = getattr(memory, key)
            ours = ours[leaf] if isinstance(ours, dict) else ours
            np.testing.assert_allclose(ours, value, rtol=1e-6, atol=1e-9, err_msg=key)


def test_an_accumulator_that_starts_above_zero():
    with jax.enable_x64(True):
        toys, theirs = [Toy()], [TorchToy()]
        more = {"initial_accumulator_value": 0.7, "lr": 0.1}
        optimizer = optim.Adagrad(toys[0].parameters(), **more)
        reference = torchs_by_groups("Adagrad", theirs, [{}], more)
        for x, y in batches(5):
            optimizer.step(fn.grad(lambda m, x=x, y=y: m(jnp.asarray(x), jnp.asarray(y)))(toys[0]))
            torch_gradients(theirs, x, y)
            reference.step()
        assert_close(values(toys)[0], torch_values(theirs)[0], rtol=1e-9, atol=0)


# --- precision --------------------------------------------------------------------------------

#: What the steps are made with where the smallest numbers of half precision are not enough.
COARSE = {
    "Adagrad": {"eps": 1e-3},
    "RMSprop": {"eps": 1e-3, "momentum": 0.5, "centered": True},
    "Rprop": {"step_sizes": (1e-3, 50)},
    "Adadelta": {"eps": 1e-3},
    "ASGD": {"lr": 0.1, "t0": 3, "weight_decay": 0.1},
}
KINDS = {"float32": (1e-5, 1e-6), "bfloat16": (0.03, 0.03), "float16": (5e-3, 5e-3)}


@pytest.mark.parametrize("name", CASES)
def test_single_and_half_precision(name):
    options = COARSE.get(name, {"eps": 1e-3, "lr": 0.01})
    toys = [Toy(jnp.dtype(k), k == "float32") for k in KINDS]
    theirs = [TorchToy(getattr(torch, k), k == "float32") for k in KINDS]
    optimizer, step = ours_by_groups(name, toys, [options] * 3)
    reference = torchs_by_groups(name, theirs, [options] * 3)
    for x, y in batches(10):
        x, y = x.astype(np.float32), y.astype(np.float32)
        step(x, y)
        torch_gradients(theirs, x, y)
        reference.step()
    for i, (kind, (rtol, atol)) in enumerate(KINDS.items()):
        assert toys[i].weight.dtype == jnp.dtype(kind)
        assert_close(values(toys)[i], torch_values(theirs)[i], rtol, atol, kind)
    kept = [cell for path, cell in optimizer._cells() if "memory" in path]
    assert {c.dtype.name for c in kept if c.shape == (3, 2)} == set(KINDS)
    assert {c.dtype.name for c in kept if c.shape == ()} <= {"int32", "float32"}
    assert len(step.traces) == 1


@pytest.mark.parametrize("b2", [0.9, 0.999, 0.99999])
def test_radams_length_keeps_its_digits_in_single_precision(b2):
    """Where the published formula is off by 0.04 (0.999) and by hundreds (0.99999)."""
    tx, p = optim.radam_tx(lr=1.0, betas=(0.9, b2)), jnp.zeros(1)
    theirs = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    reference = torch.optim.RAdam([theirs], lr=1.0, betas=(0.9, b2))
    state, update = tx.init(p), jax.jit(tx.update)
    for i in range(12):
        before = theirs.detach().clone()
        theirs.grad = torch.full((1,), 1.0 + 0.1 * i, dtype=torch.float64)
        reference.step()
        change, state = update(jnp.full(1, 1.0 + 0.1 * i), state, p)
        np.testing.assert_allclose(change, (theirs.detach() - before).numpy(), rtol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_asgds_average_is_the_parameter_until_averaging_begins(dtype):
    """To the last bit, as in torch."""
    tx, params = optim.asgd_tx(0.3, t0=8), jnp.asarray([0.1, -7.3, 1e-4], dtype)
    state, update, equal = tx.init(params), jax.jit(tx.update), []
    for i in range(12):
        updates, state = update(jnp.asarray([1.0, -0.3, 0.01 * i], dtype), state, params)
        params = optax.apply_updates(params, updates)
        equal.append((state[-1].ax == params).all().item())
    assert equal == [True] * 10 + [False] * 2


def test_rprop_of_what_is_not_a_number_is_as_in_torch():
    theirs = torch.nn.Parameter(torch.zeros(3))
    reference = torch.optim.Rprop([theirs])
    tx, params = optim.rprop_tx(), jnp.zeros(3)
    state = tx.init(params)
    for row in ([1.0, -1.0, 0.0], [np.nan, -1.0, np.inf], [1.0, 1.0, -np.inf]):
        theirs.grad = torch.tensor(row)
        reference.step()
        updates, state = tx.update(jnp.array(row), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, theirs.detach().numpy(), rtol=1e-6)
        np.testing.assert_allclose(
            state[-1].step_size, reference.state[theirs]["step_size"].numpy(), rtol=1e-6
        )


# --- what a parameter starts with -------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_parameters_unfrozen_later_start_as_in_torch(name):
    """With their own count, and with the learning rate of that time."""
    with jax.enable_x64(True):
        ours, theirs = Toy(), TorchToy()
        optimizer = getattr(optim, name)(ours.parameters(), lr=0.05)
        reference = getattr(torch.optim, name)(theirs.parameters(), lr=0.05)
        for group in [*optimizer.param_groups, *reference.param_groups]:
            group["lr"] = 0.1
        step = fn.jit(lambda x, y: optimizer.step(fn.grad(lambda m: m(x, y))(ours)))
        for i, (x, y) in enumerate(batches(7)):
            for model in (ours, theirs):
                model.factor.requires_grad_(i >= 3)
            if i == 2:
                for group in [*optimizer.param_groups, *reference.param_groups]:
                    group["lr"] = 0.02
            step(x, y)
            theirs.zero_grad()
            torch_gradients([theirs], x, y)
            reference.step()
        assert_close(values([ours])[0], torch_values([theirs])[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Adamax", {"betas": (0.5, 0.9), "weight_decay": 0.1}),
        ("RMSprop", {"momentum": 0.5, "centered": True, "alpha": 0.8}),
        ("NAdam", {"momentum_decay": 0.1, "decoupled_weight_decay": True}),
        ("Rprop", {"etas": (0.4, 1.3), "step_sizes": (1e-4, 0.1), "maximize": True}),
        ("ASGD", {"lambd": 0.1, "alpha": 0.5, "t0": 2}),
    ],
)
def test_options_changed_between_the_steps(name, changes):
    """What exists goes on; where torch fails for the lack of a buffer, it starts from zero."""
    with jax.enable_x64(True):
        ours, theirs = Toy(), TorchToy()
        optimizer = getattr(optim, name)(ours.parameters())
        reference = getattr(torch.optim, name)(theirs.parameters())
        for i, (x, y) in enumerate(batches(6)):
            if i == 3:
                optimizer.param_groups[0].update(changes)
                reference.param_groups[0].update(changes)
                for state in reference.state.values() if name == "RMSprop" else ():
                    for missing in ("momentum_buffer", "grad_avg"):
                        state[missing] = torch.zeros_like(state["square_avg"])
            optimizer.step(fn.grad(lambda m, x=x, y=y: m(jnp.asarray(x), jnp.asarray(y)))(ours))
            torch_gradients([theirs], x, y)
            reference.step()
        assert_close(values([ours])[0], torch_values([theirs])[0], rtol=1e-6, atol=1e-9)


DRIVEN = [
    ("Adamax", "betas", [(0.9, 0.999), (0.8, 0.999), (0.85, 0.99)]),
    ("NAdam", "betas", [(0.9, 0.999), (0.8, 0.999), (0.85, 0.99)]),
    ("RAdam", "betas", [(0.9, 0.999), (0.8, 0.999), (0.85, 0.99), (0.9, 0.6)]),
    ("RMSprop", "momentum", [0.9, 0.8, 0.85]),
    ("Adadelta", "weight_decay", [0.1, 0.2, 0.3]),
    ("ASGD", "weight_decay", [0.1, 0.2, 0.3]),
]


@pytest.mark.parametrize(("name", "option", "sequence"), DRIVEN, ids=[d[0] for d in DRIVEN])
def test_options_that_a_schedule_drives_are_data(name, option, sequence):
    """Equal to torch, and one trace."""
    with jax.enable_x64(True):
        toys, theirs, first = [Toy()], [TorchToy()], {option: sequence[0]}
        optimizer, step = ours_by_groups(name, toys, [first])
        reference = torchs_by_groups(name, theirs, [first])
        assert optimizer.param_groups[0].drive(option)
        for i, (x, y) in enumerate(batches(4 * len(sequence))):
            for group in [*optimizer.param_groups, *reference.param_groups]:
                group[option] = sequence[i // 4]
            step(x, y)
            torch_gradients(theirs, x, y)
            reference.step()
        assert_close(values(toys)[0], torch_values(theirs)[0], rtol=1e-6, atol=1e-9)
    assert len(step.traces) == 1


def test_transformations_combine_with_optaxs():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    grads = {"a": jnp.ones(2), "b": jnp.full(3, 2.0)}
    for name in CASES:
        tx = optax.masked(getattr(optim, f"{name.lower()}_tx")(), {"a": True, "b": False})
        updates, _ = tx.update(grads, tx.init(params), params)
        assert (updates["a"] < 0).all()
        np.testing.assert_array_equal(updates["b"], grads["b"])
        tx = getattr(optim, f"{name.lower()}_tx")()
        assert tx.update({}, tx.init({}), {})[0] == {}
