"""How an optimizer behaves: retracing, memory, gradients by name, generic transformations, precision."""

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
from tests.core.toys import stepper
from tests.optim.helpers import (
    NAMES,
    Net,
    assert_equal_torch,
    batches,
    memory_shapes,
    pair,
    snapshot,
    torch_step,
)

DATA = [tuple(map(jnp.asarray, batch)) for batch in batches(8, np.float32)]


def gradients(model, x, y):
    return fn.grad(lambda m: ((m(x) - y) ** 2).mean())(model)


def assert_same(one, other, rtol=1e-6):
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=rtol, atol=1e-7, err_msg=name)


def twins(count=2):
    """Copies of one model with equal values."""
    model = Net()
    snapshot(model)  # draws the values, which the copies share from then on
    return [model, *(copy.deepcopy(model) for _ in range(count - 1))]


# --- compiled and eager steps -----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_eager_step_equals_one_under_jit(name):
    eager, compiled = twins()
    first = getattr(optim, name)(eager.parameters(), lr=0.05)
    second = getattr(optim, name)(compiled.parameters(), lr=0.05)
    step = stepper(compiled, second)
    for x, y in DATA:
        first.step(gradients(eager, x, y))
        step(x, y)
    assert_same(snapshot(eager), snapshot(compiled), rtol=1e-5)


def test_eager_and_compiled_steps_share_the_memory():
    mixed, compiled = twins()
    first = optim.Adam(mixed.parameters(), lr=0.05)
    second = optim.Adam(compiled.parameters(), lr=0.05)
    step, other = stepper(mixed, first), stepper(compiled, second)
    for i, (x, y) in enumerate(DATA):
        step(x, y) if i % 2 else first.step(gradients(mixed, x, y))
        other(x, y)
    assert_same(snapshot(mixed), snapshot(compiled), rtol=1e-5)


def test_a_new_learning_rate_does_not_trace_again():
    model, reference = twins()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = stepper(model, optimizer)
    x, y = DATA[0]
    step(x, y)
    for rate in (0.05, 0.0, 1e-3):
        before = snapshot(model)
        optimizer.param_groups[0]["lr"] = rate
        step(x, y)
        changed = any((before[n] != v).any() for n, v in snapshot(model).items())
        assert changed == (rate > 0)
    assert len(step.traces) == 1
    optimizer.param_groups[0].update(lr=0.5)
    optimizer.param_groups[0] |= {"lr": 0.25}
    assert optimizer.param_groups[0]["lr"] == 0.25
    step(x, y)
    assert len(step.traces) == 1
    # The last rate is in force: the same step by hand.
    theirs = optim.SGD(reference.parameters(), lr=0.1)
    snap = snapshot(model)
    reference.load_state_dict(snap)
    optimizer.param_groups[0]["momentum"] = 0.0
    theirs.param_groups[0]["lr"] = 0.25
    step(x, y)
    theirs.step(gradients(reference, x, y))
    assert_same(snapshot(model), snapshot(reference))


@pytest.mark.parametrize(
    ("option", "value"),
    [("momentum", 0.5), ("weight_decay", 0.1), ("dampening", 0.1), ("maximize", True)],
)
def test_another_hyper_parameter_traces_again_and_going_back_does_not(option, value):
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = stepper(model, optimizer)
    step(*DATA[0])
    before = optimizer.param_groups[0][option]
    optimizer.param_groups[0][option] = value
    step(*DATA[1])
    assert len(step.traces) == 2
    optimizer.param_groups[0][option] = before
    step(*DATA[2])
    optimizer.param_groups[0][option] = value
    step(*DATA[3])
    assert len(step.traces) == 2


def test_arrays_that_somebody_holds_survive_the_step():
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    held, copied = model.head.weight.data, np.array(model.head.weight)
    step = stepper(model, optimizer)
    for x, y in DATA:
        step(x, y)
    np.testing.assert_array_equal(held, copied)
    assert (model.head.weight != held).any()


# --- frozen and absent parameters -------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_stay_bit_for_bit_and_cost_no_memory(name):
    model = Net()
    model.body.requires_grad_(False)
    more = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(optim, name)(model.parameters(), lr=0.1, weight_decay=0.1, **more)
    step, before = stepper(model, optimizer), snapshot(model)
    for x, y in DATA:
        step(x, y)
    after = snapshot(model)
    for key in ("body.weight", "body.bias"):
        np.testing.assert_array_equal(after[key], before[key])
    assert (after["head.weight"] != before["head.weight"]).any()
    arrays = [(), (2,), (2, 4)] if name == "SGD" else [(), (2,), (2,), (2, 4), (2, 4)]
    assert memory_shapes(optimizer) == arrays
    assert len(step.traces) == 1


