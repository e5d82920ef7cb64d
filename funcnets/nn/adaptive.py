"""Softmax over very many classes of very unequal frequency, in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnets import functional as F
from funcnets._args import as_int, describe, integer, positive
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._numeric import as_array, number, real
from funcnets.nn.container import ModuleList, Sequential
from funcnets.nn.linear import Linear

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class ASMoutput(NamedTuple):
    """What :class:`AdaptiveLogSoftmaxWithLoss` returns."""

    output: jax.Array
    """The log-probability of the target of each sample."""
    loss: jax.Array
    """The negative mean of ``output``."""


class AdaptiveLogSoftmaxWithLoss(Module):
    r"""Log softmax and negative log likelihood over clusters of classes.

    The most frequent classes stand in a head, the rest in clusters of ever smaller width, each of
    which is one class of the head:

    .. math::
        \log p(y \mid x) = \begin{cases}
            \log p_{\text{head}}(y \mid x) & y \text{ in the head} \\
            \log p_{\text{head}}(\text{cluster } i \mid x) + \log p_i(y \mid x)
                & y \text{ in cluster } i
        \end{cases}

    Shapes are fixed in JAX, so every cluster is computed for every sample; PyTorch computes a cluster
    for the samples that fall into it. The saving that remains is that of the narrow projections.

    Args:
        in_features: size :math:`D` of the input.
        n_classes: number of classes; the lower the index, the more frequent.
        cutoffs: the first class of each cluster, increasing, between 1 and ``n_classes - 1``.
        div_value: cluster :math:`i` has the width ``in_features // div_value ** (i + 1)``.
        head_bias: whether the head has a bias.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - input: :math:`(N, D)` or :math:`(D)`.
        - target: integers in :math:`[0, \text{n\_classes})`, :math:`(N)` or :math:`()`. Others give
          NaN.
        - output: the log-probabilities of the targets, as the target, and the loss, a number.

    Attributes:
        head: a Linear layer to the frequent classes and the clusters.
        tail: a ModuleList of pairs of Linear layers.

    Raises:
        ArgumentError: ``cutoffs`` are not as described.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> softmax = nn.AdaptiveLogSoftmaxWithLoss(16, 1000, cutoffs=[20, 200])
        >>> output, loss = softmax(jnp.ones((5, 16)), jnp.array([1, 19, 20, 500, 999]))
        >>> output.shape, loss.shape
        ((5,), ())
        >>> softmax.log_prob(jnp.ones((5, 16))).shape
        (5, 1000)

    References:
        Grave et al., "Efficient softmax approximation for GPUs", 2017;
        torch.nn.AdaptiveLogSoftmaxWithLoss
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features = positive("in_features", in_features, minimum=0)
        self.n_classes = positive("n_classes", n_classes)
        limits = [as_int("cutoffs", c) for c in cutoffs]
        inside = all(0 < c < n_classes for c in limits)
        if not limits or not inside or any(a >= b for a, b in pairwise(limits)):
            raise ArgumentError(
                f"cutoffs must be increasing integers between 1 and n_classes - 1 = {n_classes - 1}, "
                f"at least one, but got {limits}"
            )
        self.cutoffs = [*limits, n_classes]
        self.div_value = number("div_value", div_value)
        self.head_bias = head_bias
        self.shortlist_size = limits[0]
        self.n_clusters = len(limits)
        self.head_size = self.shortlist_size + self.n_clusters
        options = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **options)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(pairwise(self.cutoffs)):
            width = int(in_features // div_value ** (i + 1))
            self.tail.append(
                Sequential(
                    Linear(in_features, width, bias=False, **options),
                    Linear(width, high - low, bias=False, **options),
                )
            )

    def reset_parameters(self) -> None:
        """Draw the parameters of all layers anew."""
        for layer in self.modules():
            if isinstance(layer, Linear):
                layer.reset_parameters()

    def _clusters(self, input: jax.Array) -> list[jax.Array]:
        """Log-probabilities: of the frequent classes, (N, shortlist), and of each cluster's."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, layers in enumerate(self.tail):
            own = head[:, self.shortlist_size + i, None]
            parts.append(own + F.log_softmax(layers(input), 1))
        return parts

    def forward(self, input_: jax.Array, target_: jax.Array) -> ASMoutput:
        x, y = real("input_", input_), integer("target_", as_array("target_", target_))
        if y.ndim > 1 or x.ndim != y.ndim + 1 or x.shape[:-1] != y.shape:
            raise ShapeError(
                f"expected input_ of shape (N, {self.in_features}) and target_ of shape (N,), or "
                f"({self.in_features},) and (), but got {describe(x)} and {describe(y)}"
            )
        rows, labels = (x, y) if x.ndim == 2 else (x[None], y[None])
        labels = labels.astype(jnp.int32)
        output = jnp.full(labels.shape, jnp.nan, in_full(x).dtype)
        for low, part in zip([0, *self.cutoffs], self._clusters(rows), strict=False):
            inside = (labels >= low) & (labels < low + part.shape[1])
            index = jnp.where(inside, labels - low, 0)
            picked = jnp.take_along_axis(part, index[:, None], 1)[:, 0]
            output = jnp.where(inside, picked, output)
        return ASMoutput(output.reshape(y.shape), -output.mean())

    def log_prob(self, input: jax.Array) -> jax.Array:
        """Log-probabilities of all classes, ``(N, D)`` to ``(N, n_classes)``."""
        return jnp.concatenate(self._clusters(input), axis=1)

    def predict(self, input: jax.Array) -> jax.Array:
        """The most probable class of each sample, ``(N, D)`` to ``(N,)``."""
        return jnp.argmax(self.log_prob(input), axis=1)
