"""What comes from outside, as an array, a dtype or a place that a cell can hold."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets._args import describe, resolve_dtype
from funcnets.core.arraylike import unwrap
from funcnets.errors import ArgumentError, DTypeError, StateLeakError

__all__ = ["as_array", "available", "from_torch", "placement", "refuse_tracer"]


def placement(device: Any) -> Any:
    """A ``jax.Device`` or ``Sharding``, out of one or out of a platform name such as ``"cpu"``."""
    if device is None or isinstance(device, (jax.Device, jax.sharding.Sharding)):
        return device
    if isinstance(device, str):
        name, _, index = device.partition(":")
        name = "gpu" if name == "cuda" else name
        try:
            return jax.devices(name)[int(index or 0)]
        except (RuntimeError, IndexError, ValueError):
            known = sorted({f"{d.platform}:{d.id}" for d in jax.devices()})
            raise ArgumentError(
                f"there is no device {device!r}; this process has {', '.join(known)}"
            ) from None
    raise ArgumentError(
        f"device must be a jax.Device, a Sharding or a name like 'cpu:0', but got {describe(device)}"
    )


def available(dtype: Any) -> Any:
    """``dtype`` as a dtype, if this process has it: 64 bits are an option of JAX's."""
    dtype = resolve_dtype(dtype)
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise DTypeError(
            f'{dtype} needs jax.config.update("jax_enable_x64", True) at the start of the program'
        )
    return dtype


def as_array(value: Any, dtype: Any) -> jax.Array:
    """``value`` as a ``jax.Array``: JAX and NumPy arrays, numbers, cells and torch tensors."""
    value = unwrap(value)
    if hasattr(value, "detach") and hasattr(
        value, "cpu"
    ):  # a torch tensor, without importing torch
        value = from_torch(value)
    # jnp.asarray may share the memory of what is not JAX's, which its owner may change.
    array = jnp.asarray(value, dtype) if isinstance(value, jax.Array) else jnp.array(value, dtype)
    if getattr(array, "weak_type", False):  # of a Python number; a cell's dtype is meant
        array = jax.lax.convert_element_type(array, array.dtype)
    return array


def from_torch(tensor: Any) -> np.ndarray:
    """A torch tensor's numbers; bfloat16, which NumPy lacks, passes through its bits."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        bits = tensor.contiguous().view(__import__("torch").int16).numpy()
        return bits.view(jnp.bfloat16)
    return tensor.numpy()


def refuse_tracer(value: Any, action: str) -> None:
    """Refuse to keep a tracer where it outlives its trace."""
    if isinstance(value, Tracer):
        raise StateLeakError(
            f"{action} inside a raw JAX transformation (jax.jit, jax.grad, jax.vmap, ...) would leave a "
            f"tracer behind: {describe(jax.ShapeDtypeStruct(value.shape, value.dtype))}. Use fn.jit, fn.grad or "
            "fn.vmap, which put the value back afterwards, or the pure face: fn.functionalize(model)"
        )