def test_an_optimizer_of_a_part_leaves_the_rest_alone():
    model = Net()
    optimizer = optim.SGD(model.head.parameters(), lr=0.1)
    before = snapshot(model)
    optimizer.step(gradients(model, *DATA[0]))  # gradients of everything
    after = snapshot(model)
    np.testing.assert_array_equal(after["body.weight"], before["body.weight"])
    assert (after["head.weight"] != before["head.weight"]).any()


def test_plain_sgd_keeps_nothing():
    assert memory_shapes(optim.SGD(Net().parameters(), lr=0.1)) == []


def test_an_optimizer_takes_no_random_numbers():
    """A model has the same initial values whether or not an optimizer was made before."""
    weights = []
    for make in (None, optim.SGD, optim.Adam):
        fn.manual_seed(3)
        first = Net()
        if make is not None:
            optimizer = make(first.parameters(), lr=0.1)
            stepper(first, optimizer)(*DATA[0])
        weights.append(np.array(nn.Linear(3, 3).weight))
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])


# --- whose gradients they are -----------------------------------------------------------------


def test_several_modules_at_once():
    body, head = nn.Linear(3, 4), nn.Linear(4, 2, bias=False)
    optimizer = optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)
    before = snapshot(body) | {"head": np.array(head.weight)}
    loss = lambda body, head: (head(body(DATA[0][0])) ** 2).mean()  # noqa: E731
    value, grads = fn.value_and_grad(loss, argnums=(0, 1))(body, head)
    assert isinstance(grads, tuple)
    optimizer.step(grads)
    assert loss(body, head) < value
    np.testing.assert_allclose(
        head.weight, before["head"] - 0.1 * grads[1]["weight"], rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        body.weight, before["weight"] - 0.1 * grads[0]["weight"], rtol=1e-5, atol=1e-7
    )


def test_twins_in_the_order_in_which_they_were_differentiated():
    one, two = twins()
    optimizer = optim.SGD([*one.parameters(), *two.parameters()], lr=0.1)
    reference = snapshot(one)
    x, y = DATA[0]
    loss = lambda two, one: ((one(x) - 2 * two(x) - y) ** 2).mean()  # noqa: E731
    grads = fn.grad(loss, argnums=(1, 0))(two, one)  # of one, then of two
    optimizer.step(grads)
    for model, grad in zip((one, two), grads, strict=True):
        np.testing.assert_allclose(
            model.head.bias, reference["head.bias"] - 0.1 * grad["head"]["bias"], rtol=1e-5
        )
    assert (one.head.bias != two.head.bias).any()


def test_gradients_that_could_be_of_either_twin_are_refused():
    one, two = twins()
    optimizer = optim.SGD([*one.parameters(), *two.parameters()], lr=0.1)
    of_one, of_two = gradients(one, *DATA[0]), gradients(two, *DATA[0])
    before = snapshot(one), snapshot(two)
    for grads in (of_one, of_two, (of_one,), (of_one, of_two, of_two)):
        with pytest.raises(fn.errors.TreeError, match="cannot tell whose they are"):
            optimizer.step(grads)
    assert_same(snapshot(one), before[0], rtol=0)
    assert_same(snapshot(two), before[1], rtol=0)


def test_twins_by_prefix_and_twins_in_one_module():
    for remedy in ("prefix", "module"):
        one, two = twins()
        before = snapshot(two)
        x, y = DATA[0]
        if remedy == "prefix":
            named = [*one.named_parameters(prefix="one"), *two.named_parameters(prefix="two")]
            optimizer = optim.SGD(named, lr=0.1)
            grads = {"one": gradients(one, x, y), "two": gradients(two, x, y)}
        else:
            both = nn.ModuleDict({"one": one, "two": two})
            optimizer = optim.SGD(both.parameters(), lr=0.1)
            loss = lambda m, x=x, y=y: ((m["one"](x) + m["two"](x) - y) ** 2).mean()  # noqa: E731
            grads = fn.grad(loss)(both)
        optimizer.step(grads)
        np.testing.assert_allclose(
            two.head.bias,
            before["head.bias"] - 0.1 * grads["two"]["head"]["bias"],
            rtol=1e-5,
            atol=1e-7,
        )


def test_named_parameters_keep_their_names():
    model = Net()
    model.body.requires_grad_(False)
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    names = ["body.weight", "body.bias", "head.weight", "head.bias"]
    assert optimizer.param_groups[0]["param_names"] == names
    before = snapshot(model)
    optimizer.step(gradients(model, *DATA[0]))
    assert (snapshot(model)["head.weight"] != before["head.weight"]).any()


