"""Initial values that are not drawn: constants, the identity, and convolutions that are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from funcnets.errors import ArgumentError, ShapeError
from funcnets.init.base import Initializer, Shape

__all__ = ["constant", "dirac", "eye", "ones", "zeros"]


@dataclass(frozen=True)
class Constant(Initializer):
    """One number everywhere."""

    needs_key: ClassVar[bool] = False
    value: float

    def check(self, shape: tuple[int, ...]) -> None:
        """Every shape will do."""

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.full(tuple(shape), self.value, dtype)


def constant(value: float) -> Initializer:
    """Every element is ``value``.

    Args:
        value: a Python number.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.constant(0.5)(jax.random.key(0), (2,)).tolist()
        [0.5, 0.5]

    References:
        torch.nn.init.constant_
    """
    return Constant(value)


def zeros() -> Initializer:
    """Every element is 0 (torch.nn.init.zeros_).

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.zeros()(jax.random.key(0), (2,)).tolist()
        [0.0, 0.0]
    """
    return Constant(0.0)


def ones() -> Initializer:
    """Every element is 1 (torch.nn.init.ones_).

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.ones()(jax.random.key(0), (2,)).tolist()
        [1.0, 1.0]
    """
    return Constant(1.0)


@dataclass(frozen=True)
class Eye(Initializer):
    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        if len(shape) != 2:
            raise ShapeError(f"eye needs a 2D shape, but got {tuple(shape)}")
        return jnp.eye(*shape, dtype=dtype)


def eye() -> Initializer:
    """The identity matrix, padded with zeros when it is not square (torch.nn.init.eye_).

    Raises:
        ShapeError: the shape is not 2D.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.eye()(jax.random.key(0), (2, 3)).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return Eye()


@dataclass(frozen=True)
class Dirac(Initializer):
    groups: int

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        if len(shape) not in (3, 4, 5):
            raise ShapeError(f"dirac needs a convolution's 3D to 5D shape, but got {tuple(shape)}")
        if shape[0] % self.groups:
            raise ArgumentError(
                f"dirac: {shape[0]} output channels are not divisible by {self.groups} groups"
            )
        per_group = shape[0] // self.groups
        value = np.zeros(tuple(shape), np.float32)
        centre = tuple(size // 2 for size in shape[2:])
        for group in range(self.groups):
            for channel in range(min(per_group, shape[1])):
                value[(group * per_group + channel, channel, *centre)] = 1.0
        return jnp.asarray(value, dtype)


def dirac(groups: int = 1) -> Initializer:
    """A convolution that passes its input channels through (torch.nn.init.dirac_).

    Args:
        groups: the convolution's groups; each is the identity on its own channels.

    Raises:
        ShapeError: the shape is not that of a convolution's weight.
        ArgumentError: the output channels are not divisible by ``groups``.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.dirac()(jax.random.key(0), (2, 2, 3))[:, :, 1].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    return Dirac(groups)
