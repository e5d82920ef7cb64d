"""``fn.checkpoint``: activations that are computed again in the backward pass.

A lift as those in ``lifts.py``, but for its random draws: they are the very ones that the call would make
without it, so that checkpointing a block changes the memory that training takes, and no number.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax

from funcnets.core.frame import Frame, NeedsKey, running
from funcnets.core.lifting import entered, split_arrays
from funcnets.core.module import Module

__all__ = ["checkpoint", "compiler_options"]


def compiler_options() -> dict[str, Any] | None:
    """Options of ``jax.jit`` under which XLA does compute again what it is told to.

    XLA for CPU in jax 0.10 drops the barriers of ``jax.checkpoint`` and then finds that everything is
    computed twice. Later versions do not, and other backends never did.

    Returns:
        The options, or None where none are needed.
    """
    if jax.__version_info__ >= (0, 11) or jax.default_backend() != "cpu":
        return None
    return {"xla_disable_hlo_passes": "cse_barrier_expander"}


def checkpoint(
    fun: Callable[..., Any] | None = None,
    *,
    policy: Callable[..., bool] | None = None,
    prevent_cse: bool = True,
) -> Any:
    """A module or function whose activations are computed again in the backward pass, not stored.

    Nothing else changes: values, buffers and random draws are those of ``fun`` itself. In ``forward`` write
    ``fn.checkpoint(self.block)(x)`` or decorate the method; a block of a model that exists is switched
    with ``block.forward = fn.checkpoint(block.forward)``, also in :class:`nn.TransformerEncoder`'s ``layers``.

    XLA for CPU in jax 0.10 undoes the recomputation; ``fn.jit`` keeps it from that, and
    ``jax.jit(f, compiler_options={"xla_disable_hlo_passes": "cse_barrier_expander"})`` does so.

    Args:
        fun: a Module, or a function that uses modules; without it, a decorator is returned.
        policy: which intermediate values are stored all the same, from ``jax.checkpoint_policies``.
        prevent_cse: as for ``jax.checkpoint``; False inside a ``fn.scan``.

    Returns:
        A function with the arguments of ``fun``. Arrays among them take part; numbers, strings and
        modules are constants of the call.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        >>> fn.checkpoint(block)(jnp.ones((2, 4))).shape
        (2, 4)

    References:
        jax.checkpoint; torch.utils.checkpoint.checkpoint; Chen et al., 2016
    """
    if fun is None:
        return functools.partial(checkpoint, policy=policy, prevent_cse=prevent_cse)
    return Checkpointed(fun, policy, prevent_cse)


class Checkpointed:
    """What :func:`checkpoint` makes. In a copy of a module it belongs to the copy, as a closure would not."""

    def __init__(self, fun: Any, policy: Callable[..., bool] | None, prevent_cse: bool) -> None:
        functools.update_wrapper(self, fun.forward if isinstance(fun, Module) else fun, updated=())
        self._fun, self._policy, self._prevent_cse = fun, policy, prevent_cse

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        plain = instance is not None and isinstance(self._fun, types.FunctionType)
        return types.MethodType(self, instance) if plain else self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arrays, rebuild = split_arrays((args, kwargs))
        last: list[Frame] = []
        with entered() as parent:

            def run(key: jax.Array | None) -> Any:
                def pure(arrays: list[Any]) -> Any:
                    new_args, new_kwargs = rebuild(arrays)
                    child = parent.continued(key)
                    with running(child):
                        out = self._fun(*new_args, **new_kwargs)
                    last[:] = [child]
                    return out, list(child.written.values()), child.tapped()

                options = {"policy": self._policy, "prevent_cse": self._prevent_cse}
                return jax.checkpoint(pure, **options)(arrays)

            try:
                out, news, taps = run(None)
            except NeedsKey as need:
                what = need.what
                out, news, taps = run(parent.own_key(what))
            (child,) = last
            parent.go_on_from(child)
            parent.absorb(child.written, news)
            parent.take_taps(child, taps)
        return out
