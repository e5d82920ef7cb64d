"""``fit``: a training function, compiled once, and the loop around it; and ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from funcnets._args import choice, describe, positive
from funcnets.core.module import Module
from funcnets.core.tree import freeze
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim.lbfgs import LBFGS
from funcnets.optim.optimizer import Optimizer
from funcnets.train.batches import Batches
from funcnets.train.callbacks import Callback
from funcnets.train.history import History
from funcnets.train.metrics import Mean, Metric, MetricCollection
from funcnets.train.objective import loss_function
from funcnets.train.progress import Progress
from funcnets.train.run import Plan, Run, takes_metrics
from funcnets.train.saving import resume_from
from funcnets.train.step import TrainStep, ValidationStep
from funcnets.train.validation import modes_kept, validate

__all__ = ["evaluate", "fit"]

#: How many compiled steps an optimizer keeps, for trainings that go on with the same options.
_KEPT = 4


def fit(
    model: Module,
    optimizer: Optimizer,
    loss_fn: Callable[..., Any],
    train_data: Any,
    val_data: Any = None,
    *,
    epochs: int = 1,
    metrics: Any = None,
    callbacks: Iterable[Callback] | Callback = (),
    scheduler: Any = None,
    scheduler_every: str = "epoch",
    monitor: str | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    scaler: Any = None,
    steps_per_epoch: int | None = None,
    validate_every: int = 1,
    prefetch: int = 2,
    device: Any = None,
    check_finite: bool = True,
    history: History | None = None,
    resume: Any = None,
    progress: bool | str | Progress = True,
) -> History:
    """Train a model: ``epochs`` passes over ``train_data``, each followed by a validation.

    A step (loss, gradients, clipping, optimizer, metrics) is one compiled program that reuses the memory of
    what it replaces. Batches are copied to the device while the steps before them run. A batch of another
    shape, as the last one often is, has a program of its own, which is compiled once and kept:
    nothing is padded or left out, and every mean counts every example.

    Modules train in the mode that they are in, so that one that was put in evaluation mode on purpose (a
    frozen BatchNorm) stays there; only if the model itself is in evaluation mode all of it is put in training
    mode. Validations run in evaluation mode. At the end every module has the mode that it had.

    A loss or gradient that is not finite stops the training *before* it changes anything, and the error
    names the first module whose output was not finite. After any exception, KeyboardInterrupt included, the
    model, the optimizer and the history are those after the last whole step: ``history.step`` of them.

    Args:
        model: the model, which is changed.
        optimizer: an optimizer of its parameters; with ``LBFGS``, whose step evaluates the batch several times,
            the loss that is recorded is the first.
        loss_fn: a criterion, such as ``nn.CrossEntropyLoss()`` or ``F.cross_entropy``: then a batch is a pair
            ``(x, y)``, and the loss is ``criterion(model(x), y)``. Or a function ``loss_fn(model, batch)`` that
            returns a scalar, ``(scalar, {name: scalar})`` or an :class:`Outcome`. A function
            whose second parameter is called ``target`` (or ``targets``, ``label``, ``labels``) is a
            criterion; :func:`supervised` makes one of any other, and picks entries of dicts.
        train_data: the batches: a list, a loader (``train.ArrayLoader``, torch's ``DataLoader``, grain's), any
            iterable, or a function that returns one (it may take the number of the epoch). A batch
            is a tuple, list or dict of NumPy or JAX arrays or torch tensors.
        val_data: batches for validation, likewise.
        epochs: how many epochs the history has in the end: with ``history=`` or ``resume=``, counting
            those that are in it already.
        metrics: metrics by name, or a list of metrics, see ``train.metrics``; also plain functions of outputs
            and targets. They need a criterion, or a loss function that returns an :class:`Outcome`.
        callbacks: see :class:`Callback`.
        scheduler: a scheduler of ``optim.lr_scheduler`` over this optimizer.
        scheduler_every: when it makes a step: after each ``"epoch"`` or each optimizer ``"step"``.
        monitor: the column that ``ReduceLROnPlateau`` looks at; the validation loss if it is None, or without
            validation the loss.
        accumulate: from how many batches the gradients of a step are collected: the same step as with one big
            batch. The rest of an epoch makes a step, too.
        clip_norm: scale the gradients down to this norm, all of them together.
        clip_value: limit every element of the gradients to this size (before ``clip_norm``).
        scaler: an ``amp.GradScaler``, for float16.
        steps_per_epoch: how many batches make an epoch, for data without an end. The iteration goes on from
            epoch to epoch.
        validate_every: after how many epochs to validate.
        prefetch: how many batches wait on the device; 0 for no thread.
        device: where batches go: a ``jax.Device``, a ``Sharding`` or a name; None for the default device.
        check_finite: whether loss and gradients are watched.
        history: a history to go on with; also the way to keep it when an exception comes.
        resume: go on from the newest checkpoint, if there is one: True for that of a :class:`Checkpoint`
            callback, or a directory, or a ``CheckpointManager``.
        progress: True for what fits (a bar in a terminal or notebook, lines in a log), False for nothing, or
            ``"bar"``, ``"notebook"``, ``"plain"``, or a :class:`Progress`.

    Returns:
        The ``History``: a row for every epoch, a loss for every step.

    Raises:
        Diverged: a ``NonFiniteError``: a loss or a gradient is NaN or infinite.
        ArgumentError: an option that cannot be, or data without a batch.
        DTypeError: something of the wrong kind; the message says what was expected.

    Examples:
        >>> import numpy as np
        >>> import funcnets as fn
        >>> from funcnets import nn, optim, train
        >>> fn.manual_seed(0)
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((64, 2)).astype(np.float32)
        >>> y = (x[:, 0] > x[:, 1]).astype(np.int32)
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> history = train.fit(
        ...     model,
        ...     optim.Adam(model.parameters(), lr=0.1),
        ...     nn.CrossEntropyLoss(),
        ...     train.ArrayLoader((x, y), batch_size=24, shuffle=True, seed=0),
        ...     val_data=[(x, y)],
        ...     epochs=5,
        ...     metrics={"accuracy": train.Accuracy()},
        ...     progress=False,
        ... )
        >>> history["val_accuracy"][-1] > 0.9
        True

    References:
        tf.keras.Model.fit; lightning.Trainer.fit
    """
    _require(model, optimizer)
    options = {
        "accumulate": positive("accumulate", accumulate) > 1,
        "clip_norm": _limit("clip_norm", clip_norm),
        "clip_value": _limit("clip_value", clip_value),
        "scaler": scaler,
        "guard": bool(check_finite),
    }
    epochs = positive("epochs", epochs, minimum=0)
    validate_every = positive("validate_every", validate_every)
    size = positive("prefetch", prefetch, minimum=0)
    if steps_per_epoch is not None:
        positive("steps_per_epoch", steps_per_epoch)
    choice("scheduler_every", scheduler_every, ("epoch", "step"))
    per_step = scheduler is not None and scheduler_every == "step"
    if isinstance(optimizer, LBFGS) and (accumulate > 1 or scaler is not None):
        raise ArgumentError(
            "LBFGS evaluates a batch several times in a step: it takes no accumulate= or scaler=; make the batches "
            "larger"
        )
    if per_step and takes_metrics(scheduler):
        raise ArgumentError(
            f"{type(scheduler).__name__} looks at a value that an epoch has: scheduler_every='epoch'"
        )
    loss_fn, collection = loss_function(loss_fn), _collection(metrics)
    data = Batches("train_data", train_data, steps_per_epoch, size, device)
    val = None if val_data is None else Batches("val_data", val_data, None, size, device)
    watchers = _callbacks(callbacks, progress)
    step, validation = _steps(model, optimizer, loss_fn, collection, options)
    plan = Plan(epochs, scheduler, per_step, monitor, accumulate, validate_every)
    history = History() if history is None else history
    run = Run(step, validation, data, val, plan, history, watchers)
    step.tally.begin_fit()
    if resume is not None and resume is not False:
        resume_from(run, resume, watchers)
    with modes_kept(model):
        if not model.training:
            model.train()
        run.run()
    return history


def evaluate(
    model: Module,
    loss_fn: Callable[..., Any],
    data: Any,
    *,
    metrics: Any = None,
    prefetch: int = 2,
    device: Any = None,
) -> dict[str, Any]:
    """The mean loss and the metrics of a model over ``data``, in evaluation mode.

    Args:
        model: the model; every module has its mode back afterwards.
        loss_fn: as for :func:`fit`.
        data: the batches, as for :func:`fit`.
        metrics: as for :func:`fit`.
        prefetch: how many batches wait on the device.
        device: where they go.

    Returns:
        Numbers by name: ``"loss"``, the metrics, and what the loss function logs.

    Raises:
        ArgumentError: there is no batch.

    Examples:
        >>> import numpy as np
        >>> from funcnets import nn, train
        >>> batches = [(np.ones((4, 2), np.float32), np.zeros(4, np.int32))]
        >>> found = train.evaluate(
        ...     nn.Linear(2, 3), nn.CrossEntropyLoss(), batches, metrics=[train.Accuracy()]
        ... )
        >>> sorted(found)
        ['accuracy', 'loss']
    """
    if not isinstance(model, Module):
        raise DTypeError(f"model must be an nn.Module, but got {describe(model)}")
    step = ValidationStep(model, loss_function(loss_fn), _collection(metrics))
    batches = Batches("data", data, None, positive("prefetch", prefetch, minimum=0), device)
    try:
        return validate(step, batches.epoch(1))
    finally:
        batches.close()


# --- arguments --------------------------------------------------------------------------------


def _require(model: Any, optimizer: Any) -> None:
    if not isinstance(model, Module):
        raise DTypeError(
            f"model must be an nn.Module, but got {describe(model)}; for a pair (init, apply) write "
            "nn.FromLayer(pair)"
        )
    if not isinstance(optimizer, Optimizer):
        raise DTypeError(
            f"optimizer must be one of funcnets.optim, but got {describe(optimizer)}; for an optax transformation "
            "write optim.Optimizer(model.parameters(), tx)"
        )
    own = {id(cell) for cell in model.parameters()}
    held = [cell for group in optimizer.param_groups for cell in group["params"]]
    if not any(id(cell) in own for cell in held):
        raise ArgumentError(
            "the optimizer holds none of the model's parameters: make it with model.parameters()"
        )


def _limit(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ArgumentError(f"{name} must be a positive number or None, but got {describe(value)}")
    return float(value)


def _collection(metrics: Any) -> MetricCollection | None:
    """The metrics by name; functions become means."""
    if metrics is None:
        return None
    if isinstance(metrics, MetricCollection):
        return metrics
    if isinstance(metrics, Metric) or callable(metrics):
        metrics = [metrics]
    if isinstance(metrics, Mapping):
        return MetricCollection({name: _metric(metric) for name, metric in metrics.items()})
    metrics = list(metrics)
    plain = [m for m in metrics if not isinstance(m, Metric)]
    if not plain:
        return MetricCollection(metrics)
    named = MetricCollection([m for m in metrics if isinstance(m, Metric)]).metrics
    named |= {getattr(m, "__name__", type(m).__name__): _metric(m) for m in plain}
    if len(named) < len(metrics):
        raise ArgumentError("two metrics have one name: pass a dict of metrics by name")
    return MetricCollection(named)


def _metric(metric: Any) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, type) or not callable(metric):
        raise DTypeError(
            f"a metric must be one of train.metrics, such as train.Accuracy(), or a function of outputs and "
            f"targets, but got {describe(metric)}"
        )
    return Mean(metric)


def _callbacks(callbacks: Any, progress: Any) -> list[Callback]:
    found = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    for callback in found:
        if not isinstance(callback, Callback):
            hint = f": make one, {callback.__name__}()" if isinstance(callback, type) else ""
            raise DTypeError(
                f"a callback must be a train.Callback, but got {describe(callback)}{hint}"
            )
    if isinstance(progress, Progress):
        return [progress, *found]
    if isinstance(progress, str):
        return [Progress(progress), *found]
    shown = any(isinstance(callback, Progress) for callback in found)
    return [Progress(), *found] if progress and not shown else found


# --- compiled steps ---------------------------------------------------------------------------


class _Kept:
    """The compiled steps of an optimizer. A copy of it, or one from a file, starts without."""

    def __init__(self) -> None:
        self.rows: list[tuple[list[Any], TrainStep, ValidationStep]] = []

    def __reduce__(self) -> Any:
        return _Kept, ()

    def __deepcopy__(self, memo: Any) -> _Kept:
        return _Kept()


def _steps(
    model: Module,
    optimizer: Optimizer,
    loss_fn: Any,
    metrics: MetricCollection | None,
    options: dict[str, Any],
) -> tuple[TrainStep, ValidationStep]:
    """The steps, compiled already if this optimizer had a training with the same arguments."""
    key = [
        model,
        getattr(loss_fn, "criterion", loss_fn),
        *(getattr(loss_fn, name, None) for name in ("inputs", "targets")),
        *((metrics.metrics.items()) if metrics is not None else ()),
        *options.values(),
        jax.config.jax_enable_x64,  # pyright: ignore[reportAttributeAccessIssue]
    ]
    kept: _Kept = vars(optimizer).setdefault("_fit_steps", _Kept())
    for row in kept.rows:
        if len(row[0]) == len(key) and all(map(_same, row[0], key)):
            return row[1], row[2]
    steps = (
        TrainStep(model, optimizer, loss_fn, metrics, **options),
        ValidationStep(model, loss_fn, metrics),
    )
    kept.rows = [*kept.rows, (key, *steps)][-_KEPT:]
    return steps


def _same(a: Any, b: Any) -> bool:
    """Whether a trace would treat two arguments the same way.

    A criterion without cells, or a metric, that is made anew for the next training is the same as
    the one before.
    """
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if type(a) is not type(b):
        return False
    if isinstance(a, Metric):
        return freeze(vars(a)) == freeze(vars(b))
    if isinstance(a, Module) and not any(True for module in (a, b) for _ in module._cells()):
        return [p._fingerprint() for p in a._parts()] == [p._fingerprint() for p in b._parts()]
    return a is b or (isinstance(a, (bool, int, float, str, type(None))) and a == b)
