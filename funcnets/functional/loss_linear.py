"""Cross entropy of a linear layer's output, without holding all logits at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import choice, describe, positive, require_ndim
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_full, in_low
from funcnets.functional._loss import common_dtype, resolve_reduction, same_dtype
from funcnets.functional._numeric import as_array, real, widen
from funcnets.functional.loss import cross_entropy_terms, reduce_terms

__all__ = ["linear_cross_entropy"]


@dataclass(frozen=True, slots=True)
class LinearCrossEntropyOptions:
    """How :func:`linear_cross_entropy` splits the batch, so that few logits exist at a time.

    The logits of a chunk are computed, used, dropped, and computed once more for the gradient.
    Sums are always in float32 or wider, over the chunks, too, which is the most exact of PyTorch's
    policies; derivatives of any order and every option of the loss work.

    Args:
        allow_retain_graph: accepted for PyTorch's signature; a gradient function can be called again
            whatever this is.
        batch_chunk_size: rows of the input in a chunk.
        chunking_method: how to find the size if it is not given: ``'aspect_ratio'`` takes so many
            rows that their logits are as large as the whole input, in powers of two,
            ``'aspect_ratio:N'`` an Nth of them, ``'auto'`` is ``'aspect_ratio:2'``, None takes all.
        acc_policy: ``'auto'``, ``'accurate'``, ``'balanced'`` or ``'compact'``; the lesser policies
            are met by the most exact one.
        acc_dtype: None or float32; anything narrower would be less exact than what is done.

    Raises:
        ArgumentError: a value is not valid, or both a size and a method are given.

    Examples:
        >>> from funcnets import nn
        >>> nn.LinearCrossEntropyOptions(batch_chunk_size=64).rows(1000, 16, 5000)
        64
        >>> nn.LinearCrossEntropyOptions().rows(1000, 16, 5000)
        2

    References:
        torch.nn.LinearCrossEntropyOptions
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: Any = None

    def __post_init__(self) -> None:
        choice("acc_policy", self.acc_policy, ("auto", "accurate", "balanced", "compact"))
        if self.acc_dtype is not None and jnp.dtype(self.acc_dtype) != jnp.float32:
            raise ArgumentError(f"acc_dtype must be None or float32, but got {self.acc_dtype}")
        if self.batch_chunk_size is not None:
            positive("batch_chunk_size", self.batch_chunk_size)
        if self.chunking_method in (None, "auto"):
            return
        name, _, factor = self.chunking_method.partition(":")
        if name != "aspect_ratio" or (factor and not (factor.isdigit() and int(factor) > 0)):
            raise ArgumentError(
                "chunking_method must be 'auto', 'aspect_ratio', 'aspect_ratio:N' or None, "
                f"but got {self.chunking_method!r}"
            )
        if self.batch_chunk_size is not None:
            raise ArgumentError(
                f"batch_chunk_size={self.batch_chunk_size} and "
                f"chunking_method={self.chunking_method!r} both say the size: leave one out"
            )

    def rows(self, rows: int, in_features: int, num_classes: int) -> int:
        """How many of ``rows`` make a chunk."""
        if self.batch_chunk_size is not None:
            return max(1, min(self.batch_chunk_size, rows))
        if self.chunking_method is None:
            return max(1, rows)
        method = "aspect_ratio:2" if self.chunking_method == "auto" else self.chunking_method
        factor = int(method.partition(":")[2] or 1)
        size = math.ceil(rows / max(1, math.ceil(num_classes / max(1, in_features))))
        return max(1, min((1 << max(0, size - 1).bit_length()) // factor, rows))


def linear_cross_entropy(
    input: jax.Array,
    linear_weight: jax.Array,
    target: jax.Array,
    *,
    linear_bias: jax.Array | None = None,
    weight: jax.Array | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: LinearCrossEntropyOptions | None = None,
) -> jax.Array:
    r"""Cross entropy of logits that a linear layer makes of the input.

    .. math:: \ell = \operatorname{cross\_entropy}(x W^\top + b, y)

    Args:
        input: features of shape ``(N, D)`` or ``(D,)``.
        linear_weight: :math:`W` of shape ``(C, D)``, or ``(C, d1, ..., D)`` for batched input.
        target: as for :func:`cross_entropy` of logits of shape ``(N, C, d1, ...)`` or ``(C,)``.
        linear_bias: :math:`b` of the shape of ``linear_weight`` without its last axis.
        weight: one weight a class.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        ignore_index: the index that does not contribute, -100 if it is None. For indices only.
        label_smoothing: the share of the uniform distribution in the target.
        options: split the batch, so that only some of the logits exist at a time.

    Returns:
        A number, or with ``reduction='none'`` one for every position.

    Raises:
        ArgumentError: an option is not valid, or ``ignore_index`` is given with probabilities.
        DTypeError: the dtypes do not fit.
        ShapeError: the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> from funcnets import nn
        >>> x, w, y = jnp.ones((6, 8)), jnp.ones((100, 8)), jnp.arange(6)
        >>> options = nn.LinearCrossEntropyOptions(batch_chunk_size=2)
        >>> round(float(F.linear_cross_entropy(x, w, y, options=options)), 4)
        4.6052

    References:
        Wijmans et al., "Cut your losses in large-vocabulary language models", 2024;
        torch.nn.functional.linear_cross_entropy
    """
    reduction = resolve_reduction(None, None, reduction)
    input, linear_weight, linear_bias = in_low(input, linear_weight, linear_bias)
    input, linear_weight = real("input", input), real("linear_weight", linear_weight)
    target = as_array("target", target)
    require_ndim("input", input, [1, 2], "of shape (D,) or (N, D)")
    same_dtype("linear_weight", linear_weight, "input", input)
    outputs = linear_weight.shape[:-1]
    if linear_weight.ndim < 2 or linear_weight.shape[-1] != input.shape[-1]:
        raise ShapeError(
            f"linear_weight must have shape (C, ..., {input.shape[-1]}), the size of the last axis of "
            f"input, but got {describe(linear_weight)}"
        )
    if len(outputs) > 1 and input.ndim == 1:
        raise ShapeError(
            f"input must have shape (N, {input.shape[0]}) with linear_weight "
            f"{describe(linear_weight)}, but got {describe(input)}"
        )
    if linear_bias is not None:
        linear_bias = real("linear_bias", linear_bias)
        if linear_bias.shape != outputs:
            raise ShapeError(
                f"linear_bias must have shape {outputs}, but got {describe(linear_bias)}"
            )
    soft = target.shape == (*input.shape[:-1], *outputs)
    if soft and ignore_index is not None:
        raise ArgumentError(
            f"ignore_index works with class indices only, but got ignore_index={ignore_index} and "
            "class probabilities"
        )
    index = -100 if ignore_index is None else ignore_index

    # Of the two steps the product is in the precision of autocast, the loss in full.
    dtype = common_dtype(*in_full(input, target)) if soft else in_full(input).dtype

    def terms(
        matrix: jax.Array, bias: jax.Array | None, x: jax.Array, y: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        wide = widen(x).dtype  # a product is exact in it, and is not rounded before the softmax
        logits = jnp.tensordot(
            x, matrix.astype(x.dtype), axes=(-1, -1), preferred_element_type=wide
        )
        if bias is not None:
            logits = logits + jnp.broadcast_to(bias.astype(wide), logits.shape)
        return cross_entropy_terms(logits, y, weight, index, label_smoothing)[:2]

    if options is None or input.ndim == 1:  # one row has nothing to split
        loss, share = terms(linear_weight, linear_bias, input, target)
        return reduce_terms(loss, share, dtype, reduction)
    if target.shape[:1] != input.shape[:1]:
        raise ShapeError(
            f"target must have {input.shape[0]} rows as input, but got {describe(target)}"
        )
    rows = options.rows(input.shape[0], input.shape[1], math.prod(outputs))
    # In float32 outside of the loop, so that the gradients of the chunks add up in float32.
    matrix = widen(linear_weight)
    bias = None if linear_bias is None else widen(linear_bias)
    chunk = jax.checkpoint(terms)
    chunks, padding = -(-input.shape[0] // rows), -input.shape[0] % rows

    def split(x: jax.Array, fill: Any) -> jax.Array:
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
        return x.reshape(chunks, rows, *x.shape[1:])

    parts = split(input, 0), split(target, 0)
    loss, share = jax.lax.map(lambda part: chunk(matrix, bias, *part), parts)
    loss, share = (v.reshape(-1, *v.shape[2:])[: input.shape[0]] for v in (loss, share))
    return reduce_terms(loss, share, dtype, reduction)
