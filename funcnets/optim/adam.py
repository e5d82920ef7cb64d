"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import betas_of, only_if, refuse_flags, require, scale_by_rate, wide
from funcnets.optim.optimizer import Optimizer

__all__ = ["Adam", "AdamW", "adam_tx", "adamw_tx"]


class AdamState(NamedTuple):
    """Step count, both moments and, for AMSGrad, the largest second moment so far."""

    count: jax.Array
    mu: Any
    nu: Any
    nu_max: Any


def scale_by_torch_adam(
    b1: float, b2: float, eps: float, amsgrad: bool
) -> optax.GradientTransformation:
    """Adam's rule as PyTorch has it, without the learning rate.

    optax differs in AMSGrad, whose maximum it takes of the corrected second moments, in complex
    numbers, of which it squares the absolute value, and in half precision, in which it computes.
    """

    def init(params: Any) -> AdamState:
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
        return AdamState(jnp.zeros((), jnp.int32), zeros(), zeros(), zeros() if amsgrad else ())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdamState]:
        count = state.count + 1
        first, second = _correction(b1, count), _correction(b2, count)

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            root = jnp.sqrt(v) / jnp.sqrt(second).astype(v.dtype)
            return m / first.astype(m.dtype) / (root + eps)

        mu = _each(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = _each(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        nu_max = _each(jnp.maximum, state.nu_max, nu) if amsgrad else ()
        return _each(step, mu, nu_max if amsgrad else nu), AdamState(count, mu, nu, nu_max)

    return optax.GradientTransformation(init, update)


def _correction(decay: float, count: jax.Array) -> jax.Array:
    """``1 - decay**count``, without the digits that the subtraction would lose."""
    steps = count.astype(jnp.result_type(float))
    return -jnp.expm1(steps * math.log(decay)) if decay > 0 else jnp.ones_like(steps)


def _each(rule: Callable[..., jax.Array], *trees: Any) -> Any:
    """``rule`` over trees, at least in float32, and over real and imaginary parts separately."""

    def leaf(*arrays: jax.Array) -> jax.Array:
        dtype = arrays[0].dtype
        if jnp.issubdtype(dtype, jnp.complexfloating):
            return jax.lax.complex(rule(*(a.real for a in arrays)), rule(*(a.imag for a in arrays)))
        return rule(*(a.astype(wide(dtype)) for a in arrays)).astype(dtype)

    return jax.tree.map(leaf, *trees)


def _adam(
    lr: Any,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(
        only_if(maximize, optax.scale(-1.0)),
        only_if(weight_decay and not decoupled, decay),
        scale_by_torch_adam(*betas, eps, amsgrad),
        only_if(weight_decay and decoupled, decay),
        scale_by_rate(lr),
    )


def adam_tx(
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's Adam as a pure optax transformation; see :class:`Adam` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adam_tx(lr=0.1)
        >>> tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].round(3).tolist()
        [-0.10000000149011612]
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay)


def adamw_tx(
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's AdamW as a pure optax transformation; see :class:`AdamW` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adamw_tx(lr=0.1, weight_decay=0.5)
        >>> tx.update(jnp.zeros(1), tx.init(jnp.ones(1)), jnp.ones(1))[0].round(3).tolist()
        [-0.05000000074505806]
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, maximize, True)


class Adam(Optimizer):
    r"""Adam: steps scaled by running means of the gradient and of its square.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\,g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2)\,g_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma\,\frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: added to the gradient as :math:`\lambda\theta`.
        amsgrad: divide by the largest second moment so far.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        capturable: torch's kernel choice; only False.
        differentiable: likewise.
        fused: likewise.
        decoupled_weight_decay: subtract :math:`\gamma\lambda\theta` instead, as AdamW.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.Adam(nn.Linear(2, 1).parameters()).param_groups[0]["betas"]
        (0.9, 0.999)

    References:
        torch.optim.Adam; Kingma and Ba, 2014; Reddi et al., 2018
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        refuse_flags(
            "Adam",
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        require(options["lr"] >= 0.0, "learning rate", options["lr"])
        require(options["eps"] >= 0.0, "epsilon value", options["eps"])
        require(options["weight_decay"] >= 0.0, "weight_decay value", options["weight_decay"])
        betas_of(options)

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return adam_tx(
            lr,
            group["betas"],
            group["eps"],
            group["weight_decay"],
            group["amsgrad"],
            maximize=group["maximize"],
            decoupled_weight_decay=group["decoupled_weight_decay"],
        )


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :math:`\gamma\lambda\theta` is subtracted from the parameter.

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: :math:`\lambda`.
        amsgrad: divide by the largest second moment so far.
        maximize: go up the gradient instead of down.
        foreach: torch's kernel choice; only None or False.
        capturable: torch's kernel choice; only False.
        differentiable: likewise.
        fused: likewise.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.AdamW(nn.Linear(2, 1).parameters()).param_groups[0]["weight_decay"]
        0.01

    References:
        torch.optim.AdamW; Loshchilov and Hutter, 2017
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
