"""What the kits of the JAX peers share: arrays, losses, and pools that are no layers of theirs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Peer:
    """The common part of a kit; images go to the library with the channels where it wants them."""

    channels_last = True

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = jnp.dtype(dtype)

    def array(self, a: np.ndarray) -> jax.Array:
        if a.ndim == 4 and self.channels_last:
            a = np.moveaxis(a, 1, -1)
        return jnp.asarray(a, self.dtype if a.dtype == np.float32 else None)

    def cast(self, tree: Any) -> Any:
        """All floating-point leaves in the dtype of this kit."""

        def cast(leaf: Any) -> Any:
            floating = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
            return leaf.astype(self.dtype) if floating else leaf

        return jax.tree.map(cast, tree)


def objective(kind: str, out: jax.Array, y: jax.Array) -> jax.Array:
    out = out.astype(jnp.float32)
    if kind == "mean_square":
        return jnp.mean((out - y.astype(jnp.float32)) ** 2)
    return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()


def flatten(x: jax.Array) -> jax.Array:
    return x.reshape(x.shape[0], -1)


def average(x: jax.Array) -> jax.Array:
    """The mean of each channel of NHWC images."""
    return x.mean((1, 2))


def pairs(n: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return ((n, n), (n, n))
