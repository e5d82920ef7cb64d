"""nn.Stack against the same blocks in a Sequential, and against PyTorch."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError, StateLeakError, UnsupportedError

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def block(rate: float = 0.3) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(rate), nn.Linear(5, 4)
    )


def both(count: int = 3) -> tuple[nn.Stack, nn.Sequential]:
    fn.manual_seed(0)
    stack = nn.Stack(block() for _ in range(count))
    fn.manual_seed(0)
    return stack, nn.Sequential(*[block() for _ in range(count)])


def same_state(stack: nn.Module, other: nn.Module, tolerance: float = 1e-5) -> None:
    one, two = stack.state_dict(), other.state_dict()
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], tolerance, tolerance, err_msg=name)


def scans(function, *args) -> int:
    return str(jax.make_jaxpr(function)(*args)).count(" scan[")


# --- values -----------------------------------------------------------------------------------


def test_starts_as_the_blocks_do_from_a_seed_and_from_a_key():
    stack, other = both()
    same_state(stack, other, 0)
    (params, state), (theirs, _) = (
        fn.functionalize(m).init(jax.random.key(7)) for m in (stack, other)
    )
    assert params["0"]["weight"].shape == (3, 5, 4)
    assert state["1"]["running_mean"].shape == (3, 5)
    for i in range(3):
        np.testing.assert_array_equal(params["4"]["bias"][i], theirs[str(i)]["4"]["bias"])
    traced, _ = jax.jit(fn.functionalize(stack).init)(jax.random.key(7))
    np.testing.assert_array_equal(traced["0"]["weight"], params["0"]["weight"])


def test_a_value_depends_on_its_path_in_a_model_only():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Stack(nn.Linear(2, 2) for _ in range(2))

    key = jax.random.key(1)
    params, _ = fn.functionalize(Model()).init(key)
    alone, _ = fn.functionalize(nn.Linear(2, 2)).init(
        fn.child_key(fn.child_key(key, "layers"), "1")
    )
    np.testing.assert_array_equal(params["layers"]["weight"][1], alone["weight"])


def test_takes_over_values_that_the_blocks_have():
    blocks = [nn.Linear(2, 2) for _ in range(3)]
    before = [b.weight.data for b in blocks[:2]]  # of the third, none is drawn yet
    stack = nn.Stack(blocks)
    np.testing.assert_array_equal(stack[0].weight, before[0])
    fn.jit(stack)(jnp.ones((1, 2)))
    np.testing.assert_array_equal(fn.get_variables(stack)[0]["weight"][1], before[1])
    assert stack[2] is blocks[2]


def test_calls_eager_and_compiled_are_those_of_the_blocks_in_both_modes():
    for wrap in (lambda m: m, fn.jit):
        stack, other = both()
        one, two = wrap(stack), wrap(other)
        for seed in range(2):
            fn.manual_seed(seed)
            y = one(X)
            fn.manual_seed(seed)
            np.testing.assert_allclose(y, two(X), 1e-5, 1e-5)
        same_state(stack, other)
        stack.eval()
        other.eval()
        np.testing.assert_allclose(one(X), two(X), 1e-5, 1e-5)
    assert scans(stack, X) == 1


def test_pure_face():
    stack, other = both()
    init, apply = fn.functionalize(stack)
    params, state = init(jax.random.key(0))
    theirs = fn.functionalize(other).init(jax.random.key(0))
    call = {"rng": jax.random.key(3), "training": True}

    @jax.jit
    def loss(params):
        y, new = apply(params, state, X, **call)
        return (y**2).sum(), new

    (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
    y, expected = fn.functionalize(other).apply(*theirs, X, **call)
    np.testing.assert_allclose(value, (y**2).sum(), 1e-5)
    np.testing.assert_allclose(new["1"]["running_var"][2], expected["2"]["1"]["running_var"], 1e-5)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    assert new["1"]["num_batches_tracked"].tolist() == [1, 1, 1]


def test_the_program_does_not_grow_with_the_depth():
    def size(count: int) -> int:
        stack = nn.Stack(nn.Linear(4, 4) for _ in range(count))
        grad = fn.grad(lambda m: m(X).sum())
        return len(str(jax.make_jaxpr(lambda: grad(stack))()).splitlines())

    assert size(9) == size(3)


def test_rematerialisation_changes_no_number():
    stack, _ = both()
    policy = jax.checkpoint_policies.dots_saveable
    fn.manual_seed(0)
    again = nn.Stack((block() for _ in range(3)), remat=policy)
    results = []
    for model in (stack, again):
        fn.manual_seed(1)
        step = fn.jit(lambda x, m=model: fn.value_and_grad(lambda m: (m(x) ** 2).sum())(m))
        results.append(step(X))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), *results)
    same_state(stack, again)
    stack.eval()
    for remat in (True, policy, False):
        stack.remat = remat
        assert ("remat" in str(jax.make_jaxpr(lambda x: stack(x))(X))) == bool(remat)


# --- saving -----------------------------------------------------------------------------------


def test_state_dict_exchanges_with_torch():
    def theirs() -> torch.nn.Module:
        t = torch.nn
        return t.Sequential(t.Linear(4, 5), t.BatchNorm1d(5), t.Tanh(), t.Linear(5, 4))

    model = torch.nn.ModuleList(theirs() for _ in range(3))
    stack = nn.Stack(
        nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4))
        for _ in range(3)
    )
    assert repr(stack) == repr(model)
    assert [n for n, _ in stack.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert [n for n, _ in stack.named_modules()] == [n for n, _ in model.named_modules()]
    stack.load_state_dict(model.state_dict())
    x = torch.from_numpy(np.array(X))
    for one in model:
        x = one(x)
    np.testing.assert_allclose(fn.jit(stack)(X), x.detach(), 1e-4, 1e-5)
    state = {k: torch.from_numpy(np.array(v)) for k, v in stack.state_dict().items()}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, check_dtype=False)
    model.load_state_dict(state)


def test_a_state_dict_that_does_not_fit_changes_nothing():
    stack, _ = both(2)
    before = stack.state_dict()
    state = dict(before)
    state["2.0.weight"] = state.pop("1.0.weight")
    state["0.4.bias"] = jnp.zeros(3)
    state["0.0.weight"] = jnp.zeros((5, 4))
    with pytest.raises(RuntimeError) as caught:
        stack.load_state_dict(state)
    for text in ("Missing", '"1.0.weight"', "Unexpected", '"2.0.weight"', "0.4.bias"):
        assert text in str(caught.value)
    for name, value in stack.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_copies_and_pickles_stand_for_themselves():
    stack, _ = both()
    fn.jit(stack)(X)
    for twin in (copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        same_state(twin, stack, 0)
        twin[1][0].weight.data = jnp.zeros((5, 4))
        assert np.any(stack[1][0].weight.data != 0)
        twin.eval()
        assert not np.allclose(fn.jit(twin)(X), fn.jit(copy.deepcopy(stack).eval())(X))
    lone = copy.deepcopy(stack[2])
    assert type(lone[0].weight) is nn.Parameter
    same_state(lone, stack[2], 0)
    nn.Stack([lone, copy.deepcopy(lone)])
    both_ways = nn.ModuleDict({"first": stack[0], "all": stack})
    twin = copy.deepcopy(both_ways)
    same_state(twin, both_ways, 0)
    twin["first"][0].weight.data = jnp.ones((5, 4))
    np.testing.assert_array_equal(twin.state_dict()["all.0.0.weight"], np.ones((5, 4)))


# --- a list of blocks -------------------------------------------------------------------------


def test_is_a_list_of_its_blocks():
    stack, other = both(4)
    assert len(stack) == 4
    assert [type(b) for b in stack] == [nn.Sequential] * 4
    assert stack[-1] is list(stack)[3]
    part = stack[1:3]
    assert isinstance(part, nn.Stack)
    assert part[0] is stack[1]
    assert len(list(part.parameters())) == 12
    stack.eval()
    other.eval()
    np.testing.assert_allclose(fn.jit(part)(X), other[1:3](X), 1e-5, 1e-5)
    assert scans(part, X) == 1
    params, state = fn.functionalize(part).init(jax.random.key(0))
    assert params["1"]["0"]["weight"].shape == (5, 4)
    fn.set_variables(part, params, state)
    np.testing.assert_array_equal(stack[2][0].weight, params["1"]["0"]["weight"])
    pure = jax.jit(lambda p: fn.functionalize(part).apply(p, state, X, training=False)[0])
    np.testing.assert_allclose(pure(params), part(X), 1e-5, 1e-5)
    with pytest.raises(IndexError, match="4 elements"):
        stack[4]
    y = X
    for one in stack:
        y = one(y)
    np.testing.assert_allclose(fn.jit(stack)(X), y, 1e-5, 1e-5)


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(ArgumentError, match="one or more"):
        nn.Stack([])
    with pytest.raises(DTypeError, match="not a Module"):
        nn.Stack([3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match=r"block 1 differ: 3\.p is 0\.3 and 0\.5"):
        nn.Stack([block(), block(0.5)])
    with pytest.raises(ArgumentError, match=r"weight is float32\[2, 2\] and float32\[3, 2\]"):
        nn.Stack([nn.Linear(2, 2), nn.Linear(2, 3)])
    with pytest.raises(ArgumentError, match="__class__"):
        nn.Stack([nn.ReLU(), nn.Tanh()])
    with pytest.raises(ArgumentError, match="parts is 0 and 0, 1"):
        nn.Stack([nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.ReLU())])
    with pytest.raises(ShapeError, match="weight, bias of block 0"):
        nn.Stack([nn.LazyLinear(2)])
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(
        ArgumentError, match="weight is float32.2, 2. and float32.2, 2., not trained"
    ):
        nn.Stack([nn.Linear(2, 2), frozen])
    stack = nn.Stack([nn.Linear(2, 2), nn.Linear(2, 2)])
    with pytest.raises(ArgumentError, match="belong to a Stack already"):
        nn.Stack(stack)
    with pytest.raises(ArgumentError, match="blocks that contain repeated blocks"):
        nn.Stack([nn.Sequential(stack)])
    for change in (
        lambda: stack.register_module("2", nn.Linear(2, 2)),
        lambda: setattr(stack, "0", nn.Linear(2, 2)),
    ):
        with pytest.raises(UnsupportedError, match="make another Stack"):
            change()
    one = nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match="shared in one of them only|share 'weight'"):
        nn.Stack([one, one, nn.Linear(2, 2)])
    with pytest.raises(ArgumentError, match="remat"):
        nn.Stack([one], remat="all")  # pyright: ignore[reportArgumentType]


def test_functions_and_methods_in_attributes_are_compared_by_what_they_do():
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.act = lambda x: self.linear(x) * factor
            self.table = np.arange(4, dtype=np.float32)[None]
            self.order = [self.linear]

        def forward(self, x):
            return self.act(x) + self.table

    stack = nn.Stack(Scaled(0.5) for _ in range(3))
    assert scans(stack, X) == 1
    np.testing.assert_allclose(fn.jit(stack)(X), stack(X), 1e-5, 1e-5)
    with pytest.raises(ArgumentError, match="act is"):
        nn.Stack([Scaled(0.5), Scaled(0.6)])


# --- blocks one by one ------------------------------------------------------------------------


def test_initialising_block_by_block_as_in_torch():
    def init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    stack, other = both()
    fn.manual_seed(5)
    stack.apply(init_weights)
    fn.manual_seed(5)
    other.apply(init_weights)
    same_state(stack, other, 0)
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            nn.init.constant_(parameter, 2.0)
    stack[0][0].bias.data = jnp.ones(5)
    stack[1][0].bias[2] = 7.0
    params, _ = fn.functionalize(stack).init(jax.random.key(0))
    assert np.all(params["0"]["weight"] == 2)
    assert params["0"]["bias"].tolist() == [[1] * 5, [0, 0, 7, 0, 0], [0] * 5]


def test_what_is_assigned_between_steps_is_used_in_the_next():
    stack = nn.Stack(nn.Linear(4, 4) for _ in range(4))
    step = fn.jit(lambda x: stack(x))
    step(X)
    for parameter in stack.parameters():
        parameter.data = jnp.zeros(parameter.shape)
    stack[3].bias.data = jnp.ones(4)
    np.testing.assert_array_equal(step(X), np.ones((6, 4)))
    (stacked,) = [c for n, c in stack._cells() if n == "bias"]
    stacked.data = jnp.zeros((4, 4)).at[3].set(2)
    np.testing.assert_array_equal(step(X), np.full((6, 4), 2))
    assert stack[3].bias.tolist() == [2, 2, 2, 2]
    with pytest.raises(ShapeError, match="4 blocks"):
        stacked.data = jnp.zeros(3)
    stack[0].weight.data = jnp.zeros((2, 2))
    with pytest.raises(ArgumentError, match=r"'weight' must be alike in all blocks .*\[2, 2\]"):
        step(X)


def test_dtype_and_freezing():
    stack, _ = both(2)
    stack.to(jnp.bfloat16)
    assert stack[1][0].weight.dtype == jnp.bfloat16
    assert fn.jit(stack)(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    for one in stack:
        one.float()
    fn.jit(stack)(X)
    assert fn.get_variables(stack)[0]["0"]["weight"].dtype == jnp.float32
    stack.requires_grad_(False)
    assert fn.get_variables(stack)[0] == {}
    for parameter in stack.parameters():
        parameter.requires_grad = True
    assert len(fn.get_variables(stack)[0]) == 3
    stack[0].requires_grad_(False)
    with pytest.raises(ArgumentError, match=r"not trained; in block 1"):
        fn.grad(lambda m: m(X).sum())(stack)


def test_a_block_with_a_hook_or_a_mode_of_its_own_is_called_by_itself():
    stack, other = both(5)
    seen = []
    handle = stack[2].register_forward_hook(lambda m, args, out: seen.append(m))
    stack[0].eval()
    other[0].eval()
    fn.manual_seed(3)
    y = fn.jit(stack)(X)
    fn.manual_seed(3)
    np.testing.assert_allclose(y, other(X), 1e-5, 1e-5)
    assert seen == [stack[2]]
    same_state(stack, other)
    handle.remove()
    stack.eval()
    assert scans(stack, X) == 1


def test_errors_name_the_block_and_raw_transformations_are_refused():
    stack, _ = both()
    with pytest.raises(ShapeError) as caught:
        fn.jit(stack)(jnp.ones((2, 3)))
    assert "'0.0' of Stack" in "".join(caught.value.__notes__)
    with pytest.raises(StateLeakError):
        jax.jit(stack)(X)
    assert jax.jit(stack.eval())(X).shape == (6, 4)


def test_lifts():
    stack = nn.Stack(nn.Linear(4, 4) for _ in range(3))
    x = jnp.ones((2, 4))
    assert fn.vmap(stack)(x[None]).shape == fn.jit(fn.vmap(stack))(x[None]).shape == (1, 2, 4)
    assert fn.eval_shape(stack, x).shape == (2, 4)
    np.testing.assert_allclose(fn.jit(fn.checkpoint(stack))(x), stack(x), 1e-5, 1e-5)
    grads = fn.jit(lambda x: fn.grad(lambda b: stack(x).sum())(stack[1]))(x)
    whole = fn.grad(lambda m: m(x).sum())(stack)
    np.testing.assert_allclose(grads["weight"], whole["weight"][1], 1e-5, 1e-6)


def test_what_does_not_fit_into_a_loop_is_called_block_by_block():
    shared = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
    pairs = []
    for kind in (nn.Stack, lambda blocks: nn.Sequential(*blocks)):
        fn.manual_seed(0)
        pairs.append(kind([nn.Sequential(nn.Linear(4, 4), shared) for _ in range(3)]))
    results = []
    for model in pairs:
        before = shared.state_dict()
        fn.manual_seed(1)
        results.append((fn.jit(model)(X), shared[0].running_mean.data))
        shared.load_state_dict(before)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), *results)

    class Wider(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x, scale=1.0):
            return {"y": self.linear(x["y"].astype(jnp.float32)) * scale}

    stack = nn.Stack(Wider() for _ in range(4))
    x = {"y": X.astype(jnp.bfloat16)}
    y = fn.jit(lambda x: stack(x, scale=0.5))(x)
    assert scans(lambda x: stack(x), x) == 1
    np.testing.assert_allclose(y["y"], stack(x, scale=0.5)["y"], 1e-5, 1e-5)


def test_a_parameter_that_replaces_a_row_stands_for_itself():
    stack = nn.Stack(nn.Linear(4, 4) for _ in range(3))
    step = fn.jit(lambda x: stack(x))
    before = step(X)
    stack[1].weight = nn.Parameter(jnp.zeros((4, 4)))
    assert np.any(before != step(X))
    np.testing.assert_allclose(step(X), stack(X), 1e-5, 1e-5)
    grads = fn.grad(lambda m: m(X).sum())(stack)
    assert jax.tree.map(jnp.shape, grads["1"]) == {"weight": (4, 4)}
    assert grads["weight"].shape == (3, 4, 4)


class Draws(nn.Module):
    """Random numbers in all ways that are not a Dropout module of the block's own."""

    def __init__(self, shared: nn.Module):
        super().__init__()
        self.fc, self.norm, self.shared = nn.Linear(4, 4), nn.BatchNorm1d(4), shared

    def forward(self, x):
        x = F.dropout(self.norm(x), 0.2, self.training)
        x = x + self.shared(fn.checkpoint(lambda v: F.dropout(self.fc(v), 0.3, self.training))(x))
        y = x[None]
        rate = 0.5 if self.training else 0.0
        return x + F.scaled_dot_product_attention(y, y, y, dropout_p=rate)[0]


