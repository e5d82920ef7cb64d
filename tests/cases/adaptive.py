"""Losses that hold layers: adaptive softmax, linear cross entropy."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Ints, Normal, Uniform

X, Y = Normal(5, 6), Ints(5, high=4)
WEIGHT = np.array([0.5, 1, 2, 0], np.float32)
#: One of each cluster, and its ends.
LABELS = np.array([0, 2, 3, 5, 6, 11])


def linear(*inputs, args=(6, 4), id="", **options) -> Case:
    return Case("LinearCrossEntropyLoss", args, options, inputs, id=id)


CASES = [
    Case("AdaptiveLogSoftmaxWithLoss", (8, 12, [3, 6]), {}, (Normal(6, 8), LABELS)),
    Case("AdaptiveLogSoftmaxWithLoss", (8, 12, (3, 6), 2.0, True), {}, (Normal(6, 8), LABELS)),
    Case("AdaptiveLogSoftmaxWithLoss", (8, 12, [11]), {}, (Normal(6, 8), LABELS)),
    Case("AdaptiveLogSoftmaxWithLoss", (8, 12, [3, 6]), {}, (Normal(8), np.array(7)), id="one"),
    *[linear(X, Y, reduction=r) for r in ("mean", "sum", "none")],
    linear(X, Y, bias=True, weight=WEIGHT, ignore_index=1, label_smoothing=0.1),
    linear(Normal(6), np.array(2), id="one"),
    linear(X, Uniform(5, 4), label_smoothing=0.1, id="probabilities"),
    linear(X, Ints(5, 2, 3, high=4), out_features=(2, 3), bias=True),
    linear(X, Uniform(5, 4, 2), out_features=(2,), id="probabilities"),
]
