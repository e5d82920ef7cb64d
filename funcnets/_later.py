"""Names that a package has but imports only when somebody uses them.

``import funcnets`` should cost little over ``import jax``, and a model uses a few of the families. A package
says in a table where each name lives, and beside it, for type checkers, the same as import statements;
``tests/test_architecture.py`` holds the two together.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["later"]


def later(
    package: str, homes: Mapping[str, str], elsewhere: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose names are imported when first used.

    Args:
        package: its ``__name__``.
        homes: the module that each name comes from; a name whose home is its own dotted name is a module.
        elsewhere: names that somebody may look for in it, and what to use instead.
    """
    namespace = vars(sys.modules[package])

    def __getattr__(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            remedy = f": {elsewhere[name]}" if elsewhere and name in elsewhere else ""
            raise AttributeError(f"module {package!r} has no attribute {name!r}{remedy}")
        value = importlib.import_module(home)
        if home != f"{package}.{name}":
            value = getattr(value, name)
        namespace[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*namespace, *homes})

    return __getattr__, __dir__
