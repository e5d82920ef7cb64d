"""What lets a cell stand where its array would: operators, indexing, NumPy conversion.

The functions of ``funcnets.functional`` take a cell for its value. JAX's own functions take arrays only:
write ``jnp.sum(p.data)``, or ``p.sum()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.errors import ShapeError

__all__ = ["ArrayLike", "unwrap"]


class ArrayLike:
    """The part of ``Cell`` that behaves like its value."""

    __slots__ = ()

    data: Any
    shape: tuple[int, ...]
    dtype: Any

    def item(self) -> Any:
        """The only element as a Python number."""
        return self.data.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.data.tolist()

    def numpy(self) -> np.ndarray:
        """A NumPy copy."""
        return np.array(self.data)

    def detach(self) -> jax.Array:
        """The value; an array carries no gradient history in JAX."""
        return self.data

    def clone(self) -> jax.Array:
        """A copy of the value."""
        return jnp.copy(self.data)

    def __jax_array__(self) -> jax.Array:
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.data, dtype) if copy else np.asarray(self.data, dtype)

    def __getattr__(self, name: str) -> Any:
        # Whatever an array has, such as .mean(), .T, .reshape(...), .at[...], .astype(...).
        if name.startswith("__") or not hasattr(jax.Array, name):
            text = f"{type(self).__name__} has no attribute {name!r}"
            if name.endswith("_") and not name.startswith("_"):
                text += ": to change its value write p.data = array; nn.init has initializers"
            raise AttributeError(text)
        return getattr(self.data, name)

    def __getitem__(self, index: Any) -> jax.Array:
        return self.data[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.data = self.data.at[index].set(unwrap(value))

    def __iter__(self) -> Iterator[jax.Array]:
        return iter(self.data)

    def __contains__(self, item: Any) -> bool:
        return bool((self.data == unwrap(item)).any())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __format__(self, spec: str) -> str:
        return format(self.data, spec) if not self.shape else repr(self)


def unwrap(value: Any) -> Any:
    """The array of a cell; anything else as it is."""
    return value.data if isinstance(value, ArrayLike) else value


def _forward_operators() -> None:
    """Give Cell the array's operators, by way of its value."""

    def binary(name: str) -> Any:
        def operator(self: ArrayLike, other: Any) -> Any:
            return getattr(self.data, name)(unwrap(other))

        operator.__name__ = name
        return operator

    def unary(name: str) -> Any:
        def operator(self: ArrayLike) -> Any:
            return getattr(self.data, name)()

        operator.__name__ = name
        return operator

    def inplace(name: str) -> Any:
        def operator(self: ArrayLike, other: Any) -> Any:
            result = getattr(self.data, name.replace("__i", "__", 1))(unwrap(other))
            if result is NotImplemented:
                return result
            if result.shape != self.shape or result.dtype != self.dtype:
                raise ShapeError(
                    f"an in-place operation keeps shape and dtype: {describe(self)} would become {describe(result)}"
                )
            self.data = result
            return self

        operator.__name__ = name
        return operator

    arithmetic = [
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "matmul",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
        "divmod",
    ]
    for name in [n for op in arithmetic for n in (f"__{op}__", f"__r{op}__")]:
        setattr(ArrayLike, name, binary(name))
    for op in arithmetic[:-1]:  # there is no in-place divmod
        setattr(ArrayLike, f"__i{op}__", inplace(f"__i{op}__"))
    for name in ["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"]:
        setattr(ArrayLike, name, binary(name))
    for name in ["__neg__", "__pos__", "__abs__", "__invert__"]:
        setattr(ArrayLike, name, unary(name))


_forward_operators()
