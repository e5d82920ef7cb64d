"""What a training recorded: one row an epoch, one value a step."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from funcnets._args import describe, optional
from funcnets.core.printing import rich_text
from funcnets.errors import ArgumentError, StateDictError

__all__ = ["History"]

#: What an epoch's row tells about itself rather than about the model.
_ABOUT = ("epoch", "step", "seconds", "samples_per_second")


class History:
    """The losses, metrics and learning rates of a training; :func:`fit` returns one.

    ``history["val_loss"]`` is a list with a value for every finished epoch that has one, and
    ``history.epochs`` the rows. ``history.steps("loss")`` gives the value after every optimizer step.
    An epoch that was interrupted has its steps here, and no row.

    Examples:
        >>> import numpy as np
        >>> from funcnets import nn, optim, train
        >>> model = nn.Linear(2, 1)
        >>> batches = [(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32))] * 3
        >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
        >>> history = train.fit(model, optimizer, nn.MSELoss(), batches, epochs=2, progress=False)
        >>> len(history), history.step, history["loss"][1] < history["loss"][0]
        (2, 6, True)
    """

    def __init__(self) -> None:
        #: The rows: a dict of numbers for every finished epoch.
        self.epochs: list[dict[str, Any]] = []
        #: Optimizer steps so far.
        self.step = 0
        self._steps: dict[str, tuple[array[int], array[float]]] = {}

    # --- reading ---

    def __len__(self) -> int:
        """Finished epochs."""
        return len(self.epochs)

    @property
    def names(self) -> list[str]:
        """What the rows hold."""
        return list(dict.fromkeys(name for row in self.epochs for name in row))

    def __contains__(self, name: object) -> bool:
        return any(name in row for row in self.epochs)

    def __getitem__(self, name: str) -> list[Any]:
        """The values of one column, of the epochs that have one."""
        if name not in self:
            raise KeyError(
                f"the history has no {name!r}; it has {', '.join(self.names) or 'no epoch yet'}"
            )
        return [row[name] for row in self.epochs if name in row]

    def steps(self, name: str = "loss") -> tuple[np.ndarray, np.ndarray]:
        """A value after every optimizer step.

        Args:
            name: ``"loss"``, a name that the loss function logs, or what a callback recorded.

        Returns:
            The numbers of the steps, from 1, and the values.
        """
        if name not in self._steps:
            raise KeyError(
                f"no {name!r} was recorded per step; there is {', '.join(self._steps) or 'nothing'}"
            )
        numbers, values = self._steps[name]
        return np.array(numbers, np.int64), np.array(values, np.float64)

    def best(self, name: str = "val_loss", mode: str = "min") -> dict[str, Any]:
        """The row of the epoch with the best value.

        Args:
            name: the column.
            mode: ``"min"`` or ``"max"``.

        Returns:
            The first row with the smallest or largest value; NaN never counts as best.
        """
        if mode not in ("min", "max"):
            raise ArgumentError(f"mode must be 'min' or 'max', but got {mode!r}")
        self[name]  # or the error that lists the names
        sign = 1 if mode == "min" else -1

        def rank(row: dict[str, Any]) -> float:
            value = float(row[name])
            return np.inf if np.isnan(value) else sign * value

        return min((row for row in self.epochs if name in row), key=rank)

    # --- writing ---

    def record_step(self, step: int, **values: float) -> None:
        """Add values of an optimizer step.

        Args:
            step: its number, from 1.
            **values: the values by name.
        """
        for name, value in values.items():
            numbers, column = self._steps.setdefault(name, (array("q"), array("d")))
            numbers.append(step)
            column.append(float(value))

    def forget_after(self, step: int) -> None:
        """Drop the values of steps that were not made after all.

        Args:
            step: the last one that was.
        """
        for numbers, column in self._steps.values():
            while numbers and numbers[-1] > step:
                numbers.pop()
                column.pop()

    def record_epoch(self, row: Mapping[str, Any]) -> None:
        """Add the row of a finished epoch.

        Args:
            row: numbers (or arrays) by name.
        """
        self.epochs.append(dict(row))

    # --- saving ---

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint: numbers and NumPy arrays by name."""
        steps = {
            name: {"step": np.array(numbers, np.int64), "value": np.array(values, np.float64)}
            for name, (numbers, values) in self._steps.items()
        }
        return {"step": self.step, "epochs": [dict(row) for row in self.epochs], "steps": steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, in place of what is here.

        Args:
            state_dict: what another history's ``state_dict`` returned.

        Raises:
            StateDictError: it is something else; nothing has changed then.
        """
        if not isinstance(state_dict, Mapping) or set(state_dict) != {"step", "epochs", "steps"}:
            came = list(state_dict) if isinstance(state_dict, Mapping) else describe(state_dict)
            raise StateDictError(
                f"the state of a History has the entries step, epochs and steps, but got {came}"
            )
        try:
            rows = [{str(k): _number(v) for k, v in row.items()} for row in state_dict["epochs"]]
            steps = {
                str(name): (
                    array("q", np.asarray(column["step"]).astype(int).tolist()),
                    array("d", np.asarray(column["value"]).astype(float).tolist()),
                )
                for name, column in state_dict["steps"].items()
            }
            step = int(state_dict["step"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateDictError(f"the state of a History is damaged: {error}") from None
        self.step, self.epochs, self._steps = step, rows, steps

    # --- showing ---

    def plot(self, *names: str, ax: Any = None, log: bool | None = None) -> Any:
        """Draw curves over the epochs, each with its ``val_`` counterpart.

        The training loss is also drawn step by step, lightly: the value of a row is the mean over an epoch
        in which the model was changing.

        Args:
            *names: the columns; the loss if none is given.
            ax: a matplotlib ``Axes`` to draw into; a new figure without it.
            log: whether the vertical axis is logarithmic; by default where only losses are shown that
                are positive and span more than a factor of 30.

        Returns:
            The matplotlib ``Axes``.

        Raises:
            MissingExtraError: matplotlib is not installed.
            ArgumentError: there is nothing of that name, or nothing that can be drawn as a curve.
        """
        if ax is None:
            ax = optional("matplotlib.pyplot", "plot", "history.plot()").subplots(
                figsize=(6.4, 4.0), layout="constrained"
            )[1]
        wanted = names or ("loss",)
        drawn: list[Any] = []
        for name in wanted:
            if name not in self and name not in self._steps:
                raise ArgumentError(
                    f"the history has no {name!r} to plot; it has {', '.join(self.names) or 'no epoch yet'}"
                )
            twins = [name] if name.startswith("val_") else [name, f"val_{name}"]
            color = None
            if name in self._steps:
                positions, values = self._over_epochs(name)
                (line,) = ax.plot(positions, values, alpha=0.3, linewidth=0.8)
                line.set_label(None if name in self else name)
                color = line.get_color()
                drawn.append(values)
            for column in (twin for twin in twins if twin in self):
                rows = [row for row in self.epochs if column in row]
                values = [row[column] for row in rows]
                if np.ndim(values[0]):
                    raise ArgumentError(
                        f"{column!r} is {describe(values[0])} in every epoch: only numbers make a curve"
                    )
                shade = color if column == name else None
                marker = "o" if len(rows) < 30 else None
                x = [row["epoch"] for row in rows]
                ax.plot(x, values, label=column, color=shade, marker=marker, markersize=3)
                drawn.append(np.asarray(values, float))
        ax.set_xlabel("epoch")
        ax.set_ylabel(wanted[0] if len(wanted) == 1 else "value")
        every = np.concatenate([values[np.isfinite(values)] for values in drawn])
        if log is None:
            losses = all("loss" in name for name in wanted)
            log = bool(losses and every.size and every.min() > 0 < every.max() / every.min() - 30)
        if log:
            ax.set_yscale("log")
        ax.grid(alpha=0.25)
        ax.legend()
        return ax

    def _over_epochs(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The values per step over the fraction of epochs that had passed by then."""
        numbers, values = self.steps(name)
        ends = np.array([0, *(row.get("step", 0) for row in self.epochs)], float)
        epochs = np.array([0, *(row["epoch"] for row in self.epochs)], float)
        beyond = numbers > ends[-1]
        positions = np.interp(numbers, ends, epochs)
        if beyond.any():  # of an epoch that has no row (yet)
            length = ends[-1] - ends[-2] if len(ends) > 1 else beyond.sum()
            positions[beyond] = epochs[-1] + (numbers[beyond] - ends[-1]) / max(length, 1)
        return positions, values

    def _repr_html_(self) -> str | None:
        return rich_text(self)

    def __repr__(self) -> str:
        head = f"History: {len(self)} epochs, {self.step} steps"
        if not self.epochs:
            return head
        names = [
            name
            for name in self.names
            if name not in _ABOUT[1:] and all(np.ndim(row.get(name, 0)) == 0 for row in self.epochs)
        ]
        shown = list(enumerate(self.epochs))
        rows = [[_text(row.get(name)) for name in names] for _, row in shown]
        if len(rows) > 12:
            rows = [*rows[:5], ["..."] * len(names), *rows[-5:]]
        widths = [max(map(len, column)) for column in zip(names, *rows)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in [names, *rows]
        ]
        return "\n".join([head, *lines])


def _number(value: Any) -> Any:
    """A number or an array, as it was before it went through a file."""
    array_ = np.asarray(value)
    return array_ if array_.ndim else array_.item()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
