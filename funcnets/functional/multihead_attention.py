"""Multi-head attention with its projections, the function under ``nn.MultiheadAttention``.

Masks follow the modules here: True leaves out, which is the opposite of
``scaled_dot_product_attention``.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe, positive, probability, require_ndim
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_low
from funcnets.functional._numeric import need_key, real
from funcnets.functional.attention import (
    accumulator,
    attend,
    check_attention,
    check_mask_dtype,
)
from funcnets.functional.linear import linear

__all__ = ["multi_head_attention_forward"]


def canonical_mask(
    mask: jax.Array | None,
    name: str,
    dtype: Any,
    other: jax.Array | None = None,
    other_name: str = "",
) -> jax.Array | None:
    """A mask of the modules (True: left out) as one to add to the scores, 0 or -inf.

    Warns, as PyTorch does, if ``mask`` and ``other`` are not of one kind.
    """
    if mask is None:
        return None
    check_mask_dtype(name, mask, dtype)
    if other is not None and mask.dtype != getattr(other, "dtype", None):
        warnings.warn(
            f"{name} is {mask.dtype} and {other_name} is {getattr(other, 'dtype', type(other))}: "
            f"mixing kinds of masks is deprecated in PyTorch, give both the same dtype",
            stacklevel=4,
        )
    if mask.dtype == jnp.bool_:
        return jnp.where(mask, jnp.asarray(-jnp.inf, dtype), jnp.asarray(0, dtype))
    return mask


def _check_inputs(query: Any, key: Any, value: Any, embed_dim: int, same_width: bool) -> bool:
    """Refuse inputs that do not fit; say whether they have a batch axis."""
    for name, x in (("query", query), ("key", key), ("value", value)):
        real(name, x)
    require_ndim("query", query, (2, 3), "(L, E) or (L, N, E)")
    for name, x in (("key", key), ("value", value)):
        require_ndim(name, x, (query.ndim,), f"like query, which is {describe(query)},")
    if query.shape[-1] != embed_dim:
        raise ShapeError(
            f"query must have embed_dim={embed_dim} features (last axis), but got {describe(query)}"
        )
    if query.ndim == 3 and query.shape[1] != key.shape[1]:
        raise ShapeError(
            f"query and key must have the same batch size (axis 1, after batch_first), "
            f"but got query {describe(query)} and key {describe(key)}"
        )
    axes = slice(None) if same_width else slice(-1)
    if key.shape[axes] != value.shape[axes]:
        what = "shape" if same_width else "length and batch size"
        raise ShapeError(
            f"key and value must have the same {what}, "
            f"but got key {describe(key)} and value {describe(value)}"
        )
    return query.ndim == 3


def _in_projection(inputs: Any, packed: Any, separate: Any, bias: Any) -> list[jax.Array]:
    """Project query, key and value, those that are one array with one matrix product."""
    dim = inputs[0].shape[-1]
    if separate is None:
        if packed is None:
            raise ArgumentError("in_proj_weight must be given unless use_separate_proj_weight=True")
        if packed.shape != (3 * dim, dim):
            raise ShapeError(
                f"in_proj_weight must have the shape {(3 * dim, dim)}, but got {describe(packed)}"
            )
        if inputs[1].shape[-1] != dim:
            raise ShapeError(
                f"key and value must have {dim} features (last axis), but got {describe(inputs[1])}"
            )
    else:
        for name, x, w in zip("qkv", inputs, separate, strict=True):
            if w is None:
                raise ArgumentError(
                    f"{name}_proj_weight must be given with use_separate_proj_weight=True"
                )
            if w.shape != (dim, x.shape[-1]):
                raise ShapeError(
                    f"{name}_proj_weight must have the shape {(dim, x.shape[-1])}, "
                    f"but got {describe(w)}"
                )
    if bias is not None and bias.shape != (3 * dim,):
        raise ShapeError(f"in_proj_bias must have the shape {(3 * dim,)}, but got {describe(bias)}")

    out: list[jax.Array] = []
    while len(out) < 3:
        first = len(out)
        last = first + 1
        if separate is None:
            while last < 3 and inputs[last] is inputs[first]:
                last += 1
        weight = packed[first * dim : last * dim] if separate is None else separate[first]
        part = None if bias is None else bias[first * dim : last * dim]
        out += jnp.split(linear(inputs[first], weight, part), last - first, axis=-1)
    return out


def _split_heads(x: jax.Array, heads: int) -> jax.Array:
    """``(L, N, E)`` to ``(N, heads, L, E / heads)``."""
    length, batch, dim = x.shape
    return x.reshape(length, batch, heads, dim // heads).transpose(1, 2, 0, 3)


def _static(name: str, x: Any, batch: int, heads: int, head_dim: int) -> jax.Array:
    if x.ndim != 3 or x.shape[0] != batch * heads or x.shape[2] != head_dim:
        raise ShapeError(
            f"{name} must have the shape (N * num_heads, S, head_dim) = "
            f"({batch * heads}, S, {head_dim}), but got {describe(x)}"
        )
    return x.reshape(batch, heads, *x.shape[1:])


def _merge_masks(
    attn: Any, padding: Any, dims: tuple[int, int, int, int], acc: Any
) -> jax.Array | None:
    """The sum of both masks as ``(N or 1, heads or 1, L or 1, S)``; None without any."""
    batch, heads, length, source = dims
    merged = None
    if attn is not None:
        if attn.shape not in ((length, source), (batch * heads, length, source)):
            raise ShapeError(
                f"attn_mask must have the shape (L, S) = {(length, source)} or (N * num_heads, "
                f"L, S) = {(batch * heads, length, source)}, but got {describe(attn)}"
            )
        merged = attn.reshape((1, 1, length, source) if attn.ndim == 2 else dims).astype(acc)
    if padding is not None:
        row = padding.reshape(batch, 1, 1, source).astype(acc)
        merged = row if merged is None else merged + row
    return merged


def multi_head_attention_forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: jax.Array | None,
    in_proj_bias: jax.Array | None,
    bias_k: jax.Array | None,
    bias_v: jax.Array | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: jax.Array,
    out_proj_bias: jax.Array | None,
    training: bool = True,
    key_padding_mask: jax.Array | None = None,
    need_weights: bool = True,
    attn_mask: jax.Array | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: jax.Array | None = None,
    k_proj_weight: jax.Array | None = None,
    v_proj_weight: jax.Array | None = None,
    static_k: jax.Array | None = None,
    static_v: jax.Array | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    rng: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    r"""Attention in several learned projections at once.

    .. math::
        \operatorname{Concat}(\text{head}_1, \ldots, \text{head}_h) W^O, \quad
        \text{head}_i = \operatorname{Attention}(Q W_i^Q, K W_i^K, V W_i^V)

    Lengths come first here: :math:`(L, N, E)`. Masks follow the modules: True leaves out, floating
    point is added to the scores. A query all of whose keys are masked gives NaN if ``need_weights``
    and an attention of 0 otherwise, as in PyTorch.

    Args:
        query: :math:`(L, N, E)`, or :math:`(L, E)` without a batch.
        key: :math:`(S, N, E_k)` or :math:`(S, E_k)`.
        value: :math:`(S, N, E_v)` or :math:`(S, E_v)`.
        embed_dim_to_check: :math:`E`.
        num_heads: number of heads :math:`h`, a divisor of :math:`E`.
        in_proj_weight: :math:`(3E, E)`, the projections of query, key and value stacked; None with
            ``use_separate_proj_weight``. Inputs that are one and the same array are projected with
            one product.
        in_proj_bias: :math:`(3E)` or None.
        bias_k: :math:`(1, 1, E)`, one more learned key for every sequence, or None.
        bias_v: :math:`(1, 1, E)`, its value; both or neither.
        add_zero_attn: one more key and value of zeros.
        dropout_p: the probability of dropping an attention weight in training.
        out_proj_weight: :math:`(E, E)`.
        out_proj_bias: :math:`(E)` or None.
        training: whether to apply the dropout.
        key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
        need_weights: also return the attention weights.
        attn_mask: :math:`(L, S)` or :math:`(N h, L, S)`.
        use_separate_proj_weight: use the three weights that follow, which leaves :math:`E_k` and
            :math:`E_v` free.
        q_proj_weight: :math:`(E, E)`.
        k_proj_weight: :math:`(E, E_k)`.
        v_proj_weight: :math:`(E, E_v)`.
        static_k: :math:`(N h, S, E / h)`, used in place of the projected key.
        static_v: :math:`(N h, S, E / h)`, used in place of the projected value.
        average_attn_weights: average the returned weights over the heads.
        is_causal: promise that ``attn_mask``, which is then required, is causal. The mask itself is
            used where weights are needed or there is a ``key_padding_mask``, and is not read
            otherwise.
        rng: a key for the dropout.

    Returns:
        ``(output, weights)``: :math:`(L, N, E)`, and with ``need_weights`` the weights after
        dropout, :math:`(N, L, S)` averaged or :math:`(N, h, L, S)`, else None. Neither has
        :math:`N` if there is no batch. ``bias_k`` and ``add_zero_attn`` lengthen :math:`S` by one
        each.

    Raises:
        ShapeError: if arrays do not fit together; the message names the argument.
        DTypeError: if an array is not real floating point, or a mask neither that nor boolean.
        ArgumentError: if options contradict each other, or ``is_causal`` lacks its ``attn_mask``.
        RngError: if dropout is to be applied and ``rng`` is missing.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> x, w, out = jnp.ones((5, 2, 8)), jnp.ones((24, 8)), jnp.ones((8, 8))
        >>> y, weights = F.multi_head_attention_forward(
        ...     x, x, x, 8, 4, w, None, None, None, False, 0.0, out, None
        ... )
        >>> y.shape, weights.shape
        ((5, 2, 8), (2, 5, 5))

    References:
        torch.nn.functional.multi_head_attention_forward;
        Vaswani et al., Attention Is All You Need, 2017.
    """
    query, key, value, bias_k, bias_v, static_k, static_v = in_low(
        query, key, value, bias_k, bias_v, static_k, static_v
    )
    heads = positive("num_heads", num_heads)
    batched = _check_inputs(query, key, value, embed_dim_to_check, not use_separate_proj_weight)
    if embed_dim_to_check % heads:
        raise ShapeError(f"embed_dim={embed_dim_to_check} must be divisible by num_heads={heads}")
    if (bias_k is None) != (bias_v is None):
        raise ArgumentError("bias_k and bias_v must be given together")
    if bias_k is not None and (static_k is not None or static_v is not None):
        raise ArgumentError("bias_k and bias_v cannot be added to static_k or static_v")
    if is_causal and attn_mask is None:
        raise ArgumentError(
            "is_causal=True is a promise about attn_mask, which is missing; "
            "nn.Transformer.generate_square_subsequent_mask(length) makes one"
        )
    dropout_p = probability("dropout_p", dropout_p) if training else 0.0
    if 0 < dropout_p < 1:
        need_key("multi_head_attention_forward", rng)
    if key_padding_mask is not None:
        expected = (key.shape[1], key.shape[0]) if batched else (key.shape[0],)
        if static_k is not None:
            expected = (*expected[:-1], static_k.shape[1])
        if jnp.shape(key_padding_mask) != expected:
            raise ShapeError(
                f"key_padding_mask must have the shape {'(N, S)' if batched else '(S,)'} = "
                f"{expected}, but got {describe(key_padding_mask)}"
            )
    dtype, acc = query.dtype, accumulator(query.dtype)
    padding = canonical_mask(key_padding_mask, "key_padding_mask", dtype, attn_mask, "attn_mask")
    mask = canonical_mask(attn_mask, "attn_mask", dtype)
    if mask is not None:
        require_ndim("attn_mask", mask, (2, 3), "(L, S) or (N * num_heads, L, S)")
    causal_only = is_causal and padding is None and not need_weights
    if causal_only:
        mask = None

    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = _in_projection((query, key, value), in_proj_weight, separate, in_proj_bias)
    if not batched:
        q, k, v = q[:, None], k[:, None], v[:, None]
    batch, dim = q.shape[1:]
    extra = int(bias_k is not None) + int(bool(add_zero_attn))
    if bias_k is not None and bias_v is not None:
        k = jnp.concatenate([k, jnp.broadcast_to(bias_k, (1, batch, dim))])
        v = jnp.concatenate([v, jnp.broadcast_to(bias_v, (1, batch, dim))])
    q, k, v = (_split_heads(x, heads) for x in (q, k, v))  # (N, heads, L or S, E / heads)
    if static_k is not None:
        k = _static("static_k", static_k, batch, heads, dim // heads)
    if static_v is not None:
        v = _static("static_v", static_v, batch, heads, dim // heads)
    if add_zero_attn:
        k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0))) for x in (k, v))
    mask = _merge_masks(mask, padding, (batch, heads, q.shape[2], k.shape[2] - extra), acc)
    if mask is not None and extra:
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, extra)))

    check_attention(q, k, v, False)
    out, weights = attend(
        q,
        k,
        v,
        mask=mask,
        is_causal=causal_only,
        dropout_p=dropout_p,
        normalise=jax.nn.softmax if need_weights else None,
        rng=rng,
    )
    out = out.transpose(2, 0, 1, 3).reshape(q.shape[2], batch, dim)  # (L, N, E)
    out = linear(out if batched else out[:, 0], out_proj_weight, out_proj_bias)
    if not need_weights:
        return out, None
    if average_attn_weights:
        weights = weights.mean(axis=1)
    return out, weights if batched else weights[0]
