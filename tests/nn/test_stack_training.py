"""nn.Stack in training: against the same blocks in a Sequential, and against PyTorch."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, TreeError
from tests.nn.test_stack import X, same_state, scans


def block():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4))


def normed():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))


def both(make=block, count=3):
    fn.manual_seed(0)
    stack = nn.Stack(make() for _ in range(count))
    fn.manual_seed(0)
    return stack, nn.Sequential(*[make() for _ in range(count)])


def train(model, optimizer, steps=3):
    fn.manual_seed(9)

    @fn.jit
    def step(x):
        loss, grads = fn.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        optimizer.step(grads)
        return loss

    return [float(step(X)) for _ in range(steps)]


def groups_by_block(model):
    return [{"params": b.parameters(), "lr": 0.01 * (i + 1)} for i, b in enumerate(model)]


OPTIMIZERS = {
    "a group of matrices": lambda m: optim.AdamW(
        [
            {"params": [p for p in m.parameters() if p.dim() > 1]},
            {"params": [p for p in m.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]
    ),
    "named": lambda m: optim.SGD(m.named_parameters(), lr=0.01, momentum=0.9),
    "a group for each block": lambda m: optim.Adam(groups_by_block(m)),
    "not elementwise": lambda m: optim.Optimizer(m.parameters(), optax.sgd(0.01, 0.9)),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_trains_as_the_blocks_do_and_exchanges_the_optimizers_state(make):
    stack, other = both()
    one, two = make(stack), make(other)
    np.testing.assert_allclose(train(stack, one), train(other, two), 1e-4)
    same_state(stack, other, 1e-4)
    mine, theirs = one.state_dict(), two.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    close = lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-6)  # noqa: E731
    jax.tree.map(close, mine["state"], theirs["state"])
    third, _ = both()
    again = make(third)
    third.load_state_dict(other.state_dict())
    again.load_state_dict(theirs)
    np.testing.assert_allclose(train(third, again, 1), train(other, two, 1), 1e-4)
    held = [p for group in one.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in stack.parameters()}
    first = next(iter(stack.parameters()))
    for name, value in one.state[first].items():
        np.testing.assert_array_equal(value, one.state_dict()["state"][0][name])


def test_torchs_optimizer_state_is_taken_and_given():
    t = torch.nn
    theirs = t.Sequential(*[t.Linear(4, 4) for _ in range(3)])
    adam = torch.optim.Adam(theirs.parameters(), lr=0.01)
    stack = nn.Stack(nn.Linear(4, 4) for _ in range(3))
    optimizer = optim.Adam(stack.parameters(), lr=0.01)
    x = torch.from_numpy(np.array(X))

    def torch_step():
        adam.zero_grad()
        theirs(x).pow(2).mean().backward()
        adam.step()

    torch_step()
    stack.load_state_dict(theirs.state_dict())
    optimizer.load_state_dict(adam.state_dict())
    train(stack, optimizer, 2)
    torch_step()
    torch_step()
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(stack.state_dict()[name], value, 1e-4, 1e-6)
    for i, entry in adam.state_dict()["state"].items():
        for name, value in entry.items():
            mine = optimizer.state_dict()["state"][i][name]
            np.testing.assert_allclose(mine, value, 1e-3, 1e-7)
    state = optimizer.state_dict()
    state["state"][0] = {**state["state"][0], "step": jnp.asarray(1.0)}
    before = optimizer.state_dict()
    with pytest.raises(ArgumentError, match="'weight' of the blocks of a Stack has one state"):
        optimizer.load_state_dict(state)
    jax.tree.map(np.testing.assert_array_equal, before, optimizer.state_dict())


def test_gradients_of_some_blocks():
    stack = nn.Stack(nn.Linear(4, 4) for _ in range(3))
    optimizer = optim.SGD(stack.parameters(), lr=1.0)
    before = np.array(stack[1].weight)
    grads = fn.grad(lambda b: b(X).sum())(stack[1])
    with pytest.raises(TreeError, match="some of them only"):
        optimizer.step(grads)
    np.testing.assert_array_equal(before, stack[1].weight)
    grads = fn.grad(lambda *b: stack(X).sum(), argnums=(0, 1, 2))(*stack)
    whole = fn.grad(lambda m: m(X).sum())(stack)
    np.testing.assert_allclose(grads[1]["weight"], whole["weight"][1], 1e-5, 1e-6)
    optimizer.step(grads)
    np.testing.assert_allclose(stack[1].weight, before - whole["weight"][1], 1e-5, 1e-6)


def test_frozen_unfrozen_and_assigned_between_steps():
    stack, other = both()
    pairs = [(m, optim.SGD(m.parameters(), lr=0.1, momentum=0.9)) for m in (stack, other)]
    for m, optimizer in pairs:
        train(m, optimizer, 1)
        for one in m:
            one[0].requires_grad_(False)
        train(m, optimizer, 1)
        m.requires_grad_()
        m[1][0].weight.data = jnp.ones((5, 4))
        m[2].to(jnp.float32)
        train(m, optimizer, 2)
    same_state(stack, other, 1e-4)


def test_a_program_that_knew_the_blocks_is_traced_again():
    blocks = [nn.Linear(4, 4) for _ in range(3)]
    model = nn.Sequential(*blocks)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = fn.jit(lambda: optimizer.step(fn.grad(lambda m: (m(X) ** 2).mean())(model)))
    step()
    twin = copy.deepcopy((model, optimizer))
    stack = nn.Stack(blocks)
    step()
    twin[1].step(fn.grad(lambda m: (m(X) ** 2).mean())(twin[0]))
    same_state(stack, twin[0])
    np.testing.assert_allclose(fn.jit(stack)(X), twin[0](X), 1e-5, 1e-6)


def test_copied_with_its_optimizer_both_go_on():
    stack, _ = both()
    optimizer = optim.Adam(stack.parameters(), lr=0.01)
    train(stack, optimizer, 1)
    twin, its = copy.deepcopy((stack, optimizer))
    assert train(twin, its, 2) == train(stack, optimizer, 2)
    same_state(stack, twin, 0)
    jax.tree.map(np.testing.assert_array_equal, optimizer.state_dict(), its.state_dict())


def test_functional_call_takes_the_names_of_both_faces():
    stack, _ = both(normed, 2)
    stack.eval()
    x, y = X, fn.jit(stack)(X)
    flat = {n: 2 * v if v.dtype == jnp.float32 else v for n, v in stack.state_dict().items()}
    twin = copy.deepcopy(stack)
    twin.load_state_dict(flat)
    expected = twin(x)
    call = fn.functional_call
    np.testing.assert_allclose(call(stack, flat, (x,), strict=True), expected, 1e-5, 1e-5)
    np.testing.assert_allclose(
        call(stack, fn.get_variables(twin), (x,), strict=True), expected, 1e-5, 1e-5
    )
    some = {n: v for n, v in flat.items() if n.startswith("1.")}
    stack_like = copy.deepcopy(stack)
    stack_like.load_state_dict(some, strict=False)
    jitted = jax.jit(lambda some: call(stack, some, (x,)))
    np.testing.assert_allclose(jitted(some), stack_like(x), 1e-5, 1e-5)
    np.testing.assert_allclose(fn.jit(stack)(x), y)
    stack.train()
    fn.manual_seed(0)
    given = {n: v for n, v in stack.state_dict().items() if "running" in n and n.startswith("0.")}
    before = stack.state_dict()
    call(stack, given, (x,))
    assert np.any(given["0.1.running_mean"] != before["0.1.running_mean"])
    after = stack.state_dict()
    np.testing.assert_array_equal(after["0.1.running_mean"], before["0.1.running_mean"])
    assert np.any(after["1.1.running_mean"] != before["1.1.running_mean"])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_transformers_use_it_when_asked(kind):
    name = kind.capitalize()

    def make(nn_, **options):
        layer = getattr(nn_, f"Transformer{name}Layer")(8, 2, 16, dropout=0.2)
        if kind == "encoder":
            options["enable_nested_tensor"] = False
        return getattr(nn_, f"Transformer{name}")(layer, 3, **options)

    model = make(torch.nn)
    stack, plain = make(nn, stack=True), make(nn)
    assert repr(stack) == repr(plain) == repr(model)
    state = model.state_dict()
    for m in (stack, plain):
        m.load_state_dict(state)
    assert list(stack.state_dict()) == list(state)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2, 8)), jnp.float32)
    mask = jnp.triu(jnp.full((5, 5), -jnp.inf), 1)
    args = (x, mask) if kind == "encoder" else (x, x[:4], mask)
    if kind == "decoder":
        results = []
        for m in (stack, plain):
            fn.manual_seed(2)
            results.append(np.array(fn.jit(m)(*args)))
        np.testing.assert_allclose(*results, 1e-4, 1e-5)
    assert scans(stack.eval(), *args) == 1


def test_fit_and_checkpoints(tmp_path):
    def make():
        fn.manual_seed(4)
        stack, _ = both()
        return stack, optim.Adam(stack.parameters(), lr=0.01)

    batches = [(X, X)] * 2
    stack, optimizer = make()
    fn.train.fit(stack, optimizer, nn.MSELoss(), batches, epochs=2, progress=False)
    manager = fn.train.CheckpointManager(tmp_path)
    manager.save(1, {"model": stack, "optimizer": optimizer}, wait=True)
    losses = train(stack, optimizer)
    other, its = make()
    manager.restore({"model": other, "optimizer": its})
    assert train(other, its) == losses
    fn.save(stack.state_dict(), tmp_path / "stack.safetensors")
    other.load_state_dict(fn.load(tmp_path / "stack.safetensors"))
    same_state(other, stack, 0)
