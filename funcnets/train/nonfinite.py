"""Finding where NaN or infinity came from: the first module whose output was not finite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.cell import Buffer
from funcnets.core.jit import jit
from funcnets.core.layer import flatten
from funcnets.core.lifts import value_and_grad
from funcnets.core.module import Module
from funcnets.core.random import stream
from funcnets.errors import NonFiniteError, StateLeakError
from funcnets.train.objective import cells_of, outcome_of

__all__ = ["Diverged", "diverged"]

# The calls of a pass are numbered from here downwards, so that the earliest has the largest number: a
# maximum is what becomes of an integer that is written per example (``fn.vmap``).
_FIRST = 2**30


class Diverged(NonFiniteError):
    """The loss or a gradient was NaN or infinite; the training stopped before that step.

    Attributes:
        module: the path of the first module whose output was not finite; None if there is none.
        epoch: the epoch, from 1.
        step: the number of the step that would have been next.
        loss: the loss.
        batch: the batch.
    """

    module: str | None = None
    epoch: int = 0
    step: int = 0
    loss: float = float("nan")
    batch: Any = None


class _Call(NamedTuple):
    """One call of a module, as the trace saw it."""

    path: str
    module: Module
    output: Any


def diverged(
    model: Module,
    loss_fn: Callable[[Any, Any], Any],
    batch: Any,
    *,
    loss: float,
    epoch: int,
    step: int,
) -> Diverged:
    """Run the batch again, watching every module, and say what was found.

    Args:
        model: the model as it was before the batch; it is left so.
        loss_fn: a function of a model and a batch.
        batch: the batch.
        loss: what the loss was.
        epoch: for the message.
        step: for the message.

    Returns:
        The error to raise.
    """
    what = f"the loss is {loss}" if not np.isfinite(loss) else "a gradient is not finite"
    try:
        module, found = _explain(model, loss_fn, batch)
    except Exception as failure:
        module, found = None, f"where it began was not found: {type(failure).__name__}: {failure}"
    text = (
        f"{what} at step {step} (epoch {epoch}): {found}. The training stopped; model and optimizer are as they "
        "were before that step. A lower learning rate, clip_norm=..., or a look at the batch (the attribute "
        "batch of this error) may help"
    )
    error = Diverged(text)
    error.module, error.epoch, error.step, error.loss, error.batch = (
        module,
        epoch,
        step,
        loss,
        batch,
    )
    return error


def _explain(
    model: Module, loss_fn: Callable[[Any, Any], Any], batch: Any
) -> tuple[str | None, str]:
    found = Buffer((), dtype=jnp.int32)
    calls: list[_Call] = []

    def watch(path: str) -> Callable[..., None]:
        def hook(module: Module, args: Any, output: Any) -> None:
            calls.append(_Call(path, module, jax.tree.map(_described, output)))
            number = _FIRST - 2 * len(calls)
            mark = jnp.where(_bad(output), jnp.where(_bad(args), number + 1, number), 0)
            # Inside of a raw jax.lax.scan, say, nothing can be noted: the module around it will tell.
            with contextlib.suppress(StateLeakError):
                found.data = jnp.maximum(found.data, mark.astype(jnp.int32))

        return hook

    @jit
    def replay(batch: Any) -> Any:
        loss, grads = value_and_grad(lambda m: outcome_of(loss_fn, m, batch).loss)(model)
        grads = {name: _bad(gradient) for name, gradient in flatten(grads)}
        return loss, grads, found.data, _bad(batch)

    kept = {cell: cell.lend() for cell in (*cells_of(model, loss_fn), stream)}
    handles = [module.register_forward_hook(watch(path)) for path, module in model.named_modules()]
    try:
        loss, grads, number, batch_is_bad = jax.device_get(replay(batch))
    finally:
        for handle in handles:
            handle.remove()
        for cell, value in kept.items():
            cell._set(value)
    note = "; the batch itself holds numbers that are not finite" if batch_is_bad else ""
    if number:
        call = calls[(_FIRST - int(number) + 1) // 2 - 1]
        return call.path, _tell(call, bool(number % 2)) + note
    if not np.isfinite(loss):
        return None, f"all outputs of modules are finite, the loss function's is not{note}"
    names = [name for name, bad in grads.items() if bad]
    if names:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return None, (
            f"the loss is {float(loss)}, and the gradients of {listed} are not finite (a square root or a logarithm at "
            f"zero, or an overflow, in the backward pass){note}"
        )
    return None, f"it did not happen again when the batch was run once more{note}"


def _tell(call: _Call, given_bad: bool) -> str:
    name = f"{call.path!r} ({type(call.module).__name__})" if call.path else "the model itself"
    bad = [
        name
        for name, cell in call.module._cells()
        if cell.settled and bool(_bad(jnp.asarray(cell.lend())))
    ]
    own = f"its {', '.join(bad)} is not finite" if bad else "its parameters are finite"
    given = "what it was given is not" if given_bad else "what it was given is finite"
    return f"the first output that is not finite is that of {name}, {call.output}; {given}, {own}"


def _described(leaf: Any) -> Any:
    return describe(leaf) if hasattr(leaf, "shape") else leaf


def _bad(tree: Any) -> Any:
    """Whether any floating point number of a tree is not finite."""
    bad: Any = jnp.zeros((), bool)
    for leaf in jax.tree.leaves(tree):
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact):
            bad |= ~jnp.all(jnp.isfinite(leaf))
    return bad
