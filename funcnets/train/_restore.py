"""Reading a checkpoint into the things of a running program: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from funcnets.errors import StateDictError
from funcnets.train._items import backup, kind_of, put_back, set_rng_state, shardings_of
from funcnets.train._store import read_item, read_record
from funcnets.train._structure import fit_into

__all__ = ["Restored", "restore_from"]


class Restored(NamedTuple):
    """What a :class:`CheckpointManager` put back, and what it did not.

    Attributes:
        step: the step at which the checkpoint was saved.
        metrics: the metrics that it was saved with.
        values: the items that are values themselves, by name.
        missing_keys: what was asked for and is not in the checkpoint, ``item.name``; with ``strict=False``.
        unexpected_keys: what is in the checkpoint and was not asked for; likewise.
        path: the directory of the checkpoint.
    """

    step: int
    metrics: dict[str, float]
    values: dict[str, Any]
    missing_keys: list[str]
    unexpected_keys: list[str]
    path: Path


def restore_from(path: Path, items: Mapping[str, Any] | None, strict: bool) -> Restored:
    """What :meth:`CheckpointManager.restore` does with one checkpoint.

    Args:
        path: the checkpoint.
        items: the things by name; None for their plain states.
        strict: whether the names must agree.

    Returns:
        What was restored.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        StateDictError: it does not fit; nothing has changed.
    """
    info, entries = read_record(path)
    rng = entries.pop("rng")["state"]
    asked: dict[str, Any] = dict.fromkeys(entries) if items is None else dict(items)
    missing = [name for name in asked if name not in entries]
    unexpected = [n for n, entry in entries.items() if n not in asked and entry["kind"] != "value"]
    problems: list[str] = []
    if strict:
        problems += [f"{name}: not in the checkpoint" for name in missing]
        problems += [f"{name}: in the checkpoint, but not asked for" for name in unexpected]
    states: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, entry in entries.items():
        thing, value = asked.get(name), entry["kind"] == "value"
        if name in unexpected:
            continue
        if thing is not None and value != (kind_of(thing) == "value"):
            had = f"{'a value, ' if value else 'the state of '}{entry['type']}"
            problems.append(
                f"{name}: the checkpoint has {had}, but {type(thing).__qualname__} came"
            )
            continue
        state = read_item(path, name, entry, shardings_of(thing))
        if thing is None:
            values[name] = state
        elif value:
            values[name] = fit_into(thing, state, name, problems)
        else:
            states[name] = state
    undo: dict[str, Callable[[], None]] = {}
    try:
        for name, state in states.items():
            undo[name] = backup(asked[name])
            try:
                lacking, left = put_back(asked[name], entries[name], state, strict)
            # Whatever a thing of the user's own says to a state that does not fit it.
            except Exception as error:
                problems.append(f"{name}: {error}")
            else:
                missing += [f"{name}.{key}" for key in lacking]
                unexpected += [f"{name}.{key}" for key in left]
        if problems:
            listed = "\n\t".join(problems)
            raise StateDictError(f"the checkpoint {path} does not fit:\n\t{listed}")
    except BaseException as error:
        for name, undone in reversed(undo.items()):
            try:
                undone()
            except Exception as again:  # a thing that refuses its own state, too
                error.add_note(
                    f"{name} may have changed: its own state could not be put back: {again}"
                )
        raise
    if items is not None:
        set_rng_state(rng)
    return Restored(info.step, dict(info.metrics), values, missing, unexpected, path)
