"""Finding where NaN or infinity came from: the first module whose output was not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from funcnets.core.jit import jit
from funcnets.core.layer import flatten
from funcnets.core.lifts import value_and_grad
from funcnets.core.module import Module
from funcnets.core.nonfinite import Seen, bad, bad_cells, first_bad, observe
from funcnets.core.random import stream
from funcnets.core.watch import Paths, watching
from funcnets.errors import NonFiniteError
from funcnets.train.objective import cells_of, outcome_of

__all__ = ["Diverged", "diverged"]


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
    calls: list[Seen] = []

    @jit
    def replay(batch: Any) -> Any:
        with watching(observe(Paths(model), strangers=False)) as found:
            loss, grads = value_and_grad(lambda m: outcome_of(loss_fn, m, batch).loss)(model)
        calls[:] = [seen for seen, _ in found]
        grads = {name: bad(gradient) for name, gradient in flatten(grads)}
        return loss, grads, [flags for _, flags in found], bad(batch)

    kept = {cell: cell.lend() for cell in (*cells_of(model, loss_fn), stream)}
    try:
        loss, grads, flags, batch_is_bad = jax.device_get(replay(batch))
    finally:
        for cell, value in kept.items():
            cell._set(value)
    note = "; the batch itself holds numbers that are not finite" if batch_is_bad else ""
    first = first_bad(flags)
    if first is not None:
        number, given_bad = first
        return calls[number].path, _tell(calls[number], given_bad) + note
    if not np.isfinite(loss):
        return None, f"all outputs of modules are finite, the loss function's is not{note}"
    names = [name for name, is_bad in grads.items() if is_bad]
    if names:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return None, (
            f"the loss is {float(loss)}, and the gradients of {listed} are not finite (a square root or a logarithm at "
            f"zero, or an overflow, in the backward pass){note}"
        )
    return None, f"it did not happen again when the batch was run once more{note}"


def _tell(seen: Seen, given_bad: bool) -> str:
    name = f"{seen.path!r} ({type(seen.module).__name__})" if seen.path else "the model itself"
    cells = bad_cells(seen.module)
    own = f"its {', '.join(cells)} is not finite" if cells else "its parameters are finite"
    given = "what it was given is not" if given_bad else "what it was given is finite"
    return f"the first output that is not finite is that of {name}, {seen.output}; {given}, {own}"
