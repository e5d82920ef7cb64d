"""The layers of which Transformers are stacked.

PyTorch has a second, fused implementation of the encoder layer for evaluation. It computes what the
layer here computes, except where a floating point mask or a fully masked row takes it elsewhere.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax

from funcnets import functional as F
from funcnets._args import choice, describe
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._autocast import in_widest
from funcnets.nn.attention import MultiheadAttention
from funcnets.nn.dropout import Dropout
from funcnets.nn.linear import Linear
from funcnets.nn.norm import LayerNorm

__all__ = ["TransformerDecoderLayer", "TransformerEncoderLayer"]

Activation = str | Callable[[jax.Array], jax.Array]


def _activation(activation: Activation) -> Callable[[jax.Array], jax.Array]:
    """A callable as it is; ``"relu"`` and ``"gelu"`` as functions."""
    if isinstance(activation, str):
        return {"relu": F.relu, "gelu": F.gelu}[choice("activation", activation, ("relu", "gelu"))]
    if not callable(activation):
        raise ArgumentError(
            f"activation must be 'relu', 'gelu' or callable, but got {describe(activation)}"
        )
    return activation


class _Layer(Module):
    """What both kinds of layers have: self-attention, a feed-forward net, the order of norms."""

    cross_attention = False

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        placed = {"device": device, "dtype": dtype}
        attention = {"dropout": dropout, "bias": bias, "batch_first": batch_first, **placed}
        count = 3 if self.cross_attention else 2
        self.self_attn = MultiheadAttention(d_model, nhead, **attention)
        if self.cross_attention:
            self.multihead_attn = MultiheadAttention(d_model, nhead, **attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **placed)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **placed)
        self.norm_first = norm_first
        for i in range(1, count + 1):
            setattr(self, f"norm{i}", LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **placed))
        for i in range(1, count + 1):
            setattr(self, f"dropout{i}", Dropout(dropout))
        self.activation = _activation(activation)

    def _residual(
        self, x: jax.Array, norm: Module, block: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """``x + block(x)``, normalised before the block (``norm_first``) or after the sum."""
        if self.norm_first:
            return operator.add(*in_widest(x, block(norm(x))))
        return norm(operator.add(*in_widest(x, block(x))))

    def _feed_forward(self, x: jax.Array) -> jax.Array:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    r"""Self-attention, then a feed-forward net, each with a residual connection and a LayerNorm.

    .. math::
        x' = \operatorname{norm}_1(x + \operatorname{SelfAttention}(x)), \quad
        y = \operatorname{norm}_2(x' + W_2\, \sigma(W_1 x'))

    With ``norm_first`` the norms are inside the branches: :math:`x + f(\operatorname{norm}(x))`.

    Args:
        d_model: number of features :math:`E`.
        nhead: number of heads, a divisor of ``d_model``.
        dim_feedforward: number of features between the two linear maps.
        dropout: probability of dropping, in attention weights, between the linear maps and after
            each branch.
        activation: :math:`\sigma`: ``"relu"``, ``"gelu"``, a function or a module.
        layer_norm_eps: epsilon of the norms.
        batch_first: whether batched inputs are :math:`(N, S, E)` rather than :math:`(S, N, E)`.
        norm_first: whether to normalise before each branch rather than after the sum.
        bias: whether linear maps and norms have a bias.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - src: :math:`(S, N, E)`, with ``batch_first`` :math:`(N, S, E)`, or :math:`(S, E)`.
        - output: the same.

    Raises:
        ArgumentError: if an option cannot be used; see :class:`MultiheadAttention`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        >>> layer(jnp.ones((2, 5, 16))).shape
        (2, 5, 16)

    References:
        torch.nn.TransformerEncoderLayer; Vaswani et al., Attention Is All You Need, 2017;
        Xiong et al., On Layer Normalization in the Transformer Architecture, 2020 (``norm_first``).
    """

    def forward(
        self,
        src: jax.Array,
        src_mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        is_causal: bool = False,
    ) -> jax.Array:
        r"""Pass a sequence through the layer.

        Args:
            src: the sequence.
            src_mask: :math:`(S, S)` or :math:`(N h, S, S)`; True or -inf where attention is barred.
            src_key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
            is_causal: promise that ``src_mask``, which is then required, is causal.
        """

        def attend(x: jax.Array) -> jax.Array:
            out, _ = self.self_attn(
                x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal
            )
            return self.dropout1(out)

        x = self._residual(src, self.norm1, attend)
        return self._residual(x, self.norm2, lambda x: self.dropout2(self._feed_forward(x)))


class TransformerDecoderLayer(_Layer):
    r"""Self-attention, attention to the encoder's output, then a feed-forward net.

    Each of the three has a residual connection and a LayerNorm, as in
    :class:`TransformerEncoderLayer`.

    Args:
        d_model: number of features :math:`E`.
        nhead: number of heads, a divisor of ``d_model``.
        dim_feedforward: number of features between the two linear maps.
        dropout: probability of dropping, in attention weights, between the linear maps and after
            each branch.
        activation: ``"relu"``, ``"gelu"``, a function or a module.
        layer_norm_eps: epsilon of the norms.
        batch_first: whether batched inputs are :math:`(N, T, E)` rather than :math:`(T, N, E)`.
        norm_first: whether to normalise before each branch rather than after the sum.
        bias: whether linear maps and norms have a bias.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - tgt: :math:`(T, N, E)`, with ``batch_first`` :math:`(N, T, E)`, or :math:`(T, E)`.
        - memory: the same with length :math:`S`.
        - output: as tgt.

    Raises:
        ArgumentError: if an option cannot be used; see :class:`MultiheadAttention`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> layer = nn.TransformerDecoderLayer(16, 4, dim_feedforward=32, dropout=0.0)
        >>> layer(jnp.ones((5, 2, 16)), jnp.ones((7, 2, 16))).shape
        (5, 2, 16)

    References:
        torch.nn.TransformerDecoderLayer; Vaswani et al., Attention Is All You Need, 2017.
    """

    cross_attention = True

    def forward(
        self,
        tgt: jax.Array,
        memory: jax.Array,
        tgt_mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        tgt_key_padding_mask: jax.Array | None = None,
        memory_key_padding_mask: jax.Array | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> jax.Array:
        r"""Pass a sequence through the layer.

        Args:
            tgt: the sequence.
            memory: the encoder's output.
            tgt_mask: :math:`(T, T)` or :math:`(N h, T, T)`; True or -inf where attention is barred.
            memory_mask: :math:`(T, S)` or :math:`(N h, T, S)`.
            tgt_key_padding_mask: :math:`(N, T)`, or :math:`(T)` without a batch.
            memory_key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
            tgt_is_causal: promise that ``tgt_mask``, which is then required, is causal.
            memory_is_causal: promise that ``memory_mask``, which is then required, is causal.
        """

        def attend(x: jax.Array) -> jax.Array:
            out, _ = self.self_attn(
                x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal
            )
            return self.dropout1(out)

        def look_up(x: jax.Array) -> jax.Array:
            out, _ = self.multihead_attn(
                x,
                memory,
                memory,
                memory_key_padding_mask,
                False,
                memory_mask,
                is_causal=memory_is_causal,
            )
            return self.dropout2(out)

        x = self._residual(tgt, self.norm1, attend)
        x = self._residual(x, self.norm2, look_up)
        return self._residual(x, self.norm3, lambda x: self.dropout3(self._feed_forward(x)))
