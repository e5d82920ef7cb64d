"""Dynamic loss scaling as pure functions: what ``GradScaler`` does, for params and optax states."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import DTypeError

__all__ = ["LossScale", "keep_if", "loss_scale", "unscale", "update_scale"]


class LossScale(NamedTuple):
    """The scale of the loss, and for how many steps in a row it has served; see :func:`loss_scale`.

    Attributes:
        scale: the factor, a float32 number.
        growth_tracker: the number of steps since it last changed, an int32 number.

    Examples:
        >>> from funcnets import amp
        >>> amp.loss_scale(1024.0).scale.item()
        1024.0
    """

    scale: jax.Array
    growth_tracker: jax.Array


def loss_scale(init_scale: float = 2.0**16) -> LossScale:
    """The first state of a dynamic loss scale, for a training step of pure functions.

    The loss is multiplied by ``state.scale`` before it is differentiated, which keeps small gradients
    within the range of float16; :func:`unscale` divides the gradients by it and tells whether one of them
    is inf or NaN; :func:`keep_if` then leaves params and optimizer state as they were, and
    :func:`update_scale` makes the scale smaller. After many good steps it grows.

    Args:
        init_scale: the first scale.

    Returns:
        A :class:`LossScale`, which is a pytree.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> from funcnets import amp
        >>> tx = optax.sgd(0.1)
        >>> @jax.jit
        ... def train_step(params, opt_state, state, x):
        ...     loss_fn = lambda p: state.scale * jnp.mean((p * x) ** 2)
        ...     grads, found_inf = amp.unscale(jax.grad(loss_fn)(params), state.scale)
        ...     updates, new_opt = tx.update(grads, opt_state, params)
        ...     new_params = optax.apply_updates(params, updates)
        ...     return (*amp.keep_if(found_inf, (params, opt_state), (new_params, new_opt)),
        ...             amp.update_scale(state, found_inf))
        >>> params, state = jnp.ones(2), amp.loss_scale()
        >>> params, _, state = train_step(params, tx.init(params), state, jnp.array([1.0, jnp.inf]))
        >>> params.tolist(), state.scale.item()
        ([1.0, 1.0], 32768.0)

    References:
        torch.amp.GradScaler; Micikevicius et al., Mixed precision training, 2017
    """
    return LossScale(jnp.asarray(init_scale, jnp.float32), jnp.zeros((), jnp.int32))


def unscale(grads: Any, scale: Any) -> tuple[Any, jax.Array]:
    """Gradients of a scaled loss, divided by the scale.

    Args:
        grads: a tree of floating point or complex arrays.
        scale: the scale of the loss, a number that may be traced.

    Returns:
        ``(grads, found_inf)``: the gradients of the loss itself, and whether any element of what was
        given is inf or NaN, a boolean array.

    Raises:
        DTypeError: gradients in float16, whose range the scaled values leave.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import amp
        >>> grads, found_inf = amp.unscale({"w": jnp.array([8.0, 4.0])}, 4.0)
        >>> grads["w"].tolist(), found_inf.item()
        ([2.0, 1.0], False)

    References:
        torch.amp.GradScaler.unscale_
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(grads)[0]:
        if jnp.dtype(leaf.dtype) == jnp.float16:
            raise DTypeError(
                f"Attempting to unscale FP16 gradients: {jax.tree_util.keystr(path)} is {describe(leaf)}. Keep "
                "the parameters in float32 and compute with them under fn.autocast(jnp.float16)"
            )
    inverse = 1.0 / jnp.asarray(scale, jnp.float32)

    def divide(leaf: jax.Array) -> jax.Array:
        wide = jnp.float32 if leaf.dtype == jnp.bfloat16 else leaf.dtype
        return (leaf.astype(wide) * inverse.astype(wide)).astype(leaf.dtype)

    bad = [~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)]
    return jax.tree.map(divide, grads), jnp.stack(bad).any() if bad else jnp.zeros((), bool)


def update_scale(
    state: LossScale,
    found_inf: Any,
    growth_factor: Any = 2.0,
    backoff_factor: Any = 0.5,
    growth_interval: Any = 2000,
) -> LossScale:
    """The loss scale for the next step.

    Args:
        state: that of this step.
        found_inf: whether a gradient was inf or NaN.
        growth_factor: by which the scale grows after ``growth_interval`` steps in a row without that,
            unless it would be infinite.
        backoff_factor: by which it shrinks if there was one.
        growth_interval: a number of steps.

    Returns:
        The new :class:`LossScale`.

    Examples:
        >>> from funcnets import amp
        >>> amp.update_scale(amp.loss_scale(8.0), True).scale.item()
        4.0
        >>> amp.update_scale(amp.loss_scale(8.0), False, growth_interval=1).scale.item()
        16.0

    References:
        torch.amp.GradScaler.update
    """
    scale, good = state.scale, state.growth_tracker + 1
    due = good == growth_interval
    grown = scale * growth_factor
    following = jnp.where(due & jnp.isfinite(grown), grown, scale)
    return LossScale(
        jnp.where(found_inf, scale * backoff_factor, following).astype(scale.dtype),
        jnp.where(found_inf | due, 0, good).astype(good.dtype),
    )


def keep_if(found_inf: Any, old: Any, new: Any) -> Any:
    """``old`` if a gradient was inf or NaN, and ``new`` otherwise; a step that is skipped as data.

    Args:
        found_inf: a boolean, which may be traced.
        old: a tree of arrays: params and the optimizer's state before the step.
        new: the same tree after the step.

    Returns:
        A tree like ``new``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import amp
        >>> amp.keep_if(True, {"w": jnp.ones(1)}, {"w": jnp.full(1, jnp.nan)})["w"].tolist()
        [1.0]
    """
    return jax.tree.map(lambda o, n: jnp.where(found_inf, o, n), old, new)
