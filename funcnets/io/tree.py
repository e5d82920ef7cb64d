"""What is saved, as a tree that JSON can hold and a flat table of arrays.

``encode`` takes apart, ``decode`` puts together again. The tree keeps what the arrays alone do not
tell: the containers and their order, keys that are no strings, Python's numbers and texts, which
arrays are PRNG keys, and which names stand for one and the same array.
"""

from __future__ import annotations

import base64
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.core import Tracer

from funcnets._args import describe
from funcnets.core.cell import Cell
from funcnets.errors import ArgumentError, CheckpointError
from funcnets.io import torch_files

__all__ = ["Encoded", "Key", "decode", "dtype_named", "encode", "wrap_key"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_NUMPY = frozenset(np.dtype(code).name for code in "?bhiqBHIQefdFD")


class Encoded(NamedTuple):
    """An object taken apart: what JSON can hold, and the arrays under one name each."""

    tree: Any
    arrays: dict[str, Any]


class Key(NamedTuple):
    """The raw data of PRNG keys and the name of their algorithm."""

    data: Any
    impl: str


def dtype_named(name: str) -> np.dtype | None:
    """NumPy's or JAX's dtype of that name, if arrays of it can be saved."""
    if name in _NUMPY:
        return np.dtype(name)
    kind = getattr(ml_dtypes, name, None)
    return np.dtype(kind) if isinstance(kind, type) and issubclass(kind, np.generic) else None


def encode(obj: Any) -> Encoded:
    """Take ``obj`` apart, without changing or copying anything in it.

    Raises:
        ArgumentError: it holds something that cannot be saved; all such places are listed.
    """
    encoder = _Encoder()
    try:
        tree = encoder.tree(obj, ())
    except RecursionError:
        raise ArgumentError("cannot save what is nested this deeply") from None
    if encoder.problems:
        listed = "\n\t".join(encoder.problems)
        raise ArgumentError(
            "only arrays, PRNG keys, None, bool, int, float, complex, str, bytes, and dicts, lists, "
            f"tuples and sets of them can be saved, but there is\n\t{listed}"
        )
    return Encoded(tree, encoder.arrays)


class _Encoder:
    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self.problems: list[str] = []
        self._names: dict[Any, str] = {}
        self._above: set[int] = set()

    def tree(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, Cell):
            if not value.settled:
                return self._refuse(path, value, "its shape is not known yet: call the model once")
            value = value.data
        if isinstance(value, jax.Array):
            return self._jax_array(value, path)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._numpy_array(np.asarray(value), path)
        if torch_files.is_tensor(value):
            why = torch_files.obstacle(value)
            if why is not None:
                return self._refuse(path, value, why)
            return self._named(value, torch_files.identity(value), path)
        if type(value) in _PLAIN:
            return _plain(value)
        if isinstance(value, (Mapping, list, tuple)) or type(value) is set:
            return self._container(value, path)
        return self._refuse(path, value, _remedy(value))

    def _refuse(self, path: tuple[Any, ...], value: Any, why: str) -> None:
        where = "".join(f"[{key!r}]" for key in path) or "the object itself"
        array = isinstance(value, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))
        what = describe(value) if array else f"a {type(value).__name__}"
        self.problems.append(f"{where}: {what}{': ' if why else ''}{why}")

    # --- arrays ---

    def _jax_array(self, value: jax.Array, path: tuple[Any, ...]) -> Any:
        if isinstance(value, Tracer):
            shape = jax.ShapeDtypeStruct(value.shape, value.dtype)
            return self._refuse(path, shape, "a tracer; save outside of jax.jit and its like")
        if value.is_deleted():
            return self._refuse(path, value, "its memory was donated to a compiled function")
        if not (value.is_fully_addressable or value.is_fully_replicated):
            return self._refuse(
                path,
                value,
                "it spans several processes; gather it in all of them, with "
                "jax.experimental.multihost_utils.process_allgather(x, tiled=True)",
            )
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            impl, data = str(jax.random.key_impl(value)), jax.random.key_data(value)
            if jax.random.key_impl(jax.random.wrap_key_data(data, impl=impl)) != impl:
                return self._refuse(path, value, "its algorithm has no name")
            named = self._named(data, ("key", id(value)), path)
            return {"key": [named["array"], impl]}
        if dtype_named(value.dtype.name) is None:
            return self._refuse(path, value, "its dtype cannot be saved")
        return self._named(value, id(value), path)

    def _numpy_array(self, value: np.ndarray, path: tuple[Any, ...]) -> Any:
        if dtype_named(value.dtype.name) is None:
            return self._refuse(path, value, "its dtype cannot be saved")
        identity = (value.ctypes.data, value.shape, value.strides, value.dtype)
        return self._named(value, identity, path)

    def _named(self, array: Any, identity: Any, path: tuple[Any, ...]) -> Any:
        """The name of an array: the one it has already if it was met before."""
        if identity not in self._names:
            # Half of a character that UTF-8 lacks is legal in a Python str.
            text = ".".join(map(str, path)) or "array"
            name = text = text.encode("utf-8", "backslashreplace").decode()
            number = 1
            while name in self.arrays or name == "__metadata__":  # which the format has for itself
                number += 1
                name = f"{text}#{number}"
            self._names[identity], self.arrays[name] = name, array
        return {"array": self._names[identity]}

    # --- containers ---

    def _container(self, value: Any, path: tuple[Any, ...]) -> Any:
        if id(value) in self._above:
            return self._refuse(path, value, "it contains itself")
        self._above.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, path)
            if hasattr(value, "_fields"):
                return self._refuse(path, value, _remedy(value))
            if isinstance(value, set):
                return {"set": sorted(self._scalars(value, path), key=repr)}
            items = [self.tree(item, (*path, i)) for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        finally:
            self._above.discard(id(value))

    def _mapping(self, value: Mapping[Any, Any], path: tuple[Any, ...]) -> Any:
        keys = self._scalars(value, path)
        items = [[k, self.tree(v, (*path, n))] for k, (n, v) in zip(keys, value.items())]
        if type(value) is Counter:
            return {"counter": items}
        if type(value) is OrderedDict:
            # Versions of modules, which load_state_dict reads.
            metadata = vars(value).get("_metadata")
            return {"ordered": [items, self.tree(metadata, (*path, "_metadata"))]}
        return {"dict": items}

    def _scalars(self, values: Any, path: tuple[Any, ...]) -> list[Any]:
        """The keys of a dict, or the elements of a set."""
        found = []
        for value in values:
            if isinstance(value, tuple) and not hasattr(value, "_fields"):
                found.append({"tuple": self._scalars(value, path)})
            elif type(value) in _PLAIN:
                found.append(_plain(value))
            else:
                found.append(self._refuse(path, value, "as a key or an element of a set"))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [_plain(value.real), _plain(value.imag)]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return value


def _remedy(value: Any) -> str:
    if hasattr(value, "state_dict"):
        return "save its state_dict()"
    if hasattr(value, "_fields"):
        return (
            "a NamedTuple comes back only where its class is; save jax.tree.leaves(x), and restore with "
            "jax.tree.unflatten(jax.tree.structure(x), loaded)"
        )
    return ""


# --- and back -----------------------------------------------------------------------------------


def wrap_key(key: Key) -> jax.Array:
    """PRNG keys out of their data."""
    return jax.random.wrap_key_data(jnp.asarray(key.data), impl=key.impl)


def decode(
    tree: Any, array: Callable[[str], Any], make_key: Callable[[Key], Any] = wrap_key
) -> Any:
    """Put an object together again.

    Args:
        tree: what :func:`encode` made.
        array: gives the array of a name; asked once for each name, so that tied ones are one.
        make_key: makes PRNG keys of their data.

    Raises:
        CheckpointError: ``tree`` has something that this version does not know.
    """
    arrays: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in arrays:
            arrays[name] = array(name)
        return arrays[name]

    keys: dict[str, Any] = {}

    def get_key(name: str, impl: str) -> Any:
        if name not in keys:
            keys[name] = make_key(Key(array(name), impl))
        return keys[name]

    def pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
        return ((build(key), build(value)) for key, value in items)

    def ordered(items: list[Any], metadata: Any) -> OrderedDict[Any, Any]:
        made: Any = OrderedDict(pairs(items))
        if metadata is not None:
            made._metadata = build(metadata)
        return made

    kinds: dict[str, Callable[[Any], Any]] = {
        "array": get,
        "key": lambda value: get_key(*value),
        "float": float,
        "complex": lambda value: complex(*map(build, value)),
        "bytes": base64.b64decode,
        "tuple": lambda value: tuple(map(build, value)),
        "set": lambda value: set(map(build, value)),
        "dict": lambda value: dict(pairs(value)),
        "ordered": lambda value: ordered(*value),
        "counter": lambda value: Counter(dict(pairs(value))),
    }

    def build(node: Any) -> Any:
        if isinstance(node, list):
            return [build(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((kind, value),) = node.items()
        if kind not in kinds:
            raise CheckpointError(
                f"it has a {kind!r}, which this version of funcnets does not know"
            )
        return kinds[kind](value)

    return build(tree)
