r"""What an initializer is, and the bits of its draws.

The two standard draws are the uniform one on :math:`[-1, 1)`, whose numbers are exact multiples of
:math:`2^{-22}`, and the normal one; a symmetric uniform initial value is then a single rounded
product, hence the same bits whether it is drawn on the host, eagerly, under ``jit`` or ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.errors import ArgumentError

__all__ = ["Initializer", "initializer_from"]

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

    Examples:
        >>> import jax
        >>> from funcnets import init
        >>> rule = init.normal(std=0.02)
        >>> rule(jax.random.key(0), (3, 4)).shape
        (3, 4)
        >>> rule == init.normal(std=0.02)
        True
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
