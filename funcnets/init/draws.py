"""Initial values that are drawn: uniform, normal, and what is made of them."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import choice, describe
from funcnets.errors import ArgumentError, ShapeError
from funcnets.init.base import Initializer, Shape, draw_dtype, finish, standard_draw

__all__ = [
    "calculate_gain",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "orthogonal",
    "sparse",
    "trunc_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """``(fan_in, fan_out)`` of a weight ``(out, in, *kernel)``."""
    if len(shape) < 2:
        raise ShapeError(
            f"fan in and fan out need a shape of at least 2 dimensions (out, in, *kernel), but got {shape}"
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
    "leaky_relu": math.nan,  # depends on the slope
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    r"""The factor by which a nonlinearity's weights are scaled to keep the variance.

    1 for linear maps, convolutions and sigmoid, 5/3 for tanh, :math:`\sqrt{2}` for relu,
    :math:`\sqrt{2 / (1 + \text{slope}^2)}` for leaky_relu and 3/4 for selu.

    Args:
        nonlinearity: one of the names above, or ``conv1d`` ... ``conv_transpose3d``.
        param: the slope of leaky_relu (0.01 by default).

    Returns:
        The gain.

    Raises:
        ArgumentError: an unknown name, or a slope that is not a number.

    Examples:
        >>> from funcnets import init
        >>> round(init.calculate_gain("leaky_relu", 0.2), 4)
        1.3868

    References:
        torch.nn.init.calculate_gain
    """
    choice("nonlinearity", nonlinearity, tuple(_GAINS))
    if nonlinearity != "leaky_relu":
        return _GAINS[nonlinearity]
    slope = 0.01 if param is None else param
    if isinstance(slope, bool) or not isinstance(slope, (int, float)):
        raise ArgumentError(
            f"the negative slope of leaky_relu must be a number, but got {describe(param)}"
        )
    return math.sqrt(2.0 / (1 + slope**2))


@dataclass(frozen=True)
class Uniform(Initializer):
    a: float
    b: float

    def affine(self, shape: tuple[int, ...]) -> tuple[str, float, float]:
        return "uniform", (self.b - self.a) / 2, (self.a + self.b) / 2


def uniform(a: float = 0.0, b: float = 1.0) -> Initializer:
    r"""Uniform on :math:`[a, b)` (torch.nn.init.uniform_).

    Args:
        a: lower bound.
        b: upper bound, not below ``a``.

    Raises:
        ArgumentError: ``a > b``, or one of them is infinite or not a number.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> x = init.uniform(-2.0, 2.0)(jax.random.key(0), (100,))
        >>> bool((abs(x) <= 2).all())
        True
    """
    if not (math.isfinite(a) and math.isfinite(b) and a <= b):
        raise ArgumentError(f"uniform needs finite a <= b, but got a={a}, b={b}")
    return Uniform(float(a), float(b))


@dataclass(frozen=True)
class Normal(Initializer):
    mean: float
    std: float

    def affine(self, shape: tuple[int, ...]) -> tuple[str, float, float]:
        return "normal", self.std, self.mean


def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    r"""Normal, :math:`\mathcal{N}(\text{mean}, \text{std}^2)` (torch.nn.init.normal_).

    Args:
        mean: the mean.
        std: the standard deviation, not negative.

    Raises:
        ArgumentError: ``std`` is negative.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.normal(std=0.02)(jax.random.key(0), (3, 4)).shape
        (3, 4)
    """
    if std < 0:
        raise ArgumentError(f"normal needs std >= 0, but got std={std}")
    return Normal(float(mean), float(std))


@dataclass(frozen=True)
class Scaled(Initializer):
    """Xavier and Kaiming: a standard draw whose standard deviation follows from the fans."""

    base: str
    gain: float
    mode: str

    def affine(self, shape: tuple[int, ...]) -> tuple[str, float, float]:
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        std = self.gain / math.sqrt(fan) if fan else 0.0
        return self.base, std * math.sqrt(3.0) if self.base == "uniform" else std, 0.0


def xavier_uniform(gain: float = 1.0) -> Initializer:
    r"""Uniform on :math:`[-a, a)`, :math:`a = \text{gain}\sqrt{6 / (\text{fan\_in} + \text{fan\_out})}`.

    Args:
        gain: a factor, see :func:`calculate_gain`.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> x = init.xavier_uniform()(jax.random.key(0), (2, 4))
        >>> bool((abs(x) <= 1).all())
        True

    References:
        Glorot and Bengio, 2010; torch.nn.init.xavier_uniform_
    """
    return Scaled("uniform", float(gain), "fan_avg")


def xavier_normal(gain: float = 1.0) -> Initializer:
    r"""Normal with :math:`\sigma = \text{gain}\sqrt{2 / (\text{fan\_in} + \text{fan\_out})}`.

    Args:
        gain: a factor, see :func:`calculate_gain`.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.xavier_normal(gain=2.0)(jax.random.key(0), (2, 4)).shape
        (2, 4)

    References:
        Glorot and Bengio, 2010; torch.nn.init.xavier_normal_
    """
    return Scaled("normal", float(gain), "fan_avg")


def kaiming_uniform(
    a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Initializer:
    r"""Uniform on :math:`[-b, b)`, :math:`b = \text{gain}\sqrt{3 / \text{fan}}`.

    Args:
        a: the negative slope, used with ``leaky_relu`` only.
        mode: ``'fan_in'`` keeps the variance of the forward pass, ``'fan_out'`` of the backward pass.
        nonlinearity: what follows the layer, see :func:`calculate_gain`.

    Raises:
        ArgumentError: an unknown mode or nonlinearity.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> x = init.kaiming_uniform(nonlinearity="relu")(jax.random.key(0), (2, 6))
        >>> bool((abs(x) <= 1).all())
        True

    References:
        He et al., 2015; torch.nn.init.kaiming_uniform_
    """
    mode = choice("mode", mode.lower(), ("fan_in", "fan_out"))
    return Scaled("uniform", calculate_gain(nonlinearity, a), mode)


def kaiming_normal(
    a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Initializer:
    r"""Normal with :math:`\sigma = \text{gain} / \sqrt{\text{fan}}`.

    Args:
        a: the negative slope, used with ``leaky_relu`` only.
        mode: ``'fan_in'`` or ``'fan_out'``.
        nonlinearity: what follows the layer, see :func:`calculate_gain`.

    Raises:
        ArgumentError: an unknown mode or nonlinearity.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> init.kaiming_normal(mode="fan_out")(jax.random.key(0), (8, 3, 5, 5)).shape
        (8, 3, 5, 5)

    References:
        He et al., 2015; torch.nn.init.kaiming_normal_
    """
    mode = choice("mode", mode.lower(), ("fan_in", "fan_out"))
    return Scaled("normal", calculate_gain(nonlinearity, a), mode)


@dataclass(frozen=True)
class TruncNormal(Initializer):
    mean: float
    std: float
    a: float
    b: float

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        low, high = (self.a - self.mean) / self.std, (self.b - self.mean) / self.std
        drawn = jax.random.truncated_normal(key, low, high, tuple(shape), draw_dtype(dtype))
        return jnp.clip(finish(drawn, self.std, self.mean), self.a, self.b).astype(dtype)


def trunc_normal(
    mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Initializer:
    r"""Normal, drawn again outside of :math:`[a, b]` (torch.nn.init.trunc_normal_).

    Args:
        mean: the mean of the normal before truncation.
        std: its standard deviation, positive.
        a: lower bound, in the units of the value (not in standard deviations).
        b: upper bound.

    Raises:
        ArgumentError: ``std`` is not positive or ``a > b``.

    Warns:
        UserWarning: the mean is more than two standard deviations outside of the bounds, where the
            values follow the distribution only roughly.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> x = init.trunc_normal(a=-1.0, b=1.0)(jax.random.key(0), (100,))
        >>> bool((abs(x) <= 1).all())
        True
    """
    if not (std > 0 and a <= b):
        raise ArgumentError(
            f"trunc_normal needs std > 0 and a <= b, but got std={std}, a={a}, b={b}"
        )
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            f"trunc_normal: the mean {mean} is more than 2 std outside of [{a}, {b}]; "
            "the values follow the distribution only roughly",
            stacklevel=2,
        )
    return TruncNormal(float(mean), float(std), float(a), float(b))


@dataclass(frozen=True)
class Orthogonal(Initializer):
    gain: float

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        if len(shape) < 2:
            raise ShapeError(f"orthogonal needs at least 2 dimensions, but got {tuple(shape)}")
        rows, columns = shape[0], math.prod(shape[1:])
        if rows * columns == 0:
            return jnp.zeros(tuple(shape), dtype)
        flat = jax.random.normal(key, (max(rows, columns), min(rows, columns)), draw_dtype(dtype))
        q, r = jnp.linalg.qr(flat)
        q = q * jnp.sign(jnp.diagonal(r))[None, :]
        q = q.T if rows < columns else q
        return (self.gain * q).reshape(tuple(shape)).astype(dtype)


def orthogonal(gain: float = 1.0) -> Initializer:
    """A (semi-)orthogonal matrix; trailing dimensions are flattened (torch.nn.init.orthogonal_).

    Args:
        gain: a factor.

    Raises:
        ShapeError: fewer than two dimensions.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> q = init.orthogonal()(jax.random.key(0), (3, 3))
        >>> bool(abs(q @ q.T - jax.numpy.eye(3)).max() < 1e-5)
        True

    References:
        Saxe et al., 2013
    """
    return Orthogonal(float(gain))


@dataclass(frozen=True)
class Sparse(Initializer):
    sparsity: float
    std: float

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        if len(shape) != 2:
            raise ShapeError(f"sparse needs a 2D shape, but got {tuple(shape)}")
        values, order = jax.random.split(key)
        drawn = finish(standard_draw("normal", values, shape, draw_dtype(dtype)), self.std, 0.0)
        rank = jnp.argsort(jax.random.uniform(order, tuple(shape)), axis=0)
        return jnp.where(rank < math.ceil(self.sparsity * shape[0]), 0, drawn).astype(dtype)


def sparse(sparsity: float, std: float = 0.01) -> Initializer:
    """Normal values of which a fraction of every column is zero (torch.nn.init.sparse_).

    Args:
        sparsity: the fraction of zeros in each column, rounded up to whole elements.
        std: standard deviation of the others.

    Raises:
        ArgumentError: ``sparsity`` is not within 0 and 1.
        ShapeError: the shape is not 2D.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> x = init.sparse(0.5)(jax.random.key(0), (4, 3))
        >>> (x == 0).sum(0).tolist()
        [2, 2, 2]

    References:
        Martens, 2010
    """
    if not 0 <= sparsity <= 1:
        raise ArgumentError(f"sparsity must be between 0 and 1, but got {sparsity}")
    return Sparse(float(sparsity), float(std))
