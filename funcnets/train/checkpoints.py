"""Training checkpoints: everything that a run needs to go on, written by orbax beside the training.

``CheckpointManager`` keeps the last checkpoints of a run and the best ones in one directory. A run that is
killed and resumed is bit for bit the run that was not: parameters, buffers, optimizer, schedule, the
random stream of ``manual_seed``, and whatever else it is given are saved as one, at one moment.
``funcnets.io`` is for single files, without a history.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import threading
import time
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import jax
import numpy as np

from funcnets._args import choice, describe, positive
from funcnets.core.version import step_lock
from funcnets.errors import (
    ArgumentError,
    CheckpointError,
    DTypeError,
    UnsupportedError,
)
from funcnets.train import _store as store
from funcnets.train._items import rng_state, take_item
from funcnets.train._restore import Restored, restore_from

__all__ = ["CheckpointManager", "Restored"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TAKEN = (store.RECORD, "metrics", "rng")
#: A checkpoint that the one being written replaces, and one that is being deleted.
_REPLACED, _REMOVED = ".replaced", ".removed"


class CheckpointManager:
    """The checkpoints of one training run in one directory, saved in the background.

    What is saved is a dict of named things. A Module gives its parameters and all its buffers; whatever
    has ``state_dict`` and ``load_state_dict`` (an optimizer, a learning rate schedule, a ``GradScaler``, a
    loader), or ``get_state`` and ``set_state`` (an iterator of grain), gives its state; anything else is
    a value (numbers, texts, arrays, and dicts, lists, tuples and registered pytrees of them, such as the
    state of an optax transformation). The random stream of ``manual_seed`` is saved with them.

    ``save`` returns as soon as the values are held, and the training may go on and change them: writing, and
    deleting old checkpoints, happens in the background. A checkpoint appears under its name when it is
    complete, so a process may be killed at any time. At the end of the program, or of a ``with`` block, what
    has begun is finished.

    The program is not saved: layers, modes, ``requires_grad``, data. It builds them again as they were, and
    then restores.

    "Last" means saved last. A run that goes on from an earlier checkpoint may save a step again; the
    new one takes the place of the old one when it is complete.

    Args:
        directory: where they are, one directory for each step; made with the first checkpoint.
        keep: how many of the last are kept; None for all.
        keep_best: how many of the best are kept besides.
        monitor: the metric that says which is best.
        mode: whether the ``"min"`` or the ``"max"`` of it is best. NaN never is.

    Raises:
        ArgumentError: an option that cannot be.
        MissingExtraError: orbax is not installed.

    Examples:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from funcnets import nn, optim, train
        >>> model = nn.Linear(2, 1)
        >>> optimizer = optim.Adam(model.parameters())
        >>> folder = tempfile.TemporaryDirectory()
        >>> with train.CheckpointManager(folder.name, keep=2) as manager:
        ...     for step in (10, 20, 30):
        ...         manager.save(step, {"model": model, "optimizer": optimizer, "epoch": step // 10})
        >>> manager.steps
        [20, 30]
        >>> restored = manager.restore({"model": model, "optimizer": optimizer, "epoch": 0})
        >>> restored.step, restored.values
        (30, {'epoch': 3})
        >>> folder.cleanup()

    References:
        orbax.checkpoint.v1.training.Checkpointer; tf.train.CheckpointManager
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int | None = 3,
        keep_best: int = 0,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if "://" in os.fspath(directory):
            raise UnsupportedError(
                f"directory must be on a file system that renames, but is {os.fspath(directory)!r}: "
                "use orbax.checkpoint.v1 itself with model.state_dict()"
            )
        if keep is not None:
            positive("keep", keep)
        if positive("keep_best", keep_best, minimum=0) and monitor is None:
            raise ArgumentError(
                'keep_best needs the name of the metric that says which is best: monitor="val_loss"'
            )
        choice("mode", mode, ("min", "max"))
        store.orbax()
        self.directory = Path(os.path.abspath(os.path.expanduser(directory)))
        self.keep, self.keep_best, self.monitor, self.mode = keep, keep_best, monitor, mode
        self._writing: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._swept = False

    # --- what there is ---

    def _found(self) -> dict[int, Path]:
        """The directories that stand for a step, complete ones as far as names tell."""
        found: dict[int, Path] = {}
        for path in self.directory.glob("[0-9]*") if self.directory.is_dir() else ():
            number, dot, rest = path.name.partition(".")
            # What was to be replaced holds until the new one is there.
            replaced = f".{rest}" == _REPLACED and not (self.directory / number).exists()
            if number.isdecimal() and (not dot or replaced) and path.is_dir():
                found[int(number)] = path
        return found

    def _infos(self) -> dict[int, store.Info]:
        """The readable checkpoints by step, those saved first before those saved last."""
        infos = {step: store.read_info(path) for step, path in self._found().items()}
        known = {step: info for step, info in infos.items() if info is not None}
        return dict(sorted(known.items(), key=lambda row: (row[1].time, row[0])))

    def _order(self) -> list[int]:
        """All steps that have a directory, those saved first before those saved last.

        One that tells no time, as it is damaged or of others, counts as the last if its number is the
        highest, and else as one of the first.
        """
        infos = self._infos()
        dark, highest = sorted(self._found().keys() - infos.keys()), max(infos, default=-1)
        return [*(s for s in dark if s < highest), *infos, *(s for s in dark if s > highest)]

    def _ranked(self, infos: Mapping[int, store.Info]) -> list[int]:
        """The steps that have the monitored metric, the best first; of equal ones, the earlier."""
        sign = 1.0 if self.mode == "min" else -1.0
        scores = {
            s: sign * info.metrics.get(self.monitor or "", math.nan) for s, info in infos.items()
        }
        return sorted((s for s in scores if not math.isnan(scores[s])), key=scores.__getitem__)

    @property
    def steps(self) -> list[int]:
        """The steps that can be restored, in the order in which they were saved."""
        self.wait()
        return list(self._infos())

    @property
    def latest(self) -> int | None:
        """The step that ``restore`` takes, which was saved last; None if there is none.

        It may be damaged, which ``restore`` says: a run whose only checkpoint cannot be read must not
        begin anew in silence.
        """
        self.wait()
        return next(reversed(self._order()), None)

    @property
    def best(self) -> int | None:
        """The step with the best ``monitor``; None if no checkpoint has that metric."""
        self.wait()
        return next(iter(self._ranked(self._infos())), None)

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics that a checkpoint was saved with.

        Args:
            step: one of ``steps``.

        Returns:
            Numbers by name.
        """
        self.wait()
        return dict(store.read_record(self._path(step)).info.metrics)

    def _path(self, step: int) -> Path:
        return self._found().get(step, self.directory / str(step))

    # --- saving ---

    def save(
        self,
        step: int,
        items: Mapping[str, Any],
        *,
        metrics: Mapping[str, Any] | None = None,
        wait: bool = False,
    ) -> None:
        """Save everything as it is now.

        One checkpoint is written at a time: if the one before is not finished, this waits for it.

        Args:
            step: the number of steps (or epochs) done, which names the checkpoint.
            items: what to save, by name; see the class.
            metrics: numbers by name. Without them the checkpoint cannot be the best.
            wait: return when it is on the disk.

        Raises:
            DTypeError: something that cannot be saved; the message says where it is.
            ArgumentError: a name or number that cannot be, or ``metrics`` without ``monitor``.
            CheckpointError: the previous checkpoint could not be written.
        """
        step = positive("step", step, minimum=0)
        if jax.process_count() > 1:
            raise UnsupportedError(
                "CheckpointManager works in one process: with several, use orbax.checkpoint.v1 with "
                "model.state_dict()"
            )
        self._check_names(items)
        numbers = self._numbers(metrics)
        self.wait()
        with step_lock:  # no other thread's step comes between
            taken = {name: take_item(name, thing) for name, thing in items.items()}
            taken["rng"] = store.Taken({"kind": "rng", "state": rng_state()}, {})
        self._sweep()
        infos = self._infos()
        now = max([time.time_ns(), *(info.time + 1 for info in infos.values())])
        path = self.directory / str(step)
        if path.exists():
            _remove(path.with_name(path.name + _REPLACED))
            path.rename(path.with_name(path.name + _REPLACED))
        response = store.write(path, store.Info(step, now, numbers), taken)
        self._writing = threading.Thread(target=self._finish, args=(response, path), daemon=True)
        self._writing.start()
        _finish_at_exit(self)
        if wait:
            self.wait()

    def _check_names(self, items: Mapping[str, Any]) -> None:
        if not isinstance(items, Mapping) or not items:
            raise DTypeError(
                f'items must be a dict such as {{"model": model, "optimizer": optimizer}}, but got {describe(items)}'
            )
        for name in items:
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN:
                raise ArgumentError(
                    f"{name!r} cannot name an item: names are of letters, digits, _, . and -, and not one of "
                    f"{', '.join(_TAKEN)}"
                )

    def _numbers(self, metrics: Mapping[str, Any] | None) -> dict[str, float]:
        if metrics is None:
            return {}
        try:
            numbers = {str(name): float(np.asarray(value)) for name, value in metrics.items()}
        except (TypeError, ValueError, AttributeError):
            raise DTypeError(
                f"metrics must be numbers by name, but got {describe(metrics)}"
            ) from None
        if self.monitor is not None and self.monitor not in numbers:
            raise ArgumentError(
                f"metrics must have the monitored {self.monitor!r}, but has {', '.join(numbers) or 'nothing'}"
            )
        return numbers

    def _finish(self, response: Any, path: Path) -> None:
        """In the background: wait until the checkpoint is there, then delete what it makes superfluous."""
        try:
            response.result()
            _remove(path.with_name(path.name + _REPLACED))
            infos = self._infos()
            last = list(infos) if self.keep is None else list(infos)[-self.keep :]
            kept = {*last, *self._ranked(infos)[: self.keep_best]}
            for step in infos.keys() - kept:
                _remove(self._path(step))
        except BaseException as error:
            self._failure = error

    def _sweep(self) -> None:
        """Before the first checkpoint: take away what a killed process left behind."""
        if self._swept:
            return
        self._swept = True
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in self.directory.glob("[0-9]*.*"):
            number, _, rest = path.name.partition(".")
            if not number.isdecimal():
                continue
            there = (self.directory / number).exists()
            if f".{rest}" == _REPLACED and not there:
                path.rename(self.directory / number)
            elif f".{rest}" in (_REPLACED, _REMOVED) or rest.startswith("orbax-checkpoint-tmp"):
                shutil.rmtree(path)

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise CheckpointError(
                f"a checkpoint could not be written to {self.directory}: {type(failure).__name__}: {failure}"
            ) from failure

    def close(self) -> None:
        """Finish what has begun, as leaving a ``with`` block does."""
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def delete(self, step: int) -> None:
        """Delete a checkpoint.

        Args:
            step: its number.

        Raises:
            CheckpointError: there is none.
        """
        self.wait()
        path = self._path(step)
        if not path.is_dir():
            raise CheckpointError(f"there is no checkpoint at {path}")
        _remove(path)

    # --- restoring ---

    def restore(
        self,
        items: Mapping[str, Any] | None = None,
        *,
        step: int | Literal["latest", "best"] = "latest",
        strict: bool = True,
        fallback: bool = False,
    ) -> Restored:
        """Put everything back as it was when a checkpoint was saved, the random stream included.

        Either all of it is put back, or, if something does not fit, nothing has changed.

        Args:
            items: what to put back, by the names that it was saved under. For a value, an example whose
                structure, shapes and dtypes it is to have, or None. Without ``items`` nothing is changed, and
                everything comes back as plain states in ``values``.
            step: a number, the ``"latest"`` or the ``"best"``.
            strict: whether ``items`` and the checkpoint, and a module and its state, must have the same
                names. Shapes must agree in any case.
            fallback: if the checkpoint is damaged, warn and take the last good one saved before it.

        Returns:
            A ``Restored``: the step, its metrics, the values, and what ``strict=False`` skipped.

        Raises:
            CheckpointError: there is none, or it is truncated, damaged or none of funcnets'.
            StateDictError: it does not fit; the message lists everything that does not.
        """
        self.wait()
        if items is not None:
            self._check_names(items)
        errors: list[str] = []
        for path in self._candidates(step):
            try:
                return restore_from(path, items, strict)
            except CheckpointError as error:
                if not fallback:
                    raise
                errors.append(str(error))
                warnings.warn(f"{error.args[0]}", stacklevel=2)
        raise CheckpointError("no checkpoint could be read:\n\t" + "\n\t".join(errors))

    def _candidates(self, step: Any) -> list[Path]:
        """The wanted checkpoint, and then those that were saved before it, the last first."""
        found, infos, order = self._found(), self._infos(), self._order()
        if isinstance(step, str):
            choice("step", step, ("latest", "best"))
        if not found:
            raise CheckpointError(f"there is no checkpoint in {self.directory}")
        if step == "latest":
            return [found[s] for s in reversed(order)]
        if step == "best":
            ranked = self._ranked(infos)
            if not ranked:
                raise CheckpointError(
                    f"no checkpoint in {self.directory} has the metric {self.monitor!r} that says which is best"
                )
            return [found[s] for s in ranked]
        step = positive("step", step, minimum=0)
        if step not in found:
            listed = ", ".join(map(str, order))
            raise CheckpointError(
                f"there is no checkpoint {self.directory / str(step)}; there are {listed}"
            )
        return [found[s] for s in reversed(order[: order.index(step) + 1])]


def _remove(path: Path) -> None:
    """Delete a directory at one blow: a process that is killed meanwhile leaves no half of it."""
    if path.exists():
        gone = path.with_name(path.name.partition(".")[0] + _REMOVED)
        if gone.exists():
            shutil.rmtree(gone)
        path.rename(gone)
        shutil.rmtree(gone)


# --- the end of the program ---------------------------------------------------------------------

_writing: weakref.WeakSet[CheckpointManager] = weakref.WeakSet()
_registered = threading.Event()


def _finish_at_exit(manager: CheckpointManager) -> None:
    """Have the checkpoint that is being written finished before the interpreter goes away."""
    _writing.add(manager)
    # atexit comes too late: the thread pools that orbax writes with are closed by then.
    register: Any = getattr(threading, "_register_atexit", None)
    if register is not None and not _registered.is_set():
        _registered.set()
        with contextlib.suppress(RuntimeError):  # it is going away already
            register(_finish_all)


def _finish_all() -> None:
    with contextlib.ExitStack() as stack:  # all of them, whichever fails
        for manager in list(_writing):
            stack.callback(manager.wait)
