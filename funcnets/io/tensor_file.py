"""One file in the safetensors format: a header in JSON, and the bytes of the arrays after it.

The safetensors package writes and checks; reading maps the bytes here, because the package's NumPy
side lacks some of the dtypes that JAX has. Dtypes that the format lacks are stored as bytes, with a
note in the header. The header has our description (see ``shards.py``) under ``"funcnets"``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from funcnets.errors import CheckpointError, MissingExtraError
from funcnets.io.torch_files import is_tensor, to_array
from funcnets.io.tree import dtype_named

__all__ = ["TensorFile", "host_array", "write"]

#: The format's dtypes under the format's names.
_DTYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "F16": np.float16, "F32": np.float32, "F64": np.float64, "C64": np.complex64,
    "BF16": ml_dtypes.bfloat16, "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}  # fmt: skip
_NATIVE = frozenset(np.dtype(dtype).name for dtype in _DTYPES.values())
_HEADER_LIMIT = 100_000_000  # the format's own


def _safetensors(path: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingExtraError(
            f"{path} is a safetensors file, which needs safetensors: pip install 'funcnets[io]'"
        ) from None
    return safetensors


def host_array(value: Any) -> np.ndarray:
    """The numbers of a JAX or NumPy array or a torch tensor, in C order and of this machine's bytes.

    An array that is spread over devices is gathered. Nothing is copied that need not be.
    """
    array = np.asarray(to_array(value) if is_tensor(value) else value, order="C")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def write(path: str, arrays: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Write arrays and a description into a file, which is not yet flushed to the disk.

    Args:
        path: where.
        arrays: their names and values.
        description: what JSON can hold.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    safetensors = _safetensors(path)
    native, raw = {}, {}
    for name, value in arrays.items():
        native[name] = array = host_array(value)
        if array.dtype.name not in _NATIVE:
            raw[name] = [array.dtype.name, list(array.shape)]
            native[name] = array.reshape(-1).view(np.uint8)
    text = compact({**description, **({"raw": raw} if raw else {})})
    try:
        # Readers of other libraries ask in which framework's layout the arrays are: in torch's.
        safetensors.numpy.save_file(native, path, metadata={"format": "pt", "funcnets": text})
    except safetensors.SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code.group(1)) if code else 0
        raise OSError(number, os.strerror(number) if number else str(error), path) from None


def compact(description: Mapping[str, Any]) -> str:
    """A description as the text that a file holds."""
    return json.dumps(description, separators=(",", ":"))


class TensorFile:
    """A safetensors file that was opened and checked, whose arrays can be read one by one.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is truncated or of another format.
    """

    def __init__(self, path: str) -> None:
        safetensors = _safetensors(path)
        self.path = path
        header = self._header()
        try:
            # The package checks everything else that can be wrong with the header.
            with safetensors.safe_open(path, framework="np"):
                pass
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None
        self.metadata: dict[str, str] = header.pop("__metadata__", None) or {}
        self.entries: dict[str, dict[str, Any]] = header
        self.description = parse_description(self.metadata.get("funcnets"), path)
        raw = self.description.get("raw", {})
        self._raw: dict[str, Any] = raw if isinstance(raw, dict) else {}

    def _header(self) -> dict[str, Any]:
        foreign = f"{self.path} is not a safetensors file, or it is truncated within its header"
        # Opened once, so that header and arrays are of one file even if another replaces it now.
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _HEADER_LIMIT):
                raise CheckpointError(f"{foreign} ({size} bytes)")
            try:
                header = json.loads(file.read(length))
                ends = [e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"]
                needed = 8 + length + max(ends, default=0)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
                raise CheckpointError(f"{foreign} ({size} bytes)") from None
            if size != needed:
                kind = "is truncated" if size < needed else "goes on after its end"
                raise CheckpointError(f"{self.path} {kind}: {needed} bytes expected, {size} found")
            # Mapped and not read: each array is then copied once, to where it belongs.
            mapped = np.memmap(file, np.uint8, "r")
        self._data = mapped[8 + length :].view(np.ndarray)
        return header

    def read(self, name: str) -> np.ndarray:
        """The numbers of that name: a view of the file, to be copied."""
        entry = self.entries[name]
        dtype, shape = _DTYPES.get(entry["dtype"]), tuple(entry["shape"])
        if dtype is None:
            raise CheckpointError(
                f"{self.path}: {name!r} has the dtype {entry['dtype']}, which JAX lacks"
            )
        array = self._data[slice(*entry["data_offsets"])].view(dtype)
        if name in self._raw:
            try:
                kind, shape = self._raw[name]
                return array.view(np.dtype(dtype_named(kind) or kind)).reshape(shape)
            except (TypeError, ValueError):
                raise CheckpointError(f"{self.path}: the note on {name!r} is damaged") from None
        return array.reshape(shape)


def parse_description(text: str | None, path: str) -> dict[str, Any]:
    """Our description of a file or an index; empty if somebody else wrote it."""
    if text is None:
        return {}
    try:
        description = json.loads(text)
        version = description.get("version")
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{path}: funcnets' description in its header is damaged") from None
    if version != 1:
        raise CheckpointError(
            f"{path} was written by a newer funcnets (its version is {version!r}, this one knows 1)"
        )
    return description
