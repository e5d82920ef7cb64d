"""Containers of parameters: ParameterList and ParameterDict.

An array put into one becomes a Parameter; anything else is kept as it is. Reading an element
goes through the module's attributes: outside of a call it is the Parameter, inside it is the array.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView, Mapping
from typing import Any, NoReturn, Self

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.cell import Buffer, Cell, Parameter
from funcnets.core.module import Module
from funcnets.core.tree import TreeNameError
from funcnets.errors import DTypeError, UnsupportedError
from funcnets.nn.container_base import MissingNameError, pairs, position

__all__ = ["ParameterDict", "ParameterList"]

#: PyTorch's older names of its dtypes, which ParameterDict prints.
_TENSOR_NAMES = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
}


class Values(Module):
    """What ParameterList and ParameterDict share: elements that are attributes."""

    def _names(self) -> list[str]:
        """The attribute names of the elements, in order."""
        raise NotImplementedError

    def _dtype_text(self, dtype: Any) -> str:
        raise NotImplementedError

    def _store(self, name: str, value: Any) -> None:
        """Make ``value`` the attribute ``name``; an array becomes a Parameter."""
        if isinstance(value, (jax.Array, np.ndarray, Buffer)):
            value = Parameter(value)
        setattr(self, name, value)

    def _stored(self, name: str) -> Any:
        """The element itself: inside a call, too, the Parameter and not its array."""
        cells = self._parameters if name in self._parameters else self._buffers
        return cells[name] if name in cells else getattr(self, name)

    def _refuse_call(self) -> NoReturn:
        raise UnsupportedError(f"{self._get_name()} should not be called.")

    def extra_repr(self) -> str:
        """One line for each element: the kind and size of a parameter, the type of other objects."""
        return "\n".join(f"  ({n}): {self._element_text(self._stored(n))}" for n in self._names())

    def _element_text(self, value: Any) -> str:
        if not isinstance(value, (Cell, jax.Array)):
            return f"Object of type: {type(value).__name__}"
        kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
        size = "x".join(map(str, value.shape))
        return f"{kind} containing: [{self._dtype_text(value.dtype)} of size {size}]"


class ParameterList(Values):
    """A list of parameters that belong to the module that holds it.

    Arrays, of JAX or NumPy, become Parameters. Other objects can be elements, too, and stay what they are.

    Args:
        values: an iterable of elements.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> scales = nn.ParameterList([jnp.ones(3), nn.Parameter((2, 3))])
        >>> scales
        ParameterList(
            (0): Parameter containing: [torch.float32 of size 3]
            (1): Parameter containing: [torch.float32 of size 2x3]
        )
        >>> list(scales.state_dict())
        ['0', '1']

    References:
        torch.nn.ParameterList
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def _names(self) -> list[str]:
        return [str(i) for i in range(self._size)]

    def _dtype_text(self, dtype: Any) -> str:
        return f"torch.{jnp.dtype(dtype).name}"

    def __getitem__(self, idx: int | slice) -> Any:
        if isinstance(idx, slice):
            part = self.__class__()
            return part.extend([self._stored(name) for name in self._names()[idx]])
        return getattr(self, str(position(idx, self._size)))

    def __setitem__(self, idx: int, param: Any) -> None:
        self._store(str(position(idx, self._size)), param)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self._size))

    def __iadd__(self, parameters: Iterable[Any]) -> Self:
        return self.extend(parameters)

    def append(self, value: Any) -> Self:
        """Add an element at the end.

        Args:
            value: a Parameter, an array, which becomes one, or any object.

        Returns:
            The list itself.
        """
        self._store(str(self._size), value)
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Append every element of an iterable.

        Args:
            values: the elements; one array is refused, although it can be iterated.

        Returns:
            The list itself.

        Raises:
            DTypeError: not an iterable, or an array.
        """
        if not isinstance(values, Iterable) or isinstance(values, (jax.Array, np.ndarray, Cell)):
            raise DTypeError(
                "ParameterList.extend should be called with an iterable, "
                f"but got {type(values).__name__}; for one array use append"
            )
        if isinstance(values, ParameterList):
            values = [values._stored(name) for name in values._names()]
        for value in values:
            self.append(value)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_call()


class ParameterDict(Values):
    """A dictionary of parameters that belong to the module that holds it.

    Arrays, of JAX or NumPy, become Parameters. Other objects can be elements, too, and stay what they are.
    The elements are in the order of insertion; those of a plain ``dict`` are inserted by name.

    Args:
        parameters: a mapping of names to elements, or an iterable of ``(name, element)`` pairs.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> sides = nn.ParameterDict({"left": jnp.ones((2, 3))})
        >>> sides["right"] = nn.Parameter((3,))
        >>> sides
        ParameterDict(
            (left): Parameter containing: [torch.FloatTensor of size 2x3]
            (right): Parameter containing: [torch.FloatTensor of size 3]
        )
        >>> list(sides.state_dict())
        ['left', 'right']

    References:
        torch.nn.ParameterDict
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def _names(self) -> list[str]:
        return list(self._keys)

    def _dtype_text(self, dtype: Any) -> str:
        name = jnp.dtype(dtype).name
        return f"torch.{_TENSOR_NAMES.get(name, name.capitalize())}Tensor"

    def _check_key(self, key: Any) -> None:
        if not isinstance(key, str):
            raise DTypeError(f"a key of ParameterDict must be a string, but got {describe(key)}")

    def __getitem__(self, key: str) -> Any:
        self._check_key(key)
        # What was assigned as an attribute is found, too, as in PyTorch; methods are not.
        if key not in self._keys and key not in {
            **self._parameters,
            **self._buffers,
            **self._modules,
        }:
            has = ", ".join(map(repr, self._keys)) or "none"
            raise MissingNameError(f"{key!r} is not among the keys of this ParameterDict: {has}")
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._check_key(key)
        if key not in self._keys and (hasattr(type(self), key) or key in self.__dict__):
            raise TreeNameError(f"attribute '{key}' already exists")
        self._store(key, value)
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        if key not in self._keys:
            raise MissingNameError(f"{key!r} is not among the keys of this ParameterDict")
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def copy(self) -> ParameterDict:
        """A new ParameterDict with the same elements, in the same order."""
        return ParameterDict(OrderedDict((key, self._stored(key)) for key in self._keys))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The element ``key``; if there is none, ``default`` is put in first.

        Args:
            key: its name.
            default: an element.

        Returns:
            The element.
        """
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """Take out all elements."""
        for key in self._names():
            del self[key]

    def pop(self, key: str) -> Any:
        """Take out the element ``key``.

        Args:
            key: its name.

        Returns:
            The element.
        """
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take out the element inserted last.

        Returns:
            Its ``(key, element)``.
        """
        if not self._keys:
            raise MissingNameError("popitem(): dictionary is empty")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The element ``key``, or ``default`` if there is none.

        Args:
            key: its name.
            default: what to return otherwise.
        """
        return self[key] if key in self._keys else default

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A new ParameterDict with the same element under every key.

        Args:
            keys: the names.
            default: the element; an array becomes a Parameter of its own for every key.
        """
        return ParameterDict((key, default) for key in keys)

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._keys.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """The ``(name, element)`` pairs."""
        return ((key, self[key]) for key in self._keys)

    def values(self) -> Iterable[Any]:
        """The elements."""
        return (self[key] for key in self._keys)

    def update(self, parameters: Any) -> None:
        """Add or replace elements.

        Args:
            parameters: as for the constructor.

        Raises:
            DTypeError: neither a mapping nor an iterable of pairs, or a key that is no string.
            ArgumentError: an element of the iterable has not two parts.
        """
        if isinstance(parameters, ParameterDict):
            parameters = [(key, parameters._stored(key)) for key in parameters]
        entries = pairs("ParameterDict", parameters, Mapping)
        if isinstance(parameters, Mapping) and not isinstance(parameters, OrderedDict):
            entries = sorted(entries, key=lambda entry: entry[0])
        for key, value in entries:
            self[key] = value

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse_call()

    def __or__(self, other: Any) -> ParameterDict:
        union = self.copy()
        union.update(other)
        return union

    def __ror__(self, other: Any) -> Any:
        union = other.copy()
        union.update(self)
        return union

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self
