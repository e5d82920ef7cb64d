"""One checkpoint in one directory: what orbax writes, and our record of what it means.

    <directory>/<step>/
        funcnets/record.json     step, time, metrics; then the state of each item without its arrays
        funcnets/checksums.json  CRC-32 of every array
        model/, optimizer/, ...  the arrays of each item: a flat dict that orbax reads without us, too

orbax writes into a temporary directory and renames it when all of it is there, so a checkpoint is
complete or absent. What a disk or a copy does to it afterwards is found by lengths and checksums.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import optional
from funcnets.core.convert import from_torch
from funcnets.errors import CheckpointError
from funcnets.io.tree import Encoded, decode, dtype_named

__all__ = ["Info", "Record", "Taken", "read_info", "read_item", "read_record", "take", "write"]

#: The name of our own part, which no item can have.
RECORD = "funcnets"
_FORMAT, _VERSION = "funcnets training checkpoint", 1
_SAFE = re.compile(r"\w[\w.#-]*", re.ASCII)
_WINDOW = 16  # files that are read ahead when a checkpoint is examined

Path = pathlib.Path


class Info(NamedTuple):
    """What is known of a checkpoint without reading its states."""

    step: int
    time: int
    metrics: dict[str, float]


class Taken(NamedTuple):
    """A state at the moment of saving: what JSON holds of it, and arrays that nobody changes."""

    entry: dict[str, Any]
    arrays: dict[str, Any]


class Record(NamedTuple):
    """What was read of a checkpoint except arrays: the entries of its items by name."""

    info: Info
    items: dict[str, dict[str, Any]]


def take(state: Encoded, about: Mapping[str, Any]) -> Taken:
    """Hold on to a state that was taken apart.

    Args:
        state: its tree and arrays.
        about: what else to record of the item.

    Returns:
        The entry for the record, and the arrays to write.
    """
    table: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, value in state.arrays.items():
        ours = isinstance(value, jax.Array)
        # The memory of others is theirs to change while the files are being written.
        array: Any = value if ours else np.array(from_torch(value) if _is_torch(value) else value)
        spread = ours and len(array.sharding.device_set) > 1
        # Files need names that no path has a meaning for.
        key = name if _SAFE.fullmatch(name) else f"%{len(table)}"
        table[name] = {
            "key": key,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "of": "jax" if ours else "numpy",
            **({"spread": True} if spread else {}),
        }
        if array.size:  # the files cannot hold an array without elements
            arrays[key] = array
    return Taken({**about, "arrays": table, "state": state.tree}, arrays)


def _is_torch(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


# --- orbax ------------------------------------------------------------------------------------


def orbax() -> Any:
    """``orbax.checkpoint.v1``, which is an extra."""
    return optional("orbax.checkpoint", "checkpoint", "a training checkpoint").v1


class _Writing(NamedTuple):
    """Our part of a checkpoint that is being written."""

    info: Info
    text: str
    arrays: dict[str, dict[str, Any]]


class _RecordHandler:
    """Tells orbax how to write our part: in the background, like the arrays."""

    async def save(self, directory: Any, checkpointable: _Writing) -> Any:
        return self._write(directory, checkpointable)

    async def _write(self, directory: Any, writing: _Writing) -> None:
        sums = {
            item: {name: checksum(array) for name, array in arrays.items()}
            for item, arrays in writing.arrays.items()
        }
        head = {"format": _FORMAT, "version": _VERSION, **writing.info._asdict()}
        # The first line is all that a listing reads.
        text = f"{json.dumps(head)}\n{writing.text}\n"
        place = await directory.await_creation()
        (place / "checksums.json").write_text(json.dumps(sums))
        (place / "record.json").write_text(f"{text}{zlib.crc32(text.encode())}\n")

    async def load(self, directory: Any, abstract_checkpointable: Any = None) -> Any:
        raise CheckpointError(f"{directory} is read by funcnets.train.CheckpointManager")

    async def metadata(self, directory: Any) -> None:
        return None

    def is_handleable(self, checkpointable: Any) -> bool:
        return isinstance(checkpointable, _Writing)

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        return None


@functools.cache
def _context() -> Any:
    registry = orbax().handlers.local_registry()
    registry.add(_RecordHandler, checkpointable_name=RECORD)
    context = orbax().Context()
    context.checkpointables.registry = registry
    return context


def checksum(array: Any) -> int:
    """CRC-32 of an array's bytes."""
    data: Any = np.ascontiguousarray(np.asarray(array))
    return zlib.crc32(data.reshape(-1).view(np.uint8))


def write(path: Path, info: Info, items: Mapping[str, Taken]) -> Any:
    """Begin to write a checkpoint.

    Args:
        path: the directory, which does not exist yet.
        info: step, time and metrics.
        items: what to write, by name.

    Returns:
        orbax's response: its ``result()`` waits for the end.
    """
    arrays = {name: taken.arrays for name, taken in items.items() if taken.arrays}
    text = json.dumps({name: taken.entry for name, taken in items.items()})
    with _context():
        return orbax().save_checkpointables_async(
            path, {**arrays, RECORD: _Writing(info, text, arrays)}
        )


# --- reading ----------------------------------------------------------------------------------


