"""The progress of a training, shown where it runs: a bar in a terminal or a notebook, lines in a log."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnets._args import choice, optional
from funcnets.errors import MissingExtraError
from funcnets.train.callbacks import Callback

if TYPE_CHECKING:
    from funcnets.train.run import Run

__all__ = ["Progress"]

#: How often a display changes, and how often a log within an epoch gets a line, in seconds.
_REFRESH = {"bar": 0.1, "notebook": 0.25, "plain": 60.0}


class Progress(Callback):
    """Shows epoch, loss, metrics, samples per second and the time that is left; ``fit`` adds one itself.

    A terminal has a bar, and a line for every finished epoch. A notebook has the same in its output cell,
    and needs no widgets for it. Everywhere else there are plain lines, without any control
    character: one for an epoch, and one for every minute of a long one.

    Args:
        kind: ``"auto"``, ``"bar"`` (rich, in a terminal), ``"notebook"`` or ``"plain"``.
        file: where to write; standard output if it is None.
        metrics: whether metrics are computed for the running epoch, too. That waits for the device,
            at most ten times a second.

    Raises:
        MissingExtraError: ``"bar"`` without rich, ``"notebook"`` without IPython.

    Examples:
        >>> from funcnets import train
        >>> train.Progress("plain").kind
        'plain'
    """

    def __init__(self, kind: str = "auto", *, file: Any = None, metrics: bool = True) -> None:
        choice("kind", kind, ("auto", "bar", "notebook", "plain"))
        self._file = file
        self._metrics = metrics
        #: What is used: ``"bar"``, ``"notebook"`` or ``"plain"``.
        self.kind = _kind(file) if kind == "auto" else kind
        if self.kind == "bar":
            optional("rich.progress", "train", "a progress bar")
        self._shown: Any = None
        self._meter = _Meter()
        self._last = 0.0

    # --- events ---

    def on_epoch_start(self, run: Run) -> None:
        """Begin a bar."""
        self._begin(f"epoch {run.epoch}/{run.epochs}", run.batches)

    def on_step_end(self, run: Run) -> None:
        """Move the bar."""
        self._move(run, run.batch, run.samples)

    def on_validation_start(self, run: Run) -> None:
        """Say so."""
        if self.kind != "plain":
            self._show(f"epoch {run.epoch}/{run.epochs}", None, "validation")

    def on_epoch_end(self, run: Run, logs: Mapping[str, Any]) -> None:
        """Replace the bar by a line."""
        width = len(str(run.epochs))
        parts = [f"epoch {run.epoch:{width}d}/{run.epochs}", *_values(logs)]
        parts.append(f"{_rate(logs['samples_per_second'])}  {_duration(logs['seconds'])}")
        self._line("  ".join(parts))

    def on_exception(self, run: Run, error: BaseException) -> None:
        """Say where it ended."""
        self._line(
            f"stopped in epoch {run.epoch}/{run.epochs} after step {run.history.step}: {type(error).__name__}"
        )

    def on_fit_end(self, run: Run) -> None:
        """Take the bar away."""
        if self.kind == "bar" and self._shown is not None:
            self._shown.stop()
        self._shown = None
        if run.stopped is not None and not run.failed:
            self._line(f"stopped after epoch {run.epoch}: {run.stopped}")

    # --- what is shown ---

    def _begin(self, title: str, total: int | None) -> None:
        self._meter = _Meter()
        self._last = time.perf_counter()
        if self.kind != "plain":
            self._show(title, 0.0 if total else None, "")

    def _move(self, run: Run, batches: int, samples: int) -> None:
        now = time.perf_counter()
        self._meter.move(now, samples)
        if now - self._last < _REFRESH[self.kind]:
            return
        values = run.logs()
        if self._metrics:
            values |= run.metrics()
        # The clock starts again when this is done, so that showing never takes most of the time.
        self._last = time.perf_counter()
        total = run.batches
        text = [*_values(values), _rate(self._meter.rate)]
        if total and self._meter.rate:
            left = (total - batches) / max(batches, 1) * samples / self._meter.rate
            text.append(f"{_duration(left)} left")
        part = batches / total if total else None
        of = f"{batches}/{total}" if total else f"{batches}"
        self._show(f"epoch {run.epoch}/{run.epochs}", part, "  ".join([of, *text]))

    def _show(self, title: str, part: float | None, text: str) -> None:
        if self.kind == "plain":
            self._write(f"{title}  {text}")
        elif self.kind == "bar":
            self._rich().update(
                self._task, description=title, total=1.0 if part is not None else None, text=text
            )
            self._rich().update(self._task, completed=part or 0.0)
        else:
            bar = "" if part is None else f"[{'#' * int(20 * part):<20}]  "
            self._display(f"{title}  {bar}{text}")

    def _line(self, text: str) -> None:
        """A line that stays."""
        if self.kind == "bar" and self._shown is not None:
            self._shown.console.print(text, markup=False, highlight=False, soft_wrap=True)
            self._shown.update(self._task, text="")
        elif self.kind == "notebook":
            self._display(text)
            self._shown = None  # the next one is another output
        else:
            self._write(text)

    def _write(self, text: str) -> None:
        print(text, file=sys.stdout if self._file is None else self._file, flush=True)

    def _rich(self) -> Any:
        if self._shown is None:
            rich = optional("rich.progress", "train", "a progress bar")
            console = optional("rich.console", "train", "a progress bar").Console(file=self._file)
            columns = (
                rich.TextColumn("{task.description}"),
                rich.BarColumn(bar_width=20),
                rich.TextColumn("{task.fields[text]}", markup=False),
            )
            self._shown = rich.Progress(*columns, console=console, transient=True)
            self._task = self._shown.add_task("", total=None, text="")
            self._shown.start()
        return self._shown

    def _display(self, text: str) -> None:
        content = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
        if self._shown is None:
            display = optional("IPython.display", "notebooks", "a progress display in a notebook")
            self._shown = display.display(content, raw=True, display_id=True)
        else:
            self._shown.update(content, raw=True)


class _Meter:
    """Samples per second: the average of the last seconds, not counting the first step's compilation."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def move(self, now: float, samples: int) -> None:
        self._marks.append((now, samples))
        if len(self._marks) > 64 or now - self._marks[0][0] > 10:
            del self._marks[: max(len(self._marks) - 32, 0)]

    @property
    def rate(self) -> float:
        if len(self._marks) < 2:
            return 0.0
        (begin, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(end - begin, 1e-9)


def _kind(file: Any) -> str:
    """What fits the place where the output goes."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if file is None and getattr(shell, "kernel", None) is not None:
        return "notebook"
    stream = sys.stdout if file is None else file
    if not getattr(stream, "isatty", lambda: False)():
        return "plain"
    try:
        optional("rich.progress", "train", "a progress bar")
    except MissingExtraError:
        return "plain"
    return "bar"


def _values(logs: Mapping[str, Any]) -> list[str]:
    """Loss and metrics as ``name value``; what is an array has its place in the history only."""
    about = ("epoch", "step", "seconds", "samples_per_second", "lr")
    return [
        f"{name} {float(value):.4g}"
        for name, value in logs.items()
        if name not in about and np.ndim(value) == 0
    ]


def _rate(samples_per_second: float) -> str:
    if not samples_per_second:
        return "- samples/s"
    digits = 0 if samples_per_second >= 10 else 2
    return f"{samples_per_second:,.{digits}f} samples/s"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
