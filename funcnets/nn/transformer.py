"""Transformers: stacks of encoder and decoder layers, and the whole model.

PyTorch's encoder turns padded batches into nested tensors for evaluation where it can. Then padded
positions come out of it as 0; here they are computed like any other.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets import functional as F
from funcnets._args import describe, positive, resolve_dtype
from funcnets.core.convert import placement
from funcnets.core.module import Module
from funcnets.errors import DTypeError, ShapeError
from funcnets.nn import init
from funcnets.nn.activation import ReLU
from funcnets.nn.activation_smooth import GELU
from funcnets.nn.container import ModuleList
from funcnets.nn.norm import LayerNorm
from funcnets.nn.stack import Stack
from funcnets.nn.transformer_layer import (
    Activation,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)

__all__ = ["Transformer", "TransformerDecoder", "TransformerEncoder"]


Layers = ModuleList | Stack


def _causal(size: int, dtype: Any) -> np.ndarray:
    """0 on and below the diagonal and -inf above; False and True for booleans."""
    barred = True if dtype == jnp.bool_ else -np.inf
    return np.triu(np.full((size, size), barred, dtype), 1)


def _is_causal(mask: Any, is_causal: bool | None, x: jax.Array, layers: Layers) -> bool:
    """The caller's promise, or without one whether ``mask`` is causal for the length of ``x``.

    No output depends on it, so a traced mask, whose values are not known, counts as any other. (A
    mask that is recognised is not read, so it gets no gradient; a traced one gets its own.)
    """
    if is_causal is not None or mask is None:
        return bool(is_causal)
    known = isinstance(mask, (jax.Array, np.ndarray)) and not isinstance(mask, Tracer)
    if not known or not getattr(mask, "is_fully_addressable", True):
        return False
    batch_first = getattr(getattr(layers[0], "self_attn", None), "batch_first", False)
    size = x.shape[1 if batch_first and x.ndim == 3 else 0]
    kind = mask.dtype == jnp.bool_ or jnp.issubdtype(mask.dtype, jnp.floating)
    return (
        kind
        and mask.shape == (size, size)
        and bool((np.asarray(mask) == _causal(size, mask.dtype)).all())
    )


def _copies(name: str, layer: Any, number: int, stack: bool) -> Layers:
    """``number`` copies of ``layer``, all with its values, as PyTorch makes them."""
    if not isinstance(layer, Module):
        raise DTypeError(f"{name} must be a module, but got {describe(layer)}")
    copies = [copy.deepcopy(layer) for _ in range(positive("num_layers", number))]
    return Stack(copies) if stack else ModuleList(copies)


def _through(layers: Layers, x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """``x`` after all layers."""
    if isinstance(layers, Stack):
        return layers(x, *args, **kwargs)
    for layer in layers:
        x = layer(x, *args, **kwargs)
    return x


class TransformerEncoder(Module):
    r"""A stack of copies of one encoder layer.

    As an object it starts with equal values in all copies, as in PyTorch, which advises to initialise
    them anew (:class:`Transformer` does). ``init`` of the pure face draws each copy by its own path.

    Args:
        encoder_layer: a :class:`TransformerEncoderLayer`, or a module with its call signature, of
            which copies are made.
        num_layers: how many.
        norm: a module applied to the result, usually a LayerNorm.
        enable_nested_tensor: PyTorch's switch for an evaluation speed-up on padded batches, for
            which there is no counterpart; the results are those of False. The warnings about
            layers that PyTorch could not speed up are given.
        mask_check: PyTorch's switch for a check before that speed-up. Kept as an attribute.
        stack: hold the layers in a :class:`Stack`, so that a deep encoder compiles as fast as a shallow one.
            An extension; PyTorch's checkpoints fit all the same. ``encoder.layers.remat = True`` also computes
            their activations again in the backward pass.

    Shape:
        - src: :math:`(S, N, E)`, with ``batch_first`` layers :math:`(N, S, E)`, or :math:`(S, E)`.
        - output: the same.

    Raises:
        ArgumentError: if ``num_layers`` is not positive.
        DTypeError: if ``encoder_layer`` is not a module.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        >>> encoder = nn.TransformerEncoder(layer, num_layers=2)
        >>> mask = nn.Transformer.generate_square_subsequent_mask(5)
        >>> encoder(jnp.ones((2, 5, 16)), mask).shape
        (2, 5, 16)

    References:
        torch.nn.TransformerEncoder; Vaswani et al., Attention Is All You Need, 2017.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
        *,
        stack: bool = False,
    ) -> None:
        super().__init__()
        self.layers = _copies("encoder_layer", encoder_layer, num_layers, stack)
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check
        obstacle = _nested_tensor_obstacle(encoder_layer)
        self.use_nested_tensor = enable_nested_tensor and obstacle is None
        if enable_nested_tensor and obstacle is not None:
            warnings.warn(
                f"enable_nested_tensor is True, but use_nested_tensor is False: {obstacle}",
                stacklevel=2,
            )

    def forward(
        self,
        src: jax.Array,
        mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        is_causal: bool | None = None,
    ) -> jax.Array:
        r"""Pass a sequence through the layers.

        Args:
            src: the sequence.
            mask: :math:`(S, S)` or :math:`(N h, S, S)`; True or -inf where attention is barred.
            src_key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
            is_causal: promise that ``mask`` is causal; None finds out where the values are known.
        """
        is_causal = _is_causal(mask, is_causal, src, self.layers)
        src = _through(
            self.layers,
            src,
            src_mask=mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=is_causal,
        )
        return src if self.norm is None else self.norm(src)


