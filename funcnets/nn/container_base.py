"""What the containers share: positions, pairs, checks, and elements that are child modules."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any, Self

from funcnets._args import describe
from funcnets.core.idioms import meant_module
from funcnets.core.module import Module
from funcnets.core.tree import TreeNameError
from funcnets.errors import ArgumentError, DTypeError, ModuleAccessError


class PositionError(ArgumentError, IndexError):
    """An index beyond the end of a container."""


class MissingNameError(ModuleAccessError, KeyError):
    """A key that a container does not have."""

    __str__ = Exception.__str__


def position(index: Any, size: int) -> int:
    """``index`` counted from the start, for a container of ``size`` elements."""
    try:
        number = operator.index(index)
    except TypeError:
        raise DTypeError(f"an index must be an integer, but got {describe(index)}") from None
    if not -size <= number < size:
        raise PositionError(f"index {number} is out of range: there are {size} elements")
    return number % size


def pairs(owner: str, entries: Any, mapping: type | tuple[type, ...]) -> Iterable[tuple[Any, Any]]:
    """The ``(key, value)`` pairs of a mapping, or of an iterable of pairs."""
    if not isinstance(entries, Iterable):
        raise DTypeError(
            f"{owner}.update should be called with an iterable of key/value pairs, "
            f"but got {type(entries).__name__}"
        )
    if isinstance(entries, mapping):
        return entries.items()  # pyright: ignore[reportAttributeAccessIssue]
    found = []
    for number, pair in enumerate(entries):
        which = f"{owner} update sequence element #{number}"
        if not isinstance(pair, Iterable):
            raise DTypeError(f"{which} should be Iterable; is {type(pair).__name__}")
        pair = tuple(pair)
        if len(pair) != 2:
            raise ArgumentError(f"{which} has length {len(pair)}; 2 is required")
        found.append(pair)
    return found


def check_modules(owner: str, modules: Any) -> list[Module]:
    """The modules of an iterable, all of them checked before any is used."""
    if not isinstance(modules, Iterable):
        raise DTypeError(
            f"{owner}.extend should be called with an iterable, but got {type(modules).__name__}"
        )
    found = list(modules)
    for module in found:
        check_module(module)
    return found


def check_module(module: Any) -> None:
    if module is not None and not isinstance(module, Module):
        raise DTypeError(f"{describe(module)} is not a Module subclass{meant_module(module)}")


class Holder(Module):
    """A module whose children are its elements."""

    @property
    def _elements(self) -> dict[str, Any]:
        """The children by name. A running call notes that it depends on which they are."""
        self._note_use()
        return self._modules

    def __len__(self) -> int:
        return len(self._elements)


class Numbered(Holder):
    """A container whose elements have positions; their names are the numbers unless given."""

    def __iter__(self) -> Iterator[Module]:
        return iter(self._elements.values())

    def _name_at(self, index: Any) -> str:
        return list(self._elements)[position(index, len(self))]

    def _rename(self, modules: Iterable[Module | None]) -> None:
        """Make ``modules`` the elements, numbered from 0."""
        modules = list(modules)
        for name in list(self._modules):
            delattr(self, name)
        for number, module in enumerate(modules):
            self.register_module(str(number), module)

    def _require_numbers(self, action: str) -> None:
        names = list(self._modules)
        if names != [str(i) for i in range(len(names))]:
            raise TreeNameError(
                f"{action} needs modules named 0, 1, 2, ..., but they are {', '.join(names)}: "
                f"make {self._get_name()}(...) anew from the modules in the wanted order"
            )

    def __setitem__(self, idx: int, module: Module | None) -> None:
        setattr(self, self._name_at(idx), module)

    def __delitem__(self, idx: int | slice) -> None:
        names = list(self._modules)[idx] if isinstance(idx, slice) else [self._name_at(idx)]
        self._rename(module for name, module in self._modules.items() if name not in names)

    def append(self, module: Module) -> Self:
        """Add a module at the end, named by its position.

        Args:
            module: the module.

        Returns:
            The container itself.

        Raises:
            DTypeError: not a module.
            KeyError: the name is taken, which can be in a slice of a Sequential; PyTorch would
                replace the module that has it.
        """
        name = str(len(self))
        if name in self._modules:
            raise TreeNameError(
                f"the position of the new module gives it the name '{name}', which another has: number "
                f"the modules anew first, with {self._get_name()}(*modules)"
            )
        self.register_module(name, module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Append every module of an iterable; if one of them is no module, none.

        Args:
            modules: the modules, for example another container.

        Returns:
            The container itself.
        """
        for module in check_modules(self._get_name(), modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self | None:
        """Put a module before position ``index``; those after it move up by one.

        Args:
            index: from ``-len(self)`` to ``len(self)``; negative numbers count from the end.
            module: the module.
        """
        if not isinstance(module, Module):
            raise DTypeError(f"module should be of type: {Module}, but got {describe(module)}")
        size = len(self)
        if index == size:
            return self.append(module)
        if not -size <= index < size:
            raise PositionError(f"Index out of range: {index}, there are {size} elements")
        self._require_numbers("insert")
        modules: list[Any] = list(self)
        modules.insert(index, module)
        self._rename(modules)
        return self

    def pop(self, key: int | slice) -> Any:
        """Take out what ``self[key]`` gives; the modules left are numbered anew.

        Args:
            key: an index, or a slice.

        Returns:
            The module, or a container of several.
        """
        taken = self[key]  # pyright: ignore[reportIndexIssue]
        del self[key]
        return taken
