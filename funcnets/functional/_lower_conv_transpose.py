"""How a transposed convolution is computed on a CPU: by the forms of the convolution that it is the adjoint of.

Its value is that convolution's gradient of the input, the gradient of its own input that convolution's
output, and both weights have the same gradient. ``_lower_conv.plan`` names the forms.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from funcnets.functional._lower_conv import Plan, Window, chosen, plan, with_transpose

__all__ = ["adjoint"]


def adjoint(y: jax.Array, w: jax.Array, window: Window, sizes: tuple[int, ...]) -> jax.Array:
    """The adjoint of the convolution with ``w`` (C, O // groups, ...), to these spatial sizes."""
    x = (y.shape[0], w.shape[1] * window.groups, *sizes)
    forms = plan(x, w.shape, window, y.dtype)
    return native(y, w, window, x) if forms is None else _planned(y, w, window, x, forms)


def native(y: jax.Array, w: jax.Array, window: Window, x: tuple[int, ...]) -> jax.Array:
    """The same map as a convolution: the input spread out by the stride, the kernel mirrored."""
    groups, n = window.groups, y.ndim - 2
    reach = [d * (k - 1) for d, k in zip(window.dilations, w.shape[2:], strict=True)]
    wide = [
        (r - lo, size + lo - (length - 1) * s - 1)
        for r, (lo, _), size, length, s in zip(
            reach, window.pads, x[2:], y.shape[2:], window.strides, strict=True
        )
    ]
    channels = w.shape[0] // groups
    kernels = jnp.swapaxes(w.reshape(groups, channels, *w.shape[1:]), 1, 2)
    kernels = kernels.reshape(x[1], channels, *w.shape[2:])
    return lax.conv_general_dilated(
        y,
        lax.rev(kernels, range(2, n + 2)),
        (1,) * n,
        wide,
        lhs_dilation=window.strides,
        rhs_dilation=window.dilations,
        feature_group_count=groups,
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _planned(
    y: jax.Array, w: jax.Array, window: Window, x: tuple[int, ...], forms: Plan
) -> jax.Array:
    return _differentiable(y, w, window, x, forms)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _differentiable(
    y: jax.Array, w: jax.Array, window: Window, x: tuple[int, ...], forms: Plan
) -> jax.Array:
    return _of_input(y, w, window, x, forms.input_gradient)


def _of_input(
    y: jax.Array, w: jax.Array, window: Window, x: tuple[int, ...], form: str
) -> jax.Array:
    """The gradient of the input, ``y`` being that of the output."""

    def function(x: jax.Array) -> jax.Array:
        return chosen(x, w, window, form)

    return jax.linear_transpose(function, jax.ShapeDtypeStruct(x, y.dtype))(y)[0]


def _tangent(
    window: Window, x: tuple[int, ...], forms: Plan, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    (y, w), (dy, dw) = primals, tangents
    out, parts = _differentiable(y, w, window, x, forms), []

    def along(dw: jax.Array) -> jax.Array:
        # The form of the input's gradient may be linear in its input alone for JAX.
        return _of_input(y, dw, window, x, forms.output)

    def gradient(out: jax.Array) -> jax.Array:
        def of_weight(w: jax.Array) -> jax.Array:
            return chosen(out, w, window, forms.weight_gradient)

        return jax.linear_transpose(of_weight, w)(y)[0]

    if not isinstance(dy, SymbolicZero):
        parts.append(_of_input(dy, w, window, x, forms.input_gradient))
    if not isinstance(dw, SymbolicZero):
        parts.append(with_transpose(along, gradient, dw, x))
    return out, functools.reduce(operator.add, parts) if parts else jnp.zeros_like(out)


_differentiable.defjvp(_tangent, symbolic_zeros=True)
