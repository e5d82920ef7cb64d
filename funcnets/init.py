r"""Pure initializers: hashable callables ``(key, shape, dtype) -> array``.

Most are an affine map of a standard draw, and say so (``affine``), which lets a model of a hundred
parameters be drawn in a few large kernels instead of a hundred small ones (``core/draw.py``).
``funcnets.nn.init`` has PyTorch's in-place names, which put one of these into a Parameter.

The two standard draws are the uniform one on :math:`[-1, 1)`, whose numbers are exact multiples of
:math:`2^{-22}`, and the normal one; a symmetric uniform initial value is then a single rounded
product, hence the same bits whether it is drawn on the host, eagerly, under ``jit`` or ``vmap``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import choice, describe
from funcnets.errors import ArgumentError, ShapeError

__all__ = [
    "Initializer",
    "calculate_gain",
    "constant",
    "dirac",
    "eye",
    "initializer_from",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "ones",
    "orthogonal",
    "sparse",
    "trunc_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]

Shape = Sequence[int]


def standard_draw(base: str, key: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
    """Uniform on [-1, 1) or standard normal. Half precisions are drawn in float32 and rounded."""
    if base == "uniform":
        return jax.random.uniform(key, tuple(shape), dtype, -1.0, 1.0)
    return rounded(jax.random.normal(key, tuple(shape), dtype))


def rounded(x: jax.Array) -> jax.Array:
    """``x``, with its rounding kept: XLA would merge two scalings, or a scaling and a shift, into one.

    The last bits of an initial value would then depend on whether it was compiled.
    """
    return jnp.maximum(x, jnp.finfo(x.dtype).min)


def draw_dtype(dtype: Any) -> Any:
    """The precision in which an initial value of ``dtype`` is computed."""
    return jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32


@dataclass(frozen=True)
class Initializer:
    """A pure, hashable rule for an initial value.

    Equal initializers with equal shapes and dtypes may be drawn together, so two instances with
    the same fields must mean the same rule.
    """

    #: Whether the value depends on the key; constants are made without one.
    needs_key: ClassVar[bool] = True
    #: Whether somebody else may hold the array that a call returns, so that its memory is not ours.
    shared: ClassVar[bool] = False

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        """Draw an array.

        Args:
            key: a typed PRNG key; constants do not use it.
            shape: the shape of the result.
            dtype: its dtype.

        Returns:
            An array of ``shape`` and ``dtype``, the same for the same arguments.
        """
        base, scale, shift = self.affine(tuple(shape))
        drawn = standard_draw(base, key, shape, draw_dtype(dtype))
        return finish(drawn, scale, shift).astype(dtype)

    def affine(self, shape: tuple[int, ...]) -> tuple[str, float, float]:
        """``(base, scale, shift)`` such that the value is ``standard_draw(base) * scale + shift``."""
        raise NotImplementedError

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse a shape that the rule cannot serve, without drawing."""
        if is_affine(self):
            self.affine(shape)
        else:
            jax.eval_shape(lambda key: self(key, shape), jax.eval_shape(jax.random.key, 0))


def finish(drawn: Any, scale: float, shift: float) -> Any:
    """Scale, then shift only if there is something to shift: see the module's docstring on bits."""
    scaled = drawn * np.asarray(scale, drawn.dtype)
    if shift == 0:
        return scaled
    return (rounded(scaled) if isinstance(drawn, jax.Array) else scaled) + np.asarray(
        shift, drawn.dtype
    )


def is_affine(rule: Any) -> bool:
    """Whether ``rule`` can take part in a grouped draw."""
    return isinstance(rule, Initializer) and type(rule).__call__ is Initializer.__call__


# --- constants --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant(Initializer):
    needs_key: ClassVar[bool] = False
    value: float

    def check(self, shape: tuple[int, ...]) -> None:
        """Every shape will do."""

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.full(tuple(shape), self.value, dtype)


class Given(Initializer):
    """The value of a ``Parameter(array)``: always this array. Equal only to itself."""

    needs_key: ClassVar[bool] = False
    shared: ClassVar[bool] = True

    def __init__(self, array: Any) -> None:
        object.__setattr__(self, "array", array)

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.asarray(self.array, dtype)  # pyright: ignore[reportAttributeAccessIssue]

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


@dataclass(frozen=True)
class FromFunction(Initializer):
    shared: ClassVar[bool] = True
    function: Callable[..., Any]

    def __call__(self, key: Any, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return self.function(key, tuple(shape), dtype)


def initializer_from(function: Any) -> Initializer:
    """An initializer out of any ``(key, shape, dtype) -> array``, such as ``jax.nn.initializers`` has.

    Args:
        function: the callable, or an Initializer, which is returned as it is.

    Raises:
        ArgumentError: ``function`` cannot be called.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> rule = init.initializer_from(jax.nn.initializers.he_normal())
        >>> rule(jax.random.key(0), (3, 4)).shape
        (3, 4)
    """
    if isinstance(function, Initializer):
        return function
    if not callable(function):
        raise ArgumentError(
            "an initializer is a function (key, shape, dtype) -> array, "
            f"but got {describe(function)}; for one value use funcnets.init.constant(value)"
        )
    return FromFunction(function)


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
    """Every element is 0 (torch.nn.init.zeros_)."""
    return Constant(0.0)


def ones() -> Initializer:
    """Every element is 1 (torch.nn.init.ones_)."""
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
    """
    return Dirac(groups)


# --- affine draws -----------------------------------------------------------------------------


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
        ArgumentError: ``a > b``.

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> x = init.uniform(-2.0, 2.0)(jax.random.key(0), (100,))
        >>> bool((abs(x) <= 2).all())
        True
    """
    if a > b:
        raise ArgumentError(f"uniform needs a <= b, but got a={a}, b={b}")
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

    References:
        Glorot and Bengio, 2010; torch.nn.init.xavier_uniform_
    """
    return Scaled("uniform", float(gain), "fan_avg")


def xavier_normal(gain: float = 1.0) -> Initializer:
    r"""Normal with :math:`\sigma = \text{gain}\sqrt{2 / (\text{fan\_in} + \text{fan\_out})}`.

    Args:
        gain: a factor, see :func:`calculate_gain`.

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

    References:
        He et al., 2015; torch.nn.init.kaiming_uniform_
    """
    choice("mode", mode, ("fan_in", "fan_out"))
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

    References:
        He et al., 2015; torch.nn.init.kaiming_normal_
    """
    choice("mode", mode, ("fan_in", "fan_out"))
    return Scaled("normal", calculate_gain(nonlinearity, a), mode)


# --- the rest ---------------------------------------------------------------------------------


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
        ArgumentError: ``std`` is not positive or ``a >= b``.
    """
    if std <= 0 or a >= b:
        raise ArgumentError(
            f"trunc_normal needs std > 0 and a < b, but got std={std}, a={a}, b={b}"
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

    References:
        Martens, 2010
    """
    if not 0 <= sparsity <= 1:
        raise ArgumentError(f"sparsity must be between 0 and 1, but got {sparsity}")
    return Sparse(float(sparsity), float(std))
