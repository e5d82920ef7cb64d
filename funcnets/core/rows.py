"""Rows of arrays: the array side of stacked cells (``core/stacked.py``), for frames and optimizers, too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets._args import describe
from funcnets.errors import ShapeError

if TYPE_CHECKING:
    from funcnets.core.cell import Cell

__all__ = ["placed_like", "put_row", "row_of", "rows_of", "stack_rows", "top_of", "with_rows"]


def top_of(cell: Cell) -> Cell:
    """The cell that has the array: the stacked one of a row, else the cell itself."""
    return cell if cell.whole is None else cell.whole


# --- while tracing ----------------------------------------------------------------------------


@functools.partial(jax.jit, inline=True)
def _parted(value: jax.Array) -> list[jax.Array]:
    # One operation, whose gradient is one concatenation; an index each would sum as many arrays.
    return [jax.lax.squeeze(row, (0,)) for row in jax.lax.split(value, (1,) * len(value))]


def rows_of(value: Any) -> list[jax.Array]:
    """All rows of an array."""
    return _parted(jnp.asarray(value))


@functools.partial(jax.jit, inline=True)
def _with_row(value: jax.Array, row: Any, new: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(value, new, row, 0)


def put_row(value: Any, row: int, new: Any, what: str) -> jax.Array:
    """An array with another row; ``what`` names it in errors."""
    if tuple(new.shape) != tuple(value.shape[1:]) or new.dtype != value.dtype:
        raise ShapeError(
            f"{what} of one block of a Stack must keep its shape and dtype, "
            f"{describe(jax.ShapeDtypeStruct(value.shape[1:], value.dtype))}, but got {describe(new)}"
        )
    return _with_row(value, np.int32(row), new)


def with_rows(read: Callable[[Any], Any], given: dict[Any, Any]) -> dict[Any, Any]:
    """The values of stacked cells, some of whose rows are given; ``read`` gives a cell's present value."""
    groups: dict[Any, dict[int, Any]] = {}
    for cell, value in given.items():
        groups.setdefault(cell.whole, {})[cell.row] = value
    done = {}
    for whole, new in groups.items():
        old = {} if len(new) == len(whole.rows) else dict(enumerate(rows_of(read(whole))))
        done[whole] = jnp.stack([value for _, value in sorted((old | new).items())])
    return done


# --- concrete values --------------------------------------------------------------------------


def _on_host(values: Sequence[Any]) -> bool:
    """Whether NumPy gets at the numbers without copying, so that nothing has to be compiled."""
    return all(
        isinstance(v, jax.Array)
        and not isinstance(v, Tracer)
        and not jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
        and [device.platform for device in v.sharding.device_set] == ["cpu"]
        for v in values
    )


def placed_like(array: np.ndarray, like: jax.Array) -> jax.Array:
    """An array of the host where another one is."""
    return jax.device_put(array, like.sharding if like.committed else None)


def row_of(value: jax.Array, row: int) -> jax.Array:
    """One row in an array of its own."""
    if _on_host([value]):
        return placed_like(np.array(np.asarray(value)[row]), value)
    return jax.lax.dynamic_index_in_dim(value, row, 0, keepdims=False)


def stack_rows(values: Sequence[Any]) -> jax.Array:
    """Rows as one array."""
    if _on_host(values):
        return placed_like(np.stack([np.asarray(v) for v in values]), values[0])
    return jnp.stack(values)