def read_info(path: Path) -> Info | None:
    """Step, time and metrics of a checkpoint; None if it is none of ours, or damaged."""
    try:
        with (path / RECORD / "record.json").open() as file:
            return _info(json.loads(file.readline()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _info(head: Any) -> Info:
    metrics = {str(name): float(value) for name, value in head["metrics"].items()}
    return Info(int(head["step"]), int(head["time"]), metrics)


def read_record(path: Path) -> Record:
    """What a checkpoint holds.

    Raises:
        CheckpointError: it is not there, not ours, damaged, or of a later version.
    """
    file = path / RECORD / "record.json"
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint at {path}")
    if not file.exists():
        raise CheckpointError(
            f"{path} is not a training checkpoint of funcnets, or it has lost its part {file.name}: what "
            "others wrote with orbax is read with orbax.checkpoint.v1.load"
        )
    try:
        text, _, expected = file.read_text().removesuffix("\n").rpartition("\n")
        if not expected.isdecimal() or zlib.crc32(f"{text}\n".encode()) != int(expected):
            raise ValueError("it is not as it was written")
        first, _, items = text.partition("\n")
        head = json.loads(first)
        if head["format"] != _FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        info, version = _info(head), int(head["version"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"{RECORD}/{file.name}: {error}") from error
    if version > _VERSION:
        raise CheckpointError(
            f"{path} was written by a later funcnets (its format is {version}, known is {_VERSION}): update funcnets"
        )
    return Record(info, json.loads(items))


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a checkpoint that cannot be read."""
    return CheckpointError(
        f"the checkpoint {path} is truncated or damaged ({what}); restore(..., fallback=True) takes the last "
        "good one before it"
    )


def read_item(path: Path, name: str, entry: Mapping[str, Any], shardings: Mapping[str, Any]) -> Any:
    """The state of one item.

    Args:
        path: the checkpoint.
        name: the item.
        entry: what the record has of it.
        shardings: where arrays belong, by name. Of the others, those that were spread over several
            devices go to these if they are there, and the rest nowhere in particular.

    Returns:
        The state with its arrays: NumPy's where it was saved so or has 64 bits that JAX is not set up for.

    Raises:
        CheckpointError: an array is missing or damaged.
    """
    table: dict[str, dict[str, Any]] = entry["arrays"]
    stored = {row["key"]: row for row in table.values() if 0 not in row["shape"]}
    places = {table[key]["key"]: place for key, place in shardings.items() if key in table}
    arrays = _read_arrays(path, name, stored, places) if stored else {}

    def array(key: str) -> Any:
        row = table[key]
        dtype = dtype_named(row["dtype"])
        if dtype is None:
            raise damaged(path, f"{name}.{key} has the unknown dtype {row['dtype']}")
        value = arrays[row["key"]] if row["key"] in arrays else np.empty(row["shape"], dtype)
        if row["of"] == "jax" and jax.dtypes.canonicalize_dtype(dtype) == dtype:
            # In memory of its own: a step may be given it to reuse.
            return value if isinstance(value, jax.Array) else jnp.array(value)
        return np.array(value)

    return decode(entry["state"], array)


def _read_arrays(
    path: Path, name: str, table: Mapping[str, Any], shardings: Mapping[str, Any]
) -> dict[str, Any]:
    place = path / name
    _examine(path, place, table)
    try:
        sums = json.loads((path / RECORD / "checksums.json").read_text())[name]
        with _context():
            spread = any("spread" in row for row in table.values())
            saved = orbax().metadata(path, checkpointable_name=name).metadata if spread else {}
            wanted = {
                key: _target(row, shardings.get(key), saved.get(key)) for key, row in table.items()
            }
            loaded = orbax().load(path, wanted, checkpointable_name=name)
        wrong = [key for key in wanted if checksum(loaded[key]) != sums[key]]
    except Exception as error:
        raise damaged(path, f"{name}: {_reason(error)}") from error
    if wrong:
        raise damaged(path, f"{name}: not as they were written are {', '.join(wrong[:8])}")
    return loaded


def _target(row: Mapping[str, Any], sharding: Any, saved: Any) -> Any:
    """What orbax is to make of an array."""
    shape, dtype = tuple(row["shape"]), jnp.dtype(row["dtype"])
    if sharding is None and row.get("spread"):
        # With other devices than those it was saved from it is gathered.
        with contextlib.suppress(ValueError, AttributeError, LookupError):
            sharding = saved.sharding_metadata.to_jax_sharding()
    if sharding is None:
        return np.broadcast_to(np.zeros((), dtype), shape)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _examine(path: Path, place: Path, table: Mapping[str, Any]) -> None:
    """Read every file of an item once: where one fails, orbax leaves threads behind that complain."""
    import tensorstore as ts  # orbax's own way to the files

    base = {"driver": "file", "path": f"{place}/"}
    try:
        json.loads((place / "_METADATA").read_text())
        store: Any = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
        keys = store.list().result()
        names = {key.decode() for key in keys}
        lost = [n for n in table if not names & {f"{n}/zarr.json", f"{n}/.zarray"}]
        if lost:
            raise ValueError(f"it lacks {', '.join(lost[:8])}")
        for i in range(0, len(keys), _WINDOW):
            for reading in [store.read(key) for key in keys[i : i + _WINDOW]]:
                reading.result()
    except (OSError, ValueError) as error:
        raise damaged(path, f"{place.name}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What the innermost error says first, without tensorstore's specification of itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).partition(" [")[0].partition("\n")[0]
    return f"{type(error).__name__}: {text}"
