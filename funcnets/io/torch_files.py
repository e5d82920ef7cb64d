"""Torch's own files and tensors. The one place that imports torch, and only when it is asked to."""

from __future__ import annotations

import errno
import pickle
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from funcnets.errors import ArgumentError, CheckpointError, MissingExtraError

__all__ = ["from_array", "identity", "is_tensor", "obstacle", "read", "to_array", "write"]

#: What torch has and NumPy lacks, with the integers of the same size.
_EXTRA = {
    "bfloat16": "int16",
    "float8_e4m3fn": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2": "uint8",
    "float8_e5m2fnuz": "uint8",
    "float8_e8m0fnu": "uint8",
}
#: Marks a dict that stands for PRNG keys, which torch does not have.
_KEY = "__prng_key__"


def _torch(path: str) -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            f"{path} is a file of torch's, which needs torch: pip install 'funcnets[torch]'; "
            "or use a name that ends in .safetensors"
        ) from None
    return torch


# --- tensors --------------------------------------------------------------------------------------


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a torch tensor; nobody can have one without having imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def obstacle(tensor: Any) -> str | None:
    """Why a tensor cannot become an array, if it cannot."""
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        return "its shape is not known yet: call the model once"
    if tensor.is_meta:
        return "it has no data"
    if tensor.is_quantized:
        return "it is quantised; call .dequantize()"
    if tensor.layout != torch.strided:
        return "it is sparse; call .to_dense()"
    if _name(tensor) not in _EXTRA and not hasattr(np, _name(tensor)):
        return "JAX has no such dtype"
    return None


def identity(tensor: Any) -> tuple[Any, ...]:
    """Equal for tensors that are the same numbers in the same memory."""
    return (
        tensor.device,
        tensor.data_ptr(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
        tensor.is_conj(),
        tensor.is_neg(),
    )


def to_array(tensor: Any) -> np.ndarray:
    """A tensor's numbers, bit for bit, in NumPy."""
    import torch

    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = _name(tensor)
    if name not in _EXTRA:
        return tensor.numpy()
    bits = tensor.contiguous().view(getattr(torch, _EXTRA[name]))
    return bits.numpy().view(getattr(ml_dtypes, name))


def from_array(array: np.ndarray) -> Any:
    """A new tensor with the numbers of a NumPy array, bit for bit."""
    import torch

    array = np.array(array, order="C")  # a copy, which the tensor owns and may write to
    name = array.dtype.name
    if name not in _EXTRA:
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(_EXTRA[name])).view(getattr(torch, name))


def storable(dtype: np.dtype) -> bool:
    """Whether torch has tensors of a NumPy or JAX dtype."""
    return dtype.name in _EXTRA or dtype.kind in "biufc"


# --- files ----------------------------------------------------------------------------------------


def read(
    path: str, convert: Callable[[np.ndarray], Any], wrap_key: Callable[[Any, str], Any]
) -> Any:
    """Read a file that ``torch.save`` wrote, with each tensor made an array by ``convert``.

    Only tensors and plain containers are read (``weights_only=True``), so nothing in the file is run.
    """
    torch = _torch(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error) and "nsupported class" not in str(error):
            raise CheckpointError(
                f"{path} is not a file of torch's, or damaged: {_first(error)}"
            ) from None
        raise CheckpointError(
            f"{path} holds more than tensors, numbers, texts and containers, and reading that could run "
            "any program; if you trust the file, read it with torch.load(path, weights_only=False) and save "
            f"its state_dict. Torch says: {_first(error)}"
        ) from None
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
    ) as error:
        raise CheckpointError(
            f"{path} is not a file of torch's, or it is truncated: {_first(error)}"
        ) from None
    return _convert(found, path, convert, wrap_key, {})


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "WeightsUnpickler error" in line]
    return (told or lines or [type(error).__name__])[0]


def _convert(
    value: Any,
    path: str,
    convert: Callable[[np.ndarray], Any],
    wrap_key: Callable[[Any, str], Any],
    met: dict[Any, Any],
) -> Any:
    def inner(item: Any) -> Any:
        return _convert(item, path, convert, wrap_key, met)

    if is_tensor(value):
        why = obstacle(value)
        if why is not None:
            raise CheckpointError(f"{path} has a tensor ({value.dtype}, {value.layout}) and {why}")
        same = identity(value)
        if same not in met:
            met[same] = convert(to_array(value))
        return met[same]
    if isinstance(value, dict):
        if value.keys() == {_KEY, "data"}:
            return wrap_key(inner(value["data"]), value[_KEY])
        made: Any = {key: inner(item) for key, item in value.items()}
        if isinstance(value, (OrderedDict, Counter)):
            made = type(value)(made)
            vars(made).update({k: inner(v) for k, v in vars(value).items()})
        return made
    if isinstance(value, (list, tuple)):
        return [*map(inner, value)] if isinstance(value, list) else tuple(map(inner, value))
    return value


def key_as_dict(data: Any, impl: str) -> dict[str, Any]:
    """PRNG keys as something that torch can hold, and :func:`read` knows."""
    return {_KEY: impl, "data": data}


def check(path: str, arrays: dict[str, Any]) -> None:
    """Refuse arrays that torch has no dtype for."""
    _torch(path)
    wrong = [
        f"{name} ({array.dtype})"
        for name, array in arrays.items()
        if not is_tensor(array) and not storable(np.dtype(array.dtype))
    ]
    if wrong:
        raise ArgumentError(
            f"torch has no such dtypes: {', '.join(wrong)}; save as .safetensors, or convert them"
        )


def write(obj: Any, path: str) -> None:
    """Have torch write an object that holds tensors."""
    try:
        _torch(path).save(obj, path)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(errno.EIO, f"torch could not write it ({_first(error)})", path) from None
