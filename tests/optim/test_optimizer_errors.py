"""What an optimizer refuses, in torch's words where torch refuses it, and how it prints."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import (
    ArgumentError,
    DTypeError,
    FuncnetsError,
    StateLeakError,
    TreeError,
    UnsupportedError,
)
from tests.core.toys import stepper
from tests.optim.helpers import NAMES, Net, TorchNet, snapshot

# --- refused as in torch ----------------------------------------------------------------------

OPTIONS = [
    ("SGD", {"lr": -0.1}),
    ("SGD", {"momentum": -0.1}),
    ("SGD", {"weight_decay": -0.1}),
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("Adam", {"lr": -0.1}),
    ("Adam", {"eps": -0.1}),
    ("Adam", {"betas": (1.0, 0.9)}),
    ("Adam", {"betas": (0.9, -0.1)}),
    ("Adam", {"weight_decay": -0.1}),
    ("AdamW", {"lr": -0.1}),
    ("AdamW", {"betas": (0.9, 1.0)}),
    ("AdamW", {"weight_decay": -0.1}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[f"{n}-{o}" for n, o in OPTIONS])
def test_hyper_parameters_are_refused_in_torchs_words(name, options):
    with pytest.raises(ValueError) as theirs:
        getattr(torch.optim, name)(TorchNet().parameters(), **options)
    with pytest.raises(ArgumentError) as ours:
        getattr(optim, name)(Net().parameters(), **options)
    assert str(theirs.value) in str(ours.value)


#: What is given as params, out of a model; both libraries refuse it.
PARAMS = {
    "none": lambda m: [],
    "empty group list": lambda m: iter(()),
    "one parameter": lambda m: m.head.weight,
    "numbers": lambda m: [1.0],
    "modules": lambda m: [m.head],
    "a set": lambda m: [{"params": set(m.parameters())}],
    "twice": lambda m: [{"params": m.parameters()}, {"params": m.head.parameters()}],
    "some names": lambda m: [("weight", m.head.weight), m.head.bias],
    "groups with and without names": lambda m: [
        {"params": m.head.named_parameters()},
        {"params": m.body.parameters()},
    ],
}


@pytest.mark.parametrize("what", PARAMS)
def test_parameters_are_refused_as_in_torch(what):
    with pytest.raises((ValueError, TypeError)) as theirs:
        torch.optim.SGD(PARAMS[what](TorchNet()), lr=0.1)
    with pytest.raises(FuncnetsError) as ours:
        optim.SGD(PARAMS[what](Net()), lr=0.1)
    assert isinstance(ours.value, type(theirs.value))


def test_groups_added_later_are_refused_as_in_torch():
    for group in (
        lambda m: {"params": m.head.parameters()},
        lambda m: [m.body.weight],
        lambda m: {"params": {m.body.weight}},
        lambda m: {"params": m.body.named_parameters()},
    ):
        ours, theirs = Net(), TorchNet()
        reference = torch.optim.SGD(theirs.head.parameters(), lr=0.1)
        optimizer = optim.SGD(ours.head.parameters(), lr=0.1)
        with pytest.raises((ValueError, TypeError)) as expected:
            reference.add_param_group(group(theirs))
        with pytest.raises(FuncnetsError) as caught:
            optimizer.add_param_group(group(ours))
        assert isinstance(caught.value, type(expected.value))
        assert len(optimizer.param_groups) == 1


# --- refused here -----------------------------------------------------------------------------


def test_unknown_options_of_a_group():
    with pytest.raises(ArgumentError, match=r"unknown options \['momentun'\].*'momentum'"):
        optim.SGD([{"params": Net().parameters(), "momentun": 0.9}], lr=0.1)


def test_a_parameter_twice_in_one_group():
    model = Net()
    with pytest.raises(ArgumentError, match="twice"):
        optim.SGD([model.head.bias, model.head.bias], lr=0.1)


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        *((n, f) for n in NAMES for f in ("foreach", "differentiable", "fused")),
        *((n, "capturable") for n in NAMES[1:]),
    ],
)
def test_torchs_kernel_switches(name, flag):
    with pytest.raises(UnsupportedError, match=rf"{flag}=True.*leave it out"):
        getattr(optim, name)(Net().parameters(), **{flag: True})
    assert getattr(optim, name)(Net().parameters(), **{flag: False}).defaults[flag] is False


def test_a_schedule_as_a_learning_rate():
    with pytest.raises(DTypeError, match=r"lr must be a number.*sgd_tx\(schedule\)"):
        optim.SGD(Net().parameters(), lr=optax.linear_schedule(0.1, 0.0, 10))


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.99, 0.999), "ab"])
def test_betas_that_are_no_pair(betas):
    with pytest.raises(ArgumentError, match="beta"):
        optim.Adam(Net().parameters(), betas=betas)


def test_the_base_class_needs_a_transformation():
    with pytest.raises(ArgumentError, match="needs an optax transformation"):
        optim.Optimizer(Net().parameters())


def test_methods_that_have_no_meaning_here():
    optimizer = optim.SGD(Net().parameters(), lr=0.1)
    with pytest.raises(UnsupportedError, match="delete this line"):
        optimizer.zero_grad()
    with pytest.raises(DTypeError, match=r"loss, grads = fn.value_and_grad"):
        optimizer.step(lambda: 0.0)


# --- gradients --------------------------------------------------------------------------------


def of(model):
    return fn.grad(lambda m: (m(jnp.ones((2, 3))) ** 2).mean())(model)


def without(tree):
    return {"body": tree["body"], "head": {"weight": tree["head"]["weight"]}}


def changed(tree, leaf):
    return {**tree, "head": {**tree["head"], "bias": leaf}}


BAD = {
    "a missing name": (without, TreeError, r"do not belong.*head\.weight"),
    "an unknown name": (lambda t: {**t, "extra": jnp.ones(2)}, TreeError, "extra"),
    "a wrong shape": (lambda t: changed(t, jnp.ones(3)), TreeError, "do not belong"),
    "a wrong dtype": (
        lambda t: changed(t, jnp.ones(2, jnp.bfloat16)),
        DTypeError,
        r"gradient of head\.bias must have its parameter's dtype, float32",
    ),
    "None in a place": (lambda t: changed(t, None), FuncnetsError, "."),
    "nothing": (lambda t: {}, TreeError, "names are none"),
    "None": (lambda t: None, DTypeError, "nested dict"),
    "an array": (lambda t: jnp.ones(3), DTypeError, r"float32\[3\]"),
    "a list of arrays": (lambda t: jax.tree.leaves(t), DTypeError, "nested dict"),
    "the value, too": (lambda t: (jnp.ones(()), t), DTypeError, r"float32\[\]"),
    "another model's": (lambda t: {"weight": t}, TreeError, "do not belong to the 4"),
}


@pytest.mark.parametrize("inside", [False, True], ids=["eager", "under fn.jit"])
@pytest.mark.parametrize("what", BAD)
def test_bad_gradients_change_nothing(what, inside):
    spoil, error, message = BAD[what]
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    optimizer.step(of(model))
    before = snapshot(model)
    moments = {n: np.array(c.data) for n, c in optimizer._cells() if "memory" in n}

    def step():
        optimizer.step(spoil(of(model)))

    with pytest.raises(error, match=message):
        (fn.jit(step) if inside else step)()
    for name, value in snapshot(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for name, cell in optimizer._cells():
        if "memory" in name:
            np.testing.assert_array_equal(cell.data, moments[name], err_msg=name)
    optimizer.step(of(model))  # and it goes on
    assert (snapshot(model)["head.bias"] != before["head.bias"]).any()


def test_named_parameters_say_which_gradient_has_a_wrong_shape():
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.named_parameters(prefix="fc"), lr=0.1)
    with pytest.raises(
        TreeError, match=r"gradient of fc\.bias .* shape, \(2,\), but is float32\[3\]"
    ):
        optimizer.step({"fc": {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}})


# --- state that would leak --------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False], ids=["never stepped", "stepped before"])
def test_a_step_inside_a_raw_transformation(fresh):
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    grads = of(model)
    if not fresh:
        optimizer.step(grads)
    before = snapshot(model)
    two = jax.tree.map(lambda g: jnp.stack([g, g]), grads)

    def scanned(grads):
        jax.lax.scan(lambda carry, g: (carry, optimizer.step(g)), 0, grads)

    for attempt in (
        lambda: jax.jit(optimizer.step)(grads),
        lambda: jax.vmap(optimizer.step)(two),
        lambda: scanned(two),
        lambda: fn.jit(scanned)(two),
    ):
        with pytest.raises(StateLeakError, match=r"raw JAX transformation.*fn\.jit"):
            attempt()
        for name, value in snapshot(model).items():
            np.testing.assert_array_equal(value, before[name])
    stepper(model, optimizer)(jnp.ones((4, 3)), jnp.ones((4, 2)))
    assert (snapshot(model)["head.bias"] != before["head.bias"]).any()


def test_options_are_not_changed_inside_a_call():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @fn.jit
    def decay():
        optimizer.param_groups[0]["lr"] *= 0.5

    @fn.jit
    def grow():
        optimizer.add_param_group({"params": model.body.parameters()})

    with pytest.raises(StateLeakError, match="'lr' was changed inside a call"):
        decay()
    with pytest.raises(StateLeakError, match="added inside a call"):
        grow()
    assert optimizer.param_groups[0]["lr"] == 0.1


# --- text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True], ids=["parameters", "named_parameters"])
@pytest.mark.parametrize("name", NAMES)
def test_text_equals_torchs(name, named):
    def make(library, model):
        parameters = lambda m: m.named_parameters() if named else m.parameters()  # noqa: E731
        groups = [
            {"params": parameters(model.body), "lr": 0.5},
            {"params": parameters(model.head), "weight_decay": 0.1},
        ]
        return getattr(library.optim, name)(groups, lr=0.01)

    ours, theirs = make(fn, Net()), make(torch, TorchNet())
    assert repr(ours) == repr(theirs)
    ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 1e-5
    assert str(ours) == str(theirs)
    assert ours.defaults == theirs.defaults


def test_arguments_are_torchs():
    for name in NAMES:
        ours = inspect.signature(getattr(optim, name)).parameters.values()
        theirs = inspect.signature(getattr(torch.optim, name)).parameters.values()
        strip = lambda parameters: [(p.name, p.default, p.kind) for p in parameters]  # noqa: E731
        assert strip(ours) == strip(theirs), name
