"""What the schedules share: numbers of JAX's default float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["Schedule", "as_float", "schedule"]

#: A learning rate as a function of the number of steps made so far; optax's protocol.
Schedule = Callable[[Any], jax.Array]


def as_float(value: Any) -> jax.Array:
    """A number or an array of numbers in JAX's default float."""
    return jnp.asarray(value).astype(jnp.result_type(float))


def schedule(rule: Callable[[jax.Array], Any]) -> Schedule:
    """``rule``, given the count as a float, which it may be, and returning one."""

    def at(count: Any) -> jax.Array:
        return as_float(rule(as_float(count)))

    return at
