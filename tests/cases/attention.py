"""Attention, as functions and as a layer."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal

BARRED = np.triu(np.ones((4, 4), bool), 1)
CAUSAL = np.where(BARRED, -np.inf, 0).astype(np.float32)
FIRST_OPEN = np.array([[0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1]], bool)  # (2, 6), True: left out
WINDOW = np.abs(np.subtract.outer(np.arange(4), np.arange(6))) > 1  # (4, 6), True: left out
SOME_ROWS_EMPTY = ~WINDOW & (np.arange(4) != 2)[:, None]  # (4, 6), True: takes part
PER_HEAD = np.stack([WINDOW, ~WINDOW & (np.arange(6) > 0)] * 2)  # (4, 4, 6)

Q, K, V = Normal(2, 2, 4, 3), Normal(2, 2, 6, 3), Normal(2, 2, 6, 5)


def dot(*inputs, id="", second=False, **options) -> Case:
    name = "scaled_dot_product_attention"
    return Case(name, fn=True, inputs=inputs, kwargs=options, second=second, id=id)


def multi(*inputs, id="", call=None, second=False, **options) -> Case:
    call = call or {}
    return Case(
        "MultiheadAttention", (8, 2), options, inputs, call, second=second, id=id, atol=2e-5
    )


L, S = Normal(4, 2, 8), Normal(6, 2, 8)

CASES = [
    dot(Q, K, V),
    dot(Q, K, V, is_causal=True),
    dot(K, Q, Q, is_causal=True, id="longer-query"),
    dot(Q, K, V, scale=0.3),
    dot(Normal(4, 3), Normal(6, 3), Normal(6, 5), id="no-heads"),
    dot(Normal(2, 4, 3), Normal(2, 6, 3), Normal(2, 6, 5), id="one-axis"),
    dot(Q, Normal(2, 1, 6, 3), Normal(2, 1, 6, 5), id="broadcast-heads"),
    dot(Q, K, V, SOME_ROWS_EMPTY, id="bool-mask-with-empty-rows", second=True),
    dot(Q, K, V, Normal(2, 1, 4, 6), id="float-mask"),
    dot(Q, K, V, Normal(1, 6), id="key-mask"),
    dot(Q, K, V, np.where(SOME_ROWS_EMPTY, 0, -np.inf).astype(np.float32), id="float-mask-empty"),
    dot(Normal(2, 6, 4, 3), K, V, enable_gqa=True),
    dot(Normal(2, 6, 4, 3), Normal(2, 3, 6, 3), V, enable_gqa=True, id="k-and-v-heads-differ"),
    dot(Normal(6, 4, 3), Normal(1, 4, 3), Normal(1, 4, 3), enable_gqa=True, is_causal=True),
    dot(Q, Normal(2, 2, 0, 3), Normal(2, 2, 0, 5), id="no-keys"),
    dot(Normal(2, 2, 0, 3), K, V, id="no-queries"),
    multi(L, S, S, id="cross", second=True),
    multi(L, S, S, call={"need_weights": False}, id="cross"),
    multi(L, S, S, call={"average_attn_weights": False}),
    multi(Normal(4, 8), Normal(6, 8), Normal(6, 8), id="unbatched"),
    multi(Normal(2, 4, 8), Normal(2, 6, 8), Normal(2, 6, 8), batch_first=True),
    multi(L, S, S, bias=False),
    multi(L, S, S, add_bias_kv=True),
    multi(L, S, S, add_zero_attn=True),
    multi(L, Normal(6, 2, 5), Normal(6, 2, 7), kdim=5, vdim=7),
    multi(L, Normal(6, 2, 5), S, kdim=5, bias=False, add_bias_kv=True, add_zero_attn=True),
    multi(L, S, S, call={"key_padding_mask": FIRST_OPEN}),
    multi(L, S, S, call={"key_padding_mask": Normal(2, 6)}, id="float"),
    multi(L, S, S, call={"attn_mask": WINDOW}),
    multi(L, S, S, call={"attn_mask": WINDOW, "need_weights": False}),
    multi(L, S, S, call={"attn_mask": Normal(4, 6)}, id="float"),
    multi(L, S, S, call={"attn_mask": PER_HEAD}, id="3D"),
    multi(L, S, S, call={"attn_mask": Normal(4, 4, 6), "need_weights": False}, id="3D-float"),
    multi(L, S, S, call={"attn_mask": WINDOW, "key_padding_mask": FIRST_OPEN}),
    multi(
        *(L, S, S),
        add_bias_kv=True,
        add_zero_attn=True,
        call={"attn_mask": WINDOW, "key_padding_mask": FIRST_OPEN, "need_weights": False},
    ),
    multi(L, L, L, call={"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}),
    multi(L, L, L, call={"attn_mask": BARRED, "is_causal": True}),
]
