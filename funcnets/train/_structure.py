"""Values without a ``load_state_dict``: pytrees that are saved as plain containers and fitted back.

``funcnets.io.tree`` takes plain containers apart. A NamedTuple, such as the state of an optax
transformation, is saved as the dict of its fields, and a class that JAX knows as a pytree as the list
of its children. Whoever restores gives an example, whose classes and shapes the values take on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jax

from funcnets._args import describe
from funcnets.core.arraylike import unwrap

__all__ = ["fit_into", "plain"]


def plain(value: Any) -> Any:
    """``value`` with plain containers in the place of NamedTuples and registered classes."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields: Any = value
        return {name: plain(v) for name, v in fields._asdict().items()}
    if isinstance(value, Mapping):
        # In its own class, which is saved, too, where the values stay as they are.
        changed = {key: plain(v) for key, v in value.items()}
        return value if all(changed[key] is value[key] for key in changed) else changed
    if type(value) in (list, tuple):
        changed = [plain(v) for v in value]
        return value if all(map(_same, changed, value)) else type(value)(changed)
    children = _children(value)
    return value if children is None else [plain(child) for child in children]


def _same(one: Any, other: Any) -> bool:
    return one is other


def _children(value: Any) -> list[Any] | None:
    """The children of a class that JAX knows as a pytree; None for a leaf."""
    if value is None:
        return None
    children = jax.tree.leaves(value, is_leaf=lambda x: x is not value)
    return None if len(children) == 1 and children[0] is value else children


def fit_into(example: Any, value: Any, path: str, problems: list[str]) -> Any:
    """``value`` in the structure of ``example``: its classes, checked against its shapes.

    Args:
        example: a pytree of arrays, of ``jax.ShapeDtypeStruct`` or of plain values. None, a number or
            a text takes anything.
        value: the plain containers that were saved.
        path: where it stands, for messages.
        problems: a list that takes everything that does not fit.

    Returns:
        The value; without meaning if there are problems.
    """
    example = unwrap(example)
    if hasattr(example, "shape") and hasattr(example, "dtype"):
        if describe(value) != describe(example):
            problems.append(
                f"{path}: expected {describe(example)}, but the checkpoint has {describe(value)}"
            )
        return value
    if isinstance(example, Mapping):
        rows = _fit_fields(example, value, path, problems)
        return OrderedDict(rows) if isinstance(example, OrderedDict) else rows
    if isinstance(example, tuple) and hasattr(example, "_fields"):
        rows = _fit_fields(example._asdict(), value, path, problems)  # pyright: ignore[reportAttributeAccessIssue]
        return type(example)(**rows) if not problems else None
    children = list(example) if isinstance(example, (list, tuple)) else _children(example)
    if children is None:
        return value
    if not isinstance(value, (list, tuple)) or len(value) != len(children):
        came = f"{len(value)}" if isinstance(value, (list, tuple)) else describe(value)
        problems.append(f"{path}: expected {len(children)} entries, but the checkpoint has {came}")
        return None
    rows = [
        fit_into(e, v, f"{path}.{i}", problems)
        for i, (e, v) in enumerate(zip(children, value, strict=True))
    ]
    if isinstance(example, (list, tuple)):
        return type(example)(rows)
    structure = jax.tree.structure(example, is_leaf=lambda x: x is not example)
    return jax.tree.unflatten(structure, rows) if not problems else None


def _fit_fields(
    example: Mapping[Any, Any], value: Any, path: str, problems: list[str]
) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        problems.append(f"{path}: expected a dict, but the checkpoint has {describe(value)}")
        return {}
    problems += [f"{path}.{n}: missing in the checkpoint" for n in example if n not in value]
    problems += [f"{path}.{n}: unexpected in the checkpoint" for n in value if n not in example]
    return {
        name: fit_into(child, value[name], f"{path}.{name}", problems)
        for name, child in example.items()
        if name in value
    }
