"""What the optimizers of this package are put together from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from funcnets.core.rows import placed_like
from funcnets.errors import ArgumentError, UnsupportedError


def wide(dtype: Any) -> Any:
    """The dtype to compute in: single precision for half precision."""
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype


#: Up to this size zeros are made on the host: a program of XLA for each shape takes longer.
SMALL = 2**20


def zeros_like(tree: Any) -> Any:
    """Zeros for each array, of its kind and in its place."""

    def zeros(x: Any) -> jax.Array:
        if not isinstance(x, jax.Array) or isinstance(x, Tracer) or x.size > SMALL:
            return jnp.zeros_like(x)
        return placed_like(np.zeros(x.shape, x.dtype), x)

    return jax.tree.map(zeros, tree)


def scale_by_rate(lr: Any) -> optax.GradientTransformation:
    """Multiply by minus the learning rate: a number, a schedule, or an array that may be traced.

    optax's own would round the rate to the precision of a half precision gradient first.
    """
    if callable(lr):
        return optax.scale_by_learning_rate(lr)  # pyright: ignore[reportArgumentType]

    def scale(gradient: jax.Array) -> jax.Array:
        dtype = wide(gradient.dtype)
        return (-jnp.asarray(lr, dtype) * gradient.astype(dtype)).astype(gradient.dtype)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, updates))


def only_if(condition: Any, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """``tx``, or nothing in its place: so that the places of the others do not depend on an option."""
    return tx if condition else optax.identity()


def in_use(value: Any) -> bool:
    """Whether a term takes part; one whose factor is an array always does, whatever its value."""
    return isinstance(value, jax.Array) or bool(value)


def number(value: Any, dtype: Any) -> Any:
    """A hyper-parameter for computing in ``dtype``: a Python number as it is, an array cast."""
    return value.astype(dtype) if isinstance(value, jax.Array) else value


def decay_by(weight_decay: Any) -> optax.GradientTransformation:
    """Add ``weight_decay * parameter``; as optax's, but the factor may be an array."""

    def add(update: jax.Array, param: jax.Array) -> jax.Array:
        return update + number(weight_decay, param.dtype) * param

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(add, updates, params)

    return only_if(in_use(weight_decay), optax.stateless(update))


def refuse_flags(owner: str, **flags: Any) -> None:
    """torch's implementation switches, which have no counterpart: XLA fuses the whole step."""
    for name, value in flags.items():
        if value:
            raise UnsupportedError(
                f"{owner}({name}=True) selects one of torch's kernels; XLA fuses the step: leave it out"
            )


def require(condition: bool, what: str, value: Any) -> None:
    """Refuse a hyper-parameter, in PyTorch's words."""
    if not condition:
        raise ArgumentError(f"Invalid {what}: {value}")


def betas_of(options: Mapping[str, Any]) -> Sequence[float]:
    """Two decay rates within [0, 1)."""
    betas = options["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ArgumentError(f"betas must be a pair of numbers, but got {betas!r}")
    for i, beta in enumerate(betas):
        require(0.0 <= beta < 1.0, f"beta parameter at index {i}", beta)
    return betas
