"""``save``: a state_dict, or anything that nests arrays, into a file."""

from __future__ import annotations

import os
import re
from typing import Any

from funcnets._args import describe, positive
from funcnets.errors import ArgumentError
from funcnets.io import atomic, shards, torch_files
from funcnets.io.tensor_file import host_array
from funcnets.io.tree import decode, encode

__all__ = ["save"]

TORCH_SUFFIXES = (".pt", ".pth")
_LIMIT = "5GB"
_UNITS = {"": 1}
_UNITS |= {f"{p}B": 1000 ** (i + 1) for i, p in enumerate("KMGT")} | {"B": 1}
_UNITS |= {f"{p}IB": 1024 ** (i + 1) for i, p in enumerate("KMGT")}


def file_name(path: Any) -> str:
    """A path as a str."""
    if isinstance(path, (str, bytes, os.PathLike)):
        return os.fsdecode(path)
    raise ArgumentError(f"path must be a str or an os.PathLike, but got {describe(path)}")


def size_in_bytes(value: Any) -> int | None:
    """``5_000_000_000``, ``"5GB"``, ``"4.7GiB"`` or None as a number of bytes."""
    if value is None:
        return None
    if not isinstance(value, str):
        return positive("max_shard_size", value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if found is None or found[2].upper() not in _UNITS:
        raise ArgumentError(
            f"max_shard_size must be a number of bytes, or a text like '5GB' or '500MiB', but got {value!r}"
        )
    return positive("max_shard_size", int(float(found[1]) * _UNITS[found[2].upper()]))


def save(
    obj: Any, path: str | os.PathLike[str], *, max_shard_size: int | str | None = _LIMIT
) -> None:
    """Save a state_dict, or any nesting of arrays, into a file that is whole at every moment.

    The name tells the format:

    - ``.safetensors``: what :mod:`safetensors` and Hugging Face's libraries read. A state_dict's
      arrays have their own names there; arrays deeper inside have their keys joined by dots.
    - ``.pt`` or ``.pth``: what ``torch.load(path)`` reads (torch must be installed).

    The file is written next to ``path``, flushed to the disk and then renamed, so a save that is
    killed leaves the old file as it was, and whoever loads meanwhile gets the old one or the new
    one. What a killed save left lying is cleared away by the next save to the same path. Arrays of more than ``max_shard_size`` bytes together go into
    ``model-00001-of-0000N.safetensors`` and so on, with ``model.safetensors.index.json`` telling which
    is where; the index is replaced last. Where the plain names of the shards are taken, as when such a
    checkpoint is overwritten, a number of the save stands before ``-00001-of-``.

    Args:
        obj: a dict, list, tuple, set, ``OrderedDict`` or ``Counter``, nested as you like, of arrays
            (JAX, NumPy, torch, parameters), PRNG keys, None, bool, int, float, complex, str and
            bytes. Keys may be numbers, texts, or tuples of them. It is not changed. An array that is
            spread over this process's devices is gathered; PRNG keys are saved as their data and the
            name of their algorithm; an array that stands in several places, as a tied weight does, is
            saved once, under the first of its names.
        path: the file, in a folder that exists. A symbolic link is followed.
        max_shard_size: bytes in one file, as a number or as a text such as ``"5GB"`` or ``"500MiB"``;
            None for a single file of any size. For ``.safetensors`` only.

    Raises:
        ArgumentError: ``obj`` holds something else (all such places are listed), or ``path`` or
            ``max_shard_size`` is not as described.
        MissingExtraError: safetensors, or torch, is not installed.
        OSError: the folder does not exist, or the disk is full.

    Examples:
        >>> import os, tempfile
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> model, path = nn.Linear(2, 3), os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> fn.save(model.state_dict(), path)
        >>> model.load_state_dict(fn.load(path))
        <All keys matched successfully>

        A whole checkpoint, with numbers and texts:

        >>> fn.save({"model": model.state_dict(), "epoch": 3, "name": "first"}, path)
        >>> fn.load(path)["epoch"]
        3

    References:
        torch.save, https://huggingface.co/docs/safetensors
    """
    target = os.path.realpath(file_name(path))
    limit = size_in_bytes(max_shard_size)
    if os.path.isdir(target):
        raise ArgumentError(f"path must be a file, but {path!r} is a folder")
    suffix = os.path.splitext(target)[1].lower()
    if suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise ArgumentError(
            f"the name tells the format: it must end in .safetensors, or in .pt or .pth for torch, but got {path!r}"
        )
    home = os.path.dirname(target)
    if not os.path.isdir(home):
        raise FileNotFoundError(2, "cannot save, since there is no such folder", home)
    if suffix in TORCH_SUFFIXES:
        if max_shard_size != _LIMIT:
            raise ArgumentError("max_shard_size is for .safetensors files; torch's are never split")
        _save_torch(obj, target)
    else:
        shards.write(target, encode(obj), limit)


def _save_torch(obj: Any, target: str) -> None:
    encoded = encode(obj)
    torch_files.check(target, encoded.arrays)

    def tensor(name: str) -> Any:
        return torch_files.from_array(host_array(encoded.arrays[name]))

    made = decode(encoded.tree, tensor, lambda key: torch_files.key_as_dict(*key))
    with atomic.replacing(target) as temporary:
        torch_files.write(made, temporary)
