"""Which gradient belongs to which parameter of an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from funcnets._args import describe
from funcnets.core.cell import Parameter
from funcnets.core.layer import cells_of_trees, flatten
from funcnets.errors import DTypeError, TreeError

__all__ = ["gradients_of"]


def gradients_of(groups: Sequence[dict[str, Any]], grads: Any, owner: str) -> dict[Parameter, Any]:
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
    for tree in trees:
        if not isinstance(tree, dict):
            raise DTypeError(
                "step takes the gradients that fn.grad or fn.value_and_grad returned (a nested dict), "
                f"but got {describe(tree)}"
            )
    owned = {cell for group in groups for cell in group["params"]}
    names = {id(value): name for tree in trees for name, value in flatten(tree)}
    found: dict[Any, Any] = {}
    matched: Any = _named(groups, trees) or cells_of_trees(trees, owned)
    for tree, rows in zip(trees, matched, strict=True):
        found |= _refuse(groups, tree, owner) if rows is None else rows
    for cell, value in found.items():
        for what, error in (("shape", TreeError), ("dtype", DTypeError)):
            if getattr(value, what, None) != getattr(cell, what):
                raise error(
                    f"the gradient of {names[id(value)]} must have its parameter's {what}, {getattr(cell, what)}, "
                    f"but is {describe(value)}"
                )
    return {cell: value for cell, value in found.items() if cell in owned and cell.requires_grad}


def _named(groups: Sequence[dict[str, Any]], trees: list[Any]) -> list[dict[Parameter, Any]] | None:
    """By the names that ``named_parameters`` gave, if they are those of the gradients together."""
    names = {
        name: cell
        for group in groups
        for name, cell in zip(group.get("param_names", ()), group["params"], strict=False)
        if cell.requires_grad
    }
    found = [dict(flatten(tree)) for tree in trees]
    rows = [name for tree in found for name in tree]
    if not names or sorted(rows) != sorted(names):
        return None
    return [{names[name]: value for name, value in tree.items()} for tree in found]


def _refuse(groups: Sequence[dict[str, Any]], tree: Any, owner: str) -> NoReturn:
    names = [name for name, _ in flatten(tree)]
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    count = sum(len(group["params"]) for group in groups)
    raise TreeError(
        f"these gradients do not belong to the {count} parameters of this {owner}: their names "
        f"are {listed or 'none'}. Pass what fn.grad or fn.value_and_grad of the model returned"
    )
