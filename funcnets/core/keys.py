"""Keys: how one seed becomes a different, repeatable stream for every parameter and every draw.

Two rules, both pure:

* ``child_key(key, name)`` folds a name into a key. The key of ``encoder.0.weight`` is made by
  folding ``"encoder"``, ``"0"`` and ``"weight"`` one after the other, so a child initialised with
  its own folded key gets exactly the values it gets inside its parent.
* A cell of the stateful face holds a ticket (seed, number): ``manual_seed``'s seed, and how many
  cells were created since. Its key is the seed's, with the number folded in.

Keys of the default Threefry kind are folded on the host, in NumPy: a model of a thousand
parameters gets its keys without a single compilation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context

from funcnets.errors import RngError

__all__ = ["child_key", "is_key"]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_MASK = 0xFFFFFFFF


def name_hash(name: str) -> int:
    """32 bits of a name, the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def threefry2x32(keys: Any, x0: Any, x1: Any, spare: np.ndarray | None = None) -> tuple[Any, Any]:
    """Threefry-2x32 (Salmon et al., 2011), bit for bit as ``jax.random`` computes it.

    Args:
        keys: ``uint32[..., 2]``, of NumPy or of JAX, as all arguments.
        x0: the counter's high words. NumPy arrays are overwritten by the results.
        x1: its low words, likewise.
        spare: memory of the same size to work in, for NumPy.

    Returns:
        Two words for each counter.
    """
    k0, k1 = keys[..., 0], keys[..., 1]
    schedule = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    x0 += k0
    x1 += k1
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 += x1
            right = np.uint32(32 - rotation)
            over = x1 >> right if spare is None else np.right_shift(x1, right, out=spare)
            x1 <<= np.uint32(rotation)
            x1 |= over
            x1 ^= x0
        x0 += schedule[(block + 1) % 3]
        x1 += schedule[(block + 2) % 3]
        x1 += np.uint32(block + 1)
    return x0, x1


def fold_on_host(keys: np.ndarray, data: np.ndarray) -> np.ndarray:
    """``jax.random.fold_in`` for an array of raw keys ``(n, 2)`` and of words ``(n,)``."""
    x0, x1 = threefry2x32(keys, np.zeros_like(data), data.copy())
    return np.stack([x0, x1], axis=-1)


def is_key(value: object) -> bool:
    """Whether ``value`` is one typed PRNG key, as ``jax.random.key`` makes it."""
    return (
        isinstance(value, jax.Array)
        and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        and value.shape == ()
    )


def check_key(name: str, key: object) -> jax.Array:
    """``key`` if it is a typed PRNG key; an old-style ``uint32[2]`` key is refused with the remedy."""
    if not is_key(key):
        shape = getattr(key, "shape", None)
        hint = "jax.random.wrap_key_data(key)" if shape == (2,) else "jax.random.key(0)"
        came = f"an array of shape {shape}" if shape is not None else repr(key)
        raise RngError(f"{name} must be one typed PRNG key, such as {hint}, but got {came}")
    return key  # pyright: ignore[reportReturnType]


def child_key(key: jax.Array, name: str) -> jax.Array:
    """The key of the child ``name``: ``jax.random.fold_in`` with 32 bits of the name.

    Args:
        key: a typed PRNG key.
        name: the attribute name of a sub-module, a parameter or a buffer.

    Returns:
        A typed key. ``functionalize(model).init(key)[0]["fc"]`` equals
        ``functionalize(model.fc).init(child_key(key, "fc"))[0]``.

    Examples:
        >>> import jax, funcnets as fn
        >>> fn.child_key(jax.random.key(0), "fc").dtype
        key<fry>
    """
    return jax.random.fold_in(check_key("key", key), np.uint32(name_hash(name)))


def host_key_data(key: jax.Array) -> np.ndarray | None:
    """The raw ``uint32[2]`` of a concrete Threefry key, or None if it must be handled by JAX."""
    if isinstance(key, Tracer) or str(jax.random.key_impl(key)) != "threefry2x32":
        return None
    with eval_context():  # a concrete key may be used within a trace
        return np.asarray(jax.random.key_data(key))


def path_keys(key: jax.Array, paths: Sequence[tuple[str, ...]]) -> np.ndarray | jax.Array:
    """The key of every path: raw ``uint32[n, 2]`` on the host where possible, else typed keys ``[n]``."""
    depth = max(map(len, paths), default=0)
    words = np.zeros((len(paths), depth), np.uint32)
    used = np.zeros((len(paths), depth), bool)
    for i, path in enumerate(paths):
        words[i, : len(path)] = [name_hash(part) for part in path]
        used[i, : len(path)] = True
    raw = host_key_data(key)
    if raw is not None:
        keys = np.broadcast_to(raw, (len(paths), 2)).copy()
        for level in range(depth):
            here = used[:, level]
            keys[here] = fold_on_host(keys[here], words[here, level])
        return keys

    def one_level(keys, level):
        word, use = level
        folded = jax.vmap(jax.random.fold_in)(keys, word)
        data = jnp.where(use[:, None], jax.random.key_data(folded), jax.random.key_data(keys))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)), None

    if depth == 1:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(words[:, 0]))
    # One scan over the levels instead of one folding per level: a single small kernel to compile.
    keys = jnp.broadcast_to(key, (len(paths),))
    return jax.lax.scan(one_level, keys, (jnp.asarray(words.T), jnp.asarray(used.T)))[0]


def ticket_keys(tickets: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Raw keys of tickets: the key of the seed (two words) with the ticket's number folded in."""
    table = np.array(tickets, np.uint32).reshape(-1, 3)
    return fold_on_host(table[:, :2], table[:, 2])
