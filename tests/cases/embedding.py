"""Embedding, EmbeddingBag, one_hot.

On CPU, PyTorch 2.13 scales the gradients of bags by the frequency of another index, and divides the
mean of a last bag that ends before the input does by a wrong count. The cases here keep clear of
both; ``tests/nn/test_embedding.py`` has them.
"""

from __future__ import annotations

import math

import numpy as np

from tests.cases.case import Case, Ints, Normal

INDICES = np.array([[1, 2, 0], [5, 1, 1]], np.int32)
FLAT = np.array([1, 2, 0, 5, 1, 1, 3], np.int32)
OFFSETS = np.array([0, 3, 3, 5], np.int32)  # the second bag is empty
ENDS = np.array([0, 3, 3, 7], np.int32)
TWICE = np.array([[1, 2, 1], [2, 3, 3]], np.int32)


def bag(*, id: str, call: dict | None = None, inputs: tuple = (FLAT, OFFSETS), **kwargs) -> Case:
    return Case("EmbeddingBag", (6, 3), kwargs, inputs, call or {}, id=id)


CASES = [
    Case("Embedding", (10, 3), inputs=(Ints(2, 3),)),
    Case("Embedding", (10, 3), inputs=(np.array(4, np.int32),), id="0d"),
    Case("Embedding", (10, 3), inputs=(Ints(0, 3),), id="empty"),
    Case("Embedding", (6, 3), {"padding_idx": 1}, (INDICES,)),
    Case("Embedding", (6, 3, -5), inputs=(INDICES,)),
    Case("Embedding", (6, 3), {"padding_idx": 0}, (INDICES,)),
    Case("Embedding", (6, 3), {"max_norm": 1.0}, (INDICES,)),
    Case("Embedding", (6, 3), {"max_norm": 1.5, "norm_type": 1.0}, (INDICES,)),
    Case("Embedding", (6, 3), {"max_norm": 0.5, "norm_type": math.inf}, (INDICES,)),
    Case("Embedding", (6, 3), {"scale_grad_by_freq": True}, (INDICES,)),
    Case(
        "Embedding",
        (6, 3),
        {"padding_idx": 2, "max_norm": 1.0, "scale_grad_by_freq": True},
        (INDICES,),
    ),
    *(
        case
        for mode in ("sum", "mean", "max")
        for case in (
            bag(mode=mode, id="offsets"),
            bag(mode=mode, inputs=(INDICES,), id="2d"),
            bag(mode=mode, padding_idx=1, id="padding"),
            bag(mode=mode, padding_idx=1, inputs=(INDICES,), id="padding_2d"),
            bag(mode=mode, include_last_offset=True, inputs=(FLAT, ENDS), id="ends"),
        )
    ),
    bag(inputs=(INDICES,), id="default"),
    bag(mode="sum", call={"per_sample_weights": Normal(7)}, id="weights"),
    bag(
        mode="sum",
        padding_idx=-5,
        inputs=(INDICES,),
        call={"per_sample_weights": Normal(2, 3)},
        id="weights_2d",
    ),
    bag(max_norm=1.0, norm_type=1.0, id="renorm"),
    bag(mode="sum", scale_grad_by_freq=True, inputs=(TWICE,), id="frequency"),
    Case("EmbeddingBag", (6, 3), inputs=(FLAT[:0], OFFSETS[:1]), id="empty"),
    Case("embedding", fn=True, inputs=(INDICES, Normal(6, 3)), kwargs={"padding_idx": -1}),
    Case("embedding", fn=True, inputs=(INDICES, Normal(6, 3)), id="plain"),
    Case("embedding_bag", fn=True, inputs=(INDICES, Normal(6, 3)), kwargs={"mode": "max"}),
    Case("one_hot", fn=True, inputs=(Ints(2, 3),), kwargs={"num_classes": 10}, grad=False),
    Case("one_hot", fn=True, inputs=(np.array(3, np.int32), 5), grad=False, id="0d"),
]
