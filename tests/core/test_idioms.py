"""What is added to JAX's errors for somebody who comes from PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn, optim
from funcnets.errors import ArgumentError, DTypeError

X = jnp.ones((2, 3))


class Body(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


COMPILED = {
    "numpy": (lambda x: np.tanh(x), "the function of jax.numpy"),
    "if": (lambda x: x if x.sum() > 0 else -x, "jnp.where or jax.lax.cond"),
    "float": (lambda x: float(x.sum()), "convert it outside"),
    "item": (lambda x: x.sum().item(), "convert it outside"),
    "range": (lambda x: list(range(x.sum().astype(int))), "named in static_argnames"),
}
EITHER = {
    "backward": (lambda x: x.backward(), "fn.value_and_grad(f)(model)"),
    "unsqueeze": (lambda x: x.unsqueeze(1), "x[:, None]"),
    "add_": (lambda x: x.add_(1), "arrays are immutable"),
    "view": (lambda x: x.view(2, -1), "is x.reshape(shape)"),
    "view flat": (lambda x: x.view(-1), "is x.reshape(shape)"),
    "size": (lambda x: x.size(0), "is x.shape[0]"),
    "dim": (lambda x: x.sum(dim=1), "JAX's word for dim is axis"),
    "keepdim": (lambda x: x.mean(1, keepdim=True), "JAX's word for keepdim is keepdims"),
}


@pytest.mark.parametrize("name", [*COMPILED, *EITHER])
def test_the_remedy_is_noted_once_in_modules_and_under_fn_jit(name):
    function, remedy = (COMPILED | EITHER)[name]
    calls = [fn.jit(function), fn.jit(Body(function)), lambda x: jax.jit(Body(function))(x)]
    if name in EITHER:
        calls.append(Body(function))
    for call in calls:
        with pytest.raises((TypeError, AttributeError, NotImplementedError)) as caught:
            call(X)
        assert notes(caught.value).count(remedy) == 1


def test_other_errors_stay_as_they_are():
    for function in (lambda x: x.nothing, lambda x: len(3), lambda x: "a".nothing):
        with pytest.raises((AttributeError, TypeError)) as caught:
            fn.jit(function)(X)
        assert "PyTorch" not in notes(caught.value)
        assert "JAX's" not in notes(caught.value)


def test_what_stands_where_something_else_should():
    model = nn.Linear(3, 2)
    sgd = optim.SGD(model.parameters(), lr=0.1)
    both = fn.value_and_grad(lambda m: m(X).sum())(model)
    lists = Body(None)
    lists.body = [nn.Linear(3, 3)]
    for call, error, text in [
        (lambda: optim.SGD(model, lr=0.1), DTypeError, r"pass model\.parameters\(\)"),
        (lambda: optim.SGD(lists.parameters(), lr=0.1), ArgumentError, "use nn.ModuleList"),
        (lambda: sgd.step(both), DTypeError, r"loss, grads = fn\.value_and_grad"),
        (lambda: fn.grad(both[0]), DTypeError, "is that of a function"),
        (lambda: fn.value_and_grad(both[0]), DTypeError, "is that of a function"),
        (lambda: nn.Sequential(nn.ReLU), DTypeError, r"ReLU is a class, write ReLU\("),
        (lambda: nn.ModuleList([nn.ReLU]), DTypeError, r"ReLU is a class, write ReLU\("),
        (lambda: nn.Sequential([nn.ReLU()]), DTypeError, "separate arguments"),
        (lambda: nn.Sequential(jnp.tanh), DTypeError, "call a function in forward"),
        (lambda: nn.Sequential(nn.LSTM(3, 3), model)(X), DTypeError, "pass the array in it"),
        (lambda: model([1.0, 2.0, 3.0]), DTypeError, "wrap it in jnp.asarray"),
        (lambda: model.weight.fill_(0), AttributeError, r"write p\.data = array"),
        (lambda: fn.no_grad(), AttributeError, "not needed"),
        (lambda: fn.tensor([1.0]), AttributeError, r"jnp\.asarray"),
    ]:
        with pytest.raises(error, match=text):
            call()
    assert not hasattr(fn, "no_grad")
