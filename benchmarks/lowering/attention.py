"""Attention's softmax, cross entropy and GELU: the forms in use against the textbook's."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from benchmarks.lowering.measure import compare
from funcnets import functional as F
from funcnets.functional.attention import attend

#: (batch, heads, length, features)
SHAPES = [(8, 4, 128, 64), (2, 8, 512, 64)]


def textbook(scores: jax.Array) -> jax.Array:
    """The softmax with rows of nothing but -inf, with JAX's own derivative."""
    empty = jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf) == -jnp.inf
    return jnp.where(empty, 0.0, jax.nn.softmax(jnp.where(empty, 0.0, scores), axis=-1))


def attention(rounds: int) -> None:
    for shape in SHAPES:
        args = tuple(jax.random.normal(jax.random.key(i), shape) for i in range(3))
        for causal in (False, True):

            def form(q: jax.Array, k: jax.Array, v: jax.Array, **options) -> jax.Array:
                return attend(q, k, v, mask=None, is_causal=causal, **options)[0]  # noqa: B023

            def jax_nn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
                q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
                out = jax.nn.dot_product_attention(q, k, v, is_causal=causal)  # noqa: B023
                return out.swapaxes(1, 2)

            forms = {
                "textbook": functools.partial(form, normalise=textbook),
                "jax.nn.softmax": functools.partial(form, normalise=jax.nn.softmax),
                "jax.nn.dot_product_attention": jax_nn,
                "funcnets": form,
            }
            title = f"attention {shape} causal={causal}"
            compare(title, forms, args, rounds=rounds, chosen="funcnets")


def cross_entropy(rounds: int) -> None:
    for positions, classes in ((64, 10), (2048, 1000), (512, 50257)):
        logits = jax.random.normal(jax.random.key(0), (positions, classes))
        target = jax.random.randint(jax.random.key(1), (positions,), 0, classes)

        def log_softmax(x: jax.Array, target: jax.Array) -> jax.Array:
            return F.nll_loss(jax.nn.log_softmax(x), target)

        forms = {"nll of log_softmax": log_softmax, "funcnets": F.cross_entropy}
        title = f"cross_entropy ({positions}, {classes})"
        compare(title, forms, (logits, target), rounds=rounds, chosen="funcnets")


def gelu(rounds: int) -> None:
    x = jax.random.normal(jax.random.key(0), (8, 128, 1024))
    exact = functools.partial(jax.nn.gelu, approximate=False)
    compare("gelu", {"jax.nn.gelu": exact, "funcnets": F.gelu}, (x,), rounds=rounds)


def main(rounds: int = 20) -> None:
    attention(rounds)
    cross_entropy(rounds)
    gelu(rounds)
