"""Scaled dot product attention.

Two conventions of PyTorch meet around it. Here a boolean mask says who takes part (True: attend).
In ``multi_head_attention_forward`` and the modules it says who is left out (True: do not attend).
Floating point masks mean the same in both: they are added to the scores.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_array, describe, probability
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_low, low_dtype
from funcnets.functional._numeric import need_key, real
from funcnets.functional.dropout import dropout

__all__ = ["scaled_dot_product_attention"]


def accumulator(dtype: Any) -> Any:
    """The dtype of scores and softmax: float32 for the half precisions, as PyTorch has it."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def check_mask_dtype(name: str, mask: Any, dtype: Any) -> None:
    """Masks are boolean, or floating point in the precision of the scores they are added to."""
    if not hasattr(mask, "dtype") or not hasattr(mask, "shape"):
        raise DTypeError(f"{name} must be an array or None, but got {describe(mask)}")
    if mask.dtype not in (jnp.bool_, dtype, jnp.float32):
        raise DTypeError(
            f"{name} must be boolean or of dtype {jnp.dtype(dtype)} (the query's) or float32, "
            f"but got {describe(mask)}; convert it with {name}.astype(...)"
        )


def softmax_or_zero(scores: jax.Array) -> jax.Array:
    """Softmax over the last axis in which a row of nothing but -inf gives 0, with gradient 0."""
    return _softmax(scores, True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(scores: jax.Array, empty_rows: bool) -> jax.Array:
    best = jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf if empty_rows else None)
    if empty_rows:
        best = jnp.where(best == -jnp.inf, 0, best)
    powers = jnp.exp(scores - best)
    total = jnp.sum(powers, axis=-1, keepdims=True)
    return powers / (jnp.where(total == 0, 1, total) if empty_rows else total)


