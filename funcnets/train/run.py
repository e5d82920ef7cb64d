"""One training: the loop, and what callbacks see of it.

The loop starts a step, and reads the results of the steps before it: the device never waits for the
host. What was read is what the history and the metrics of the progress bar hold.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import numpy as np

from funcnets.errors import NonFiniteError, StateDictError
from funcnets.train.batches import Batches
from funcnets.train.callbacks import Callback
from funcnets.train.history import History
from funcnets.train.nonfinite import diverged
from funcnets.train.objective import batch_size
from funcnets.train.step import TrainStep, ValidationStep
from funcnets.train.validation import LAG, Means, validate

__all__ = ["Plan", "Run", "takes_metrics"]

#: From how many shapes of batches on a warning is due: each is compiled.
_SHAPES = 8


class Plan(NamedTuple):
    """The options of a training that the loop needs; see ``fit``."""

    epochs: int
    scheduler: Any = None
    per_step: bool = False
    monitor: str | None = None
    accumulate: int = 1
    validate_every: int = 1


class _Started(NamedTuple):
    """A step that was started, and what it needs if it turns out to have failed."""

    number: int
    report: Any
    logs: Any
    names: Mapping[str, None]
    batch: Any
    stepped: bool
    options: list[dict[str, Any]]
    schedule: Any


class Run:
    """One training, as callbacks see it. ``fit`` makes it.

    Args:
        step: the compiled training step.
        validation: the compiled step of a validation.
        data: the batches.
        val_data: the batches of a validation, or None.
        plan: epochs, schedule and the like.
        history: where everything is recorded.
        callbacks: what else is called.

    Attributes:
        model: the model.
        optimizer: the optimizer.
        scheduler: the learning rate scheduler, or None.
        scaler: the gradient scaler, or None.
        history: what was recorded so far.
        epoch: the number of the running epoch, from 1.
        epochs: the number of the last one.
        batch: how many batches of the running epoch were started.
        batches: how many there are in an epoch, or None if that is not known.
        samples: how many examples of the epoch were started.
        step: how many optimizer steps were started; of those ``history.step`` are known to be done.
        used_options: the options of the parameter groups that the last step used.
        failed: whether an exception ended the training.
        stopped: why it was stopped, or None.
        seconds: how long the epoch has been training.

    Examples:
        >>> from funcnets import train
        >>> class Watch(train.Callback):
        ...     def on_step_end(self, run: train.Run):
        ...         if run.step == 1000:
        ...             run.stop("a thousand steps are enough")
    """

    def __init__(
        self,
        step: TrainStep,
        validation: ValidationStep,
        data: Batches,
        val_data: Batches | None,
        plan: Plan,
        history: History,
        callbacks: Iterable[Callback],
    ) -> None:
        self._step, self._validation = step, validation
        self._data, self._val_data = data, val_data
        self.model, self.optimizer, self.scaler = step.model, step.optimizer, step.scaler
        self.scheduler, self._per_step = plan.scheduler, plan.per_step
        self._monitor = plan.monitor or ("loss" if val_data is None else "val_loss")
        self._accumulate, self._validate_every = plan.accumulate, plan.validate_every
        self.history, self.epochs = history, plan.epochs
        self._callbacks = list(callbacks)
        self.step = history.step
        self.epoch, self.batch, self.samples = len(history), 0, 0
        self.failed, self.stopped = False, None
        self.seconds = 0.0
        self._pending: deque[_Started] = deque()
        self._group: list[tuple[float, dict[str, float]]] = []
        self._means = Means()
        self._position: Any = None
        self._resumed: dict[str, Any] | None = None
        # Batches whose results were read, and steps of the scheduler, since the compiled step counts.
        self._read_count = self._scheduled = 0
        self._base = history.step
        self._shapes: set[Any] = set()
        self.used_options = self._options()

    @property
    def batches(self) -> int | None:
        """How many batches an epoch has, if that is known."""
        return self._data.total

    @property
    def val_batches(self) -> int | None:
        """How many batches a validation has, if that is known."""
        return None if self._val_data is None else self._val_data.total

    # --- for callbacks ---

    def stop(self, reason: str = "a callback asked for it") -> None:
        """End the training after the present step; the epoch is validated and recorded.

        Args:
            reason: what the progress display says.
        """
        self.stopped = reason

    def drain(self) -> None:
        """Wait until every step that was started is done, and record it.

        Raises:
            NonFiniteError: a loss or gradient was not finite.
        """
        self._read_until(0)

    def logs(self) -> dict[str, float]:
        """The mean loss of the epoch so far, and what the loss function logs."""
        return self._means.compute()

    def metrics(self) -> dict[str, Any]:
        """The metrics of the epoch so far. Waits for the device."""
        return self._step.tally.compute()

    def validates_later(self, name: str) -> bool:
        """Whether a value of the validation is missing only because this epoch has none."""
        due = not self.epoch % self._validate_every
        return name.startswith("val_") and self._val_data is not None and not due

    def call(self, event: str, *args: Any) -> None:
        """Call a method of every callback."""
        for callback in self._callbacks:
            getattr(callback, event)(self, *args)

    def items(self) -> dict[str, Any]:
        """What a checkpoint of this training consists of, by name."""
        items = {"model": self.model, "optimizer": self.optimizer, "fit": self}
        if self.scheduler is not None:
            items["scheduler"] = self.scheduler
        if self.scaler is not None:
            items["scaler"] = self.scaler
        return items

    # --- the loop ---

    def run(self) -> None:
        """Train until the history has as many epochs as were asked for."""
        try:
            self.call("on_fit_start")
            while len(self.history) < self.epochs and self.stopped is None:
                self._epoch()
        except BaseException as error:
            self.failed = True
            self._settle()
            self.call("on_exception", error)
            raise
        finally:
            self._data.close(rewind=True)
            if self._val_data is not None:
                self._val_data.close()
            self.call("on_fit_end")

    def _epoch(self) -> None:
        resumed, self._resumed = self._resumed, None
        used = 0
        self.epoch = len(self.history) + 1
        if resumed is None or not resumed["batch"]:
            self._step.tally.begin_epoch()
            self._means = Means()
            self.batch, self.samples, self.seconds = 0, 0, 0.0
        else:
            used = self.batch
        self.call("on_epoch_start")
        begin = time.perf_counter() - self.seconds
        batches = self._data.epoch(
            self.epoch,
            used=used,
            resumed=resumed is not None,
            position=None if resumed is None else resumed["data"],
        )
        for (batch, position), last in _with_last(batches, ahead=self._accumulate > 1):
            stepped = self._start(batch, last)
            self._position = position
            self.seconds = time.perf_counter() - begin
            if stepped:
                self.call("on_step_end")
                if self.stopped is not None:
                    break
        self.drain()
        self.seconds = time.perf_counter() - begin
        self._finish_epoch()

    def _finish_epoch(self) -> None:
        row: dict[str, Any] = {"epoch": self.epoch, "step": self.history.step}
        row |= self.logs() | self.metrics()
        if self._val_data is not None and not self.epoch % self._validate_every:
            row |= self._validate()
        if "lr" in self.used_options[0]:
            row["lr"] = float(self.used_options[0]["lr"])
        row["seconds"] = self.seconds
        row["samples_per_second"] = self.samples / max(self.seconds, 1e-9)
        if self.scheduler is not None and not self._per_step:
            self._schedule(row)
        self.history.record_epoch(row)
        self.batch = 0
        self.call("on_epoch_end", self.history.epochs[-1])

    def _validate(self) -> dict[str, Any]:
        assert self._val_data is not None
        self.call("on_validation_start")
        found = validate(self._validation, self._val_data.epoch(self.epoch))
        logs = {f"val_{name}": value for name, value in found.items()}
        self.call("on_validation_end", logs)
        return logs

    def _schedule(self, row: Mapping[str, Any]) -> None:
        if not takes_metrics(self.scheduler):
            self.scheduler.step()
        elif self._monitor in row:
            self.scheduler.step(row[self._monitor])
        elif not self.validates_later(self._monitor):
            raise KeyError(
                f"the scheduler waits for {self._monitor!r}, but the epoch has {', '.join(row)}: pass monitor="
            )

    def _start(self, batch: Any, last: bool) -> bool:
        """Start a step; whether it was an optimizer's, and not only one that collects gradients."""
        stepped = last or (self.batch + 1) % self._accumulate == 0
        self._note_shape(batch)
        options, schedule = self._options(), None
        if self._per_step:
            schedule = copy.deepcopy(self.scheduler.state_dict())
        compiled = self._step.run if stepped else self._step.collect
        report, logs, names = compiled(batch)
        number = self._read_count + len(self._pending)
        self._pending.append(
            _Started(number, report, logs, names, batch, stepped, options, schedule)
        )
        self.batch += 1
        self.samples += batch_size(batch)
        if stepped:
            self.used_options = options
            self.step += 1
            if self._per_step:
                self.scheduler.step()
                self._scheduled += 1
        self._read_until(LAG)
        return stepped

    def _note_shape(self, batch: Any) -> None:
        if not self._shapes:
            self._step.settle(batch)
        if len(self._shapes) > _SHAPES:
            return
        leaves, structure = jax.tree.flatten(batch)
        self._shapes.add((structure, *((leaf.shape, leaf.dtype) for leaf in leaves)))
        if len(self._shapes) > _SHAPES:
            warnings.warn(
                f"batches came in more than {_SHAPES} different shapes, and the step is compiled for each: pad them "
                "to a few lengths",
                stacklevel=6,
            )

    def _options(self) -> list[dict[str, Any]]:
        groups = self.optimizer.param_groups
        return [{k: v for k, v in group.items() if k != "params"} for group in groups]

    # --- results ---

    def _read_until(self, left: int) -> None:
        """Read the results of the oldest steps, until no more than ``left`` are under way."""
        while len(self._pending) > left:
            if self._pending[0].number >= self._read_count:  # unless an interrupt came right here
                self._read(self._pending[0])
            self._pending.popleft()

    def _read(self, started: _Started) -> None:
        loss, count, ok = (float(v) for v in np.asarray(started.report))
        if not ok:
            raise self._diverged(started, loss)
        self._read_count += 1
        values = {"loss": loss}
        if started.names:
            values |= zip(started.names, map(float, np.asarray(started.logs)), strict=True)
        self._means.add(count, values)
        self._group.append((count, values))
        if not started.stepped:
            return
        means = Means()
        for weight, values in self._group:
            means.add(weight, values)
        self._group = []
        self.history.step += 1
        logs = means.compute()
        if "lr" in started.options[0]:
            logs["lr"] = float(started.options[0]["lr"])
        # What the step logs does not hide a learning rate that a callback records.
        recorded = {name: value for name, value in logs.items() if name != "lr"}
        self.history.record_step(self.history.step, **recorded)
        self.call("on_step_logs", self.history.step, logs)

    def _diverged(self, started: _Started, loss: float) -> NonFiniteError:
        """The error; the schedule goes back to where it was before the step, as the model has."""
        self._restore(started)
        self._pending.clear()
        self.step = self.history.step
        return diverged(
            self.model,
            self._step.loss_fn,
            started.batch,
            loss=loss,
            epoch=self.epoch,
            step=self.step + 1,
        )

    def _restore(self, started: _Started) -> None:
        if started.schedule is not None:
            self.scheduler.load_state_dict(started.schedule)
            for group, options in zip(self.optimizer.param_groups, started.options, strict=True):
                for name, value in options.items():
                    if group[name] is not value:
                        group[name] = value

    def _settle(self) -> None:
        """After an exception: let the history have exactly the steps that the model has had."""
        callbacks, self._callbacks = self._callbacks, []  # they are not to fail once more
        with suppress(Exception):  # where the device itself failed, nothing can be read
            tally = self._step.tally
            batches, steps = (int(count) for count in np.asarray(tally.counts.data))
            # An interrupt may come after a step ran and before its result was noted.
            number = self._read_count + len(self._pending)
            if batches > number:
                report = np.asarray(tally.report.data)
                stepped = self._base + steps > self.step
                self._pending.append(
                    _Started(number, report, None, {}, None, stepped, self._options(), None)
                )
            while self._per_step and self._scheduled < steps:
                self.scheduler.step()
                self._scheduled += 1
            while self._pending and self._pending[0].number < batches:
                self._read_until(len(self._pending) - 1)
            if self._pending:  # not finite: neither the model nor the schedule has moved
                self._restore(self._pending[0])
            self.history.step = self._base + steps
        self._pending.clear()
        self._callbacks = callbacks
        self.step = self.history.step
        self.history.forget_after(self.step)

    # --- checkpoints ---

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands: epoch, batch, history, sums, position of the data, callbacks."""
        self.drain()
        callbacks: dict[str, Any] = {}
        for name, callback in self._named_callbacks():
            if state := callback.state_dict():
                callbacks[name] = state
        return {
            "batch": self.batch,
            "samples": self.samples,
            "seconds": self.seconds,
            "history": self.history.state_dict(),
            "means": {name: list(total) for name, total in self._means.sums.items()},
            "tally": self._step.tally.state_dict() if self.batch else {},
            "options": [_savable(group) for group in self.used_options],
            "callbacks": callbacks,
            "data": self._position if self.batch else self._data.position,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Args:
            state_dict: that of another training with the same arguments.
        """
        missing = set(self.state_dict()) - set(state_dict)
        if missing:
            raise StateDictError(
                f"this is not the state of a training: it lacks {', '.join(sorted(missing))}"
            )
        self.history.load_state_dict(state_dict["history"])
        self.step = self._base = self.history.step
        self.epoch = len(self.history)
        self.batch, self.samples = int(state_dict["batch"]), int(state_dict["samples"])
        self.seconds = float(state_dict["seconds"])
        self._means.sums = {n: [float(s), float(w)] for n, (s, w) in state_dict["means"].items()}
        self._step.tally.load_state_dict(dict(state_dict["tally"]))
        self.used_options = [dict(group) for group in state_dict["options"]]
        self._resumed = {"batch": self.batch, "data": state_dict["data"]}
        states = dict(state_dict["callbacks"])
        for name, callback in self._named_callbacks():
            if name in states:
                callback.load_state_dict(states.pop(name))
        if states:
            warnings.warn(
                f"the checkpoint has the state of {', '.join(states)}, and there is no such callback now",
                stacklevel=2,
            )

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """By the names of their classes, numbered where there are several."""
        seen: dict[str, int] = {}
        for callback in self._callbacks:
            name = type(callback).__name__
            seen[name] = seen.get(name, 0) + 1
            yield name if seen[name] == 1 else f"{name}_{seen[name]}", callback


def _with_last(batches: Iterator[Any], *, ahead: bool) -> Iterator[tuple[Any, bool]]:
    """Every batch, and whether it is the last one; known only by looking one ahead."""
    if not ahead:
        yield from ((batch, False) for batch in batches)
        return
    held = next(batches)  # there is one, or Batches has raised
    for batch in batches:
        yield held, False
        held = batch
    yield held, True


def _savable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options of a parameter group that are numbers."""
    return {name: value for name, value in options.items() if isinstance(value, (int, float))}


def takes_metrics(scheduler: Any) -> bool:
    """Whether a scheduler looks at a value, as ``ReduceLROnPlateau`` does."""
    step: Callable[..., Any] = type(scheduler).step
    code = getattr(step, "__code__", None)
    return code is not None and "metrics" in code.co_varnames[: code.co_argcount]
