"""What may happen during :func:`fit` besides training: early stopping, logging, one's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from funcnets._args import choice, describe, positive
from funcnets.errors import ArgumentError, DTypeError

if TYPE_CHECKING:
    from funcnets.train.run import Run

__all__ = ["Callback", "EarlyStopping", "LambdaCallback", "LearningRateLogger", "Monitor"]

#: Names of which more is better; of all others less is.
_MORE = ("acc", "accuracy", "precision", "recall", "f1", "top", "auc", "score", "r2", "iou", "dice")


class Callback:
    """Base class: define the methods that matter, each of which gets the :class:`Run`.

    They are called on the host, between the compiled steps. ``run`` has the model, the optimizer, the
    history, ``run.epoch`` and ``run.step``; ``run.stop(reason)`` ends the training after this epoch's
    current step. State that a checkpoint should hold goes into ``state_dict``.

    Examples:
        >>> import numpy as np
        >>> from funcnets import nn, optim, train
        >>> class Count(train.Callback):
        ...     steps = 0
        ...
        ...     def on_step_end(self, run):
        ...         self.steps += 1
        >>> model, count = nn.Linear(2, 1), Count()
        >>> batches = [(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))] * 3
        >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
        >>> _ = train.fit(
        ...     model, optimizer, nn.MSELoss(), batches, callbacks=[count], progress=False
        ... )
        >>> count.steps
        3
    """

    def on_fit_start(self, run: Run) -> None:
        """Before the first epoch, when a checkpoint to resume from has been read."""

    def on_epoch_start(self, run: Run) -> None:
        """Before the first batch of an epoch; ``run.epoch`` is its number, from 1."""

    def on_step_end(self, run: Run) -> None:
        """After an optimizer step was started; ``run.step`` is its number. Its loss is not known yet."""

    def on_step_logs(self, run: Run, step: int, logs: Mapping[str, float]) -> None:
        """When the loss of a step is known, which is a few steps later.

        Args:
            run: the training.
            step: the number of the step.
            logs: its loss, learning rate, and what the loss function logs.
        """

    def on_validation_start(self, run: Run) -> None:
        """Before the first batch of a validation."""

    def on_validation_end(self, run: Run, logs: Mapping[str, Any]) -> None:
        """After a validation.

        Args:
            run: the training.
            logs: its loss and metrics, whose names begin with ``val_``.
        """

    def on_epoch_end(self, run: Run, logs: Mapping[str, Any]) -> None:
        """After an epoch and its validation, when the history has the row.

        Args:
            run: the training.
            logs: the row.
        """

    def on_fit_end(self, run: Run) -> None:
        """After the last epoch, or after ``on_exception``: close what is open."""

    def on_exception(self, run: Run, error: BaseException) -> None:
        """When the training ends by an exception (also KeyboardInterrupt), which goes on afterwards.

        Args:
            run: the training, whose model and history fit each other.
            error: the exception.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint should keep; numbers, strings and arrays."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what ``state_dict`` gave.

        Args:
            state_dict: that.
        """


_EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class LambdaCallback(Callback):
    """A callback out of functions.

    Args:
        **functions: functions by the name of the method, ``on_epoch_end=lambda run, logs: ...``.

    Raises:
        ArgumentError: there is no such method.

    Examples:
        >>> from funcnets import train
        >>> shout = train.LambdaCallback(on_epoch_end=lambda run, logs: print(logs["loss"]))
    """

    def __init__(self, **functions: Callable[..., Any]) -> None:
        for name, function in functions.items():
            if name not in _EVENTS:
                raise ArgumentError(f"a callback has {', '.join(_EVENTS)}, but not {name!r}")
            if not callable(function):
                raise DTypeError(f"{name} must be a function, but got {describe(function)}")
            setattr(self, name, function)


class Monitor:
    """Which of the values of an epoch is watched, and whether less or more of it is better.

    Args:
        name: a column of the history.
        mode: ``"min"``, ``"max"``, or ``"auto"``: more is better for accuracies and their like.
        min_delta: what is no improvement yet.

    Examples:
        >>> from funcnets.train.callbacks import Monitor
        >>> Monitor("val_accuracy", "auto").better(0.9, 0.8)
        True
    """

    def __init__(self, name: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        choice("mode", mode, ("auto", "min", "max"))
        words = name.removeprefix("val_").lower().split("_")
        more = any(word.startswith(_MORE) for word in words) and "loss" not in words
        self.name = name
        self.mode = ("max" if more else "min") if mode == "auto" else mode
        self.min_delta = abs(min_delta)

    @property
    def worst(self) -> float:
        """What anything is better than."""
        return np.inf if self.mode == "min" else -np.inf

    def better(self, value: float, best: float) -> bool:
        """Whether ``value`` improves on ``best`` by more than ``min_delta``."""
        if self.mode == "min":
            return value < best - self.min_delta
        return value > best + self.min_delta

    def value(self, owner: str, logs: Mapping[str, Any]) -> float:
        """The value in the row of an epoch.

        Args:
            owner: who asks, for the error.
            logs: the row.

        Returns:
            The number.

        Raises:
            ArgumentError: the row has no such value, or it is no number.
        """
        if self.name not in logs:
            raise ArgumentError(
                f"{owner} watches {self.name!r}, but the epoch has {', '.join(logs)}"
                + ("; pass val_data" if self.name.startswith("val_") else "")
            )
        if np.ndim(logs[self.name]):
            raise ArgumentError(
                f"{owner} watches {self.name!r}, which is {describe(logs[self.name])}: it must be one number"
            )
        return float(logs[self.name])


class EarlyStopping(Callback):
    """Stop when a value has not improved for some epochs.

    Args:
        monitor: a column of the history.
        patience: after how many epochs in a row without improvement the training stops.
        min_delta: what is no improvement yet.
        mode: ``"min"``, ``"max"``, or ``"auto"`` (accuracies and their like rise, all else falls).
        baseline: a value that must be beaten at all.
        start_epoch: the first epoch that is looked at.
        restore_best: whether the model gets back the parameters and buffers of its best epoch at the end.

    Attributes:
        best: the best value so far.
        best_epoch: its epoch.
        stopped_epoch: the epoch after which the training was stopped, or 0.

    Raises:
        ArgumentError: at the end of an epoch that lacks the value.

    Examples:
        >>> from funcnets import train
        >>> train.EarlyStopping("val_accuracy", patience=3).mode
        'max'
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        *,
        min_delta: float = 0.0,
        mode: str = "auto",
        baseline: float | None = None,
        start_epoch: int = 1,
        restore_best: bool = False,
    ) -> None:
        self._monitor = Monitor(monitor, mode, min_delta)
        self.patience = positive("patience", patience, minimum=0)
        self.start_epoch = start_epoch
        self.restore_best = restore_best
        self.baseline = baseline
        self._reset()

    @property
    def mode(self) -> str:
        """``"min"`` or ``"max"``."""
        return self._monitor.mode

    def _reset(self) -> None:
        self.best = self._monitor.worst if self.baseline is None else float(self.baseline)
        self.best_epoch = self.stopped_epoch = self.waited = 0
        self._kept: dict[str, Any] | None = None
        self._resumed = False

    def on_fit_start(self, run: Run) -> None:
        """Start anew, unless a checkpoint was read or the history goes on."""
        if not self._resumed and not len(run.history):
            self._reset()
        self.stopped_epoch, self._resumed = 0, False

    def on_epoch_end(self, run: Run, logs: Mapping[str, Any]) -> None:
        """Look at the value."""
        if run.epoch < self.start_epoch or (
            self._monitor.name not in logs and run.validates_later(self._monitor.name)
        ):
            return
        value = self._monitor.value("EarlyStopping", logs)
        if self._monitor.better(value, self.best):
            self.best, self.best_epoch, self.waited = value, run.epoch, 0
            if self.restore_best:
                # Copies: the model's own arrays are given away in the next step.
                self._kept = {k: jnp.array(v) for k, v in run.model.state_dict().items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped_epoch = run.epoch
            run.stop(
                f"{self._monitor.name} has not improved on {self.best:.6g} (epoch {self.best_epoch}) for "
                f"{self.waited} epochs"
            )

    def on_fit_end(self, run: Run) -> None:
        """Give the model back its best parameters, if asked."""
        if self._kept is not None and not run.failed:
            run.model.load_state_dict(self._kept)
        self._kept = self._kept if run.failed else None

    def state_dict(self) -> dict[str, Any]:
        """The best value, how long it is ago, and the parameters of then if they are kept."""
        names = ("best", "best_epoch", "waited")
        kept = {} if self._kept is None else {"kept": self._kept}
        return {**{name: getattr(self, name) for name in names}, **kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what ``state_dict`` gave.

        Args:
            state_dict: that.
        """
        self.best = float(state_dict["best"])
        self.best_epoch, self.waited = int(state_dict["best_epoch"]), int(state_dict["waited"])
        kept = state_dict.get("kept")
        self._kept = None if kept is None else {k: jnp.array(v) for k, v in kept.items()}
        self._resumed = True


class LearningRateLogger(Callback):
    """Record the learning rate of every parameter group, and other options if asked.

    Per step they are found with ``history.steps("lr")``, per epoch as columns ``lr`` of the rows. The first
    group's is called ``lr``, the n-th one's ``lr_n`` (or ``lr_`` and its ``name``).

    Args:
        every: ``"step"`` or ``"epoch"``.
        options: which options of the groups; only numbers, and the first of a pair, are recorded.

    Examples:
        >>> from funcnets import train
        >>> logger = train.LearningRateLogger(options=("lr", "momentum"))
    """

    def __init__(self, every: str = "step", options: tuple[str, ...] = ("lr",)) -> None:
        self.every = choice("every", every, ("step", "epoch"))
        self.options = (options,) if isinstance(options, str) else tuple(options)

    def on_step_end(self, run: Run) -> None:
        """Record what the step used."""
        if self.every == "step":
            run.history.record_step(run.step, **_rates(run.used_options, self.options))

    def on_epoch_end(self, run: Run, logs: Mapping[str, Any]) -> None:
        """Add to the row what the epoch's last step used."""
        if self.every == "epoch":
            run.history.epochs[-1].update(_rates(run.used_options, self.options))


def _rates(groups: Sequence[Mapping[str, Any]], options: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for n, group in enumerate(groups):
        for option in options:
            value = group.get(option)
            value = value[0] if isinstance(value, (tuple, list)) and value else value
            if isinstance(value, (int, float, np.number)) or getattr(value, "shape", None) == ():
                suffix = f"_{group.get('name', n)}" if n else ""
                found[f"{option}{suffix}"] = float(value)  # pyright: ignore[reportArgumentType]
    return found
