"""Forward hooks, in every face, against what PyTorch does with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

import funcnets as fn
from funcnets import nn
from tests.core.toys import Affine, Chain, Counter, Traces

X = jnp.ones((1, 2))


class Scale(nn.Module):
    def forward(self, x, factor=1.0):
        return x * factor


class TorchScale(torch.nn.Module):
    def forward(self, x, factor=1.0):
        return x * factor


def run_both(register, call=lambda m, x: m(x)):
    """The log that hooks write and the output, in both libraries."""
    results = []
    for module, x in ((TorchScale(), torch.ones(2)), (Scale(), jnp.ones(2))):
        log = []
        register(module, log)
        try:
            out = call(module, x)
            out = out.tolist() if hasattr(out, "tolist") else out
        except Exception as error:
            out = type(error).__name__
        results.append((log, out))
    return results


SCENARIOS = {
    "order": lambda m, log: [
        m.register_forward_pre_hook(lambda *a: log.append("pre 1")),
        m.register_forward_pre_hook(lambda *a: log.append("pre 2")),
        m.register_forward_hook(lambda *a: log.append("post 1")),
        m.register_forward_hook(lambda *a: log.append("post 2")),
    ],
    "prepend": lambda m, log: [
        m.register_forward_pre_hook(lambda *a: log.append("pre 1")),
        m.register_forward_pre_hook(lambda *a: log.append("pre 0"), prepend=True),
        m.register_forward_hook(lambda *a: log.append("post 1")),
        m.register_forward_hook(lambda *a: log.append("post 0"), prepend=True),
    ],
    "arguments": lambda m, log: [
        m.register_forward_pre_hook(lambda mod, a: log.append((mod is m, len(a)))),
        m.register_forward_pre_hook(
            lambda mod, a, k: log.append((len(a), sorted(k))), with_kwargs=True
        ),
        m.register_forward_hook(lambda mod, a, out: log.append((len(a), out.tolist()))),
        m.register_forward_hook(
            lambda mod, a, k, out: log.append((sorted(k), out.tolist())), with_kwargs=True
        ),
    ],
    "replace one argument": lambda m, log: m.register_forward_pre_hook(lambda mod, a: a[0] * 3),
    "replace the tuple": lambda m, log: m.register_forward_pre_hook(lambda mod, a: (a[0] * 3, 2.0)),
    "replace with kwargs": lambda m, log: m.register_forward_pre_hook(
        lambda mod, a, k: (a, {"factor": 5.0}), with_kwargs=True
    ),
    "bad pre-hook": lambda m, log: m.register_forward_pre_hook(
        lambda mod, a, k: a[0], with_kwargs=True
    ),
    "replace the output": lambda m, log: [
        m.register_forward_hook(lambda mod, a, out: out + 1),
        m.register_forward_hook(lambda mod, a, out: out * 10),
        m.register_forward_hook(lambda mod, a, out: log.append(out.tolist())),
    ],
    "removed": lambda m, log: [
        m.register_forward_hook(lambda *a: log.append("a")).remove(),
        m.register_forward_hook(lambda *a: log.append("b")),
    ],
    "raises": lambda m, log: [
        m.register_forward_hook(lambda *a: log.append("usual")),
        m.register_forward_pre_hook(lambda *a: 1 / 0),
    ],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_as_torch(name):
    (their_log, their_out), (log, out) = run_both(SCENARIOS[name])
    assert log == their_log
    assert out == ("DTypeError" if their_out == "RuntimeError" else their_out)


@pytest.mark.parametrize("always", [False, True])
def test_always_call_as_torch(always):
    def register(m, log):
        m.register_forward_hook(lambda mod, a, out: log.append(("always", out)), always_call=always)
        m.register_forward_hook(lambda mod, a, out: log.append(("never", out)))

    (their_log, their_out), (log, out) = run_both(register, lambda m, x: m(x, factor="no"))
    assert log == their_log == ([("always", None)] if always else [])
    assert (their_out, out) == ("TypeError", "TypeError")


def test_always_call_runs_once_when_a_later_hook_raises():
    def register(m, log):
        m.register_forward_hook(lambda mod, a, out: log.append("first"), always_call=True)
        m.register_forward_hook(lambda mod, a, out: 1 / 0)
        m.register_forward_hook(lambda mod, a, out: log.append("last"), always_call=True)

    (their_log, their_out), (log, out) = run_both(register)
    assert log == their_log == ["first", "last"]
    assert their_out == out == "ZeroDivisionError"


def test_remove_twice_and_with_block():
    module, seen = Scale(), []
    handle = module.register_forward_hook(lambda *a: seen.append(1))
    with handle:
        module(X)
    module(X)
    handle.remove()
    assert seen == [1]


def test_a_hook_may_remove_itself():
    module, seen = Scale(), []
    handle = module.register_forward_hook(lambda *a: (seen.append(1), handle.remove())[2:] or None)
    module(X)
    module(X)
    assert seen == [1]


@pytest.mark.parametrize("face", ["eager", "fn.jit", "pure", "grad", "checkpoint", "vmap"])
def test_in_every_face(face):
    model = Chain(Affine(2, 2), Counter())
    model[0].register_forward_hook(lambda m, a, out: out * 0 + 7)
    params, state = fn.get_variables(model)
    out = {
        "eager": lambda: model(X),
        "fn.jit": lambda: fn.jit(lambda x: model(x))(X),
        "pure": lambda: fn.functionalize(model).apply(params, state, X)[0],
        "grad": lambda: fn.value_and_grad(lambda m: m(X).mean())(model)[0],
        "checkpoint": lambda: fn.checkpoint(model)(X),
        "vmap": lambda: fn.vmap(model)(X),
    }[face]()
    assert (out == 7).all()


def test_a_hook_sees_arrays_and_may_read_and_write_state():
    model, kinds = Counter(), []

    def hook(module, args, out):
        kinds.append(isinstance(module.count, jax.Array))
        module.count = module.count + 10

    model.register_forward_hook(hook)
    model(X)
    fn.jit(lambda x: model(x))(X)
    assert kinds == [True, True] and model.count.item() == 22


def test_under_fn_jit_a_hook_runs_while_tracing_and_changing_hooks_retraces():
    model, log = Scale(), []
    body = Traces(lambda x: model(x))
    step = fn.jit(body)
    step(X)
    handle = model.register_forward_hook(lambda m, a, out: log.append("seen"))
    step(X)
    step(X)
    assert (body.count, log) == (2, ["seen"])
    other = model.register_forward_hook(lambda m, a, out: out * 2)
    assert (step(X) == 2).all() and body.count == 3
    handle.remove()
    other.remove()
    assert (step(X) == 1).all()
    assert body.count == 3  # the first program is found again


def test_an_exception_in_a_hook_has_the_modules_note():
    model = Chain(Scale())
    model[0].register_forward_pre_hook(lambda m, a: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        model(X)
    assert caught.value.__notes__[0].startswith("In module '0' of Chain: Scale()")


def test_a_bad_pre_hook_says_what_it_must_return():
    model = Scale()
    model.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
    with pytest.raises(
        TypeError, match=r"must return None or a tuple of \(new_args, new_kwargs\), but got 3"
    ):
        model(X)
