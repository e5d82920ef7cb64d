"""Padding layers: ``nn.functional.pad`` with its arguments kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax

from funcnets import functional as F
from funcnets._args import describe, ntuple
from funcnets.core.module import Module
from funcnets.errors import ArgumentError

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _PadNd(Module):
    """Padding of ``_ndim`` axes; subclasses say how many and in which ``_mode``."""

    _ndim: ClassVar[int]
    _mode: ClassVar[str]

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        self.padding = ntuple("padding", padding, 2 * self._ndim)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    """Padding with a number."""

    _mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        if not isinstance(value, (bool, int, float)):
            raise ArgumentError(f"value must be a real number, but got {describe(value)}")
        self.value = value

    def forward(self, input: jax.Array) -> jax.Array:
        return F.pad(input, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPadNd):
    """Padding with zeros."""

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad1d(_ConstantPadNd):
    """Pad the last axis with a number.

    Args:
        padding: elements to add on each side, one integer or two,
            ``(left, right)``. Negative ones remove elements.
        value: the number.

    Shape:
        - Input: ``(*, L)``.
        - Output: ``(*, L')`` with ``L' = L + left + right``.

    Raises:
        ArgumentError: ``padding`` or ``value`` is not made of numbers as above.
        ShapeError: (on the call) more is removed than there is.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ConstantPad1d(1, 3.5)(jnp.ones((1, 2)))[0].tolist()
        [3.5, 1.0, 1.0, 3.5]

    References:
        torch.nn.ConstantPad1d
    """

    _ndim = 1


class ConstantPad2d(_ConstantPadNd):
    """Pad the last two axes with a number.

    Args:
        padding: elements to add on each side, one integer or four,
            ``(left, right, top, bottom)``. Negative ones remove elements.
        value: the number.

    Shape:
        - Input: ``(*, H, W)``.
        - Output: ``(*, H', W')`` with ``H' = H + top + bottom``, ``W' = W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ConstantPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ConstantPad2d((3, 0, 2, 1), -1.0)(jnp.ones((1, 4, 4))).shape
        (1, 7, 7)

    References:
        torch.nn.ConstantPad2d
    """

    _ndim = 2


class ConstantPad3d(_ConstantPadNd):
    """Pad the last three axes with a number.

    Args:
        padding: elements to add on each side, one integer or six,
            ``(left, right, top, bottom, front, back)``. Negative ones remove elements.
        value: the number.

    Shape:
        - Input: ``(*, D, H, W)``.
        - Output: ``(*, D', H', W')`` with ``D' = D + front + back``, ``H' = H + top +
          bottom``, ``W' = W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ConstantPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ConstantPad3d(1, 0.5)(jnp.ones((2, 4, 4, 4))).shape
        (2, 6, 6, 6)

    References:
        torch.nn.ConstantPad3d
    """

    _ndim = 3


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """Pad the last axis with zeros.

    Args:
        padding: elements to add on each side, one integer or two,
            ``(left, right)``. Negative ones remove elements.

    Shape:
        - Input: ``(*, L)``.
        - Output: ``(*, L')`` with ``L' = L + left + right``.

    Raises:
        ArgumentError: ``padding`` is not made of integers as above.
        ShapeError: (on the call) more is removed than there is.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ZeroPad1d((2, 0))(jnp.ones((1, 2)))[0].tolist()
        [0.0, 0.0, 1.0, 1.0]

    References:
        torch.nn.ZeroPad1d
    """


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """Pad the last two axes with zeros.

    Args:
        padding: elements to add on each side, one integer or four,
            ``(left, right, top, bottom)``. Negative ones remove elements.

    Shape:
        - Input: ``(*, H, W)``.
        - Output: ``(*, H', W')`` with ``H' = H + top + bottom``, ``W' = W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ZeroPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ZeroPad2d((1, -1, 0, 2))(jnp.ones((1, 4, 4))).shape
        (1, 6, 4)

    References:
        torch.nn.ZeroPad2d
    """


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """Pad the last three axes with zeros.

    Args:
        padding: elements to add on each side, one integer or six,
            ``(left, right, top, bottom, front, back)``. Negative ones remove elements.

    Shape:
        - Input: ``(*, D, H, W)``.
        - Output: ``(*, D', H', W')`` with ``D' = D + front + back``, ``H' = H + top +
          bottom``, ``W' = W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ZeroPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ZeroPad3d(1)(jnp.ones((2, 4, 4, 4))).shape
        (2, 6, 6, 6)

    References:
        torch.nn.ZeroPad3d
    """


class ReflectionPad1d(_PadNd):
    """Pad the last axis by mirroring at the border elements, which are not repeated.

    Args:
        padding: elements to add on each side, one integer or two,
            ``(left, right)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, L)`` or ``(C, L)``.
        - Output: likewise with ``L' = L + left + right``.

    Raises:
        ArgumentError: ``padding`` is not made of integers as above.
        ShapeError: (on the call) a width that is not less than the size of its axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReflectionPad1d(2)(jnp.arange(3.0).reshape(1, 3))[0].tolist()
        [2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0]

    References:
        torch.nn.ReflectionPad1d
    """

    _ndim = 1
    _mode = "reflect"


class ReflectionPad2d(_PadNd):
    """Pad the last two axes by mirroring at the border elements, which are not repeated.

    Args:
        padding: elements to add on each side, one integer or four,
            ``(left, right, top, bottom)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, H, W)`` or ``(C, H, W)``.
        - Output: likewise with ``H' = H + top + bottom``, ``W' = W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ReflectionPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReflectionPad2d((1, 1, 2, 0))(jnp.ones((1, 4, 4))).shape
        (1, 6, 6)

    References:
        torch.nn.ReflectionPad2d
    """

    _ndim = 2
    _mode = "reflect"


class ReflectionPad3d(_PadNd):
    """Pad the last three axes by mirroring at the border elements, which are not repeated.

    Args:
        padding: elements to add on each side, one integer or six,
            ``(left, right, top, bottom, front, back)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``.
        - Output: likewise with ``D' = D + front + back``, ``H' = H + top + bottom``, ``W' =
          W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ReflectionPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReflectionPad3d(1)(jnp.ones((2, 4, 4, 4))).shape
        (2, 6, 6, 6)

    References:
        torch.nn.ReflectionPad3d
    """

    _ndim = 3
    _mode = "reflect"


class ReplicationPad1d(_PadNd):
    """Pad the last axis with the nearest border element.

    Args:
        padding: elements to add on each side, one integer or two,
            ``(left, right)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, L)`` or ``(C, L)``.
        - Output: likewise with ``L' = L + left + right``.

    Raises:
        ArgumentError: ``padding`` is not made of integers as above.
        ShapeError: (on the call) an empty axis other than the batch.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReplicationPad1d(2)(jnp.arange(3.0).reshape(1, 3))[0].tolist()
        [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]

    References:
        torch.nn.ReplicationPad1d
    """

    _ndim = 1
    _mode = "replicate"


class ReplicationPad2d(_PadNd):
    """Pad the last two axes with the nearest border element.

    Args:
        padding: elements to add on each side, one integer or four,
            ``(left, right, top, bottom)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, H, W)`` or ``(C, H, W)``.
        - Output: likewise with ``H' = H + top + bottom``, ``W' = W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ReplicationPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReplicationPad2d((1, 1, 2, 0))(jnp.ones((1, 4, 4))).shape
        (1, 6, 6)

    References:
        torch.nn.ReplicationPad2d
    """

    _ndim = 2
    _mode = "replicate"


class ReplicationPad3d(_PadNd):
    """Pad the last three axes with the nearest border element.

    Args:
        padding: elements to add on each side, one integer or six,
            ``(left, right, top, bottom, front, back)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``.
        - Output: likewise with ``D' = D + front + back``, ``H' = H + top + bottom``, ``W' =
          W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`ReplicationPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReplicationPad3d(1)(jnp.ones((2, 4, 4, 4))).shape
        (2, 6, 6, 6)

    References:
        torch.nn.ReplicationPad3d
    """

    _ndim = 3
    _mode = "replicate"


class CircularPad1d(_PadNd):
    """Pad the last axis with what stands at the other end.

    Args:
        padding: elements to add on each side, one integer or two,
            ``(left, right)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, L)`` or ``(C, L)``.
        - Output: likewise with ``L' = L + left + right``.

    Raises:
        ArgumentError: ``padding`` is not made of integers as above.
        ShapeError: (on the call) a width that is more than the size of its axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.CircularPad1d(2)(jnp.arange(3.0).reshape(1, 3))[0].tolist()
        [1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0]

    References:
        torch.nn.CircularPad1d
    """

    _ndim = 1
    _mode = "circular"


class CircularPad2d(_PadNd):
    """Pad the last two axes with what stands at the other end.

    Args:
        padding: elements to add on each side, one integer or four,
            ``(left, right, top, bottom)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, H, W)`` or ``(C, H, W)``.
        - Output: likewise with ``H' = H + top + bottom``, ``W' = W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`CircularPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.CircularPad2d((1, 1, 2, 0))(jnp.ones((1, 4, 4))).shape
        (1, 6, 6)

    References:
        torch.nn.CircularPad2d
    """

    _ndim = 2
    _mode = "circular"


class CircularPad3d(_PadNd):
    """Pad the last three axes with what stands at the other end.

    Args:
        padding: elements to add on each side, one integer or six,
            ``(left, right, top, bottom, front, back)``. Negative ones remove elements.

    Shape:
        - Input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``.
        - Output: likewise with ``D' = D + front + back``, ``H' = H + top + bottom``, ``W' =
          W + left + right``.

    Raises:
        ArgumentError, ShapeError: as :class:`CircularPad1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.CircularPad3d(1)(jnp.ones((2, 4, 4, 4))).shape
        (2, 6, 6, 6)

    References:
        torch.nn.CircularPad3d
    """

    _ndim = 3
    _mode = "circular"
