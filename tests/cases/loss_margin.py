"""Losses with a margin, as layers."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Ints, Normal, Uniform

REDUCTIONS = ("mean", "sum", "none")
X = Normal(3, 4)
SIGNS = np.array([[1, -1, 1, 1], [-1, -1, 1, -1], [1, 1, -1, -1]])
#: Scores whose differences are exactly the margin, for the derivative at the corner.
TIES = np.array([[1, 0, -1, 2], [0, 1, 2, 3], [0.5, 0.5, 0.5, 0]], np.float32)
LABELS = np.array([[0, 2, -1, 1], [-1, 1, 1, 1], [3, 3, 1, 0]])
WEIGHT = np.array([0.5, 1, 2, 0], np.float32)


def loss(name, *inputs, id="", **options) -> Case:
    return Case(name, kwargs=options, inputs=inputs, id=id)


CASES = [
    *[loss("HingeEmbeddingLoss", X, SIGNS, reduction=r) for r in REDUCTIONS],
    loss("HingeEmbeddingLoss", TIES, SIGNS, margin=2, id="ties"),
    loss("HingeEmbeddingLoss", X, np.zeros((3, 4), np.float32), id="neither"),
    *[loss("MarginRankingLoss", X, X, SIGNS, reduction=r, margin=0.5) for r in REDUCTIONS],
    loss("MarginRankingLoss", TIES, 0 * TIES, SIGNS, margin=1.0, id="ties"),
    loss("MarginRankingLoss", X, Normal(1, 4), SIGNS.astype(np.float32), id="broadcast"),
    loss("MarginRankingLoss", Normal(3), Normal(3), SIGNS[0, :3], reduce=False),
    *[loss("MultiMarginLoss", X, Ints(3, high=4), reduction=r) for r in REDUCTIONS],
    loss("MultiMarginLoss", TIES, np.array([0, 1, 2]), id="ties"),
    loss("MultiMarginLoss", TIES, np.array([0, 1, 2]), p=2, margin=0.5, weight=WEIGHT),
    loss("MultiMarginLoss", Normal(4), np.array(2), id="one"),
    loss("MultiMarginLoss", Normal(4), np.array([2]), weight=WEIGHT, reduction="none", id="one"),
    *[loss("MultiLabelMarginLoss", X, LABELS, reduction=r) for r in REDUCTIONS],
    loss("MultiLabelMarginLoss", TIES, LABELS, id="ties"),
    loss("MultiLabelMarginLoss", Normal(4), LABELS[0], reduction="none", id="one"),
    *[loss("SoftMarginLoss", X, SIGNS, reduction=r) for r in REDUCTIONS],
    Case("SoftMarginLoss", inputs=(X, SIGNS[0]), second=True, id="broadcast"),
    *[loss("MultiLabelSoftMarginLoss", X, Uniform(3, 4), reduction=r) for r in REDUCTIONS],
    loss("MultiLabelSoftMarginLoss", X, Ints(3, 4, high=2), weight=WEIGHT),
    loss("MultiLabelSoftMarginLoss", Normal(4), Uniform(4), reduction="none", id="one"),
    loss("MultiLabelSoftMarginLoss", Normal(2, 3, 4), Uniform(4), reduction="none", id="3d"),
]
