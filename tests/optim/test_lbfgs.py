"""L-BFGS against torch: every option, eagerly, under fn.jit and as a pure transformation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim.state_dict import OptimizerStateError
from tests.optim.helpers import Net, TorchNet, assert_equal_torch, batches, pair, snapshot


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


OPTIONS = [
    {},
    {"lr": 0.1, "max_iter": 4},
    {"lr": 0.3, "max_iter": 5, "history_size": 2},
    {"lr": 0.3, "max_iter": 10, "max_eval": 4},
    {"lr": 0.3, "tolerance_grad": 0.05, "max_iter": 30},
    {"lr": 0.3, "tolerance_change": 1e-3, "max_iter": 30},
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "lr": 7.0, "max_iter": 6, "max_eval": 40},
    {"line_search_fn": "strong_wolfe", "lr": 1e-3, "max_iter": 4, "history_size": 3},
    {"line_search_fn": "strong_wolfe", "lr": 30.0, "max_iter": 3, "max_eval": 4},
    {"line_search_fn": "strong_wolfe", "tolerance_change": 0.05},
]
IDS = [str(o) for o in OPTIONS]
(X, Y), *_ = batches(1)
SCALE = np.array([[30.0, 0.1]])


def torch_closure(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = (
            (model(torch.from_numpy(X)) - torch.from_numpy(Y)) ** 2 * torch.from_numpy(SCALE)
        ).sum()
        loss.backward()
        return loss

    return closure


def loss_of(model):
    return ((model(jnp.asarray(X)) - Y) ** 2 * SCALE).sum()


def assert_state_equal(optimizer, reference, rtol=1e-4):
    saved, expected = optimizer.state_dict(), reference.state_dict()
    assert saved["param_groups"] == expected["param_groups"]
    assert set(saved["state"]) == set(expected["state"])
    entry = {k: v for k, v in expected["state"].get(0, {}).items() if k != "al"}
    assert set(saved["state"].get(0, {})) == set(entry)
    for name, value in entry.items():
        ours = saved["state"][0][name]
        if isinstance(value, list):
            assert len(ours) == len(value), name
            for a, b in zip(ours, value, strict=True):
                np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-8, err_msg=name)
        else:
            np.testing.assert_allclose(ours, value, rtol=rtol, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_it_equals_torch(options):
    ours, theirs = pair()
    optimizer = optim.LBFGS(ours.parameters(), **options)
    reference = torch.optim.LBFGS(theirs.parameters(), **options)
    closure = fn.jit(lambda: fn.value_and_grad(loss_of)(ours))
    for _ in range(3):
        expected = reference.step(torch_closure(theirs, reference)).item()
        np.testing.assert_allclose(optimizer.step(closure), expected, rtol=1e-6)
        assert_equal_torch(ours, theirs, rtol=1e-5, atol=1e-7)
        assert_state_equal(optimizer, reference)


def test_under_jit_and_as_a_transformation():
    """The same step by step, also where only one parameter of the model is frozen."""
    options = {"line_search_fn": "strong_wolfe", "lr": 0.3, "max_iter": 4, "history_size": 5}
    eager, theirs = pair()
    compiled = Net(jnp.float64)
    compiled.load_state_dict(theirs.state_dict())
    for model in (eager, compiled, theirs):
        model.body.bias.requires_grad_(False)
    optimizers = [optim.LBFGS(m.parameters(), **options) for m in (eager, compiled)]
    traces = []

    @fn.jit
    def step():
        traces.append(1)
        return optimizers[1].step(lambda: fn.value_and_grad(loss_of)(compiled))

    reference = torch.optim.LBFGS(theirs.parameters(), **options)
    params, state = fn.get_variables(eager)
    apply = fn.functionalize(eager).apply
    tx = optim.lbfgs_tx(**options)
    memory = tx.init(params)

    @jax.jit
    def pure_step(params, memory):
        value_fn = lambda p: ((apply(p, state, jnp.asarray(X))[0] - Y) ** 2 * SCALE).sum()  # noqa: E731
        value, grads = jax.value_and_grad(value_fn)(params)
        updates, memory = tx.update(grads, memory, params, value=value, value_fn=value_fn)
        return optax.apply_updates(params, updates), memory

    for i in range(3):
        if i == 2:  # the learning rate is data
            for optimizer in (*optimizers, reference):
                optimizer.param_groups[0]["lr"] = 0.2
        expected = reference.step(torch_closure(theirs, reference)).item()
        got = optimizers[0].step(lambda: fn.value_and_grad(loss_of)(eager))
        np.testing.assert_allclose([got, step()], expected, rtol=1e-6)
        if i < 2:
            params, memory = pure_step(params, memory)
            for leaf, other in zip(
                jax.tree.leaves(params), jax.tree.leaves(fn.get_variables(eager)[0]), strict=True
            ):
                np.testing.assert_allclose(leaf, other, rtol=1e-6)
    assert_equal_torch(eager, theirs, rtol=1e-5, atol=1e-7)
    assert_equal_torch(compiled, theirs, rtol=1e-5, atol=1e-7)
    for optimizer in optimizers:
        assert_state_equal(optimizer, reference)
    assert len(traces) == 1


class Noisy(nn.Module):
    """Writes a buffer and draws a key at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(jnp.array([3.0, -1.0 + 0j, 2.0j]))
        self.calls = nn.Buffer(jnp.zeros((), jnp.int32))
        self.drop = nn.Dropout(0.5)

    def forward(self):
        self.calls = self.calls + 1
        noise = self.drop(jnp.ones(3))
        return (jnp.abs(self.weight - 1.0) ** 2).sum() + 0.0 * noise.sum(), noise


