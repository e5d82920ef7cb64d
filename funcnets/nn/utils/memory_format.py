"""Memory formats, which JAX arrays do not have."""

from __future__ import annotations

from typing import Any, NoReturn

from funcnets.core.module import Module
from funcnets.errors import UnsupportedError

__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]


def _refuse(name: str) -> NoReturn:
    raise UnsupportedError(
        f"{name}: JAX arrays have no memory format, XLA chooses the layout of each when it compiles; delete this line"
    )


def convert_conv2d_weight_memory_format(module: Module, memory_format: Any) -> NoReturn:
    """There is nothing to convert: this raises and says so.

    Args:
        module: any Module.
        memory_format: a ``torch.memory_format``.

    Returns:
        Nothing: it never returns.

    Raises:
        UnsupportedError: always.

    Examples:
        >>> from funcnets import errors, nn
        >>> try:
        ...     nn.utils.convert_conv2d_weight_memory_format(nn.Conv2d(1, 1, 3), None)
        ... except errors.UnsupportedError:
        ...     print("XLA chooses the layout")
        XLA chooses the layout

    References:
        torch.nn.utils.convert_conv2d_weight_memory_format
    """
    _refuse("convert_conv2d_weight_memory_format")


def convert_conv3d_weight_memory_format(module: Module, memory_format: Any) -> NoReturn:
    """There is nothing to convert: this raises and says so.

    Args:
        module: any Module.
        memory_format: a ``torch.memory_format``.

    Returns:
        Nothing: it never returns.

    Raises:
        UnsupportedError: always.

    Examples:
        >>> from funcnets import errors, nn
        >>> try:
        ...     nn.utils.convert_conv3d_weight_memory_format(nn.Conv3d(1, 1, 3), None)
        ... except errors.UnsupportedError:
        ...     print("XLA chooses the layout")
        XLA chooses the layout

    References:
        torch.nn.utils.convert_conv3d_weight_memory_format
    """
    _refuse("convert_conv3d_weight_memory_format")
