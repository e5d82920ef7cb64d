"""Containers of modules: Sequential, ModuleList, ModuleDict.

What is in one is a child module under its number or key, so it is found, named, saved and printed as
every other. Those of parameters are in ``container_parameters.py``.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, Self, overload

from funcnets.core.module import Module
from funcnets.core.printing import indent
from funcnets.errors import ArgumentError, DTypeError
from funcnets.nn.container_base import Holder, MissingNameError, Numbered, check_modules, pairs

__all__ = ["Container", "ModuleDict", "ModuleList", "Sequential"]


class Container(Module):
    """Modules under the names of keyword arguments. Deprecated in PyTorch: subclass ``Module``.

    Args:
        **kwargs: modules.

    Examples:
        >>> import warnings
        >>> from funcnets import nn
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     nn.Container(act=nn.ReLU())
        Container(
          (act): ReLU()
        )

    References:
        torch.nn.Container
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        if type(self) is Container:
            _warn_deprecated()
        for name, module in kwargs.items():
            self.register_module(name, module)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _warn_deprecated()


def _warn_deprecated() -> None:
    warnings.warn(
        "`nn.Container` is deprecated. "
        "All of its functionality is now implemented in `nn.Module`. Subclass that instead.",
        FutureWarning,
        stacklevel=3,
    )


class Sequential(Numbered):
    r"""Modules one after the other: the output of each is the input of the next.

    .. math::
        y = f_{n-1}(\dots f_1(f_0(x)))

    It is indexed, sliced, added, multiplied and changed in place like a list. A slice shares its
    modules with the whole and keeps their names.

    Args:
        *args: modules, named 0, 1, 2, ...; or one ``OrderedDict`` of named modules.

    Shape:
        - Input: what the first module takes.
        - Output: what the last module gives; the input itself if there is no module.

    Examples:
        >>> import jax.numpy as jnp
        >>> from collections import OrderedDict
        >>> from funcnets import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> model(jnp.ones((5, 4))).shape
        (5, 2)
        >>> model[:2]
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): ReLU()
        )
        >>> nn.Sequential(OrderedDict(fc=nn.Linear(4, 3), act=nn.ReLU())).fc
        Linear(in_features=4, out_features=3, bias=True)

    References:
        torch.nn.Sequential
    """

    @overload
    def __init__(self, *args: Module) -> None: ...

    @overload
    def __init__(self, arg: OrderedDict[str, Module], /) -> None: ...

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.register_module(name, module)
        else:
            for number, module in enumerate(args):
                self.register_module(str(number), module)

    @overload
    def __getitem__(self, idx: slice) -> Self: ...

    @overload
    def __getitem__(self, idx: int) -> Module: ...

    def __getitem__(self, idx: int | slice) -> Any:
        if isinstance(idx, slice):
            return self.__class__(OrderedDict(list(self._elements.items())[idx]))
        return self._elements[self._name_at(idx)]

    def forward(self, input: Any) -> Any:
        """Call every module with the output of the one before."""
        for module in self:
            input = module(input)
        return input

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before position ``index``; those after it move up by one.

        Args:
            index: from ``-len(self)`` to ``len(self)``; negative numbers count from the end.
            module: the module.

        Returns:
            The container itself.
        """
        super().insert(index, module)
        return self

    def __add__(self, other: Sequential) -> Sequential:
        _require_sequential(other)
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Self:
        _require_sequential(other)
        return self.extend(other)

    def __mul__(self, other: int) -> Sequential:
        self._require_factor(other)
        return Sequential(*(list(self) * other))

    def __rmul__(self, other: int) -> Sequential:
        return self * other

    def __imul__(self, other: int) -> Self:
        self._require_factor(other)
        self._require_numbers("*=")
        return self.extend(list(self) * (other - 1))

    def _require_factor(self, other: Any) -> None:
        if not isinstance(other, int):
            raise DTypeError(f"unsupported operand type(s) for *: {type(self)} and {type(other)}")
        if other <= 0:
            raise ArgumentError(f"Non-positive multiplication factor {other} for {type(self)}")


def _require_sequential(other: Any) -> None:
    if not isinstance(other, Sequential):
        raise ArgumentError(
            f"add operator supports only objects of Sequential class, but {type(other)} is given."
        )


class ModuleList(Numbered):
    """A list of modules that are children, so that their parameters are found.

    It has no ``forward``: the module that holds it says what to do with its elements.

    Args:
        modules: an iterable of modules.

    Examples:
        >>> from funcnets import nn
        >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        >>> layers.append(nn.ReLU())
        ModuleList(
          (0-2): 3 x Linear(in_features=4, out_features=4, bias=True)
          (3): ReLU()
        )
        >>> len(layers[1:])
        3

    References:
        torch.nn.ModuleList
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @overload
    def __getitem__(self, idx: slice) -> Self: ...

    @overload
    def __getitem__(self, idx: int) -> Module: ...

    def __getitem__(self, idx: int | slice) -> Any:
        if isinstance(idx, slice):
            return self.__class__(list(self)[idx])
        return self._elements[self._name_at(idx)]

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *check_modules("ModuleList", other)])

    def insert(self, index: int, module: Module) -> None:
        """Put a module before position ``index``; those after it move up by one.

        Args:
            index: from ``-len(self)`` to ``len(self)``; negative numbers count from the end.
            module: the module.
        """
        super().insert(index, module)

    def __repr__(self) -> str:
        runs: list[tuple[str, int]] = []  # a text, and how many elements in a row have it
        for text in map(repr, self):
            if runs and runs[-1][0] == text:
                runs[-1] = (text, runs[-1][1] + 1)
            else:
                runs.append((text, 1))
        if not runs:
            return f"{self._get_name()}()"
        lines, first = [], 0
        for text, count in runs:
            last = first + count - 1
            label = f"({first}): " if count == 1 else f"({first}-{last}): {count} x "
            lines.append(indent(label + text))
            first = last + 1
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


