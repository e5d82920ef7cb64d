"""TensorBoard event files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from funcnets._args import optional, positive
from funcnets.train.callbacks import Callback

if TYPE_CHECKING:
    from funcnets.train.run import Run

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Write losses, metrics, learning rates and, if asked, histograms, for TensorBoard to show.

    Per step: ``step/loss``, ``step/lr`` and what the loss function logs, over the number of the step. Per
    epoch: every number of the history's row, ``epoch/loss``, ``epoch/val_loss``, ..., over the number of the
    epoch. Histograms are called ``parameters/<name>``.

    Args:
        log_dir: the directory of the run; other runs beside it are compared with it.
        every: how many steps lie between two values per step; 0 for none.
        histograms: after how many epochs the parameters are written as histograms; 0 for never.

    Raises:
        MissingExtraError: tensorboardX is not installed.

    Examples:
        >>> from funcnets import train
        >>> callback = train.TensorBoard("runs/first", every=10)

    References:
        torch.utils.tensorboard.SummaryWriter
    """

    def __init__(
        self, log_dir: str | os.PathLike[str], *, every: int = 1, histograms: int = 0
    ) -> None:
        self.log_dir = os.fspath(log_dir)
        self.every = positive("every", every, minimum=0)
        self.histograms = positive("histograms", histograms, minimum=0)
        self._module = optional("tensorboardX", "tensorboard", "TensorBoard")
        self.writer: Any = None

    def on_fit_start(self, run: Run) -> None:
        """Open the file. What an earlier, killed run wrote beyond the checkpoint is hidden."""
        resumed = {"purge_step": run.history.step + 1} if run.history.step else {}
        self.writer = self._module.SummaryWriter(self.log_dir, **resumed)

    def on_step_logs(self, run: Run, step: int, logs: Mapping[str, float]) -> None:
        """Write the values of a step."""
        if self.every and step % self.every == 0:
            for name, value in logs.items():
                self.writer.add_scalar(f"step/{name}", value, step)

    def on_epoch_end(self, run: Run, logs: Mapping[str, Any]) -> None:
        """Write the row of the epoch, and see that it is in the file."""
        for name, value in logs.items():
            if name != "epoch" and np.ndim(value) == 0:
                self.writer.add_scalar(f"epoch/{name}", float(value), run.epoch)
        if self.histograms and run.epoch % self.histograms == 0:
            for name, parameter in run.model.named_parameters():
                values = np.asarray(jnp.asarray(parameter.data, jnp.float32)).ravel()
                if values.size and np.isfinite(values).all():
                    self.writer.add_histogram(f"parameters/{name}", values, run.epoch)
        self.writer.flush()

    def on_fit_end(self, run: Run) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
        self.writer = None