def _nested_tensor_obstacle(layer: Any) -> str | None:
    """Why PyTorch would not use nested tensors for this layer, if it would not."""
    if not isinstance(layer, TransformerEncoderLayer):
        return "encoder_layer is not a TransformerEncoderLayer"
    attention, activation = layer.self_attn, layer.activation
    reasons = {
        "norm_first is True": layer.norm_first,
        "batch_first is not True": not attention.batch_first,
        "kdim or vdim differs from embed_dim": not attention._qkv_same_embed_dim,
        "bias is False": attention.in_proj_bias is None,
        "activation is neither relu nor gelu": not (
            activation is F.relu or activation is F.gelu or isinstance(activation, (ReLU, GELU))
        ),
        "norm1 and norm2 have different eps": layer.norm1.eps != layer.norm2.eps,
        "the number of heads is odd": attention.num_heads % 2 == 1,
    }
    return next((f"encoder_layer: {reason}" for reason, holds in reasons.items() if holds), None)


class TransformerDecoder(Module):
    r"""A stack of copies of one decoder layer.

    On the values that the copies start with see :class:`TransformerEncoder`.

    Args:
        decoder_layer: a :class:`TransformerDecoderLayer`, or a module with its call signature, of
            which copies are made.
        num_layers: how many.
        norm: a module applied to the result, usually a LayerNorm.
        stack: hold the layers in a :class:`Stack`, as :class:`TransformerEncoder` does. An extension.

    Shape:
        - tgt: :math:`(T, N, E)`, with ``batch_first`` layers :math:`(N, T, E)`, or :math:`(T, E)`.
        - memory: the same with length :math:`S`.
        - output: as tgt.

    Raises:
        ArgumentError: if ``num_layers`` is not positive.
        DTypeError: if ``decoder_layer`` is not a module.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> layer = nn.TransformerDecoderLayer(16, 4, dim_feedforward=32, dropout=0.0)
        >>> decoder = nn.TransformerDecoder(layer, num_layers=2)
        >>> decoder(jnp.ones((5, 2, 16)), jnp.ones((7, 2, 16))).shape
        (5, 2, 16)

    References:
        torch.nn.TransformerDecoder; Vaswani et al., Attention Is All You Need, 2017.
    """

    def __init__(
        self,
        decoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        *,
        stack: bool = False,
    ) -> None:
        super().__init__()
        self.layers = _copies("decoder_layer", decoder_layer, num_layers, stack)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: jax.Array,
        memory: jax.Array,
        tgt_mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        tgt_key_padding_mask: jax.Array | None = None,
        memory_key_padding_mask: jax.Array | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> jax.Array:
        r"""Pass a sequence through the layers.

        Args:
            tgt: the sequence.
            memory: the encoder's output.
            tgt_mask: :math:`(T, T)` or :math:`(N h, T, T)`; True or -inf where attention is barred.
            memory_mask: :math:`(T, S)` or :math:`(N h, T, S)`.
            tgt_key_padding_mask: :math:`(N, T)`, or :math:`(T)` without a batch.
            memory_key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
            tgt_is_causal: promise that ``tgt_mask`` is causal; None finds out where the values are
                known.
            memory_is_causal: promise that ``memory_mask``, which is then required, is causal.
        """
        tgt_is_causal = _is_causal(tgt_mask, tgt_is_causal, tgt, self.layers)
        tgt = _through(
            self.layers,
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    r"""The encoder-decoder Transformer: a stack of encoder layers, a stack of decoder layers.

    Every weight with more than one axis starts Xavier-uniform, also in custom stacks.

    Args:
        d_model: number of features :math:`E` of both sequences.
        nhead: number of heads :math:`h`, a divisor of ``d_model``.
        num_encoder_layers: number of encoder layers.
        num_decoder_layers: number of decoder layers.
        dim_feedforward: number of features between the two linear maps of a layer.
        dropout: dropout probability of the layers.
        activation: ``"relu"``, ``"gelu"``, a function or a module.
        custom_encoder: a module to use as the encoder, called as a :class:`TransformerEncoder`.
        custom_decoder: a module to use as the decoder, called as a :class:`TransformerDecoder`.
        layer_norm_eps: epsilon of the norms.
        batch_first: whether batched inputs are :math:`(N, S, E)` rather than :math:`(S, N, E)`.
        norm_first: whether layers normalise before each branch rather than after the sum.
        bias: whether linear maps and norms have a bias.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - src: :math:`(S, N, E)`, with ``batch_first`` :math:`(N, S, E)`, or :math:`(S, E)`.
        - tgt: the same with length :math:`T`.
        - output: as tgt.

    Raises:
        ArgumentError: if an option cannot be used; see :class:`MultiheadAttention`.
        ShapeError: if src and tgt do not fit the model or each other.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 32}
        >>> model = nn.Transformer(16, 4, batch_first=True, **layers).eval()
        >>> src, tgt = jnp.ones((2, 7, 16)), jnp.ones((2, 5, 16))
        >>> model(src, tgt, tgt_mask=model.generate_square_subsequent_mask(5)).shape
        (2, 5, 16)

    References:
        torch.nn.Transformer; Vaswani et al., Attention Is All You Need, 2017.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        layer = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps)
        options = {"batch_first": batch_first, "norm_first": norm_first}
        placed = {"bias": bias, "device": device, "dtype": dtype}

        def norm() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, **placed)

        if custom_encoder is None:
            encoder_layer = TransformerEncoderLayer(*layer, **options, **placed)
            custom_encoder = TransformerEncoder(encoder_layer, num_encoder_layers, norm())
        self.encoder = custom_encoder
        if custom_decoder is None:
            decoder_layer = TransformerDecoderLayer(*layer, **options, **placed)
            custom_decoder = TransformerDecoder(decoder_layer, num_decoder_layers, norm())
        self.decoder = custom_decoder
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def _reset_parameters(self) -> None:
        for cell in self.parameters():
            if cell.ndim > 1:
                init.xavier_uniform_(cell)

    def forward(
        self,
        src: jax.Array,
        tgt: jax.Array,
        src_mask: jax.Array | None = None,
        tgt_mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        tgt_key_padding_mask: jax.Array | None = None,
        memory_key_padding_mask: jax.Array | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> jax.Array:
        r"""Encode ``src``, then decode ``tgt`` looking at it.

        Args:
            src: the sequence for the encoder.
            tgt: the sequence for the decoder.
            src_mask: :math:`(S, S)` or :math:`(N h, S, S)`; True or -inf where attention is barred.
            tgt_mask: :math:`(T, T)` or :math:`(N h, T, T)`.
            memory_mask: :math:`(T, S)` or :math:`(N h, T, S)`.
            src_key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
            tgt_key_padding_mask: :math:`(N, T)`, or :math:`(T)` without a batch.
            memory_key_padding_mask: :math:`(N, S)`, or :math:`(S)` without a batch.
            src_is_causal: promise that ``src_mask`` is causal; None finds out where the values are
                known.
            tgt_is_causal: the same for ``tgt_mask``.
            memory_is_causal: promise that ``memory_mask``, which is then required, is causal.
        """
        axis = 0 if self.batch_first else 1
        got = f"src {describe(src)} and tgt {describe(tgt)}"
        if src.ndim != tgt.ndim or (src.ndim == 3 and src.shape[axis] != tgt.shape[axis]):
            raise ShapeError(
                f"src and tgt must have the same batch size (axis {axis}), but got {got}"
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise ShapeError(
                f"src and tgt must have d_model={self.d_model} features, but got {got}"
            )
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: Any = None, dtype: Any = None
    ) -> jax.Array:
        """The mask under which each position sees itself and what comes before it.

        The result is an array with known values also inside ``jax.jit``, so that it can be kept for
        later calls and recognised as causal.

        Args:
            sz: the length.
            device: where to place the mask.
            dtype: a floating point dtype, float32 by default, or bool.

        Returns:
            ``(sz, sz)``: -inf above the diagonal and 0 elsewhere, or for bool True and False.

        Raises:
            DTypeError: if ``dtype`` is neither floating point nor bool.
        """
        kind = resolve_dtype(dtype)
        if kind != jnp.bool_ and not jnp.issubdtype(kind, jnp.floating):
            raise DTypeError(f"dtype must be floating point or bool, but got {kind}")
        with jax.ensure_compile_time_eval():
            mask = jnp.asarray(_causal(positive("sz", sz, minimum=0), kind))
            return mask if device is None else jax.device_put(mask, placement(device))
