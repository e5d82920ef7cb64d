"""What the losses share: reductions, and bringing arrays to one dtype and shape."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import choice, describe, reduce_loss
from funcnets.errors import DTypeError, ShapeError
from funcnets.functional._numeric import as_array, real_or_integer, widen

__all__ = [
    "at_least_zero",
    "broadcast",
    "common",
    "common_dtype",
    "expand",
    "matched",
    "reduced",
    "resolve_reduction",
    "same_dtype",
    "signs",
    "sizes_warning",
]

_REDUCTIONS = ("none", "mean", "sum")


def resolve_reduction(
    size_average: bool | None,
    reduce: bool | None,
    reduction: str,
    *,
    extra: tuple[str, ...] = (),
    stacklevel: int = 3,
) -> str:
    """The reduction that the current argument and PyTorch's two deprecated ones amount to."""
    if size_average is not None or reduce is not None:
        averaged = size_average is None or size_average
        name = "none" if reduce is not None and not reduce else "mean" if averaged else "sum"
        warnings.warn(
            f"size_average and reduce are deprecated: write reduction={name!r}",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
        return name
    if reduction == "elementwise_mean":
        warnings.warn(
            "reduction='elementwise_mean' is deprecated: write reduction='mean'",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
        return "mean"
    return choice("reduction", reduction, (*_REDUCTIONS, *extra))


def reduced(loss: jax.Array, reduction: str, dtype: Any) -> jax.Array:
    """The loss, reduced in the precision it was computed in, in the dtype of the result."""
    return reduce_loss(loss, reduction).astype(dtype)


def common_dtype(*arrays: jax.Array) -> Any:
    """The dtype to which PyTorch would promote, whatever ``jax_numpy_dtype_promotion`` says."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*[x.dtype for x in arrays])


def common(**arrays: Any) -> tuple[list[jax.Array], Any]:
    """The arrays in the wider of their dtypes, half precision in float32, and that dtype itself.

    The promotion is PyTorch's, and is wanted here whatever ``jax_numpy_dtype_promotion`` says:
    integer targets and a float32 target for bfloat16 logits are everyday things.
    """
    values = [
        # A boolean target is as good as one of zeros and ones.
        as_array(name, x) if getattr(x, "dtype", None) == jnp.bool_ else real_or_integer(name, x)
        for name, x in arrays.items()
    ]
    dtype = common_dtype(*values)
    if not jnp.issubdtype(dtype, jnp.floating):
        listed = ", ".join(f"{name} {describe(x)}" for name, x in zip(arrays, values, strict=True))
        raise DTypeError(f"expected a floating point array among {listed}; convert one of them")
    return [widen(x.astype(dtype)) for x in values], dtype


def same_dtype(name: str, x: jax.Array, other_name: str, other: jax.Array) -> None:
    """Refuse two arrays of different dtypes."""
    if x.dtype != other.dtype:
        raise DTypeError(
            f"{name} and {other_name} must have one dtype, but got {name} {describe(x)} and "
            f"{other_name} {describe(other)}; convert {name}.astype({other_name}.dtype)"
        )


def expand(name: str, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """``x`` broadcast to exactly ``shape``."""
    try:
        return jnp.broadcast_to(x, shape)
    except ValueError:
        raise ShapeError(
            f"{name} must broadcast to the shape {shape}, but got {describe(x)}"
        ) from None


def broadcast(**arrays: jax.Array) -> list[jax.Array]:
    """The arrays broadcast against one another."""
    try:
        shape = np.broadcast_shapes(*[x.shape for x in arrays.values()])
    except ValueError:
        listed = ", ".join(f"{name} {describe(x)}" for name, x in arrays.items())
        raise ShapeError(f"expected shapes that broadcast together, but got {listed}") from None
    return [jnp.broadcast_to(x, shape) for x in arrays.values()]


def sizes_warning(input: jax.Array, target: jax.Array, stacklevel: int) -> None:
    """Warn of sizes that differ, which is allowed and almost always a mistake."""
    if input.shape != target.shape:
        warnings.warn(
            f"input has the shape {input.shape} and target {target.shape}: they are broadcast, "
            "which is seldom what a loss should do; give them one shape",
            UserWarning,
            stacklevel=stacklevel + 2,
        )


def matched(input: Any, target: Any, *, stacklevel: int = 3) -> tuple[jax.Array, jax.Array, Any]:
    """``input`` and ``target`` in one dtype and shape, with a warning if the shapes differed."""
    (input, target), dtype = common(input=input, target=target)
    sizes_warning(input, target, stacklevel)
    input, target = broadcast(input=input, target=target)
    return input, target, dtype


def at_least_zero(x: jax.Array) -> jax.Array:
    """``max(x, 0)`` with the derivative 1 at 0, which PyTorch's clamp has and its relu has not."""
    return jnp.where(x < 0, jnp.zeros_like(x), x)


def signs(target: Any, dtype: Any) -> jax.Array:
    """A target of ones and minus ones, integer or floating point, which does not decide the dtype."""
    return real_or_integer("target", target).astype(dtype)
