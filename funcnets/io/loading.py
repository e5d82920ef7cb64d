"""``load``: what ``save``, safetensors, Hugging Face's libraries or torch wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets.core.convert import placement
from funcnets.errors import CheckpointError
from funcnets.io import torch_files
from funcnets.io.saving import file_name
from funcnets.io.shards import INDEX, Index
from funcnets.io.tensor_file import TensorFile
from funcnets.io.tree import Key, decode, wrap_key

__all__ = ["load"]

#: What a folder is searched for, in Hugging Face's order.
_NAMES = ("model.safetensors", "pytorch_model.bin")

Convert = Callable[[np.ndarray], Any]

_LOOKS = 5


def load(path: str | os.PathLike[str], *, device: Any = None) -> Any:
    """Load what :func:`save` saved, or a safetensors or torch file of somebody else's.

    What is in the file decides, not its name:

    - A file of :func:`save`'s comes back as it was: containers, keys, numbers, PRNG keys, and
      an array that stood in several places is one array again.
    - Another safetensors file comes back as a dict of its arrays by name.
    - An index (``model.safetensors.index.json``), or the name ``model.safetensors`` where only
      shards of it exist, gives all that the shards hold.
    - A file that ``torch.save`` wrote is read by ``torch.load(weights_only=True)``, which runs
      nothing in it, and its tensors become arrays. Torch must be installed.

    The result goes into ``model.load_state_dict`` as it is.

    Args:
        path: a file, an index, or a folder with ``model.safetensors`` or ``pytorch_model.bin`` or
            the index of one of them in it.
        device: a ``jax.Device``, a ``Sharding`` or a name such as ``"cpu"`` for the arrays; JAX's
            default if None.

    Returns:
        What was saved, with ``jax.Array`` for its arrays, bit for bit. Arrays of 64 bits stay NumPy's
        if ``jax_enable_x64`` is off, since JAX would cut them.

    Raises:
        CheckpointError: the file is truncated or of another format, a shard is missing or of another
            save; the message names the file.
        MissingExtraError: safetensors, or torch, is not installed.
        OSError: there is no such file, or it cannot be read.

    Examples:
        >>> import os, tempfile
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> path = os.path.join(tempfile.mkdtemp(), "all.safetensors")
        >>> fn.save({"w": jnp.ones(2, jnp.bfloat16), "key": jax.random.key(0), "lr": 0.1}, path)
        >>> found = fn.load(path)
        >>> found["w"].dtype, found["key"].dtype, found["lr"]
        (dtype(bfloat16), key<fry>, 0.1)

    References:
        torch.load, https://huggingface.co/docs/safetensors
    """
    place = placement(device)

    def convert(array: np.ndarray) -> Any:
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            return np.array(array)
        return jnp.array(array) if place is None else jax.device_put(np.array(array), place)

    name = file_name(path)
    while True:
        found = _find(name)
        before = _version(found)
        try:
            if _looks_like(found) == "index":
                return _load_index(found, convert)
            return _load_file(found, convert)
        except (CheckpointError, FileNotFoundError):
            # Somebody may have saved meanwhile, and have deleted the shards that were to be read.
            if _version(found) == before:
                raise


def _version(path: str) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None if it is gone."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _find(path: str) -> str:
    """The file or index that a path means."""
    if os.path.isdir(path):
        for name in _NAMES:
            for candidate in (name, name + INDEX):
                if os.path.isfile(os.path.join(path, candidate)):
                    return os.path.join(path, candidate)
        listed = ", ".join(sorted(os.listdir(path))[:20]) or "nothing"
        raise FileNotFoundError(
            2, f"no {' or '.join(_NAMES)} (or {INDEX}) in this folder, but {listed}", path
        )
    # Between two looks a save may put one file in the place of shards, or the other way round.
    for _ in range(_LOOKS):
        if os.path.exists(path):
            return path
        for base in (path, os.path.realpath(path)):
            if os.path.isfile(base + INDEX):
                return base + INDEX
    raise FileNotFoundError(2, "there is no such file to load, nor an index of it", path)


def _looks_like(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" or start[:1] == b"\x80":  # a zip file; a pickle
        return "torch"
    # A safetensors file has a brace as well, but after the eight bytes of a length.
    return "index" if start.lstrip()[:1] == b"{" or path.endswith(".json") else "safetensors"


def _load_file(path: str, convert: Convert) -> Any:
    if _looks_like(path) == "torch":
        return torch_files.read(path, convert, lambda data, impl: wrap_key(Key(data, impl)))
    file = TensorFile(path)
    arrays = {name: convert(file.read(name)) for name in file.entries}
    return _rebuild(path, arrays, file.description, file.metadata)


def _load_index(path: str, convert: Convert) -> Any:
    index = Index(path)
    arrays: dict[str, Any] = {}
    for file, names in index.files.items():
        if _looks_like(file) == "torch":
            part = _load_file(file, convert)
        else:
            shard = TensorFile(file)
            index.check(shard)
            part = {name: convert(shard.read(name)) for name in names if name in shard.entries}
        missing = [name for name in names if name not in part]
        if missing:
            raise CheckpointError(f"{file} lacks what {path} says is in it: {', '.join(missing)}")
        arrays |= {name: part[name] for name in names}
    return _rebuild(path, arrays, index.description, index.metadata)


def _rebuild(
    path: str, arrays: dict[str, Any], description: dict[str, Any], metadata: Mapping[str, Any]
) -> Any:
    if "tree" not in description:
        # safetensors.torch.save_model notes under a tied name which other name holds its array.
        ties = {k: v for k, v in metadata.items() if isinstance(v, str) and k not in arrays}
        return arrays | {k: arrays[v] for k, v in ties.items() if v in arrays and k != "format"}
    try:
        return decode(description["tree"], arrays.__getitem__)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: funcnets' description in it does not fit its arrays ({error!r})"
        ) from None