def _softmax_tangent(empty_rows: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Of the result alone: JAX's own derivative goes back through the maximum and the sum.
    out = _softmax(*primals, empty_rows)
    moved = out * tangents[0]
    return out, moved - out * jnp.sum(moved, axis=-1, keepdims=True)


_softmax.defjvp(_softmax_tangent)


def _heads_matmul(a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
    """``a @ b`` over heads, where each head of ``b`` may serve a run of heads of ``a``.

    ``(..., Hq, L, X)`` and ``(..., H, X, Y)`` to ``(..., Hq, L, Y)``. The heads of a run are
    stacked along ``L``, which is a reshape: ``b`` is never repeated in memory.
    """
    if a.ndim < 3 or a.shape[-3] == b.shape[-3] or 1 in (a.shape[-3], b.shape[-3]):
        return jnp.matmul(a, b, preferred_element_type=dtype)
    *batch, heads, length, _ = a.shape
    runs = b.shape[-3]
    stacked = a.reshape(*batch, runs, heads // runs * length, a.shape[-1])
    out = jnp.matmul(stacked, b, preferred_element_type=dtype)
    return out.reshape(*out.shape[:-3], heads, length, out.shape[-1])


def check_attention(q: Any, k: Any, v: Any, enable_gqa: bool) -> tuple[int, ...]:
    """Refuse what does not fit together; give the shape of the scores, ``(..., Hq, L, S)``."""
    for name, x in (("query", q), ("key", k), ("value", v)):
        real(name, x)
        if x.ndim < 2:
            raise ShapeError(
                f"{name} must be at least 2D, (..., length, features), but got {describe(x)}"
            )
    got = f"query {describe(q)}, key {describe(k)}, value {describe(v)}"
    if not q.dtype == k.dtype == v.dtype:
        raise DTypeError(f"query, key and value must have one dtype, but got {got}")
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(
            f"query and key must have the same number of features (last axis), but got {got}"
        )
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"key and value must have the same length (axis -2), but got {got}")
    batches = [q.shape[:-2], k.shape[:-2], v.shape[:-2]]
    if enable_gqa:
        if min(map(len, batches)) < 1:
            raise ShapeError(
                f"enable_gqa=True needs a heads axis, (..., heads, length, features), but got {got}"
            )
        heads = q.shape[-3]
        if any(b[-1] == 0 or heads % b[-1] for b in batches[1:]):
            raise ShapeError(
                "enable_gqa=True needs the heads of query (axis -3) to be a multiple of those of "
                f"key and of value, but got {got}"
            )
        batches[1:] = [(*b[:-1], heads) for b in batches[1:]]
    try:
        batch = np.broadcast_shapes(*batches)
    except ValueError:
        hint = "" if enable_gqa else "; if query heads share key heads, pass enable_gqa=True"
        raise ShapeError(
            f"query, key and value must agree in all axes but the last two, but got {got}{hint}"
        ) from None
    return (*batch, q.shape[-2], k.shape[-2])


def _check_mask(mask: Any, shape: tuple[int, ...], dtype: Any) -> None:
    check_mask_dtype("attn_mask", mask, dtype)
    fits = 2 <= mask.ndim <= len(shape) and all(
        m in (1, n) for m, n in zip(mask.shape[::-1], shape[::-1], strict=False)
    )
    if not fits:
        raise ShapeError(
            f"attn_mask must be at least 2D and broadcast to the shape of the scores, "
            f"(..., L, S) = {shape}, but got {describe(mask)}"
        )


def _at_rank(x: jax.Array, ndim: int) -> jax.Array:
    """``x`` with leading axes of size 1 up to ``ndim``."""
    return jnp.reshape(x, (1,) * (ndim - x.ndim) + x.shape)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: jax.Array | None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
    normalise: Callable[[jax.Array], jax.Array] | None = None,
    rng: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The result and the weights after dropout, of checked arrays that all have one rank."""
    dtype, acc = query.dtype, accumulator(query.dtype)
    if scale is None:
        scale = 1.0 / math.sqrt(max(query.shape[-1], 1))
    scores = _heads_matmul(query, jnp.swapaxes(key, -1, -2), acc) * scale  # (..., Hq, L, S)
    if is_causal:
        allowed = jnp.tri(*scores.shape[-2:], dtype=bool)
        scores = jnp.where(_at_rank(allowed, scores.ndim), scores, -jnp.inf)
    if mask is not None and mask.dtype == jnp.bool_:
        scores = jnp.where(mask, scores, -jnp.inf)
    elif mask is not None:
        scores = scores + mask.astype(acc)
    if normalise is None:
        # Only a mask leaves a query without keys, and XLA's code is faster if none is.
        normalise = functools.partial(_softmax, empty_rows=mask is not None or 0 in scores.shape)
    weights = normalise(scores)
    if dropout_p > 0:
        weights = dropout(weights, dropout_p, True, rng=rng)
    out = _heads_matmul(weights.astype(dtype), value, acc).astype(dtype)
    # A softmax of autocast is in full precision.
    return out, weights if low_dtype.value is not None else weights.astype(dtype)


def scaled_dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    attn_mask: jax.Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Every query takes the mean of the values, weighted by how well it matches their keys.

    .. math::
        \operatorname{softmax}\!\left(\text{scale} \cdot Q K^\top + M\right) V

    A query that may attend to nothing gives 0, and passes back a gradient of 0. Scores and softmax
    are computed in float32 for half-precision inputs.

    Args:
        query: :math:`(\ldots, H_q, L, E)`.
        key: :math:`(\ldots, H, S, E)`.
        value: :math:`(\ldots, H, S, E_v)`. The leading axes of all three broadcast.
        attn_mask: at least 2D, broadcastable to :math:`(\ldots, H_q, L, S)`. Boolean: True where a
            query may attend to a key (the opposite of :class:`funcnets.nn.MultiheadAttention`).
            Floating point, in query's dtype or float32: added to the scores, with gradients.
        dropout_p: the probability of dropping an attention weight. It is applied whenever it is
            above 0: a function has no mode, so pass 0 in evaluation.
        is_causal: query ``i`` sees the keys up to ``i``, counted from the first key also when
            :math:`L \neq S`. Not together with ``attn_mask``.
        scale: factor on the scores, :math:`1/\sqrt{E}` by default.
        enable_gqa: grouped queries: :math:`H_q / H` consecutive heads of ``query`` share each head
            of ``key`` and ``value``, which are not repeated in memory.
        rng: a key for the dropout.

    Returns:
        :math:`(\ldots, H_q, L, E_v)`, in the dtype of ``query``.

    Raises:
        ShapeError: if the arrays or the mask do not fit together.
        DTypeError: if the dtypes differ, are not real floating point, or do not suit a mask.
        ArgumentError: if ``attn_mask`` and ``is_causal`` are both given, or ``dropout_p`` is not a
            probability.
        RngError: if ``dropout_p`` is above 0 and ``rng`` is missing.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> q = jax.random.normal(jax.random.key(0), (2, 8, 5, 16))
        >>> F.scaled_dot_product_attention(q, q, q, is_causal=True).shape
        (2, 8, 5, 16)
        >>> kv = jnp.ones((2, 2, 7, 16))
        >>> F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True).shape
        (2, 8, 5, 16)

    References:
        torch.nn.functional.scaled_dot_product_attention;
        Vaswani et al., Attention Is All You Need, 2017; Ainslie et al., GQA, 2023.
    """
    query, key, value, attn_mask = in_low(query, key, value, attn_mask)
    query, key, value = real("query", query), real("key", key), real("value", value)
    shape = check_attention(query, key, value, enable_gqa)
    if 0 < probability("dropout_p", dropout_p) < 1:
        need_key("scaled_dot_product_attention", rng)
    if attn_mask is not None:
        if is_causal:
            raise ArgumentError(
                "attn_mask and is_causal=True exclude each other; put both into attn_mask"
            )
        attn_mask = as_array("attn_mask", attn_mask)
        _check_mask(attn_mask, shape, query.dtype)

    out, _ = attend(
        *(_at_rank(x, len(shape)) for x in (query, key, value)),
        mask=None if attn_mask is None else _at_rank(attn_mask, len(shape)),
        is_causal=is_causal,
        scale=scale,
        dropout_p=dropout_p,
        rng=rng,
    )
    return out
