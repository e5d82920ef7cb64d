"""Arrays that are too many for one file: numbered files and an index, as Hugging Face lays them out.

``model.safetensors`` becomes ``model-00001-of-00003.safetensors`` and so on, and
``model.safetensors.index.json`` tells which name is where. The description, which both a single file
and an index carry, is a dict:

    version   1
    save      a number of the save, the same in the index and in its shards
    tree      what :func:`funcnets.io.tree.encode` made; absent in shards
    raw       names of arrays that are stored as bytes, with dtype and shape

The index is what counts: it is replaced in one step after all shards are in place, under names that
the old index does not use. So at any moment there is one whole set of files.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from typing import Any

from funcnets.errors import CheckpointError
from funcnets.io import atomic, tensor_file
from funcnets.io.tree import Encoded

__all__ = ["INDEX", "Index", "split", "write"]

INDEX = ".index.json"


def split(arrays: Mapping[str, Any], limit: int | None) -> list[dict[str, Any]]:
    """The arrays in their order, in groups of at most ``limit`` bytes; a larger array is alone."""
    groups: list[dict[str, Any]] = [{}]
    filled = 0
    for name, array in arrays.items():
        size = array.nbytes
        if limit is not None and groups[-1] and filled + size > limit:
            groups.append({})
            filled = 0
        groups[-1][name] = array
        filled += size
    return groups


def write(target: str, encoded: Encoded, limit: int | None) -> None:
    """Write a file, or shards and an index, in the place of what ``target`` was before."""
    groups = split(encoded.arrays, limit)
    description = {"version": 1, "save": secrets.token_hex(8)}
    with atomic.staging(target) as stage:
        if len(groups) == 1:
            _write_one(target, encoded, description, stage)
        else:
            _write_many(target, encoded, description, stage, groups)


def _write_one(
    target: str, encoded: Encoded, description: dict[str, Any], stage: atomic.Staging
) -> None:
    name = os.path.basename(target)
    tensor_file.write(stage.path(name), encoded.arrays, {**description, "tree": encoded.tree})
    stage.sync(name)
    with stage.turn():
        stage.plan(until=name, new=[], old=[name + INDEX, *_shards_of(target)])
        stage.commit(name)


def _write_many(
    target: str,
    encoded: Encoded,
    description: dict[str, Any],
    stage: atomic.Staging,
    groups: list[dict[str, Any]],
) -> None:
    names = _free_names(target, len(groups), description["save"], stage)
    for name, group in zip(names, groups):
        tensor_file.write(stage.path(name), group, description)
        stage.sync(name)
    index = os.path.basename(target) + INDEX
    content = {
        "metadata": {
            "total_size": sum(array.nbytes for array in encoded.arrays.values()),
            "format": "pt",
            "funcnets": tensor_file.compact({**description, "tree": encoded.tree}),
        },
        "weight_map": {name: file for file, group in zip(names, groups) for name in group},
    }
    with open(stage.path(index), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    stage.sync(index)
    with stage.turn():
        # An unsharded file is preferred as long as it is there.
        stage.plan(until=index, new=names, old=[os.path.basename(target), *_shards_of(target)])
        for name in names:
            stage.put(name)
        stage.commit(index)


def _free_names(target: str, count: int, save: str, stage: atomic.Staging) -> list[str]:
    """Hugging Face's names; with the save's number in them if the plain ones are or may be taken."""
    stem, suffix = os.path.splitext(os.path.basename(target))
    numbers = [f"-{i:05d}-of-{count:05d}{suffix}" for i in range(1, count + 1)]
    plain = [stem + number for number in numbers]
    if stage.alone() and not any(os.path.lexists(os.path.join(stage.home, n)) for n in plain):
        return plain
    return [f"{stem}-{save}{number}" for number in numbers]


def _shards_of(target: str) -> list[str]:
    """The shards that the index of ``target`` names at present, if it has one and they are in its folder."""
    stem, suffix = map(re.escape, os.path.splitext(os.path.basename(target)))
    shard = re.compile(rf"{stem}(-[0-9a-f]{{16}})?-\d{{5}}-of-\d{{5}}{suffix}")
    try:
        with open(target + INDEX, "rb") as file:
            names = set(json.load(file)["weight_map"].values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []  # none, or nothing that could be read anyway
    return sorted(name for name in names if isinstance(name, str) and shard.fullmatch(name))


class Index:
    """An index that was read and whose files are all there.

    Args:
        path: the index.

    Raises:
        CheckpointError: it is no index, or files are missing; all of them are named.
    """

    def __init__(self, path: str) -> None:
        self.path, home = path, os.path.dirname(path)
        try:
            with open(path, "rb") as file:
                content = json.load(file)
            weight_map = content["weight_map"]
            self.metadata: dict[str, Any] = content.get("metadata") or {}
            self.files: dict[str, list[str]] = {}
            for name, file in weight_map.items():
                if os.path.isabs(file) or ".." in re.split(r"[/\\]", file):
                    raise CheckpointError(f"{path} names a file outside its own folder: {file!r}")
                self.files.setdefault(os.path.join(home, file), []).append(name)
            text = self.metadata.get("funcnets")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise CheckpointError(
                f"{path} is not an index of shards, or it is truncated: no readable weight_map in it"
            ) from None
        self.description = tensor_file.parse_description(text, path)
        missing = [os.path.basename(file) for file in self.files if not os.path.isfile(file)]
        if missing:
            raise CheckpointError(
                f"{path} needs {len(self.files)} files, and these are missing: {', '.join(missing)}"
            )

    def check(self, shard: tensor_file.TensorFile) -> None:
        """Refuse a file that was not written together with the index, or lacks arrays."""
        if shard.description.get("save") != self.description.get("save"):
            raise CheckpointError(f"{shard.path} and {self.path} are not of the same save")
