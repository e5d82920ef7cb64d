"""What every model of the founding documents is put through.

A model is written once, in the test file, as a user of funcnets writes it. Its source text is then run
a second time with torch's ``nn`` and ``functional`` in scope: the same definition has to work in both.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import torch

import funcnets as fn
from funcnets import nn, optim
from tests.oracle import close, to_jax, to_torch

STEPS = 6


def in_torch(definition: Any) -> Any:
    """A class of the test file, defined a second time from its source, with torch's names."""
    source = textwrap.dedent(inspect.getsource(definition))
    names: dict[str, Any] = {"nn": torch.nn, "F": torch.nn.functional}
    exec(compile(source, inspect.getsourcefile(definition) or "?", "exec"), names)
    return names[definition.__name__]


@dataclasses.dataclass(frozen=True)
class Seed:
    """A model of the documents.

    Args:
        name: the test's name.
        build: makes the model out of ``nn``, ours or torch's, and the model's class, if it has one.
        definition: the class as written in the test file.
        inputs: makes the input.
        targets: makes the target of ``loss``.
        shape: of the output.
        loss: a class of ``nn``.
        lr: of the training steps.
        text: what ``print(model)`` shows in the document.
        quiet: the model warns, in torch and here, as its document writes it.
    """

    name: str
    build: Callable[[Any, Any], Any]
    inputs: Callable[[np.random.Generator], np.ndarray]
    targets: Callable[[np.random.Generator], np.ndarray]
    shape: tuple[int, ...]
    definition: Any = None
    loss: str = "MSELoss"
    lr: float = 0.05
    text: str | None = None
    quiet: bool = False

    def __str__(self) -> str:
        return self.name

    def ours(self) -> nn.Module:
        return self.build(nn, self.definition)

    def theirs(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return self.build(torch.nn, None if self.definition is None else in_torch(self.definition))

    def pair(self) -> tuple[nn.Module, torch.nn.Module]:
        """Both models, with torch's values."""
        ours, theirs = self.ours(), self.theirs()
        ours.load_state_dict(theirs.state_dict())
        return ours, theirs

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        return self.inputs(rng), self.targets(rng)


# --- inputs and targets -----------------------------------------------------------------------


def normal(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.standard_normal(shape, np.float32)


def uniform(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.random(shape, np.float32)


def integers(high: int, *shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.integers(0, high, shape, np.int32)


# --- the checks -------------------------------------------------------------------------------


def check_text(seed: Seed) -> None:
    """``print(model)`` is torch's, and the document's where it shows one."""
    ours, theirs = seed.pair()
    assert str(ours) == str(theirs)
    if seed.text is not None:
        assert str(ours) == seed.text


def check_state_dict(seed: Seed) -> None:
    """Values go to torch and come from there; the outputs are equal either way, in both faces."""
    x, _ = seed.data()
    ours, theirs = seed.pair()
    out = ours(to_jax(x))
    assert out.shape == seed.shape
    close(out, theirs(to_torch(x)), "with torch's values", 1e-5, 1e-5)
    fresh = seed.ours()
    saved = fresh.state_dict()
    assert list(saved) == list(theirs.state_dict())
    theirs.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in saved.items()})
    close(fresh(to_jax(x)), theirs(to_torch(x)), "with our values", 1e-5, 1e-5)
    _, apply = fn.functionalize(fresh)
    pure, _ = jax.jit(apply)(*fn.get_variables(fresh), to_jax(x))
    close(pure, fresh(to_jax(x)), "the pure face", 1e-5, 1e-6)


def check_init(seed: Seed) -> None:
    """The pure face's own initial values have the names and shapes of the stateful face's."""
    ours = seed.ours()
    params, state = fn.functionalize(ours).init(jax.random.key(0))
    expected, expected_state = fn.get_variables(ours)
    shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)  # noqa: E731
    assert shapes(params) == shapes(expected)
    assert shapes(state) == shapes(expected_state)


def check_training(seed: Seed) -> None:
    """Some steps of SGD: the loss falls, and both faces and torch end with the same parameters."""
    x, y = seed.data()
    ours, theirs = seed.pair()
    params, state = fn.get_variables(ours)
    losses = train(ours, getattr(nn, seed.loss)(), to_jax(x), to_jax(y), seed.lr)
    assert losses[-1] < losses[0]
    pure_losses, pure_params = train_pure(
        ours, params, state, getattr(nn, seed.loss)(), to_jax(x), to_jax(y), seed.lr
    )
    np.testing.assert_allclose(pure_losses, losses, rtol=1e-6)
    stateful_params, _ = fn.get_variables(ours)
    for name, value in fn.core.layer.flatten(stateful_params):
        np.testing.assert_allclose(
            dict(fn.core.layer.flatten(pure_params))[name],
            value,
            rtol=1e-5,
            atol=1e-7,
            err_msg=name,
        )
    torch_losses = train_torch(
        theirs, getattr(torch.nn, seed.loss)(), to_torch(x), to_torch(y), seed.lr
    )
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4, atol=1e-5)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(
            ours.state_dict()[name], value.numpy(), rtol=1e-3, atol=1e-5, err_msg=name
        )


def train(model: nn.Module, criterion: Any, x: Any, y: Any, lr: float) -> list[float]:
    """The stateful face: the losses of some steps."""
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)

    @fn.jit
    def step(x, y):
        loss, grads = fn.value_and_grad(lambda m: criterion(m(x), y))(model)
        optimizer.step(grads)
        return loss

    return [float(step(x, y)) for _ in range(STEPS)]


def train_pure(
    model: nn.Module, params: Any, state: Any, criterion: Any, x: Any, y: Any, lr: float
) -> tuple[list[float], Any]:
    """The pure face, from given values: the losses of some steps, and the parameters."""
    _, apply = fn.functionalize(model)
    tx = optax.sgd(lr, momentum=0.9)

    @jax.jit
    def step(params, state, memory):
        def loss_fn(params):
            out, new_state = apply(params, state, x, training=True)
            return criterion(out, y), new_state

        (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, memory = tx.update(grads, memory, params)
        return optax.apply_updates(params, updates), state, memory, loss

    memory, losses = tx.init(params), []
    for _ in range(STEPS):
        params, state, memory, loss = step(params, state, memory)
        losses.append(float(loss))
    return losses, params


def train_torch(model: Any, criterion: Any, x: Any, y: Any, lr: float) -> list[float]:
    """The same steps in torch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


CHECKS = (check_text, check_init, check_state_dict, check_training)
CHECK_IDS = ["text", "init", "state_dict", "training"]


def run(check: Callable[[Seed], None], seed: Seed) -> None:
    """One check of one model."""
    if not seed.quiet:
        check(seed)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(seed)
    assert {str(w.message).split()[0] for w in caught} <= {"Implicit", "softmax"}


# --- the documents' printed numbers -----------------------------------------------------------


def numbers(text: str) -> np.ndarray:
    """The array that a document prints as ``tensor(...)``."""
    body = text[text.index("[") : text.rindex("]") + 1]
    return np.array(eval(body, {"__builtins__": {}}), np.float32)
