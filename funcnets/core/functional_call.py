"""``functional_call``: one call of a module with other values for some of its cells.

It is ``torch.func.functional_call``. ``functionalize`` is the same idea with all values given and the new
state returned, and should be preferred in new code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.cell import Cell
from funcnets.core.convert import as_array
from funcnets.core.frame import Frame, running
from funcnets.core.layer import settle
from funcnets.core.module import Module, rooted_frame
from funcnets.core.rows import top_of, with_rows
from funcnets.errors import ArgumentError, DTypeError, StateDictError, UnsupportedError

__all__ = ["functional_call"]

Place = tuple[dict[str, Any], str]  # a dict and a key of it


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: dict[str, Any] | Sequence[dict[str, Any]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with the given arrays in place of the values of some of its cells.

    Cells that are not named keep their own values. A buffer that the call writes is written into the
    given dict if it is named there, as PyTorch does, and into the module otherwise.

    Args:
        module: any Module.
        parameter_and_buffer_dicts: arrays by dotted name, as ``state_dict`` gives them, or nested
            dicts as ``init`` gives them; or a list or tuple of such dicts with different names.
        args: the positional arguments of the call: a tuple, or a single argument.
        kwargs: its keyword arguments.
        tie_weights: True; a cell that is registered under several names has one value under all of
            them. With False, such a cell cannot be named.
        strict: whether every parameter and buffer must be given.

    Returns:
        What the call returns.

    Raises:
        DTypeError: ``module`` is not a Module, or the values are not in dicts.
        ArgumentError: a name in two of the dicts, or two values for a tied cell.
        StateDictError: a name that the module does not have, or with ``strict`` one that is missing.
        UnsupportedError: ``tie_weights=False`` and a tied cell is named.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> from funcnets.core.functional_call import functional_call
        >>> model = nn.Linear(3, 1)
        >>> loss = lambda params, x: fn.functional_call(model, params, (x,)).sum()
        >>> jax.grad(loss)({"weight": jnp.zeros((1, 3))}, jnp.ones(3))["weight"].tolist()
        [[1.0, 1.0, 1.0]]

    References:
        torch.func.functional_call
    """
    if not isinstance(module, Module):
        raise DTypeError(f"functional_call takes a Module, but got {describe(module)}")
    given = _rows(parameter_and_buffer_dicts)
    cells = dict(module._cells(remove_duplicate=False))
    # The parameters of an nn.Stack have the names of the pure face, and those of the state_dict.
    cells |= module._cells(remove_duplicate=False, rows=True)
    _check_names(module, given, cells, strict)
    values: dict[Cell, Any] = {}
    for name, (owner, key) in given.items():
        value = owner[key]
        previous = values.setdefault(cells[name], value)
        if previous is not value:
            tied = sorted(n for n, c in cells.items() if c is cells[name])
            raise ArgumentError(
                f"functional_call got multiple values for keys {tied}, which are tied: give one of them"
            )
        if not tie_weights and sum(c is cells[name] for c in cells.values()) > 1:
            raise UnsupportedError(
                f"tie_weights=False cannot give {name!r} a value of its own: under all its names it is one cell"
            )
    values = {c: v if isinstance(v, jax.Array) else as_array(v, None) for c, v in values.items()}
    settle(values)
    outer = frames.current()
    if outer is None:
        with rooted_frame() as outer:
            return _call(outer, module, given, cells, values, args, kwargs)
    return _call(outer, module, given, cells, values, args, kwargs)


def _call(
    outer: Frame,
    module: Module,
    given: dict[str, Place],
    cells: dict[str, Cell],
    values: dict[Cell, Any],
    args: Any,
    kwargs: dict[str, Any] | None,
) -> Any:
    positional = () if args is None else args if isinstance(args, tuple) else (args,)
    frame = Frame(
        outer.read,
        values=dict(values),
        rng=lambda _frame, what: outer.fork_key(what),
        parent=outer,
    )
    with running(frame):
        out = module(*positional, **(kwargs or {}))
    for name, (owner, key) in given.items():
        if top_of(cells[name]) in frame.written:
            owner[key] = frame.read(cells[name])
    others = {cell: value for cell, value in frame.written.items() if cell not in values}
    # Of what was given for some blocks of an nn.Stack, the module keeps its own.
    kept = {c: outer.read(c) for c in values if c.whole in others}
    others |= with_rows(frame.read, kept)
    outer.absorb(others.keys(), others.values())
    return out


def _rows(trees: Any) -> dict[str, Place]:
    """Where each name's array is."""
    many = isinstance(trees, Sequence) and not isinstance(trees, str)
    dicts: list[Any] = list(trees) if many else [trees]
    if not all(isinstance(d, dict) for d in dicts):
        raise DTypeError(
            f"parameter_and_buffer_dicts must be a dict, or a list or tuple of dicts, but got {describe(trees)}"
        )
    rows: dict[str, Place] = {}
    repeated = []
    for tree in dicts:
        for name, place in _places(tree):
            if name in rows:
                repeated.append(name)
            rows[name] = place
    if repeated:
        raise ArgumentError(
            f"{repeated} appeared in multiple dictionaries, so that it is not clear which is meant"
        )
    return rows


def _places(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Place]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _places(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", (tree, key)


def _check_names(
    module: Module, given: Mapping[str, Any], cells: dict[str, Cell], strict: bool
) -> None:
    unexpected = sorted(name for name in given if name not in cells)
    named = {cells[name] for name in given if name in cells}
    missing = (
        sorted(n for n, c in cells.items() if not named & {c, c.whole, *c.rows}) if strict else []
    )
    problems = [
        f"{word} key(s): {', '.join(map(repr, names))}."
        for word, names in (("Unexpected", unexpected), ("Missing", missing))
        if names
    ]
    if problems:
        listed = "\n\t".join(problems)
        raise StateDictError(
            f"Error(s) in reparametrizing for {module._get_name()}:\n\t{listed}\n"
            f"its names are: {', '.join(cells)}"
        )