class ModuleDict(Holder):
    """A dictionary of modules that are children, in the order of insertion.

    It has no ``forward``: the module that holds it says what to do with its elements.

    Args:
        modules: a mapping of names to modules, or an iterable of ``(name, module)`` pairs.

    Examples:
        >>> from funcnets import nn
        >>> heads = nn.ModuleDict({"a": nn.Linear(4, 2)})
        >>> heads["b"] = nn.ReLU()
        >>> heads
        ModuleDict(
          (a): Linear(in_features=4, out_features=2, bias=True)
          (b): ReLU()
        )
        >>> list(heads)
        ['a', 'b']

    References:
        torch.nn.ModuleDict
    """

    def __init__(
        self,
        modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | ModuleDict | None = None,
    ) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        self._require(key)
        return self._elements[key]

    def __setitem__(self, key: str, module: Module | None) -> None:
        self.register_module(key, module)

    def __delitem__(self, key: str) -> None:
        self._require(key)
        delattr(self, key)

    def _require(self, key: Any) -> None:
        if key not in self._elements:
            has = ", ".join(map(repr, self._modules)) or "none"
            raise MissingNameError(f"{key!r} is not among the keys of this ModuleDict: {has}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._elements)

    def __contains__(self, key: object) -> bool:
        return key in self._elements

    def clear(self) -> None:
        """Take out all modules."""
        for name in list(self._modules):
            delattr(self, name)

    def pop(self, key: str) -> Module:
        """Take out the module ``key``.

        Args:
            key: its name.

        Returns:
            The module.
        """
        module = self[key]
        del self[key]
        return module

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._elements.keys()

    def items(self) -> ItemsView[str, Module]:
        """The ``(name, module)`` pairs."""
        return self._elements.items()

    def values(self) -> ValuesView[Module]:
        """The modules."""
        return self._elements.values()

    def update(
        self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | ModuleDict
    ) -> None:
        """Add or replace modules.

        Args:
            modules: as for the constructor; new names keep their order.

        Raises:
            DTypeError: neither a mapping nor an iterable of pairs, or a value that is no module.
            ArgumentError: an element of the iterable has not two parts.
        """
        for name, module in pairs("ModuleDict", modules, (Mapping, ModuleDict)):
            self[name] = module
