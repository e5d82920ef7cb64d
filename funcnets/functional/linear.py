"""Linear and bilinear maps of the last axis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import describe, require_ndim
from funcnets.errors import DTypeError, ShapeError
from funcnets.functional._autocast import in_low, in_widest
from funcnets.functional._numeric import as_array

__all__ = ["bilinear", "linear"]


def linear(input: jax.Array, weight: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    r"""Multiply the last axis by a matrix and add a vector.

    .. math::
        y = x W^\top + b

    Args:
        input: ``(*, in_features)``, at least 1D.
        weight: ``(out_features, in_features)``, or ``(in_features,)`` for a scalar result.
        bias: ``(out_features,)``, or anything that broadcasts to the result; None adds nothing.

    Returns:
        ``(*, out_features)``, or ``(*)`` where ``weight`` is 1D.

    Raises:
        ShapeError: the sizes do not fit together.
        DTypeError: the arrays have different dtypes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.linear(jnp.ones((2, 5, 3)), jnp.ones((4, 3)), jnp.zeros(4)).shape
        (2, 5, 4)

    References:
        torch.nn.functional.linear
    """
    input, weight, bias = in_low(input, weight, bias)
    input, weight, bias = _arrays(input=input, weight=weight, bias=bias)
    require_ndim("weight", weight, (1, 2), "(out_features, in_features)")
    if input.ndim == 0 or input.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            f"expected input of shape (*, {weight.shape[-1]}), in_features of "
            f"weight {describe(weight)}, but got input {describe(input)}"
        )
    output = lax.dot_general(input, weight, (((input.ndim - 1,), (weight.ndim - 1,)), ((), ())))
    return output if bias is None else output + _broadcast(bias, output)


def bilinear(
    input1: jax.Array, input2: jax.Array, weight: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    r"""A form that is linear in the last axis of each of two inputs.

    .. math::
        y_k = x_1^\top W_k\, x_2 + b_k

    Args:
        input1: ``(*, in1_features)``.
        input2: ``(*, in2_features)``, with the same leading axes.
        weight: ``(out_features, in1_features, in2_features)``.
        bias: ``(out_features,)``, or None.

    Returns:
        ``(*, out_features)``.

    Raises:
        ShapeError: the sizes do not fit together.
        DTypeError: the arrays have different dtypes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.bilinear(jnp.ones((2, 3)), jnp.ones((2, 5)), jnp.ones((4, 3, 5))).shape
        (2, 4)

    References:
        torch.nn.functional.bilinear
    """
    input1, input2, weight, bias = in_widest(input1, input2, weight, bias)
    input1, input2, weight, bias = _arrays(input1=input1, input2=input2, weight=weight, bias=bias)
    require_ndim("weight", weight, (3,), "(out_features, in1_features, in2_features)")
    for name, x, size in (("input1", input1, weight.shape[1]), ("input2", input2, weight.shape[2])):
        if x.ndim == 0 or x.shape[-1] != size:
            raise ShapeError(
                f"expected {name} of shape (*, {size}) for weight {describe(weight)}, but got {describe(x)}"
            )
    if input1.shape[:-1] != input2.shape[:-1]:
        raise ShapeError(
            "expected input1 and input2 with the same leading axes, "
            f"but got {describe(input1)} and {describe(input2)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"expected bias of shape {weight.shape[:1]}, but got {describe(bias)}")
    output = jnp.einsum("...i,oij,...j->...o", input1, weight, input2)
    return output if bias is None else output + _broadcast(bias, output)


def _broadcast(bias: jax.Array, output: jax.Array) -> jax.Array:
    try:
        return jnp.broadcast_to(bias, output.shape)
    except ValueError:
        raise ShapeError(
            f"expected bias of shape ({output.shape[-1] if output.ndim else ''},) or one that "
            f"broadcasts to the result {output.shape}, but got {describe(bias)}"
        ) from None


def _arrays(**arrays: Any) -> list[Any]:
    """The arguments as arrays, all of one dtype; None stays None."""
    given = {name: as_array(name, x) for name, x in arrays.items() if x is not None}
    if len({x.dtype for x in given.values()}) > 1:
        listed = ", ".join(f"{name} {describe(x)}" for name, x in given.items())
        raise DTypeError(
            f"expected arrays of one dtype, but got {listed}; convert with .astype(...)"
        )
    return [given.get(name) for name in arrays]
