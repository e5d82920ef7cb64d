"""What is minimised: one convention, ``loss_fn(model, batch)``, and how a criterion becomes such a function.

criterion(model(x), y)     an ``nn.Module`` such as ``nn.CrossEntropyLoss()``, or a function whose second
                           parameter is the target, as in ``torch.nn.functional`` and ``optax``
loss_fn(model, batch)      everything else: models with several inputs, batches that are dicts,
                           losses with several terms
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.core.cell import Cell, Stateful
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, DTypeError, ShapeError, TreeError
from funcnets.functional.loss import cross_entropy, nll_loss
from funcnets.nn.loss import CrossEntropyLoss, NLLLoss

__all__ = ["Outcome", "batch_size", "cells_of", "loss_function", "outcome_of", "supervised"]

#: The name of the second parameter of a function that compares outputs with targets.
_TARGETS = ("target", "targets", "label", "labels")


class Outcome(NamedTuple):
    """What a loss function may return instead of the bare loss.

    Attributes:
        loss: the scalar to minimise.
        outputs: what the metrics get as outputs, such as logits.
        targets: what the metrics compare them with.
        logs: further scalars by name; their means over an epoch go into the history.
        count: how many terms ``loss`` is the mean of: the weight of this batch in the means of the
            epoch and in gradient accumulation. The number of examples if it is None.
        summed: whether ``loss`` is the sum of its terms rather than their mean.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import train
        >>> def loss_fn(model, batch):
        ...     error = model(batch["x"]) - batch["y"]
        ...     return train.Outcome(jnp.mean(error**2), logs={"bias": jnp.mean(error)})
    """

    loss: Any
    outputs: Any = None
    targets: Any = None
    logs: Mapping[str, Any] | None = None
    count: Any = None
    summed: bool = False


class Supervised:
    """A criterion as a function of a model and a batch; made by :func:`supervised`."""

    def __init__(self, criterion: Callable[..., Any], inputs: Any, targets: Any) -> None:
        self.criterion, self.inputs, self.targets = criterion, inputs, targets

    def __call__(self, model: Any, batch: Any) -> Outcome:
        args, kwargs, targets = self._take(batch)
        outputs = model(*args, **kwargs)
        loss = self.criterion(outputs, targets)
        summed = _option(self.criterion, "reduction") == "sum"
        count = None if summed else _terms(self.criterion, outputs, targets)
        return Outcome(loss, outputs, targets, count=count, summed=summed)

    def _take(self, batch: Any) -> tuple[list[Any], dict[str, Any], Any]:
        if self.inputs is None:
            if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
                came = _outline(batch)
                raise ArgumentError(
                    f"with a criterion a batch is a pair (inputs, targets), but got {came}: say which entries they "
                    "are, train.supervised(criterion, inputs=..., targets=...), or pass loss_fn(model, batch)"
                )
            return [batch[0]], {}, batch[1]
        targets = _entry(batch, self.targets)
        if isinstance(self.inputs, Mapping):
            return [], {name: _entry(batch, key) for name, key in self.inputs.items()}, targets
        keys = self.inputs if isinstance(self.inputs, (tuple, list)) else [self.inputs]
        return [_entry(batch, key) for key in keys], {}, targets

    def __repr__(self) -> str:
        return f"supervised({self.criterion!r})"


def supervised(
    criterion: Callable[[Any, Any], Any], *, inputs: Any = None, targets: Any = None
) -> Callable[[Any, Any], Outcome]:
    """``criterion(model(inputs), targets)`` as a function ``(model, batch) -> Outcome``.

    The means of ``nn.CrossEntropyLoss`` and ``nn.NLLLoss`` divide by the weights of the targets that are
    not ignored; that number becomes the count of the outcome, so that means over an epoch and
    accumulated gradients are those of one big batch. Of a criterion with ``reduction="sum"``
    the gradients are added up, and its mean per example is recorded.

    Args:
        criterion: compares outputs with targets and returns a scalar.
        inputs: which entries of a batch go into the model: a key (of a dict) or index (of a tuple),
            a list of them (several positional arguments), or a dict from the name of an argument to a
            key. Without it a batch is a pair ``(inputs, targets)``.
        targets: the key or index of the targets.

    Returns:
        A function for ``train.fit``.

    Raises:
        ArgumentError: only one of ``inputs`` and ``targets`` is given.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn, train
        >>> loss_fn = train.supervised(nn.MSELoss(), inputs="x", targets="y")
        >>> outcome = loss_fn(nn.Linear(3, 1), {"x": jnp.ones((2, 3)), "y": jnp.ones((2, 1))})
        >>> outcome.outputs.shape
        (2, 1)
    """
    if not callable(criterion):
        raise DTypeError(
            f"the criterion must be a function of outputs and targets, but got {describe(criterion)}"
        )
    if (inputs is None) != (targets is None):
        raise ArgumentError("supervised takes inputs= and targets= together, or neither")
    return Supervised(criterion, inputs, targets)


def loss_function(loss_fn: Any) -> Callable[[Any, Any], Any]:
    """``loss_fn`` as a function of a model and a batch."""
    if not callable(loss_fn):
        raise DTypeError(
            "loss_fn must be a criterion, such as nn.CrossEntropyLoss(), or a function loss_fn(model, batch), "
            f"but got {describe(loss_fn)}"
        )
    if isinstance(loss_fn, type):
        raise DTypeError(f"loss_fn is the class {loss_fn.__name__}: make one, {loss_fn.__name__}()")
    return supervised(loss_fn) if _is_criterion(loss_fn) else loss_fn


def _is_criterion(loss_fn: Any) -> bool:
    if isinstance(loss_fn, Module):
        return True
    try:
        parameters = list(inspect.signature(loss_fn).parameters)
    except (TypeError, ValueError):
        return False
    return len(parameters) > 1 and parameters[1] in _TARGETS


def outcome_of(loss_fn: Callable[[Any, Any], Any], model: Any, batch: Any) -> Outcome:
    """Call a loss function and check what it returns; ``logs`` and ``count`` are filled in.

    Args:
        loss_fn: a function of a model and a batch.
        model: the model.
        batch: the batch.

    Returns:
        An outcome whose loss is a floating point scalar.

    Raises:
        ShapeError: the loss is not a scalar.
        DTypeError: it is no number, or something else than a loss came.
    """
    came = loss_fn(model, batch)
    if isinstance(came, Outcome):
        outcome = came
    elif isinstance(came, tuple) and len(came) == 2 and isinstance(came[1], Mapping):
        outcome = Outcome(came[0], logs=came[1])
    elif isinstance(came, tuple):
        raise DTypeError(
            "loss_fn(model, batch) must return the loss, (loss, {name: scalar}) or train.Outcome(loss, outputs, "
            f"targets), but gave a tuple of {len(came)}"
        )
    else:
        outcome = Outcome(came)
    loss = _scalar("the loss", outcome.loss)
    logs = {name: _scalar(f"logs[{name!r}]", value) for name, value in (outcome.logs or {}).items()}
    count = batch_size(batch) if outcome.count is None else outcome.count
    return outcome._replace(loss=loss, logs=logs, count=jnp.asarray(count, jnp.result_type(float)))


def _scalar(what: str, value: Any) -> jax.Array:
    if not hasattr(value, "dtype") and not isinstance(value, (int, float)):
        raise DTypeError(f"{what} must be a number, but is {describe(value)}")
    value = jnp.asarray(value)
    if value.shape != ():
        raise ShapeError(
            f"{what} must be one number, but is {describe(value)}: take its mean, jnp.mean(loss), or use "
            "reduction='mean'"
        )
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise DTypeError(f"{what} must be a real number, but is {describe(value)}")
    if what == "the loss" and not jnp.issubdtype(value.dtype, jnp.floating):
        raise DTypeError(f"{what} must be a floating point number, but is {describe(value)}")
    return value


def batch_size(batch: Any) -> int:
    """How many examples a batch has: the length of its first array.

    Args:
        batch: a tree of arrays.

    Returns:
        The leading axis of the first leaf that has one; 1 if there is none.
    """
    shapes = (getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(batch))
    return next((int(shape[0]) for shape in shapes if shape), 1)


def cells_of(*things: Any) -> list[Cell]:
    """The cells of models, optimizers and loss functions, each once.

    Args:
        *things: what has no cells counts nothing.

    Returns:
        The cells whose shape is known.
    """
    holders = [t.criterion if isinstance(t, Supervised) else t for t in things]
    cells = {c: None for h in holders if isinstance(h, Stateful) for _, c in h._cells()}
    return [cell for cell in cells if cell.settled]


def _option(criterion: Any, name: str, default: Any = None) -> Any:
    """An option of a criterion: an attribute of a module, an argument bound by ``functools.partial``."""
    if isinstance(criterion, functools.partial):
        return criterion.keywords.get(name, default)
    return getattr(criterion, name, default)


def _terms(criterion: Any, outputs: Any, targets: Any) -> Any:
    """What the mean of a criterion divides by, if that is not the number of examples."""
    function = criterion.func if isinstance(criterion, functools.partial) else criterion
    known = isinstance(function, (CrossEntropyLoss, NLLLoss))
    if not known and function not in (cross_entropy, nll_loss):
        return None
    if not hasattr(targets, "dtype") or outputs.shape == targets.shape:
        return None  # probabilities: every position counts alike
    kept = targets != _option(criterion, "ignore_index", -100)
    weight = _option(criterion, "weight")
    if weight is None:
        return jnp.sum(kept)
    return jnp.sum(jnp.where(kept, jnp.asarray(weight)[jnp.where(kept, targets, 0)], 0))


def _entry(batch: Any, key: Any) -> Any:
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError):
        raise TreeError(
            f"the batch has no entry {key!r}, which supervised(inputs=..., targets=...) asks for: it is "
            f"{_outline(batch)}"
        ) from None


def _outline(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{k!r}: {describe(v)}" for k, v in batch.items()) + "}"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)}: {describe(batch)}"
    return describe(batch)
