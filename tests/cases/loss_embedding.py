"""Losses between embeddings, as layers and as functions."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal

REDUCTIONS = ("mean", "sum", "none")
X = Normal(3, 4)
SIGNS = np.array([1, -1, 1])
SAME = np.arange(12, dtype=np.float32).reshape(3, 4)
INFINITY = float("inf")


def loss(name, *inputs, id="", **options) -> Case:
    return Case(name, kwargs=options, inputs=inputs, id=id)


CASES = [
    *[loss("CosineEmbeddingLoss", X, X, SIGNS, reduction=r) for r in REDUCTIONS],
    loss("CosineEmbeddingLoss", X, X, -np.ones(3, np.float32), margin=-0.5),
    loss("CosineEmbeddingLoss", X, Normal(1, 4), SIGNS, margin=0.3, id="broadcast"),
    loss("CosineEmbeddingLoss", Normal(4), Normal(4), np.array(1), reduction="none", id="one"),
    loss("CosineEmbeddingLoss", 0 * SAME, SAME, SIGNS, id="zeros"),
    loss("CosineEmbeddingLoss", X, X, 0 * SIGNS, id="neither"),
    *[loss("TripletMarginLoss", X, X, X, reduction=r) for r in REDUCTIONS],
    *[loss("TripletMarginLoss", X, X, X, p=p, eps=0.01, margin=0.5) for p in (1, 3.0, INFINITY)],
    loss("TripletMarginLoss", X, X, X, swap=True, reduction="none"),
    loss("TripletMarginLoss", SAME, SAME, SAME, swap=True, id="same"),
    loss("TripletMarginLoss", Normal(4), Normal(4), Normal(4), id="one"),
    loss("TripletMarginLoss", Normal(2, 3, 4), Normal(2, 1, 4), Normal(1, 3, 4), id="broadcast"),
    *[loss("TripletMarginWithDistanceLoss", X, X, X, reduction=r) for r in REDUCTIONS],
    loss("TripletMarginWithDistanceLoss", X, X, X, swap=True, margin=0.5),
    Case("triplet_margin_with_distance_loss", inputs=(X, X, X), fn=True),
]
