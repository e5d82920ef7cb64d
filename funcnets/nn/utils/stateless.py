"""The deprecated place of ``functional_call``."""

from __future__ import annotations

import warnings
from typing import Any

from funcnets.core.functional_call import functional_call as _functional_call
from funcnets.core.module import Module

__all__ = ["functional_call"]


def functional_call(
    module: Module,
    parameters_and_buffers: dict[str, Any],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with the given arrays in place of the values of some of its cells.

    Deprecated in PyTorch in favour of ``torch.func.functional_call``; ``fn.functionalize`` is the
    same idea with all values given and the new state returned.

    Args:
        module: any Module.
        parameters_and_buffers: arrays by dotted name; a buffer that the call writes is written back.
        args: the positional arguments of the call: a tuple, or a single argument.
        kwargs: its keyword arguments.
        tie_weights: True; with False, a cell that has several names cannot be named.
        strict: whether every parameter and buffer must be given.

    Returns:
        What the call returns.

    Raises:
        StateDictError: a name that the module does not have, or with ``strict`` one that is missing.

    Examples:
        >>> import warnings
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     out = nn.utils.stateless.functional_call(
        ...         nn.Linear(3, 2), {"bias": jnp.ones(2), "weight": jnp.zeros((2, 3))}, jnp.ones(3)
        ...     )
        >>> out.tolist()
        [1.0, 1.0]

    References:
        torch.nn.utils.stateless.functional_call
    """
    warnings.warn(
        "`torch.nn.utils.stateless.functional_call` is deprecated as of PyTorch 2.0 and will be removed in a future "
        "version of PyTorch. Please use `torch.func.functional_call` instead which is a drop-in replacement.",
        FutureWarning,
        stacklevel=2,
    )
    return _functional_call(
        module, parameters_and_buffers, args, kwargs, tie_weights=tie_weights, strict=strict
    )
