"""Where NaN or infinity came from: the first call of a module whose output was not finite.

``fn.find_nan`` and the message of a training that diverged rest on this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.module import Module
from funcnets.core.watch import Paths, Watch, call, note

__all__ = ["Seen", "bad", "bad_cells", "first_bad", "observe"]


class Seen(NamedTuple):
    """One call of a module: what went in and came out, with a text such as ``float32[3]`` for an array."""

    path: str
    module: Module
    args: Any
    kwargs: Any
    output: Any


def bad(tree: Any) -> Any:
    """Whether any floating point number of a tree is not finite."""
    found: Any = jnp.zeros((), bool)
    for leaf in jax.tree.leaves(tree):
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact):
            found |= ~jnp.all(jnp.isfinite(leaf))
    return found


def observe(paths: Paths, *, strangers: bool = True) -> Watch:
    """A watch that notes of each call whether its output and its input are finite.

    Args:
        paths: of the modules.
        strangers: whether to note calls of modules that are not in the tree.
    """
    own = None if strangers or paths.root is None else set(paths.root._parts())

    def watch(module: Module, args: Any, kwargs: Any) -> Any:
        with paths.within(module) as path:
            out = call(module, args, kwargs)
        if own is None or module in own:
            told = (jax.tree.map(_described, part) for part in (args, kwargs, out))
            # Inside of a raw jax.lax.scan, say, nothing can be noted: the module around it will tell.
            note(Seen(path, module, *told), [bad(out), bad((args, kwargs))])
        return out

    return watch


def _described(leaf: Any) -> Any:
    return describe(leaf) if hasattr(leaf, "shape") else leaf


def first_bad(flags: Sequence[Sequence[Any]]) -> tuple[int, bool] | None:
    """The first call, in order of execution, whose output is not finite.

    Args:
        flags: of each call, in the order in which the calls ended, whether the output is bad, and the
            input; with an axis for the steps of a loop that the call is in.

    Returns:
        Its number and whether what it was given was bad; None if there is none.
    """
    found: tuple[int, bool] | None = None
    when: tuple[tuple[int, ...], int] | None = None  # the shape of the flags, the step
    for number, (out, given) in enumerate(flags):
        out, given = np.asarray(out), np.asarray(given)
        if not out.any():
            continue
        step = int(np.argmax(out.ravel()))
        # In a loop an earlier step comes first, whichever module it was in.
        if when is None or (out.ndim and when[0] == out.shape and step < when[1]):
            found, when = (number, bool(given.ravel()[step])), (out.shape, step)
    return found


def bad_cells(module: Module) -> list[str]:
    """The names of a module's parameters and buffers whose values are not finite."""
    return [
        name
        for name, cell in module._cells()
        if cell.settled and cell.has_value and bool(bad(cell.lend()))
    ]
