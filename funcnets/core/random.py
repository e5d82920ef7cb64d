"""The seed of the stateful face.

``manual_seed`` starts two streams. One hands a ticket to every cell that is created
(``core/cell.py``). The other is a key for the random layers, and that key is itself a cell: a
layer that draws reads it and writes its successor, like any other state. So ``fn.jit`` threads it
without special care, and nothing about randomness is global except this one buffer.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_int
from funcnets.core import cell
from funcnets.core import frame as frames
from funcnets.core.keys import fold_on_host, name_hash
from funcnets.errors import StateLeakError
from funcnets.init import initializer_from

__all__ = ["initial_seed", "manual_seed"]


def _first_key(key, shape, dtype) -> np.ndarray:
    seed = np.array([cell.split_seed(cell.tickets.seed)], np.uint32)
    return fold_on_host(seed, np.array([name_hash("random layers")], np.uint32))[0]


#: The raw key from which the random layers of the stateful face draw.
stream = cell.Buffer((2,), initializer=initializer_from(_first_key), dtype=jnp.uint32)


def advance(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``(the stream's next raw key, a key to use now)``."""
    successor, now = jax.random.split(jax.random.wrap_key_data(raw, impl="threefry2x32"))
    return jax.random.key_data(successor), now


def manual_seed(seed: int) -> None:
    """Seed the stateful face: the values of cells created from now on, and its random layers.

    A cell (a parameter, a buffer) takes a ticket when it is created and draws its value when it is
    first asked for it, so the same program gives the same model wherever the values are first
    used. The pure face is not concerned: its keys are its arguments.

    Args:
        seed: any integer; taken modulo 2**64, so that negative seeds work as in PyTorch.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> fn.manual_seed(0)
        >>> a = nn.Linear(2, 3).weight
        >>> fn.manual_seed(0)
        >>> b = nn.Linear(2, 3).weight
        >>> bool((a == b).all())
        True

    References:
        torch.manual_seed
    """
    if frames.current() is not None:
        raise StateLeakError("manual_seed was called inside a call: seed outside")
    cell.tickets.restart(as_int("seed", seed) % 2**64)
    stream.forget()


def initial_seed() -> int:
    """The seed in force: that of ``manual_seed``, or one drawn from the operating system at import.

    Returns:
        A non-negative integer below 2**64.

    References:
        torch.initial_seed
    """
    return cell.tickets.seed
