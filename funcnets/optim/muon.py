"""Muon: momentum whose matrices are made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim._parts import decay_by, number, scale_by_rate, wide, zeros_like
from funcnets.optim.optimizer import Optimizer

__all__ = ["Muon", "muon_tx"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_RATIOS = {
    None: lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}


class MuonState(NamedTuple):
    """The running means of the gradients."""

    momentum_buffer: Any


def _orthogonal(
    matrix: jax.Array, coefficients: tuple[float, float, float], steps: int, eps: float
) -> jax.Array:
    """A matrix with nearly the same singular vectors and singular values near one, in bfloat16.

    ``steps`` times :math:`X \\leftarrow aX + (bA + cA^2)X` with :math:`A = XX^T`.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = _half(matrix.T if tall else matrix)
    norm = _half(jnp.sqrt((x.astype(jnp.float32) ** 2).sum()))
    least = _half(jnp.asarray(eps, jnp.float32))
    x = _half(x.astype(jnp.float32) / jnp.maximum(norm, least).astype(jnp.float32))
    for _ in range(steps):
        gram = _half(_product(x, x.T))
        weights = _half(b * gram.astype(jnp.float32) + c * _product(gram, gram))
        x = _half(a * x.astype(jnp.float32) + _product(weights, x))
    return x.T if tall else x


def _product(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.matmul(one, other, preferred_element_type=jnp.float32)


def _half(x: jax.Array) -> jax.Array:
    """Rounded to bfloat16: XLA may leave out a conversion there and back, but not this."""
    return jax.lax.reduce_precision(x, 8, 7).astype(jnp.bfloat16)


def scale_by_torch_muon(
    momentum: Any,
    nesterov: bool,
    coefficients: tuple[float, float, float],
    eps: float,
    steps: int,
    adjust_lr_fn: str | None,
) -> optax.GradientTransformation:
    """Muon's rule as PyTorch has it, without the learning rate.

    optax's differs in the momentum, which is a sum there, in precision and in the scaling.
    """
    ratio = _RATIOS[adjust_lr_fn]

    def init(params: Any) -> MuonState:
        return MuonState(zeros_like(params))

    def mix(old: jax.Array, new: jax.Array, weight: Any) -> jax.Array:
        return (old + weight * (new - old)).astype(old.dtype)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        def accumulate(buffer: jax.Array, g: jax.Array) -> jax.Array:
            mu = number(momentum, wide(g.dtype))
            return mix(buffer, g, 1 - mu)

        def direction(buffer: jax.Array, g: jax.Array) -> jax.Array:
            mu = number(momentum, wide(g.dtype))
            ahead = mix(g, buffer, mu) if nesterov else buffer
            made = _orthogonal(ahead, coefficients, steps, eps)
            return (ratio(*g.shape) * made.astype(wide(g.dtype))).astype(g.dtype)

        buffers = jax.tree.map(accumulate, state.momentum_buffer, updates)
        return jax.tree.map(direction, buffers, updates), MuonState(buffers)

    return optax.GradientTransformation(init, update)


def muon_tx(
    lr: Any = 1e-3,
    weight_decay: Any = 0.1,
    momentum: Any = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = _COEFFICIENTS,
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
) -> optax.GradientTransformation:
    """PyTorch's Muon as a pure optax transformation; see :class:`Muon` for the arguments.

    All leaves must be matrices: use ``optax.partition`` to give the others to another transformation.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.muon_tx(lr=0.1)
        >>> params = jnp.eye(2)
        >>> updates, _ = tx.update(3.0 * jnp.eye(2), tx.init(params), params)
        >>> bool(jnp.abs(updates + 0.1 * jnp.eye(2)).max() < 0.05)
        True
    """
    return optax.chain(
        scale_by_torch_muon(momentum, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn),
        decay_by(weight_decay),
        scale_by_rate(lr),
    )


class Muon(Optimizer):
    r"""Muon: the momentum of a weight matrix, made nearly orthogonal, for hidden layers.

    .. math::
        B_t &= \mu B_{t-1} + (1 - \mu)\,G_t, \qquad
        \tilde B_t = (1 - \mu)\,G_t + \mu B_t \text{ with Nesterov, else } B_t \\
        \theta_t &= \theta_{t-1} - \gamma\lambda\,\theta_{t-1}
        - \gamma\,s\,\operatorname{NS}(\tilde B_t), \qquad s = \sqrt{\max(1, rows / columns)}

    :math:`\operatorname{NS}` repeats :math:`X \leftarrow aX + (bA + cA^2)X`, :math:`A = XX^T`, in
    bfloat16, beginning with :math:`X` scaled to norm 1. Other parameters than matrices of hidden
    layers (biases, embeddings, the output layer) belong to another optimizer, such as AdamW.

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`. Real matrices only.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        weight_decay: :math:`\lambda`.
        momentum: :math:`\mu`.
        nesterov: whether the direction looks ahead.
        ns_coefficients: :math:`(a, b, c)`.
        eps: least norm that is divided by.
        ns_steps: how often the polynomial is applied, fewer than 100 times.
        adjust_lr_fn: ``"original"`` (the default, :math:`s` as above) or ``"match_rms_adamw"``:
            :math:`s = 0.2\sqrt{\max(rows, columns)}`, with which AdamW's learning rates fit.

    Raises:
        ArgumentError: a hyper-parameter out of its range, or a parameter that is no matrix.
        DTypeError: a complex parameter.

    Examples:
        >>> from funcnets import nn, optim
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> muon = optim.Muon([model[0].weight], lr=0.02)
        >>> adamw = optim.AdamW([model[0].bias, *model[2].parameters()], lr=3e-4)

    References:
        torch.optim.Muon; Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024;
        Liu et al., "Muon is Scalable for LLM Training", 2025
    """

    _drivable: ClassVar[tuple[str, ...]] = ("momentum", "weight_decay")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = _COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        for name, what in (
            ("lr", "Learning rate"),
            ("momentum", "momentum"),
            ("weight_decay", "weight decay"),
        ):
            if not options[name] >= 0.0:
                raise ArgumentError(f"{what} should be >= 0 but is: {options[name]}")
        if options["adjust_lr_fn"] not in _RATIOS:
            raise ArgumentError(
                f"Adjust learning rate function {options['adjust_lr_fn']} is not supported: "
                "it is None, 'original' or 'match_rms_adamw'"
            )
        if options["ns_steps"] >= 100:
            raise ArgumentError(
                "Number of steps must be less than 100 for computational efficiency"
            )
        if len(options["ns_coefficients"]) != 3:
            raise ArgumentError(
                f"Coefficients must be a tuple of exactly 3 values, but got {describe(options['ns_coefficients'])}"
            )
        for cell in options.get("params", ()):
            if len(cell.shape) != 2:
                raise ArgumentError(
                    f"Muon only supports 2D parameters whereas we found a parameter with size: {cell.shape}; "
                    "give the others to another optimizer, such as AdamW"
                )
            if jnp.issubdtype(cell.dtype, jnp.complexfloating):
                raise DTypeError("Muon does not support complex parameters")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return muon_tx(
            lr,
            group["weight_decay"],
            group["momentum"],
            group["nesterov"],
            tuple(group["ns_coefficients"]),
            group["eps"],
            group["ns_steps"],
            group["adjust_lr_fn"],
        )
