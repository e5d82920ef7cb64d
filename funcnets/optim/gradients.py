"""Which gradient belongs to which parameter of an optimizer."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, NoReturn

from funcnets._args import describe
from funcnets.core.cell import Parameter
from funcnets.core.layer import cells_of_trees, flatten
from funcnets.core.rows import rows_of, stack_rows, top_of
from funcnets.errors import DTypeError, TreeError

__all__ = ["gradients_of"]


def gradients_of(groups: Sequence[Any], grads: Any, owner: str) -> dict[Parameter, Any]:
    """The gradient of each trained parameter that has one.

    Args:
        groups: the parameter groups of an optimizer.
        grads: the gradients of a module, as a nested dict, or a tuple of those of several.
        owner: the name of the optimizer, for errors.

    Returns:
        The gradients by parameter.

    Raises:
        TreeError: names or shapes that are not the parameters'.
        DTypeError: something else than a nested dict, or another dtype than the parameter's.
    """
    trees = list(grads) if isinstance(grads, (tuple, list)) else [grads]
    if len(trees) == 2 and isinstance(trees[1], dict) and not isinstance(trees[0], dict):
        raise DTypeError(
            f"step takes the gradients alone, but got {describe(trees[0])} with them, as fn.value_and_grad gives: write "
            "loss, grads = fn.value_and_grad(...)(model), then optimizer.step(grads)"
        )
    for tree in trees:
        if not isinstance(tree, dict):
            raise DTypeError(
                "step takes the gradients that fn.grad or fn.value_and_grad returned (a nested dict), "
                f"but got {describe(tree)}"
            )
    owned = {cell for group in groups for cell in group.cells}
    named = {c for group in groups for row in group["params"] for c in (row, top_of(row))}
    names = {id(value): name for tree in trees for name, value in flatten(tree)}
    found: dict[Any, Any] = {}
    matched: Any = _named(groups, trees) or cells_of_trees(trees, named)
    for tree, rows in zip(trees, matched, strict=True):
        found |= _refuse(groups, tree, owner) if rows is None else rows
    for cell, value in found.items():
        for what, error in (("shape", TreeError), ("dtype", DTypeError)):
            if getattr(value, what, None) != getattr(cell, what):
                raise error(
                    f"the gradient of {names[id(value)]} must have its parameter's {what}, {getattr(cell, what)}, "
                    f"but is {describe(value)}"
                )
    found = _as_held(found, owned, owner)
    return {cell: value for cell, value in found.items() if cell in owned and cell.requires_grad}


def _as_held(found: dict[Any, Any], owned: Set[Any], owner: str) -> dict[Any, Any]:
    """Gradients of the parameters of an ``nn.Stack`` parted or joined as the optimizer holds these."""
    held: dict[Any, Any] = {}
    for cell, value in found.items():
        if cell.rows and cell not in owned:
            held |= zip(cell.rows, rows_of(value), strict=True)
        elif cell.whole not in owned:
            held[cell] = value
        elif not found.keys() >= set(cell.whole.rows):
            raise TreeError(
                f"this {owner} holds the parameters of all blocks of a Stack as one, but there are gradients of some "
                "of them only: differentiate the model that holds the Stack, or give each block a parameter group"
            )
        elif cell.row == 0:
            held[cell.whole] = stack_rows([found[row] for row in cell.whole.rows])
    return held


def _named(groups: Sequence[Any], trees: list[Any]) -> list[dict[Parameter, Any]] | None:
    """By the names that ``named_parameters`` gave, if they are those of the gradients together."""
    names: dict[str, Any] = {}
    for group in groups:
        for name, cell in zip(group.get("param_names", ()), group["params"], strict=False):
            if cell.whole is not None:  # whose name has no number of a block
                parts, depth = name.split("."), cell.whole.name.count(".") + 1
                name = ".".join([*parts[: -depth - 1], *parts[-depth:]])
            if cell.requires_grad:
                names[name] = top_of(cell)
    found = [dict(flatten(tree)) for tree in trees]
    rows = [name for tree in found for name in tree]
    if not names or sorted(rows) != sorted(names):
        return None
    return [{names[name]: value for name, value in tree.items()} for tree in found]


def _refuse(groups: Sequence[Any], tree: Any, owner: str) -> NoReturn:
    names = [name for name, _ in flatten(tree)]
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    count = sum(len(group["params"]) for group in groups)
    raise TreeError(
        f"these gradients do not belong to the {count} parameters of this {owner}: their names "
        f"are {listed or 'none'}. Pass what fn.grad or fn.value_and_grad of the model returned"
    )
