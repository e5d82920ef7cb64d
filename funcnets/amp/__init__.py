"""Automatic mixed precision: ``autocast`` chooses the precision of each function, ``GradScaler`` the
loss scale that float16 needs.

Parameters stay in float32 and so do their gradients; in between, what is fast and safe in half
precision runs in it. With bfloat16, which has the exponents of float32, autocast alone does; float16
needs the loss scaled as well, or small gradients become 0::

    scaler = amp.GradScaler()

    @fn.jit
    def train_step(x, y):
        def loss_fn(model):
            with amp.autocast(jnp.float16):
                loss = criterion(model(x), y)
            return scaler.scale(loss), loss

        (_, loss), grads = fn.value_and_grad(loss_fn, has_aux=True)(model)
        scaler.step(optimizer, grads)        # unscales; skips the step if a gradient is inf or NaN
        scaler.update()
        return loss

The pure face of the scaler is ``loss_scale``, ``unscale``, ``update_scale`` and ``keep_if``, for functions of
plain arrays with any optax transformation.

What is not here: a choice of precision for the operators of ``jax.numpy``, which nobody can intercept.
``low_precision(jnp.einsum)`` brings such a function under the rules.
"""

from funcnets.amp.autocast_mode import (
    autocast,
    full_precision,
    get_autocast_dtype,
    is_autocast_enabled,
    low_precision,
    promote,
)
from funcnets.amp.grad_scaler import GradScaler
from funcnets.amp.scaling import LossScale, keep_if, loss_scale, unscale, update_scale

__all__ = [
    "GradScaler",
    "LossScale",
    "autocast",
    "full_precision",
    "get_autocast_dtype",
    "is_autocast_enabled",
    "keep_if",
    "loss_scale",
    "low_precision",
    "promote",
    "unscale",
    "update_scale",
]
