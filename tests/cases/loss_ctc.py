"""CTC, as a layer. PyTorch's gradient is another unless a log softmax precedes: see test_loss_ctc."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal

LABELS = np.array([[1, 2, 2], [3, 1, 0], [1, 1, 1]])
X, STEPS, COUNTS = Normal(7, 3, 4), np.array([7, 5, 6]), np.array([3, 2, 3])


def ctc(*inputs, id="", **options) -> Case:
    return Case("CTCLoss", kwargs=options, inputs=inputs, id=id, grad=False)


CASES = [
    *[ctc(X, LABELS, STEPS, COUNTS, reduction=r) for r in ("none", "mean", "sum")],
    ctc(X, LABELS % 3, STEPS, COUNTS, blank=3),
    ctc(X, np.array([1, 2, 2, 3, 1, 1]), STEPS, np.array([3, 2, 1]), id="one-row"),
    ctc(X, LABELS, np.array([2, 0, 0]), np.array([3, 2, 0]), reduction="none", id="impossible"),
    ctc(X, LABELS, np.array([2, 5, 0]), np.array([3, 2, 0]), zero_infinity=True),
    ctc(X, LABELS, STEPS, np.array([0, 1, 0]), reduction="none", id="empty"),
    ctc(X, LABELS[:, :0], STEPS, 0 * COUNTS, id="no-labels"),
    ctc(Normal(6, 4), LABELS[0], np.array(6), np.array(3), id="one"),
    ctc(Normal(6, 4), LABELS[0], (6,), (3,), reduction="none", id="one-tuples"),
    ctc(Normal(1, 3, 4), LABELS, (1, 1, 1), (1, 0, 1), id="one-step"),
]
