"""Normalisation with derivatives in closed form.

Differentiating the textbook formula step by step sends the gradient through the mean twice, once
for the deviations that are scaled and once for those that are squared. Summed up by hand it needs
two sums over the normalised axes on the way back, which are those of the parameters' gradients, and
half of the time. Values are what the plain operations give: two passes, because the difference of two
large sums would lose its digits. The rules are linear in the tangents and consist of plain
operations, so that they transpose, and can be differentiated again. The forms are the same on every
platform. ``python -m benchmarks.lowering norm`` prints the ratios.
"""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

__all__ = ["normalised", "one_path", "scale_and_shift"]

Optional = jax.Array | None


def one_path(x: jax.Array) -> jax.Array:
    """``x``, the gradients of whose uses are added up before they join those of any other use.

    Otherwise the last addition to the gradient of a residual stream is often that of a mean's, a
    broadcast. XLA thinks such a sum free to compute again and does so in each of its uses, with
    all the sums before it: programs and compile times become quadratic in the depth of a network.
    A compiled program has no copy here.
    """
    return jnp.array(x, copy=True)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def normalised(
    x: jax.Array, weight: Optional, bias: Optional, axes: tuple[int, ...], eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, ``mean`` and biased ``var`` over ``axes``.

    ``weight`` and ``bias`` have the rank of ``x``; in the statistics the axes are kept.
    """
    mean = jnp.mean(x, axes, keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
    y = (x - mean) * _scale(var, weight, eps)
    return (y if bias is None else y + bias), mean, var


def _scale(var: jax.Array, weight: Optional, eps: float) -> jax.Array:
    inverse = lax.rsqrt(var + eps)
    return inverse if weight is None else inverse * weight


@partial(normalised.defjvp, symbolic_zeros=True)
def _(axes: tuple[int, ...], eps: float, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    """What is broadcast comes together first: two sums, and not four, on the way back."""
    x, weight, _ = primals
    x_dot, weight_dot, bias_dot = map(_present, tangents)
    y, mean, var = out = normalised(*primals, axes, eps)
    centred, inverse = x - mean, lax.rsqrt(var + eps)
    slope = None if weight_dot is None else inverse * weight_dot
    if x_dot is None:
        mean_dot = var_dot = jnp.zeros_like(mean)
        terms, shift = [], bias_dot
    else:
        x_dot = one_path(x_dot)
        scale = _scale(var, weight, eps)
        mean_dot = jnp.mean(x_dot, axes, keepdims=True)
        half = jnp.mean(centred * x_dot, axes, keepdims=True)
        var_dot = 2 * half
        terms = [x_dot * scale]
        slope = _sum(slope, -scale * jnp.square(inverse) * half)
        shift = _sum(bias_dot, -scale * mean_dot)
    if slope is not None:
        terms.append(centred * slope)
    if shift is not None:
        terms.append(shift)
    return out, (_spread(terms, y), mean_dot, var_dot)


@jax.custom_jvp
def scale_and_shift(x: jax.Array, mean: jax.Array, scale: jax.Array, shift: Optional) -> jax.Array:
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
    x_dot, mean_dot, scale_dot, shift_dot = map(_present, tangents)
    terms = [] if x_dot is None else [x_dot * scale]
    if scale_dot is not None:
        terms.append((x - mean) * scale_dot)
    if mean_dot is not None:
        shift_dot = _sum(shift_dot, -mean_dot * scale)
    if shift_dot is not None:
        terms.append(shift_dot)
    y = scale_and_shift(*primals)
    return y, _spread(terms, y)


def _present(tangent: Any) -> Any:
    """None for what has no tangent: running statistics, what is frozen, what is not there."""
    return None if isinstance(tangent, SymbolicZero) else tangent


def _sum(a: Optional, b: jax.Array) -> jax.Array:
    return b if a is None else a + b


def _spread(terms: list[jax.Array], y: jax.Array) -> jax.Array:
    """The sum of the terms in the shape of ``y``."""
    return functools.reduce(lax.add, (jnp.broadcast_to(term, y.shape) for term in terms))