def test_buffers_keys_aux_and_complex_parameters():
    for compile_it in (False, True):
        fn.manual_seed(0)
        model = Noisy()
        optimizer = optim.LBFGS(model.parameters(), lr=0.2, max_iter=5, max_eval=10)
        seen = []

        def closure(model=model, seen=seen):
            (value, noise), grads = fn.value_and_grad(lambda m: m(), has_aux=True)(model)
            seen.append(noise)
            return (value, noise), grads

        step = lambda optimizer=optimizer, closure=closure: optimizer.step(closure)  # noqa: E731
        ((value, noise),) = [(fn.jit(step) if compile_it else step)()]
        assert value == pytest.approx(9.0 + 4.0 - 4.0 + 5.0 - 1.0 + 0.0) or value > 0
        assert noise.shape == (3,)
        assert int(model.calls.data) == 5  # one for each evaluation
        if not compile_it:
            assert len({tuple(map(float, n)) for n in seen}) > 1
        target = torch.tensor([3.0, -1.0, 2.0j], dtype=torch.complex128, requires_grad=True)
        reference = torch.optim.LBFGS([target], lr=0.2, max_iter=5, max_eval=10)

        def theirs(target=target, reference=reference):
            reference.zero_grad()
            loss = ((target - 1.0).abs() ** 2).sum()
            loss.backward()
            return loss

        assert float(value) == pytest.approx(reference.step(theirs).item())
        np.testing.assert_allclose(model.weight, target.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", [None, "strong_wolfe"])
def test_its_state_is_exchanged_with_torch(name):
    options = {"line_search_fn": name, "lr": 0.3, "max_iter": 3, "history_size": 4}
    ours, theirs = pair()
    reference = torch.optim.LBFGS(theirs.parameters(), **options)
    optimizer = optim.LBFGS(ours.parameters(), **options)
    assert optimizer.state_dict() == reference.state_dict()
    for _ in range(3):
        reference.step(torch_closure(theirs, reference))
    ours.load_state_dict(theirs.state_dict())
    optimizer.load_state_dict(reference.state_dict())
    assert_state_equal(optimizer, reference, rtol=1e-12)
    twin = TorchNet().double()
    twin.load_state_dict(theirs.state_dict())
    other = torch.optim.LBFGS(twin.parameters(), **options)
    to_torch = lambda a: torch.from_numpy(np.array(a)) if isinstance(a, jax.Array) else a  # noqa: E731
    other.load_state_dict(jax.tree.map(to_torch, optimizer.state_dict()))
    for _ in range(2):
        reference.step(torch_closure(theirs, reference))
        other.step(torch_closure(twin, other))
        optimizer.step(lambda: fn.value_and_grad(loss_of)(ours))
    assert_equal_torch(ours, theirs, rtol=1e-5, atol=1e-7)
    assert_equal_torch(ours, twin, rtol=1e-5, atol=1e-7)


def test_what_it_refuses():
    ours, theirs = pair()
    groups = lambda m: [{"params": m.body.parameters()}, {"params": m.head.parameters()}]  # noqa: E731
    with pytest.raises(ValueError) as expected:
        torch.optim.LBFGS(groups(theirs))
    with pytest.raises(ArgumentError) as caught:
        optim.LBFGS(groups(ours))
    assert str(caught.value) == str(expected.value)
    for options, words in (
        ({"lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"line_search_fn": "armijo"}, "only 'strong_wolfe' is supported"),
        ({"history_size": 0}, "history_size"),
    ):
        with pytest.raises(ArgumentError, match=words):
            optim.LBFGS(ours.parameters(), **options)
    optimizer = optim.LBFGS(ours.parameters(), max_iter=3)
    with pytest.raises(DTypeError, match="takes a closure"):
        optimizer.step(fn.grad(loss_of)(ours))
    with pytest.raises(ArgumentError, match="value_fn"):
        optim.lbfgs_tx().update(jnp.ones(2), optim.lbfgs_tx().init(jnp.ones(2)), jnp.ones(2))
    before = snapshot(ours)
    calls = []

    def closure():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fn.value_and_grad(loss_of)(ours)

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert len(calls) == 3
    for name, value in snapshot(ours).items():
        np.testing.assert_array_equal(value, before[name])
    assert optimizer.state_dict()["state"] == {}


def test_loading_says_everything_that_does_not_fit():
    ours, _ = pair()
    optimizer = optim.LBFGS(ours.parameters(), history_size=3, max_iter=3, lr=0.1)
    optimizer.step(lambda: fn.value_and_grad(loss_of)(ours))
    saved = optimizer.state_dict()
    entry = saved["state"][0]
    entry["d"] = entry["d"][:5]
    entry["nonsense"] = 1.0
    del entry["H_diag"]
    entry["ro"] = []
    count = optimizer.state_dict()["state"][0]["n_iter"]
    with pytest.raises(OptimizerStateError) as caught:
        optimizer.load_state_dict(saved)
    text = str(caught.value)
    assert all(word in text for word in ("nonsense", "H_diag", "old_dirs, old_stps, ro"))
    entry["ro"] = optimizer.state_dict()["state"][0]["ro"]
    with pytest.raises(OptimizerStateError, match=r"d must have shape \(26,\), but has \(5,\)"):
        optimizer.load_state_dict(saved)
    assert optimizer.state_dict()["state"][0]["n_iter"] == count
