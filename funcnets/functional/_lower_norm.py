"""Mean and variance, and the scale and shift that follow, with derivatives in closed form.

Differentiating the textbook formula step by step sends the gradient through the mean twice, once
for the deviations that are scaled and once for those that are squared. Summed up by hand a
normalisation needs two sums over its axes on the way back, and half of the time. Values are what the
plain operations give: two passes, because the difference of two large sums would lose its digits.
The rules are linear in the tangents and consist of plain operations, so that they transpose, and can
be differentiated again. The forms are the same on every platform.
``python -m benchmarks.lowering norm`` prints the ratios.
"""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

__all__ = ["mean_and_variance", "scale_and_shift"]


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def mean_and_variance(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The mean and the biased variance over ``axes``, which are kept."""
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


@mean_and_variance.defjvp
def _(axes: tuple[int, ...], primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    """The variance does not change with the mean: the deviations from it add up to zero."""
    (x,), (x_dot,) = primals, tangents
    mean, var = mean_and_variance(x, axes)
    mean_dot = jnp.mean(x_dot, axes, keepdims=True)
    var_dot = 2 * jnp.mean((x - mean) * x_dot, axes, keepdims=True)
    return (mean, var), (mean_dot, var_dot)


@jax.custom_jvp
def scale_and_shift(
    x: jax.Array, mean: jax.Array, scale: jax.Array, shift: jax.Array | None
) -> jax.Array:
    """``(x - mean) * scale + shift``; what is not ``x`` is broadcast.

    It is not ``x * scale + (shift - mean * scale)``, which loses the digits that a large mean and a
    large ``x`` have in common.
    """
    scaled = (x - mean) * scale
    return scaled if shift is None else scaled + shift


@partial(scale_and_shift.defjvp, symbolic_zeros=True)
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, Any]:
    """What shifts comes together before it is broadcast: one sum, not two, on the way back."""
    x, mean, scale, _ = primals
    # Running statistics and what is frozen have no tangent.
    x_dot, mean_dot, scale_dot, shift_dot = (
        None if isinstance(t, SymbolicZero) else t for t in tangents
    )
    terms = [] if x_dot is None else [x_dot * scale]
    if scale_dot is not None:
        terms.append((x - mean) * scale_dot)
    if mean_dot is not None:
        moved = -mean_dot * scale
        shift_dot = moved if shift_dot is None else shift_dot + moved
    if shift_dot is not None:
        terms.append(shift_dot)
    y = scale_and_shift(*primals)
    return y, functools.reduce(lax.add, (jnp.broadcast_to(term, y.shape) for term in terms))
