"""The callback that saves checkpoints, and going on from one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from funcnets._args import describe, positive
from funcnets.errors import ArgumentError, DTypeError
from funcnets.train.callbacks import Callback, Monitor
from funcnets.train.checkpoints import CheckpointManager

if TYPE_CHECKING:
    from funcnets.train.run import Run

__all__ = ["Checkpoint", "resume_from"]


class Checkpoint(Callback):
    """Save the whole training while it runs, so that it can be resumed.

    That is: the model, the optimizer, the schedule, the scaler, the random stream, the history, the position in
    the data, and the state of the callbacks.

    ``fit(..., callbacks=[Checkpoint(directory)], resume=True)`` goes on from the newest one, if there is one,
    and ends with the parameters of a training that was never interrupted, bit for bit; for checkpoints within
    an epoch the data must be able to say where it is (``state_dict()``, as ``train.ArrayLoader`` and
    torchdata's loaders have it, or ``get_state()`` as grain's iterators) or come in the same order again.

    Args:
        directory: where they are saved; or a :class:`CheckpointManager`.
        every_epochs: after how many epochs to save; 0 for not at the end of epochs.
        every_steps: after how many optimizer steps to save, within epochs too; 0 for never.
        keep: how many of the last are kept; None for all.
        keep_best: how many of the best epochs are kept besides. Checkpoints within an epoch are never best.
        monitor: the column of the history that says which is best.
        mode: ``"min"``, ``"max"``, or ``"auto"`` (accuracies and their like rise, all else falls).

    Raises:
        ArgumentError: nothing is ever saved, or the options are given with a manager, which has its own.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from funcnets import nn, optim, train
        >>> model, folder = nn.Linear(2, 1), tempfile.TemporaryDirectory()
        >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
        >>> batches = [(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))] * 3
        >>> saving = train.Checkpoint(folder.name)
        >>> options = {"callbacks": [saving], "progress": False}
        >>> _ = train.fit(model, optimizer, nn.MSELoss(), batches, epochs=2, **options)
        >>> saving.manager.steps
        [3, 6]
        >>> history = train.fit(
        ...     model, optimizer, nn.MSELoss(), batches, epochs=3, resume=True, **options
        ... )
        >>> len(history), history.step
        (3, 9)
        >>> folder.cleanup()
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | CheckpointManager,
        *,
        every_epochs: int = 1,
        every_steps: int = 0,
        keep: int | None = 3,
        keep_best: int = 0,
        monitor: str | None = None,
        mode: str = "auto",
    ) -> None:
        self.every_epochs = positive("every_epochs", every_epochs, minimum=0)
        self.every_steps = positive("every_steps", every_steps, minimum=0)
        if not every_epochs and not every_steps:
            raise ArgumentError("every_epochs and every_steps are both 0: nothing would be saved")
        if isinstance(directory, CheckpointManager):
            if (keep, keep_best, monitor, mode) != (3, 0, None, "auto"):
                raise ArgumentError(
                    "keep, keep_best, monitor and mode belong to the CheckpointManager: give them to that"
                )
            self.manager = directory
        else:
            best = Monitor(monitor, mode).mode if monitor is not None else "min"
            self.manager = CheckpointManager(
                directory,
                keep=keep,
                keep_best=keep_best,
                monitor=monitor,
                mode=best,  # pyright: ignore[reportArgumentType]
            )

    def on_step_end(self, run: Run) -> None:
        """Save, if it is time. Waits for the steps under way, not for the disk."""
        if self.every_steps and run.step % self.every_steps == 0:
            self._save(run, None)

    def on_epoch_end(self, run: Run, logs: Mapping[str, Any]) -> None:
        """Save, if it is time."""
        if self.every_epochs and run.epoch % self.every_epochs == 0:
            self._save(run, logs)

    def _save(self, run: Run, logs: Mapping[str, Any] | None) -> None:
        run.drain()
        monitor = self.manager.monitor
        metrics = None
        # Without its number a checkpoint is never the best; one that ought to have it raises.
        if monitor is not None and logs is not None and not self._excused(run, monitor, logs):
            metrics = {monitor: Monitor(monitor).value("Checkpoint", logs)}
        self.manager.save(run.history.step, run.items(), metrics=metrics)

    @staticmethod
    def _excused(run: Run, monitor: str, logs: Mapping[str, Any]) -> bool:
        return monitor not in logs and run.validates_later(monitor)

    def on_fit_end(self, run: Run) -> None:
        """Wait until what was saved is on the disk."""
        self.manager.wait()


def resume_from(run: Run, resume: Any, callbacks: list[Callback]) -> None:
    """Read a checkpoint into everything that belongs to ``run``, if there is one.

    Args:
        run: the training.
        resume: True for that of the ``Checkpoint`` callback, or a manager, or a directory.
        callbacks: the callbacks.

    Raises:
        ArgumentError: True, and there is no such callback.
        CheckpointError: the checkpoint is damaged or of something else.
    """
    if resume is True:
        saving = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
        if not saving:
            raise ArgumentError(
                "resume=True goes on from the checkpoints of a train.Checkpoint callback, and there is none: add "
                "one, or pass resume=directory"
            )
        manager = saving[0].manager
    elif isinstance(resume, CheckpointManager):
        manager = resume
    elif isinstance(resume, (str, os.PathLike)):
        manager = CheckpointManager(resume)
    else:
        raise DTypeError(
            f"resume must be True, a directory or a CheckpointManager, but got {describe(resume)}"
        )
    if manager.latest is not None:
        manager.restore(run.items())