def test_gradients_of_the_pure_face():
    """A step takes what jax.grad of the pure face gives, as long as the names are the model's."""
    model, reference = twins()
    _, apply = fn.functionalize(model)
    params, state = fn.get_variables(model)
    x, y = DATA[0]
    grads = jax.grad(lambda p: ((apply(p, state, x)[0] - y) ** 2).mean())(params)
    clipped = jax.tree.map(lambda g: jnp.clip(g, -0.1, 0.1), grads)
    optim.SGD(model.parameters(), lr=0.1).step(clipped)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, fn.get_variables(reference)[0], clipped)
    np.testing.assert_allclose(model.head.weight, expected["head"]["weight"], rtol=1e-6)


def test_a_shared_parameter_is_one_parameter():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Linear(3, 3, bias=False)
            self.decode = nn.Linear(3, 3, bias=False)
            self.decode.weight = self.encode.weight

        def forward(self, x):
            return self.decode(self.encode(x))

    model = Tied()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    before = np.array(model.encode.weight)
    x = DATA[0][0]
    grads = fn.grad(lambda m: (m(x) ** 2).mean())(model)
    optimizer.step(grads)
    np.testing.assert_allclose(
        model.decode.weight, before - 0.1 * grads["encode"]["weight"], rtol=1e-5, atol=1e-7
    )


# --- any optax transformation -----------------------------------------------------------------


def keeps_the_start() -> optax.GradientTransformation:
    """Pulls towards the first parameters, which it keeps as they are."""
    return optax.GradientTransformation(
        lambda params: {"start": params, "again": params},
        lambda updates, state, params: (
            jax.tree.map(lambda g, s, p: 0.1 * (s - p) - 0.1 * g, updates, state["start"], params),
            state,
        ),
    )


TRANSFORMATIONS = {
    "lion": lambda: optax.lion(1e-2),
    "clip": lambda: optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.1, momentum=0.9)),
    "schedule": lambda: optax.sgd(optax.linear_schedule(0.1, 0.0, 4)),
    "accumulate": lambda: optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "sgd_tx": lambda: optim.sgd_tx(optax.cosine_decay_schedule(0.1, 8), momentum=0.9),
    "adam_tx": lambda: optax.chain(optax.clip(0.01), optim.adam_tx(1e-2)),
    "keeps_the_start": keeps_the_start,
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_transformation_used_statefully_equals_it_by_hand(name):
    model, reference = twins()
    optimizer = optim.Optimizer(model.parameters(), TRANSFORMATIONS[name]())
    step = stepper(model, optimizer)
    tx = TRANSFORMATIONS[name]()
    params, state = fn.get_variables(reference)
    _, apply = fn.functionalize(reference)

    @jax.jit
    def by_hand(params, memory, x, y):
        grads = jax.grad(lambda p: ((apply(p, state, x)[0] - y) ** 2).mean())(params)
        updates, memory = tx.update(grads, memory, params)
        return optax.apply_updates(params, updates), memory

    memory = tx.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it here and there
        for x, y in DATA:
            step(x, y)
            params, memory = by_hand(params, memory, x, y)
    ours = fn.get_variables(model)[0]
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert len(step.traces) == 1


# --- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name, dtype):
    ours, theirs = pair(jnp.dtype(dtype))
    more = {"momentum": 0.9} if name == "SGD" else {"eps": 1e-3}
    optimizer = getattr(optim, name)(ours.parameters(), lr=0.01, weight_decay=0.1, **more)
    reference = getattr(torch.optim, name)(theirs.parameters(), lr=0.01, weight_decay=0.1, **more)
    step = stepper(ours, optimizer)
    for x, y in batches(10, np.float32):
        step(jnp.asarray(x, dtype), jnp.asarray(y, dtype))
        torch_step(theirs, reference, x, y)
    assert {p.dtype.name for p in ours.parameters()} == {dtype}
    assert {c.dtype.name for n, c in optimizer._cells() if "memory" in n and c.ndim} == {dtype}
    tolerance = 0.03 if dtype == "bfloat16" else 0.005
    assert_equal_torch(ours, theirs, rtol=tolerance, atol=tolerance)


def test_a_model_converted_between_the_steps_keeps_its_memory():
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    step = stepper(model, optimizer)
    for x, y in DATA[:4]:
        step(x, y)
    model.bfloat16()
    for x, y in DATA[4:]:
        step(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
    moments = [c for n, c in optimizer._cells() if "memory" in n]
    assert {c.dtype.name for c in moments if c.ndim} == {"bfloat16"}
    assert [int(c.data) for c in moments if not c.ndim] == [8]  # the count went on
    assert all(jnp.isfinite(p.data).all() for p in model.parameters())
