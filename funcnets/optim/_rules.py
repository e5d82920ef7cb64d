"""How an update rule, written for one array, becomes a transformation of trees.

A rule sees real arrays of at least single precision: half precision is widened before it and rounded
once after it, and a complex number is two real ones, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from funcnets._args import describe
from funcnets.errors import ArgumentError
from funcnets.optim._parts import decay_by, only_if, refuse_flags, require, scale_by_rate, wide


def each(rule: Callable[..., Sequence[Any]], trees: Sequence[Any], scalars: Sequence[Any]) -> Any:
    """Apply ``rule(*arrays, *scalars)`` at every leaf; it returns one new array for each that it got.

    Args:
        rule: the rule for one array of each tree.
        trees: trees of one structure, or None for one that is not in use.
        scalars: numbers for all leaves, in whatever precision; the rule gets them in the leaf's.

    Returns:
        A list of trees like ``trees``, with ``()`` in the place of None.
    """
    structure = jax.tree.structure(trees[0])
    count = structure.num_leaves
    rows = [[None] * count if t is None else structure.flatten_up_to(t) for t in trees]
    done = [_at_leaf(rule, arrays, scalars) for arrays in zip(*rows, strict=True)]
    columns = zip(*done, strict=True) if done else [()] * len(trees)
    return [
        () if tree is None else structure.unflatten(column)
        for tree, column in zip(trees, columns, strict=True)
    ]


def _at_leaf(
    rule: Callable[..., Sequence[Any]], arrays: Sequence[Any], scalars: Sequence[Any]
) -> list[Any]:
    dtype = arrays[0].dtype
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    real = jnp.finfo(dtype).dtype if is_complex else wide(dtype)
    numbers = [jnp.asarray(s).astype(real) for s in scalars]

    def run(part: Callable[[jax.Array], jax.Array]) -> Sequence[Any]:
        return rule(*(a if a is None else part(a).astype(real) for a in arrays), *numbers)

    if is_complex:
        pairs = zip(run(jnp.real), run(jnp.imag), strict=True)
        news = [None if re is None else jax.lax.complex(re, im) for re, im in pairs]
    else:
        news = list(run(lambda a: a))
    return [
        None if new is None else new.astype(old.dtype)
        for new, old in zip(news, arrays, strict=True)
    ]


def by_rule(
    kind: Any,
    rule: Callable[..., Sequence[Any]],
    scalars: Callable[[jax.Array], Sequence[Any]] = lambda step: (),
    *,
    unused: Collection[str] = (),
    start: float = 0.0,
) -> optax.GradientTransformation:
    """The transformation that counts its steps and applies ``rule``, without a learning rate.

    Args:
        kind: a NamedTuple: ``step``, then what is kept for each parameter under PyTorch's names.
        rule: ``rule(gradient, *kept, *scalars)``, which returns the direction and the new ``kept``.
        scalars: the numbers of a step, of its count, which is 1 at the first.
        unused: names that these options have no use for; the rule gets and returns None.
        start: what is kept at the beginning, in real and imaginary part.

    Returns:
        An ``optax.GradientTransformation``.
    """
    kept = kind._fields[1:]

    def init(params: Any) -> Any:
        begin = lambda: jax.tree.map(lambda p: filled(p, start), params)  # noqa: E731
        trees = [() if name in unused else begin() for name in kept]
        return kind(jnp.zeros((), jnp.int32), *trees)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        step = state.step + 1
        trees = [None if name in unused else getattr(state, name) for name in kept]
        direction, *new = each(rule, [updates, *trees], scalars(step))
        return direction, kind(step, *new)

    return optax.GradientTransformation(init, update)


def filled(like: Any, value: float) -> jax.Array:
    """An array of one number, which complex numbers have in both parts, as in PyTorch."""
    is_complex = jnp.issubdtype(like.dtype, jnp.complexfloating)
    return jnp.full_like(like, complex(value, value) if is_complex else value)


def composed(
    rule: optax.GradientTransformation,
    lr: Any,
    weight_decay: Any = 0,
    *,
    maximize: bool = False,
    decoupled: bool = False,
) -> optax.GradientTransformation:
    """``rule`` between what comes before and after it in PyTorch's optimizers."""
    return optax.chain(
        only_if(maximize, optax.scale(-1.0)),
        decay_by(0 if decoupled else weight_decay),
        rule,
        decay_by(weight_decay if decoupled else 0),
        scale_by_rate(lr),
    )


def correction(decay: Any, step: jax.Array) -> jax.Array:
    """``1 - decay**step``, without the digits that the subtraction would lose."""
    steps = step.astype(jnp.result_type(float))
    if isinstance(decay, jax.Array):
        return -jnp.expm1(steps * jnp.log(decay.astype(steps.dtype)))
    return -jnp.expm1(steps * math.log(decay)) if decay > 0 else jnp.ones_like(steps)


def rate_at(lr: Any, step: jax.Array) -> jax.Array:
    """The learning rate of a step, which is 1 at the first; schedules count from zero, as in optax."""
    return jnp.asarray(lr(step - 1) if callable(lr) else lr).astype(jnp.result_type(float))


def pair_of(options: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """An option that is two numbers."""
    pair = options[name]
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ArgumentError(f"{name} must be a pair of numbers, but got {describe(pair)}")
    return pair[0], pair[1]


def chosen(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The options of these names."""
    return {name: options[name] for name in names}


def refuse_torch_switches(owner: str, options: Mapping[str, Any]) -> None:
    """Refuse ``foreach``, ``capturable``, ``differentiable`` and ``fused``, in a group too."""
    switches = ("foreach", "capturable", "differentiable", "fused")
    refuse_flags(owner, **{name: options[name] for name in switches if name in options})


def require_not_negative(options: Mapping[str, Any], **words: str) -> None:
    """Refuse what is negative or not a number: ``option="what PyTorch calls it"``."""
    for name, what in words.items():
        require(options[name] >= 0.0, what, options[name])
