"""Modules without initial values."""

from __future__ import annotations

from typing import Any, TypeVar

from funcnets._args import describe
from funcnets.core.module import Module
from funcnets.errors import DTypeError

__all__ = ["skip_init"]

M = TypeVar("M", bound=Module)


def skip_init(module_cls: type[M], *args: Any, **kwargs: Any) -> M:
    """Build a module without computing initial values.

    No module here computes any: a value is drawn when it is first read, and one that is loaded or
    assigned before that is never drawn. So this is ``module_cls(*args, **kwargs)``.

    Args:
        module_cls: a Module class.
        *args: its arguments.
        **kwargs: its keyword arguments.

    Returns:
        The module. Values that are read although none was put in are the usual initial values.

    Raises:
        DTypeError: ``module_cls`` is not a Module class.

    Examples:
        >>> from funcnets import nn
        >>> nn.utils.skip_init(nn.Linear, 5, 1).weight.has_value
        False

    References:
        torch.nn.utils.skip_init
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise DTypeError(f"Expected a Module class; got {describe(module_cls)}")
    return module_cls(*args, **kwargs)
