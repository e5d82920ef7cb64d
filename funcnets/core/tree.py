"""The tree of modules: walking it, finding things by path, and what a compiled program compares.

Everything rests on one traversal, ``Tree._walk``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnets.core import frame as frames
from funcnets.core.cell import Buffer, Cell, Parameter, Stateful
from funcnets.errors import ArgumentError, ModuleAccessError

if TYPE_CHECKING:
    from funcnets.core.module import Module

__all__ = ["Tree", "TreeNameError"]


class TreeNameError(ArgumentError, KeyError):
    """A name under which nothing can be registered."""

    __str__ = Exception.__str__


class Tree(Stateful):
    """The part of ``Module`` that holds children and cells by name."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Buffer | None]
    _modules: dict[str, Module | None]
    _training: bool
    _forward_pre_hooks: dict[int, Any]
    _forward_hooks: dict[int, Any]
    _get_name: Any
    #: The stacked cells of an ``nn.Stack``, by the name that their rows have in its blocks.
    _stacked: Mapping[str, Any] = MappingProxyType({})

    # --- walking ------------------------------------------------------------------------------

    def _note_use(self) -> None:
        """Note that the running call, if there is one, depends on which children and cells there are."""
        if (frame := frames.current()) is not None:
            frame.used[self] = None

    def _walk(self, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Module]]:
        """Every module below and including this one, with its path, depth first, each once.

        The one traversal of this file; with ``seen=None`` repetitions are left out.
        """
        seen = set() if seen is None else seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self  # pyright: ignore[reportReturnType]
        for name, child in self._modules.items():
            if child is not None:
                yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def _walk_all(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """As ``_walk``, with shared modules under each of their names."""
        yield prefix, self  # pyright: ignore[reportReturnType]
        for name, child in self._modules.items():
            if child is not None:
                yield from child._walk_all(f"{prefix}.{name}" if prefix else name)

    def _cells(
        self,
        kinds: tuple[str, ...] = ("_parameters", "_buffers"),
        prefix: str = "",
        recurse: bool = True,
        remove_duplicate: bool = True,
        rows: bool = False,
    ) -> Iterator[tuple[str, Cell]]:
        """Every cell with its dotted path, a shared one under its first path only.

        Those of the blocks of an ``nn.Stack`` are given as PyTorch has them with ``rows``; without, the
        stacked cells in their place, whose path has no number of a block.
        """
        self._note_use()
        seen: set[int] = set()
        walk = self._walk(prefix) if remove_duplicate else self._walk_all(prefix)
        modules = list(walk) if recurse else [(prefix, self)]
        wholes: dict[int, tuple[str, Cell]] = {}
        for path, module in () if rows else modules:
            for name, whole in module._stacked.items():
                whole.agree()
                wholes.setdefault(id(whole), (f"{path}.{name}" if path else name, whole))
        for path, module in modules:
            for kind in kinds:
                for name, cell in module.__dict__[kind].items():
                    if cell is None:
                        continue
                    full = f"{path}.{name}" if path else name
                    if wholes and id(cell.whole) in wholes:
                        full, cell = wholes[id(cell.whole)]
                    if remove_duplicate and id(cell) in seen:
                        continue
                    seen.add(id(cell))
                    yield full, cell

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """``(path, parameter)`` pairs; inside a call the parameters are arrays."""
        cells = self._cells(("_parameters",), prefix, recurse, remove_duplicate, rows=True)
        for name, cell in cells:
            yield name, _seen_from_here(cell)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, in order of registration; inside a call they are arrays."""
        for _, cell in self.named_parameters(recurse=recurse):
            yield cell

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Buffer]]:
        """``(path, buffer)`` pairs; inside a call the buffers are arrays."""
        cells = self._cells(("_buffers",), prefix, recurse, remove_duplicate, rows=True)
        for name, cell in cells:
            yield name, _seen_from_here(cell)

    def buffers(self, recurse: bool = True) -> Iterator[Buffer]:
        """The buffers; inside a call they are arrays."""
        for _, cell in self.named_buffers(recurse=recurse):
            yield cell

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """``(name, module)`` of the direct children, each module once."""
        self._note_use()
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        for _, child in self.named_children():
            yield child

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """``(path, module)`` of this module and all below it."""
        self._note_use()
        memo = set() if memo is None else memo
        for path, module in self._walk(prefix) if remove_duplicate else self._walk_all(prefix):
            if not remove_duplicate or module not in memo:
                memo.add(module)
                yield path, module

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all below it, each once unless ``remove_duplicate`` is False."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    # --- access by path -----------------------------------------------------------------------

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; ``""`` is this one."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise ModuleAccessError(
                    f"{module._get_name()} has no attribute `{name}` (looking for {target!r})"
                )
            module = getattr(module, name)
            if not isinstance(module, Tree):
                raise ModuleAccessError(f"`{name}` is not an nn.Module (looking for {target!r})")
        return module  # pyright: ignore[reportReturnType]

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put ``module`` at a dotted path, in place of what is there.

        Args:
            target: the path; its parent must exist.
            module: the new module.
            strict: whether something must be there already.
        """
        if target == "":
            raise TreeNameError("Cannot set the submodule without a target name!")
        parent_path, _, name = target.rpartition(".")
        if not isinstance(module, Tree):
            raise ArgumentError(f"`module` is not an nn.Module, found {type(module)}")
        parent = self.get_submodule(parent_path)
        existing = getattr(parent, name, None)
        if strict and not hasattr(parent, name):
            raise ModuleAccessError(f"{parent._get_name()} has no attribute `{name}`")
        if existing is not None and not isinstance(existing, Tree):
            raise ModuleAccessError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path."""
        return self._get_cell(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target: str) -> Buffer:
        """The buffer at a dotted path."""
        return self._get_cell(target, "_buffers", "a buffer")

    def _get_cell(self, target: str, kind: str, word: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        cell = module.__dict__[kind].get(name)
        if cell is None:
            if hasattr(module, name):
                raise ModuleAccessError(f"`{name}` is not {word}")
            raise ModuleAccessError(f"{module._get_name()} has no attribute `{name}`")
        return _seen_from_here(cell)

    # --- for fn.jit ---------------------------------------------------------------------------

    def _parts(self) -> Iterator[Module]:
        for _, module in self._walk():
            yield module

    def _fingerprint(self, same: Any = None) -> Any:
        """All of this module, without its children, that a trace of its ``forward`` depends on; ``same`` stands for ``Same``."""
        same = same or Same
        cells = [
            (name, same(c), getattr(c, "requires_grad", None))
            for name, c in self._parameters.items()
        ]
        cells += [(name, same(c), None) for name, c in self._buffers.items()]
        children = [(name, same(child)) for name, child in self._modules.items()]
        hooks = (*self._forward_pre_hooks, *self._forward_hooks)
        plain = [(k, freeze(v, same)) for k, v in self.__dict__.items() if k not in _OWN_FIELDS]
        return type(self), self._training, cells, children, hooks, plain

    def _will_write(self) -> Iterator[Cell]:
        for _, module in self._walk():
            if module._training:
                yield from (b for b in module._buffers.values() if b is not None)

    def _may_draw(self) -> bool:
        """Whether some module in training mode looks as if it drew random numbers; a guess."""
        for _, module in self._walk():
            code = getattr(type(module).forward, "__code__", None)
            if (
                module._training
                and code
                and any(n == "make_rng" or "dropout" in n for n in code.co_names)
            ):
                return True
        return False


_OWN_FIELDS = {
    "_jitted",
    "_parameters",
    "_buffers",
    "_modules",
    "_training",
    "_forward_pre_hooks",
    "_forward_hooks",
}


class Same:
    """Equal only to itself; keeps its value alive, so that no other can take over its identity."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    __hash__ = object.__hash__


def freeze(value: Any, same: Any = Same) -> Any:
    """Something comparable that is equal only if a trace would treat ``value`` the same way."""
    if isinstance(value, np.generic):
        return type(value), value.tobytes()
    if isinstance(value, (float, complex)):
        return type(value), repr(value)  # nan equals itself, and -0.0 is not 0.0
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(freeze(v, same) for v in value)
    if isinstance(value, dict):
        return type(value), tuple((freeze(k, same), freeze(v, same)) for k, v in value.items())
    return same(value)


def _seen_from_here(cell: Any) -> Any:
    """The cell, or inside a call its array."""
    frame = frames.current()
    return cell if frame is None else frame.read(cell)
