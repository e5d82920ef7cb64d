"""Normalisation: ``python -m benchmarks.lowering norm``.

``textbook`` is the formula with JAX's own derivative, ``one pass`` its variance from the mean square
(fast, and wrong where the mean is large), ``in use`` what the public function does.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.lowering import measure
from funcnets import functional as F

GROUPS = 8


def textbook(axes: tuple[int, ...], lay: Callable, one_pass: bool = False) -> Callable:
    """Normalise over ``axes``; ``lay`` brings the parameters into the shape of the input."""

    def form(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        mean = jnp.mean(x, axes, keepdims=True)
        if one_pass:
            var = jnp.mean(jnp.square(x), axes, keepdims=True) - jnp.square(mean)
        else:
            var = jnp.mean(jnp.square(x - mean), axes, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * lay(weight) + lay(bias)

    return form


def main(rounds: int = 15) -> None:
    for shape in [(64, 16, 28, 28), (8, 64, 32, 32), (8, 256, 8, 8), (8, 512, 2, 2), (256, 128)]:
        axes = (0, *range(2, len(shape)))
        after = (1,) * (len(shape) - 2)
        lay = lambda p, after=after: p.reshape(-1, *after)  # noqa: E731
        in_use = lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True)  # noqa: E731
        run("batch", shape, shape[1], axes, lay, in_use, rounds)
    shape = (8, 64, 32, 32)
    lay = lambda p: p.reshape(-1, 1, 1)  # noqa: E731
    in_use = lambda x, w, b: F.instance_norm(x, None, None, w, b)  # noqa: E731
    run("instance", shape, 64, (2, 3), lay, in_use, rounds)

    def grouped(form: Callable) -> Callable:
        return lambda x, w, b: form(x.reshape(8, GROUPS, -1, 32, 32), w, b).reshape(x.shape)

    lay = lambda p: p.reshape(GROUPS, -1, 1, 1)  # noqa: E731
    in_use = lambda x, w, b: F.group_norm(x, GROUPS, w, b)  # noqa: E731
    run("group", shape, 64, (2, 3, 4), lay, in_use, rounds, grouped)
    for shape in [(8, 128, 256), (8, 128, 768), (64, 64)]:
        in_use = lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b)  # noqa: E731
        run("layer", shape, shape[-1], (-1,), lambda p: p, in_use, rounds)


def run(
    name: str,
    shape: tuple[int, ...],
    size: int,
    axes: tuple[int, ...],
    lay: Callable,
    in_use: Callable,
    rounds: int,
    wrap: Callable = lambda form: form,
) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    args = tuple(
        jax.random.normal(k, s) for k, s in zip(keys, (shape, (size,), (size,)), strict=True)
    )
    forms = {
        "textbook": wrap(textbook(axes, lay)),
        "one pass": wrap(textbook(axes, lay, one_pass=True)),
        "in use": in_use,
    }
    measure.compare(f"{name} {shape}", forms, args, rounds=rounds, chosen="in use")
