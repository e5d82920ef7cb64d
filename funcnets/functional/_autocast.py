"""Which precision a function computes in while ``fn.autocast`` is on.

A function says its rule with one call on the arrays it was given; without autocast they come back as
they are. The rules are those of ``torch.autocast`` on CUDA:

    in_low      matrix products, convolutions, attention, recurrent cells   autocast's dtype
    in_full     norms, softmax, losses, distances, resizing                 float32
    in_widest   what combines arrays of equal standing                      the widest dtype given

Everything else computes in the dtype that comes in. Arrays that are neither float32 nor half precision
(float64, complex numbers, integers, keys) are left alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_array

__all__ = ["in_full", "in_low", "in_widest", "low_dtype"]

#: The dtype of ``in_low``, None where no autocast is on. JAX makes it part of the key of everything
#: that it caches, so what was compiled in one precision is traced again in another.
low_dtype = jax.make_user_context(None)

_ELIGIBLE = frozenset(map(jnp.dtype, (jnp.float32, jnp.bfloat16, jnp.float16)))


def _eligible(x: Any) -> bool:
    # NumPy's scalars have a dtype, too, but are numbers: hyper-parameters.
    is_array = hasattr(x, "shape") and not isinstance(x, np.generic)
    return is_array and getattr(x, "dtype", None) in _ELIGIBLE


def _given(values: tuple[Any, ...], dtype: Any) -> Any:
    """``values`` in ``dtype``; what was one array in two places still is."""
    done: dict[int, Any] = {}

    def cast(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return [cast(item) for item in x] if isinstance(x, list) else tuple(map(cast, x))
        if not _eligible(x) or x.dtype == dtype:
            return x
        if id(x) not in done:
            done[id(x)] = as_array("an array", x).astype(dtype)
        return done[id(x)]

    given = values if dtype is None else tuple(map(cast, values))
    return given[0] if len(given) == 1 else given


def in_low(*values: Any) -> Any:
    """The arrays, also those in lists and tuples, in the dtype of autocast."""
    return _given(values, low_dtype.value)


def in_full(*values: Any) -> Any:
    """The arrays in float32 if autocast is on."""
    return _given(values, None if low_dtype.value is None else jnp.float32)


def in_widest(*values: Any) -> Any:
    """The arrays in the widest of their dtypes if autocast is on."""
    mixed = low_dtype.value is not None and len({x.dtype for x in values if _eligible(x)}) > 1
    return _given(values, jnp.float32 if mixed else None)
