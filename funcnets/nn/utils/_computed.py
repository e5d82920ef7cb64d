"""Attributes of a module that are computed from its cells when they are read.

A module with such an attribute has a class of its own, which extends its former class by a property.
Copies and pickles get one each, too, so that changing one module never changes another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from funcnets.core.derived import shelf
from funcnets.core.module import Module

__all__ = ["Parametrized", "Rule", "cached", "class_before", "compute", "rule_of", "stop_computing"]


class Rule(Protocol):
    """How an attribute is computed."""

    #: What stands before the name of the module's class.
    prefix: str

    def value(self, module: Module) -> Any:
        """The attribute's value, in the running call or outside of calls."""
        ...

    def assign(self, module: Module, value: Any) -> None:
        """Change the cells such that the attribute has this value."""
        ...


def compute(module: Module, name: str, rule: Rule) -> None:
    """Let ``rule`` compute the attribute ``name`` of ``module``, which has none of that name."""
    base = type(module)
    if "_computed" not in vars(base):
        body = {"_computed": {}, "__reduce_ex__": _reduce_ex, "__module__": base.__module__}
        object.__setattr__(module, "__class__", type(base.__name__, (base,), body))
    cls: Any = type(module)
    setattr(cls, name, property(rule.value, rule.assign))
    cls._computed[name] = rule
    _name(cls)


def stop_computing(module: Module, name: str) -> None:
    """Undo ``compute``."""
    cls: Any = type(module)
    del cls._computed[name]
    delattr(cls, name)
    _name(cls)
    if not cls._computed:
        object.__setattr__(module, "__class__", class_before(module))


def class_before(module: Module) -> type[Module]:
    """The class of a module without its computed attributes."""
    cls: Any = type(module)
    return cls.__bases__[0] if "_computed" in vars(cls) else cls


def rule_of(module: Module, name: str) -> Rule | None:
    """What computes the attribute ``name``, if it is computed."""
    return vars(type(module)).get("_computed", {}).get(name)


def _name(cls: Any) -> None:
    prefixes = dict.fromkeys(rule.prefix for rule in cls._computed.values())
    cls.__name__ = "".join(prefixes) + cls.__bases__[0].__name__
    cls.__qualname__ = cls.__name__


def _reduce_ex(self: Any, protocol: Any) -> Any:
    cls = type(self)
    _, _, *rest = super(cls, self).__reduce_ex__(protocol)
    return (_rebuild, (cls.__bases__[0], dict(cls._computed)), *rest)


def _rebuild(base: type[Module], rules: dict[str, Rule]) -> Module:
    module = base.__new__(base)
    for name, rule in rules.items():
        compute(module, name, rule)
    return module


# --- parametrizations, and their cache ----------------------------------------------------------------------------------

_cache: ContextVar[dict[Any, Any] | None] = ContextVar("funcnets_parametrize_cache", default=None)


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized tensor once within this block, however often it is read.

    Where it matters is spectral norm in training mode, which changes its buffers at each reading.
    Equal computations under ``fn.jit`` are merged by XLA anyway. What a call under ``fn.jit`` or
    another transformation computes is kept until that call ends, all else until the block ends;
    changes of parameters made within it are not seen.

    Returns:
        A context manager.

    Examples:
        >>> from funcnets import nn
        >>> from funcnets.nn.utils import parametrizations, parametrize
        >>> layer = parametrizations.weight_norm(nn.Linear(3, 2))
        >>> with parametrize.cached():
        ...     layer.weight is layer.weight
        True

    References:
        torch.nn.utils.parametrize.cached
    """
    token = _cache.set({} if _cache.get() is None else _cache.get())
    try:
        yield
    finally:
        _cache.reset(token)


class Parametrized:
    """The rule of an attribute that a ParametrizationList computes."""

    prefix = "Parametrized"

    def __init__(self, name: str) -> None:
        self.name = name

    def value(self, module: Module) -> Any:
        parametrization = module.parametrizations[self.name]
        cache, place = _cache.get(), shelf()
        if cache is None or place is None:
            return parametrization()
        if (place, parametrization) not in cache:
            cache[place, parametrization] = parametrization()
        return cache[place, parametrization]

    def assign(self, module: Module, value: Any) -> None:
        module.parametrizations[self.name].right_inverse(value)
