"""What the tests of checkpoints share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def equal(a: Any, b: Any) -> None:
    """Of the same types, shapes, dtypes and bits."""
    assert type(a) is type(b) or isinstance(a, jax.Array) == isinstance(b, jax.Array)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    elif hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        equal(jax.random.key_data(a), jax.random.key_data(b))
    elif hasattr(a, "dtype"):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    else:
        assert a == b or a != a
