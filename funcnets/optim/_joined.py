"""One update for many small arrays.

A rule that treats every number by itself gives the same result on a vector of all of them as on each
array alone. So small arrays are joined before the update and parted after it. In a compiled step they come
out of one pack and go back into it (``core/pack.py``), and joining costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

from funcnets.core.cell import Parameter
from funcnets.core.pack import Pack, grouped

Tree = dict[str, Any]


def update_joined(
    tx: optax.GradientTransformation,
    cells: Mapping[str, Parameter],
    gradients: Tree,
    state: Any,
    params: Tree,
) -> tuple[Tree, Any]:
    """``tx.update`` and ``optax.apply_updates`` with the small parameters joined.

    Args:
        tx: a transformation that treats every number by itself.
        cells: the parameters by name.
        gradients: their gradients.
        state: the transformation's state; a dict with these names in it is joined likewise.
        params: their values.

    Returns:
        The new values and the new state, apart again.
    """
    names: dict[Any, str] = {cell: name for name, cell in cells.items()}
    groups = [
        [names[c] for c in group] for group in grouped([c for c in cells.values() if c.has_value])
    ]
    if not groups:
        return update_apart(tx, cells, gradients, state, params)
    joined = {name for group in groups for name in group}
    shapes = {name: value.shape for name, value in params.items()}

    def join(tree: Tree) -> Tree:
        apart = {name: value for name, value in tree.items() if name not in joined}
        return apart | {group[0]: Pack.join([tree[n] for n in group]) for group in groups}

    def part(tree: Tree) -> Tree:
        out = dict(tree)
        for group in groups:
            out |= _parted(tree[group[0]], group, shapes)
        return out

    def fits(node: Any) -> bool:
        """Whether this part of the state has an array like each parameter."""
        return (
            isinstance(node, dict)
            and node.keys() == shapes.keys()
            and all(getattr(node[n], "shape", None) == shapes[n] for n in joined)
        )

    nodes, structure = jax.tree.flatten(state, is_leaf=fits)
    like = [fits(node) for node in nodes]
    state = structure.unflatten([join(n) if f else n for n, f in zip(nodes, like, strict=True)])
    updates, state = tx.update(join(gradients), state, join(params))
    done = structure.flatten_up_to(state)
    state = structure.unflatten([part(n) if f else n for n, f in zip(done, like, strict=True)])
    return part(_applied(join(params), updates)), state


def update_apart(
    tx: optax.GradientTransformation,
    cells: Mapping[str, Parameter],
    gradients: Tree,
    state: Any,
    params: Tree,
) -> tuple[Tree, Any]:
    """The same for any transformation, array by array."""
    updates, state = tx.update(gradients, state, params)
    return _applied(params, updates), state


def _parted(vector: jax.Array, group: Sequence[str], shapes: Mapping[str, Any]) -> Tree:
    out, start = {}, 0
    for name in group:
        stop = start + math.prod(shapes[name])
        out[name] = jax.lax.slice(vector, (start,), (stop,)).reshape(shapes[name])
        start = stop
    return out


def _applied(params: Any, updates: Any) -> Tree:
    new: Any = optax.apply_updates(params, updates)
    return new
