"""Blocks of equal structure as one ``jax.lax.scan``: the body is the first one, with each one's values in turn.

The body runs in a child frame in which the first block's cells, rows of stacked ones, have the values
of the present block. What it writes to them leaves the scan as rows. Its random draws are those of the blocks
called one after the other: a key is the call's with a hash of the module's path and the draw's number folded in,
so these hashes are scanned, too. What has no path of its own in each block, such as ``F.dropout``, draws on from block
to block: how often a block does so is found by a first trace. Whatever does not fit into this is called block by block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets.core.alike import difference
from funcnets.core.cell import Cell
from funcnets.core.frame import Frame, NeedsKey, running
from funcnets.core.lifting import entered
from funcnets.core.module import Module
from funcnets.core.remat import checkpoint

__all__ = ["call_blocks"]


class Unlike(BaseException):
    """The blocks have to be called one after the other. Never leaves the call of the Stack."""


class Recount(BaseException):
    """A block draws more or less often than was supposed. Never leaves the call of the Stack."""


def call_blocks(
    blocks: Sequence[Module],
    x: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    remat: bool | Callable[..., bool],
) -> Any:
    """``for block in blocks: x = block(x, *args, **kwargs)``, as a loop where it is to be compiled.

    Args:
        blocks: modules whose cells are rows of the same stacked ones.
        x: the first input.
        args: further arguments of every block.
        kwargs: likewise.
        remat: whether activations are computed again, or a policy for that.
    """
    policy = remat if callable(remat) else None

    def call(block: Module, x: Any) -> Any:
        return block(x, *args, **kwargs)

    def wrap(body: Any) -> Any:
        return jax.checkpoint(body, policy=policy, prevent_cse=False) if remat else body

    rest = list(blocks)
    with entered() as frame:
        # What is computed at once gains nothing from a loop, which would be compiled for it.
        scans = isinstance(jax.lax.neg(np.float32(0)), Tracer)
        # Nor can a module that is watched be seen in each block, if one stands for all.
        scans = (
            scans
            and frame.taps is None
            and all(difference(rest[0], block) is None for block in rest[1:])
        )
        for _ in range(2):  # the first block may be what makes its input like its output
            if scans and len(rest) > 1:
                try:
                    return scan_blocks(frame, rest, call, x, wrap)
                except Unlike:
                    x = (checkpoint(call, policy=policy) if remat else call)(rest.pop(0), x)
        for block in rest:
            x = (checkpoint(call, policy=policy) if remat else call)(block, x)
    return x


def scan_blocks(
    parent: Frame,
    blocks: Sequence[Module],
    call: Callable[[Module, Any], Any],
    x: Any,
    wrap: Callable[[Any], Any],
) -> Any:
    """``for block in blocks: x = call(block, x)``, of which only the first is traced.

    Args:
        parent: the running frame.
        blocks: which are alike.
        call: calls a block.
        x: a tree of arrays; what a block returns must be like it.
        wrap: put around the body.

    Raises:
        Unlike: this cannot be done; nothing has happened.
    """
    table = [[c for _, c in block._cells() if c.whole is not None] for block in blocks]
    rows = table[0]
    arrays = all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(x))
    if not arrays or any(row in parent.apart for row in rows):
        raise Unlike
    numbers = [cells[0].row for cells in table] if rows else []
    values = [_take(parent.read(row.whole), numbers) for row in rows]
    paths = _paths(parent, blocks)
    written: list[Cell] = []
    counts: dict[str, int] = {}
    #: How often a block draws under a path that all of them have in common.
    each: dict[str, int] = {}
    key: Any = None

    def body(x: Any, item: Any) -> Any:
        number, values = item
        child = parent.child(key=key)
        child.apart = parent.apart | set(rows)
        given = dict(zip(rows, values, strict=True))
        child.values |= given

        def word(path: str, count: int) -> Any:
            own, step = paths.get(path, [path] * len(blocks)), each.get(path, 0)
            words = [
                parent.word(p, parent._counts.get(p, -1) + 1 + step * n + count)
                for n, p in enumerate(own)
            ]
            return jnp.asarray(np.array(words))[number]

        child.word = word
        with running(child):
            out = call(blocks[0], x)
        known = [child.written.get(row, value) for row, value in given.items()]
        if not child.written.keys() <= given.keys() or _kind((out, known)) != _kind((x, values)):
            raise Unlike
        drawn = {path: last + 1 for path, last in child._counts.items() if path not in paths}
        if drawn != each:
            each.update(drawn)
            raise Recount
        written[:] = child.written
        counts.update(child._counts)
        return out, list(child.written.values())

    items = np.arange(len(blocks), dtype=np.int32), values
    for _ in range(3):
        try:
            x, news = jax.lax.scan(wrap(body), x, items)
            break
        except NeedsKey as need:
            key = parent.own_key(need.what)
        except Recount:
            pass
    else:
        raise Unlike
    wholes = [row.whole for row in written]
    before = [parent.read(whole) for whole in wholes]
    parent.absorb(wholes, map(functools.partial(_put, numbers), before, news))
    for path, last in counts.items():
        for p in paths.get(path, [path] * len(blocks)):
            parent._counts[p] = parent._counts.get(p, -1) + 1 + last
    return x


def _take(value: Any, numbers: list[int]) -> Any:
    return value if numbers == list(range(len(value))) else value[np.array(numbers)]


def _put(numbers: list[int], value: Any, rows: Any) -> Any:
    return rows if numbers == list(range(len(value))) else value.at[np.array(numbers)].set(rows)


def _kind(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(getattr(v, "shape", None), getattr(v, "dtype", None)) for v in leaves]


def _paths(parent: Frame, blocks: Sequence[Module]) -> dict[str, list[str]]:
    """The paths of the modules that correspond, by the first one's; without shared ones."""
    paths = {}
    for modules in zip(*(block._walk() for block in blocks), strict=True):
        if modules[0][1] is not modules[-1][1]:
            names = [parent.path(module) for _, module in modules]
            paths[names[0]] = names
    return paths
