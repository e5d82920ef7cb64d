"""``reduce_lr_on_plateau``: the one schedule that follows a metric, as an optax transformation."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets._args import choice
from funcnets.errors import ArgumentError
from funcnets.optim._parts import wide
from funcnets.optim.schedules._time import as_float

__all__ = ["PlateauState", "reduce_lr_on_plateau"]


class PlateauState(NamedTuple):
    """The state of :func:`reduce_lr_on_plateau`, under torch's names.

    Attributes:
        lr: the learning rate of now.
        best: the best value of the metric so far.
        num_bad_epochs: how often in a row it has not improved.
        cooldown_counter: for how long this is not counted.

    Examples:
        >>> from funcnets import optim
        >>> state = optim.schedules.reduce_lr_on_plateau(0.1).init({})
        >>> round(state.lr.item(), 3), state.best.item()
        (0.1, inf)
    """

    lr: jax.Array
    best: jax.Array
    num_bad_epochs: jax.Array
    cooldown_counter: jax.Array


def reduce_lr_on_plateau(
    lr: Any = 1.0,
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Multiply updates by a rate that falls when a metric no longer improves.

    The pure form of :class:`~funcnets.optim.lr_scheduler.ReduceLROnPlateau`. ``update(updates, state,
    value=metric)`` notes the metric and applies the rate; without ``value`` it only applies it, so
    that a metric can be given once an epoch. Put it behind a transformation with a rate of 1:
    ``optax.chain(optim.adam_tx(lr=1.0), reduce_lr_on_plateau(1e-3))``.

    Args:
        lr: the rate at the start.
        mode: ``"min"`` if the metric should fall, ``"max"`` if it should rise.
        factor: by what the rate is multiplied, below 1.
        patience: how many values without improvement are allowed.
        threshold: by how much the best value must be beaten to count.
        threshold_mode: ``"rel"``: by this share of the best value; ``"abs"``: by this amount.
        cooldown: values after a reduction that are not counted as bad.
        min_lr: the rate does not fall below it.
        eps: a reduction by less than this is left out.

    Returns:
        A transformation with a :class:`PlateauState`, which takes ``value=`` as an extra argument.

    Raises:
        ArgumentError: a factor that is not below 1, or an unknown mode.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> plateau = optim.schedules.reduce_lr_on_plateau(1.0, factor=0.5, patience=1)
        >>> state = plateau.init({})
        >>> for loss in (3.0, 3.0, 3.0):
        ...     updates, state = plateau.update(jnp.ones(2), state, value=loss)
        >>> updates.tolist()
        [0.5, 0.5]

    References:
        torch.optim.lr_scheduler.ReduceLROnPlateau
    """
    if not factor < 1.0:
        raise ArgumentError(f"Factor should be < 1.0, but got {factor}")
    choice("mode", mode, ("min", "max"))
    choice("threshold_mode", threshold_mode, ("rel", "abs"))
    sign = -1.0 if mode == "min" else 1.0

    def init(params: Any) -> PlateauState:
        zero = jnp.zeros((), jnp.int32)
        return PlateauState(as_float(lr), as_float(-sign * jnp.inf), zero, zero)

    def note(state: PlateauState, value: jax.Array) -> PlateauState:
        margin = sign * threshold
        bound = state.best * (1.0 + margin) if threshold_mode == "rel" else state.best + margin
        better = sign * value > sign * bound
        cooling = state.cooldown_counter > 0
        bad = jnp.where(better | cooling, 0, state.num_bad_epochs + 1)
        due = bad > patience
        lower = jnp.maximum(state.lr * factor, min_lr)
        return PlateauState(
            jnp.where(due & (state.lr - lower > eps), lower, state.lr),
            jnp.where(better, value, state.best),
            jnp.where(due, 0, bad),
            jnp.where(due, cooldown, state.cooldown_counter - cooling.astype(jnp.int32)),
        )

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any
    ) -> tuple[Any, PlateauState]:
        if value is not None:
            state = note(state, as_float(value))

        def scale(u: jax.Array) -> jax.Array:
            dtype = wide(u.dtype)
            return (state.lr.astype(dtype) * u.astype(dtype)).astype(u.dtype)

        return jax.tree.map(scale, updates), state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
