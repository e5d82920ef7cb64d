"""Cross entropy of a linear layer's output, as a layer that holds the linear one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax

from funcnets import functional as F
from funcnets._args import as_int, describe, positive
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._numeric import number
from funcnets.functional.loss_linear import LinearCrossEntropyOptions
from funcnets.nn.linear import Linear
from funcnets.nn.loss import WeightedLoss

__all__ = ["LinearCrossEntropyLoss", "LinearCrossEntropyOptions"]


class LinearCrossEntropyLoss(WeightedLoss):
    r"""A linear layer to logits and the cross entropy of them, in one.

    .. math:: \ell = \operatorname{cross\_entropy}(x W^\top + b, y)

    With ``options`` only some of the logits exist at a time, which is what a large vocabulary needs.

    Args:
        in_features: size :math:`D` of the input.
        num_classes: number of classes :math:`C`.
        out_features: further axes :math:`(d_1, \ldots, d_K)` of the logits.
        bias: whether the linear layer has a bias.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        weight: one weight a class, :math:`(C)`.
        ignore_index: the index that does not contribute, -100 if it is None. For indices only.
        label_smoothing: the share of the uniform distribution in the target, in [0, 1].
        options: split the batch into chunks.

    Shape:
        - input: :math:`(N, D)` or :math:`(D)`.
        - target: integers, :math:`(N, d_1, \ldots, d_K)` or :math:`()`; or class probabilities,
          :math:`(N, C, d_1, \ldots, d_K)` or :math:`(C)`.
        - output: a number; with ``reduction='none'`` :math:`(N, d_1, \ldots, d_K)` or :math:`()`.

    Attributes:
        linear: the linear layer, of :math:`C \cdot d_1 \cdots d_K` outputs.
        weight: a buffer, or None.

    Raises:
        ArgumentError: an option is not valid.
        ShapeError: ``weight`` has not one element a class.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> options = nn.LinearCrossEntropyOptions(batch_chunk_size=4)
        >>> criterion = nn.LinearCrossEntropyLoss(8, 1000, options=options)
        >>> criterion(jnp.ones((10, 8)), jnp.arange(10)).shape
        ()

    References:
        Wijmans et al., "Cut your losses in large-vocabulary language models", 2024;
        torch.nn.LinearCrossEntropyLoss
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: Sequence[int] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: jax.Array | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: LinearCrossEntropyOptions | None = None,
    ) -> None:
        super().__init__(weight, None, None, reduction)
        self.num_classes = positive("num_classes", num_classes, minimum=0)
        self.out_features = tuple(positive("out_features", n) for n in out_features)
        if weight is not None and weight.shape != (num_classes,):
            raise ShapeError(f"weight must have shape ({num_classes},), but got {describe(weight)}")
        self.label_smoothing = number("label_smoothing", label_smoothing)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ArgumentError(
                f"label_smoothing must be between 0 and 1, but got {label_smoothing}"
            )
        if options is not None and not isinstance(options, LinearCrossEntropyOptions):
            raise ArgumentError(
                f"options must be a LinearCrossEntropyOptions or None, but got {describe(options)}"
            )
        self.ignore_index = None if ignore_index is None else as_int("ignore_index", ignore_index)
        outputs = math.prod(self.out_features, start=num_classes)
        self.linear = Linear(in_features, outputs, bias=bias, device=device, dtype=dtype)
        self.options = options

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return F.linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        return (
            f"in_features={self.linear.in_features}, num_classes={self.num_classes}, "
            f"out_features={self.out_features}, bias={self.linear.bias is not None}, "
            f"reduction={self.reduction}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}, options={self.options}"
        )
