"""Transformer layers and the whole model. Stacks take a layer, so tests/nn/test_transformer.py has them."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal

BARRED = np.triu(np.ones((4, 4), bool), 1)
CAUSAL = np.where(BARRED, -np.inf, 0).astype(np.float32)
PADDING = np.array([[0, 0, 0, 1], [0, 0, 1, 1]], bool)
MEMORY_PADDING = np.array([[0, 0, 0, 0, 1], [1, 0, 0, 1, 1]], bool)
WINDOW = np.abs(np.subtract.outer(np.arange(4), np.arange(5))) > 1
ALL_MASKED = np.array([[1, 1, 1, 1], [0, 0, 0, 1]], bool)

SRC, TGT = Normal(5, 2, 8), Normal(4, 2, 8)


def encoder_layer(*inputs, id="", call=None, **options) -> Case:
    options = {"dropout": 0.0, **options}
    return Case(
        "TransformerEncoderLayer", (8, 2, 16), options, inputs, call or {}, id=id, atol=2e-5
    )


def decoder_layer(*inputs, id="", call=None, **options) -> Case:
    options = {"dropout": 0.0, **options}
    return Case(
        "TransformerDecoderLayer", (8, 2, 16), options, inputs, call or {}, id=id, atol=2e-5
    )


def model(*inputs, id="", call=None, **options) -> Case:
    options = {"dropout": 0.0, "batch_first": True, **options}
    return Case(
        "Transformer", (8, 2, 1, 2, 16), options, inputs, call or {}, id=id, rtol=1e-4, atol=1e-4
    )


CASES = [
    encoder_layer(TGT),
    encoder_layer(Normal(4, 8), id="unbatched"),
    encoder_layer(Normal(2, 4, 8), batch_first=True),
    encoder_layer(TGT, norm_first=True),
    encoder_layer(TGT, activation="gelu", layer_norm_eps=1e-3),
    encoder_layer(TGT, bias=False),
    encoder_layer(TGT, call={"src_mask": WINDOW[:, :4]}),
    encoder_layer(TGT, call={"src_mask": Normal(4, 4)}, id="float"),
    encoder_layer(TGT, call={"src_key_padding_mask": PADDING}),
    encoder_layer(TGT, call={"src_key_padding_mask": ALL_MASKED}, id="one-sequence-empty"),
    encoder_layer(TGT, call={"src_mask": BARRED, "src_key_padding_mask": PADDING}),
    encoder_layer(TGT, call={"src_mask": CAUSAL, "is_causal": True}),
    decoder_layer(TGT, SRC),
    decoder_layer(Normal(4, 8), Normal(5, 8), id="unbatched"),
    decoder_layer(Normal(2, 4, 8), Normal(2, 5, 8), batch_first=True),
    decoder_layer(TGT, SRC, norm_first=True),
    decoder_layer(TGT, SRC, activation="gelu", bias=False),
    decoder_layer(TGT, SRC, call={"tgt_mask": CAUSAL, "tgt_is_causal": True}),
    decoder_layer(TGT, SRC, call={"memory_mask": WINDOW}),
    decoder_layer(TGT, SRC, call={"memory_mask": WINDOW, "memory_is_causal": True}, id="promise"),
    decoder_layer(
        *(TGT, SRC),
        call={
            "tgt_mask": BARRED,
            "memory_mask": WINDOW,
            "tgt_key_padding_mask": PADDING,
            "memory_key_padding_mask": MEMORY_PADDING,
        },
    ),
    model(Normal(2, 5, 8), Normal(2, 4, 8)),
    model(Normal(5, 8), Normal(4, 8), id="unbatched"),
    model(SRC, TGT, batch_first=False, norm_first=True, bias=False),
    model(Normal(2, 5, 8), Normal(2, 4, 8), activation="gelu", layer_norm_eps=1e-3),
    model(Normal(2, 5, 8), Normal(2, 4, 8), call={"tgt_mask": BARRED}),
    model(
        *(Normal(2, 5, 8), Normal(2, 4, 8)),
        call={
            "tgt_mask": BARRED,
            "memory_mask": WINDOW,
            "src_key_padding_mask": MEMORY_PADDING,
            "memory_key_padding_mask": MEMORY_PADDING,
        },
    ),
]
