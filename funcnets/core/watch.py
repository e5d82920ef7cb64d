"""Seeing every call of a module: what all of ``funcnets.look`` rests on that runs a model.

``watching(watch)`` puts ``watch(module, args, kwargs)`` in the place of every call of a module below: it makes the
call itself, with ``call``, and may note something about it with ``note``: something static and a list of arrays.
The lifts carry the arrays out of their transformations, as they carry what is written to buffers: of a
``fn.scan`` and a ``fn.vmap`` they come with one more axis, in front.

Nothing is changed about the modules themselves. The blocks of an ``nn.Stack`` are called one by one when somebody
watches, so that each is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from funcnets.core import frame as frames
from funcnets.core.frame import OWN, Taps
from funcnets.core.layer import call_abstractly
from funcnets.core.lifting import entered, split_arrays
from funcnets.core.module import Module

__all__ = ["Paths", "call", "note", "root_of", "trace_abstractly", "watching"]

Watch = Callable[[Module, tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def watching(watch: Watch) -> Iterator[list[tuple[Any, list[Any]]]]:
    """Put ``watch`` in the place of every module's call; what was noted is in the list that is given."""
    with entered() as frame:
        before, frame.taps = frame.taps, Taps(watch)
        try:
            yield frame.taps.found
        finally:
            frame.taps = before


def call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call that a watch stands for, hooks included."""
    return module._call_with_hooks(args, kwargs)


def note(info: Any, arrays: list[Any]) -> bool:
    """Note something about the call that is being watched.

    Args:
        info: something static.
        arrays: arrays of the call.

    Returns:
        False if the call is inside a raw JAX transformation, which arrays cannot leave: nothing is noted.
    """
    frame = frames.current()
    taps = None if frame is None else frame.taps
    if taps is None or (arrays and taps.token != get_opaque_trace_state()):
        return False
    taps.found.append((info, arrays))
    return True


class Paths:
    """Where the modules stand that are called: in the tree of ``root``, if there is one.

    A module of no known tree (a model that another one uses without holding it) stands below its caller
    under the name of its class, in parentheses.
    """

    def __init__(self, root: Module | None = None) -> None:
        self.root = root
        self._known: dict[Module, str] = {} if root is None else _paths(root)
        self._running: list[str] = []

    def __getitem__(self, module: Module) -> str:
        if module not in self._known:
            above = self._running[-1] if self._running else ""
            name = f"({type(module).__name__})"
            for child, path in _paths(module, f"{above}.{name}" if above else name).items():
                self._known.setdefault(child, path)
        return self._known[module]

    @contextmanager
    def within(self, module: Module) -> Iterator[str]:
        """While a call of ``module`` runs; gives its path."""
        path = self[module]
        self._running.append(path)
        try:
            yield path
        finally:
            self._running.pop()


def root_of(model: Any) -> Module | None:
    """The module that a call is of: the model itself, or that of a pair which ``functionalize`` made."""
    if isinstance(model, Module):
        return model
    return getattr(getattr(model, "apply", None), "module", None)


def _paths(root: Module, prefix: str = "") -> dict[Module, str]:
    return {module: path for path, module in root._walk(prefix)}


def trace_abstractly(
    fun: Callable[..., Any], args: Any, kwargs: Any, watch: Watch, training: bool | None = None
) -> tuple[Any, list[Any]]:
    """The program of a call as a jaxpr, without computing, drawing or allocating anything.

    Args:
        fun: a Module, or a function that uses modules.
        args: with a ``jax.ShapeDtypeStruct`` in the place of an array, or an array.
        kwargs: likewise.
        watch: put in the place of every module's call.
        training: the mode; None for each module's own.

    Returns:
        The closed jaxpr, and the static part of what was noted.
    """
    noted: list[Any] = []

    def watched(*args: Any, **kwargs: Any) -> list[Any]:
        with watching(watch) as found:
            out = fun(*args, **kwargs)
        noted[:] = [info for info, _ in found]
        return split_arrays(out)[0]

    def program(pure: Any, arrays: Any) -> Any:
        # A fresh function: what was traced for it before must not be found.
        return jax.make_jaxpr(lambda given: pure(given))(arrays)

    mode = OWN if training is None else training
    return call_abstractly(watched, args, kwargs, evaluate=program, mode=mode), noted
