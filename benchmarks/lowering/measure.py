"""The forms of one operation against each other: the forward pass, and it with all gradients."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import harness

Form = Callable[..., jax.Array]


def compare(
    title: str, forms: dict[str, Form], args: tuple[Any, ...], *, rounds: int, chosen: str = ""
) -> None:
    """Print the median ratio of each form to the first one, which of them is in use being starred.

    Args:
        title: the operation and the shape.
        forms: name to a function of ``args``; the gradients are those of the floating point ones.
        args: arrays.
        rounds: how often each is measured.
        chosen: the name of the form that the table picks.
    """
    floats = [i for i, x in enumerate(args) if jnp.issubdtype(x.dtype, jnp.floating)]

    def with_gradients(form: Form, cotangent: jax.Array, *args: jax.Array) -> Any:
        def of_floats(*values: jax.Array) -> jax.Array:
            given = dict(zip(floats, values, strict=True))
            return form(*(given.get(i, x) for i, x in enumerate(args)))

        out, pull = jax.vjp(of_floats, *(args[i] for i in floats))
        return out, pull(cotangent)

    def contenders(both: bool) -> dict[str, Callable[[], Any]]:
        calls = {}
        for name, form in forms.items():
            compiled = jax.jit(with_gradients, static_argnums=0) if both else jax.jit(form)
            given = (form, cotangent, *args) if both else args
            calls[name] = lambda compiled=compiled, given=given: compiled(*given)
        return calls

    out = jax.eval_shape(next(iter(forms.values())), *args)
    cotangent = jax.random.normal(jax.random.key(9), out.shape, out.dtype)
    for what, both in (("fwd", False), ("both", True)):
        times = harness.interleave(contenders(both), rounds=rounds, target=0.01, warmup=2)
        first = next(iter(times))
        ratios = {
            name: statistics.median(v / f for v, f in zip(values, times[first], strict=True))
            for name, values in times.items()
        }
        ranked = sorted(ratios, key=ratios.__getitem__)
        row = ", ".join(f"{name}{'*' * (name == chosen)} {ratios[name]:.2f}" for name in ranked)
        microseconds = 1e6 * statistics.median(times[first])
        print(f"{title} {what} ({first} {microseconds:.0f} us): {row}", flush=True)