@pytest.mark.parametrize("remat", [False, True])
def test_draws_without_a_path_of_their_own_are_those_of_the_blocks_and_scanned(remat):
    def model(kind):
        fn.manual_seed(0)
        shared = nn.Dropout(0.4)
        blocks = [Draws(shared) for _ in range(4)]
        body = nn.Stack(blocks, remat=remat) if kind is nn.Stack else kind(*blocks)
        return nn.Sequential(nn.Dropout(0.1), body, nn.Dropout(0.1))

    def loss(m, x):
        return (F.dropout(m(F.dropout(x, 0.1)), 0.1) ** 2).mean()

    results = []
    for kind in (nn.Stack, nn.Sequential):
        m = model(kind)
        value, grads = fn.jit(lambda x, m=m: fn.value_and_grad(lambda m: loss(m, x))(m))(X)
        weight = grads["1"]["fc"]["weight"] if kind is nn.Stack else None
        if weight is None:
            weight = jnp.stack([grads["1"][str(i)]["fc"]["weight"] for i in range(4)])
        results.append((value, weight, m))
    (one, by, stack), (two, of, other) = results
    np.testing.assert_allclose(one, two, 1e-5)
    np.testing.assert_allclose(by, of, 1e-4, 1e-6)
    same_state(stack, other)

    _, apply = fn.functionalize(stack)
    params, state = fn.get_variables(stack)

    def call(x):
        return apply(params, state, x, rng=jax.random.key(3), training=True)[0]

    assert scans(call, X) == 1
    theirs = fn.functionalize(other).apply(
        *fn.get_variables(other), X, rng=jax.random.key(3), training=True
    )
    np.testing.assert_allclose(jax.jit(call)(X), theirs[0], 1e-4, 1e-5)
