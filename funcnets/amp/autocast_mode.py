"""``autocast``: the precision of each function chosen by its rule, for the time of a block.

The rules themselves stand with the functions (``functional/_autocast.py``).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any, TypeVar

import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import DTypeError
from funcnets.functional._autocast import in_full, in_low, in_widest, low_dtype

__all__ = [
    "autocast",
    "full_precision",
    "get_autocast_dtype",
    "is_autocast_enabled",
    "low_precision",
    "promote",
]

Function = TypeVar("Function", bound=Callable[..., Any])


class autocast(ContextDecorator):
    """Let each function of the package compute in the precision that suits it.

    The rules are those of ``torch.autocast`` on CUDA, on every device:

    ==============================================================  ===========================
    linear maps, convolutions, attention, recurrent cells, prelu    ``dtype``
    norms by layer, group and RMS, softmax, losses, distances,      float32
    softplus, resizing, LP pooling, local response normalisation
    bilinear, grid_sample, sums of residual connections             the widest that comes in
    everything else (activations, batch norm, pooling, dropout)     what comes in
    ==============================================================  ===========================

    Parameters are converted where they are used and stay as they are, and so gradients have the
    parameters' dtype. It is part of what JAX caches by: a function compiled without autocast is compiled
    again within, and the earlier program is found again outside. It may stand around a compiled function
    or inside; a backward pass follows its forward pass wherever it is called.

    Operators of ``jax.numpy`` (``x @ w``, ``jnp.einsum``, ``+``) are JAX's own and promote as always;
    :func:`low_precision` and its like bring functions of your own under the rules. float64, complex
    numbers and integers are left alone.

    Args:
        dtype: ``jnp.bfloat16`` or ``jnp.float16``.
        enabled: False computes as without autocast; within another autocast it switches that off, and
            arrays in half precision that come from outside are to be converted by hand.

    Raises:
        DTypeError: another dtype, or a device type, which torch takes first.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import amp, nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8))
        >>> with amp.autocast(jnp.bfloat16):
        ...     print(model[0](jnp.ones(4)).dtype, model(jnp.ones(4)).dtype)
        bfloat16 float32
        >>> @amp.autocast()
        ... def f(x):
        ...     return model[0](x)
        >>> f(jnp.ones(4)).dtype
        dtype(bfloat16)

    References:
        torch.autocast; Micikevicius et al., Mixed precision training, 2017
    """

    def __init__(self, dtype: Any = jnp.bfloat16, enabled: bool = True) -> None:
        try:
            self.dtype = jnp.dtype(dtype)
        except TypeError:
            self.dtype = None
        if dtype is None or self.dtype not in (jnp.bfloat16, jnp.float16):
            raise DTypeError(
                f"autocast takes the low precision, jnp.bfloat16 or jnp.float16, but got {describe(dtype)}; "
                "its rules are the same on every device, and enabled=False switches it off"
            )
        self.enabled = bool(enabled)
        self._local = threading.local()

    def _recreate_cm(self) -> autocast:
        return autocast(self.dtype, self.enabled)

    def __enter__(self) -> autocast:
        context = low_dtype(self.dtype if self.enabled else None)
        context.__enter__()
        self._local.__dict__.setdefault("entered", []).append(context)
        return self

    def __exit__(self, *error: Any) -> None:
        self._local.entered.pop().__exit__(*error)


def is_autocast_enabled() -> bool:
    """Whether :class:`autocast` is on here.

    Returns:
        True within ``with autocast(...):``, at the time of the call or of tracing.

    Examples:
        >>> from funcnets import amp
        >>> with amp.autocast():
        ...     amp.is_autocast_enabled()
        True

    References:
        torch.is_autocast_enabled
    """
    return low_dtype.value is not None


def get_autocast_dtype() -> Any:
    """The dtype of the :class:`autocast` that is on.

    Returns:
        A dtype, or None where autocast is off.

    Examples:
        >>> from funcnets import amp
        >>> with amp.autocast():
        ...     amp.get_autocast_dtype()
        dtype(bfloat16)

    References:
        torch.get_autocast_dtype
    """
    return low_dtype.value


def _ruled(function: Function, rule: Callable[..., Any]) -> Function:
    @functools.wraps(function)
    def ruled(*args: Any, **kwargs: Any) -> Any:
        # Two values in front: of a single one the rules return no tuple.
        _, _, *given = rule(None, None, *args, *kwargs.values())
        return function(*given[: len(args)], **dict(zip(kwargs, given[len(args) :], strict=True)))

    return ruled  # pyright: ignore[reportReturnType]


def low_precision(function: Function) -> Function:
    """A function of your own that computes in the low precision while :class:`autocast` is on.

    Its float32 and half precision arguments, also in lists and tuples, are converted to autocast's dtype.

    Args:
        function: any function of arrays: a matrix product, for instance.

    Returns:
        A function with the same arguments.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import amp
        >>> with amp.autocast(jnp.bfloat16):
        ...     amp.low_precision(jnp.matmul)(jnp.ones((2, 3)), jnp.ones(3)).dtype
        dtype(bfloat16)

    References:
        torch.amp.custom_fwd
    """
    return _ruled(function, in_low)


def full_precision(function: Function) -> Function:
    """A function of your own that computes in float32 while :class:`autocast` is on.

    Args:
        function: any function of arrays: one with exponentials or long sums, for instance.

    Returns:
        A function with the same arguments.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import amp
        >>> with amp.autocast(jnp.bfloat16):
        ...     amp.full_precision(jax.nn.logsumexp)(jnp.ones(3, jnp.bfloat16)).dtype
        dtype('float32')

    References:
        torch.amp.custom_fwd
    """
    return _ruled(function, in_full)


def promote(function: Function) -> Function:
    """A function of your own whose arrays are brought to their widest dtype while :class:`autocast` is on.

    Args:
        function: any function of several arrays: ``operator.add`` for a residual connection.

    Returns:
        A function with the same arguments.

    Examples:
        >>> import operator
        >>> import jax.numpy as jnp
        >>> from funcnets import amp
        >>> with amp.autocast(jnp.bfloat16):
        ...     amp.promote(operator.add)(jnp.ones(3), jnp.ones(3, jnp.bfloat16)).dtype
        dtype('float32')

    References:
        torch.amp.autocast_mode
    """
    return _ruled(function, in_widest)
