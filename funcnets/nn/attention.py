"""Multi-head attention as a layer with its projections."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from funcnets import functional as F
from funcnets._args import positive, probability
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.nn import init
from funcnets.nn.linear import NonDynamicallyQuantizableLinear

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    r"""Attention in several learned projections at once.

    .. math::
        \operatorname{Concat}(\text{head}_1, \ldots, \text{head}_h) W^O, \quad
        \text{head}_i = \operatorname{softmax}\!\left(
        \frac{Q W_i^Q (K W_i^K)^\top}{\sqrt{E / h}} + M\right) V W_i^V

    In every mask True means *left out*, the opposite of
    :func:`funcnets.nn.functional.scaled_dot_product_attention`; a floating point mask is added to
    the scores. A query all of whose keys are masked gives NaN with ``need_weights`` and an
    attention of 0 without, as in PyTorch.

    Args:
        embed_dim: number of features :math:`E` of the queries and of the output.
        num_heads: number of heads :math:`h`, a divisor of ``embed_dim``.
        dropout: probability of dropping an attention weight in training.
        bias: whether the input and output projections have a bias.
        add_bias_kv: append one learned key and value, ``bias_k`` and ``bias_v``, to every sequence.
        add_zero_attn: append one key and value of zeros to every sequence.
        kdim: number of features of the keys; ``embed_dim`` by default.
        vdim: number of features of the values; ``embed_dim`` by default.
        batch_first: whether batched inputs are :math:`(N, L, E)` rather than :math:`(L, N, E)`.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - query: :math:`(L, N, E)`, with ``batch_first`` :math:`(N, L, E)`, or :math:`(L, E)`.
        - key, value: the same with length :math:`S` and ``kdim``, ``vdim`` features.
        - output: as query. Weights: :math:`(N, L, S)`, or :math:`(N, h, L, S)` if they are not
          averaged, without :math:`N` for unbatched inputs.

    Attributes:
        in_proj_weight: :math:`(3E, E)`, the projections of query, key and value stacked; None if
            ``kdim`` or ``vdim`` differs from ``embed_dim``. Xavier-uniform, as one matrix.
        q_proj_weight, k_proj_weight, v_proj_weight: :math:`(E, E)`, :math:`(E, \text{kdim})`,
            :math:`(E, \text{vdim})` in that case, else None. Xavier-uniform.
        in_proj_bias: :math:`(3E)`, zeros, or None.
        bias_k, bias_v: :math:`(1, 1, E)`, Xavier-normal, or None.
        out_proj: a Linear layer; its bias starts at zero.

    Raises:
        ArgumentError: if a size is not positive, ``num_heads`` does not divide ``embed_dim`` or
            ``dropout`` is not a probability.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> attention = nn.MultiheadAttention(16, 4, batch_first=True)
        >>> x = jnp.ones((2, 5, 16))
        >>> output, weights = attention(x, x, x)
        >>> output.shape, weights.shape
        ((2, 5, 16), (2, 5, 5))

    References:
        torch.nn.MultiheadAttention; Vaswani et al., Attention Is All You Need, 2017.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.embed_dim = e = positive("embed_dim", embed_dim)
        self.num_heads = positive("num_heads", num_heads)
        if e % self.num_heads:
            raise ArgumentError(f"embed_dim={e} must be divisible by num_heads={num_heads}")
        self.kdim = e if kdim is None else positive("kdim", kdim, minimum=0)
        self.vdim = e if vdim is None else positive("vdim", vdim, minimum=0)
        self._qkv_same_embed_dim = self.kdim == e and self.vdim == e
        self.head_dim = e // self.num_heads
        self.dropout = probability("dropout", dropout)
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn

        separate = not self._qkv_same_embed_dim
        shapes = {
            "q_proj_weight": (e, e) if separate else None,
            "k_proj_weight": (e, self.kdim) if separate else None,
            "v_proj_weight": (e, self.vdim) if separate else None,
            "in_proj_weight": None if separate else (3 * e, e),
            "in_proj_bias": (3 * e,) if bias else None,
            "bias_k": (1, 1, e) if add_bias_kv else None,
            "bias_v": (1, 1, e) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            cell = None if shape is None else Parameter(shape, device=device, dtype=dtype)
            self.register_parameter(name, cell)
        self.out_proj = NonDynamicallyQuantizableLinear(e, e, bias, device=device, dtype=dtype)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name, cell in self._parameters.items():
            if cell is not None and name.endswith("proj_weight"):
                init.xavier_uniform_(cell)
            elif cell is not None and name.startswith("bias_"):
                init.xavier_normal_(cell)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        key_padding_mask: jax.Array | None = None,
        need_weights: bool = True,
        attn_mask: jax.Array | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        r"""Attend from ``query`` to ``key`` and ``value``.

        Args:
            query: the queries; see the class for the shapes.
            key: the keys. What is one and the same array as ``query`` or ``value`` is projected in
                one product.
            value: the values.
            key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
            need_weights: also return the attention weights.
            attn_mask: :math:`(L, S)`, or :math:`(N h, L, S)`.
            average_attn_weights: average the returned weights over the heads.
            is_causal: promise that ``attn_mask``, which is then required, is causal. It is used
                only where weights are needed or there is a ``key_padding_mask``.

        Returns:
            ``(output, weights)``; the weights are None unless ``need_weights``.
        """
        batch_first = self.batch_first and getattr(query, "ndim", 0) == 3
        if batch_first:
            # One array in, one array out: the projection looks at identity.
            swapped = {id(x): _swap_batch(x) for x in (query, key, value)}
            query, key, value = (swapped[id(x)] for x in (query, key, value))
        training = self.dropout > 0 and self.training
        output, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            rng=self.make_rng() if training and self.dropout < 1 else None,
        )
        return _swap_batch(output) if batch_first else output, weights


def _swap_batch(x: jax.Array) -> jax.Array:
    """``(N, L, E)`` to ``(L, N, E)`` and back; anything that is not 3D is left to be refused."""
    return jnp.swapaxes(x, 0, 1) if getattr(x, "ndim", 0) == 3 else x
