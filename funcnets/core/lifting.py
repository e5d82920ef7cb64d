"""What the lifts (``lifts.py``, ``remat.py``) have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from funcnets.core import frame as frames
from funcnets.core.cell import Cell, Stateful
from funcnets.core.frame import Frame, NeedsKey
from funcnets.core.module import rooted_frame

__all__ = ["entered", "split_arrays", "with_key"]


@contextmanager
def entered() -> Iterator[Frame]:
    """The running frame, or one for this call."""
    frame = frames.current()
    if frame is not None:
        yield frame
    else:
        with rooted_frame() as frame:
            yield frame


def with_key(parent: Frame, run: Callable[[jax.Array | None], Any]) -> Any:
    """``run(None)``, and if that draws a key ``run(key)``."""
    try:
        return run(None)
    except NeedsKey as need:
        what = need.what
    return run(parent.fork_key(what))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))


def split_arrays(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """The arrays of a tree, and a function that puts others in their places.

    Modules, numbers, strings and functions stay where they are: they are not for the transformation.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, (Stateful, Cell)))
    leaves = [leaf.data if isinstance(leaf, Cell) else leaf for leaf in leaves]
    places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]

    def rebuild(arrays: Sequence[Any]) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return jax.tree.unflatten(structure, filled)

    return [leaves[i] for i in places], rebuild
