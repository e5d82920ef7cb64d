"""Norms, distances and similarities."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal

X, Y = Normal(3, 4), Normal(3, 4)
#: A row of zeros and a zero in a row, where roots have no derivative.
ZEROS = np.array([[1, 2, -3], [0, 0, 0], [4, 0, -1]], np.float32)
POWERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf"), float("-inf"), -1.0)

CASES = [
    Case("PairwiseDistance", inputs=(X, Y), second=True),
    Case("PairwiseDistance", inputs=(X, Normal(4)), kwargs={"keepdim": True}),
    Case("PairwiseDistance", inputs=(Normal(4), Normal(4)), id="one"),
    Case("PairwiseDistance", inputs=(Normal(2, 3, 4), Normal(3, 4)), id="more-axes"),
    *[Case("PairwiseDistance", (p, 0.1), inputs=(X, Y), half=False) for p in POWERS],
    *[
        Case("pairwise_distance", fn=True, args=(p, 0.0), inputs=(ZEROS, 0 * ZEROS), half=False)
        for p in POWERS
        if p >= 0
    ],
    Case("CosineSimilarity", inputs=(X, Y), second=True),
    Case("CosineSimilarity", (0,), inputs=(X, Y)),
    Case("CosineSimilarity", (-1, 0.1), inputs=(Normal(2, 3, 4), Normal(4))),
    Case("CosineSimilarity", inputs=(ZEROS, Normal(3, 3)), id="zeros"),
    Case("normalize", fn=True, inputs=(X,), second=True),
    Case("normalize", fn=True, inputs=(X,), kwargs={"dim": (0, 1)}),
    Case("normalize", fn=True, inputs=(X,), kwargs={"dim": None}),
    Case("normalize", fn=True, inputs=(X,), kwargs={"eps": 2.0}),
    Case("normalize", fn=True, inputs=(Normal(4),), kwargs={"dim": 0}),
    Case("normalize", fn=True, inputs=(ZEROS,), id="zeros"),
    *[Case("normalize", (p,), fn=True, inputs=(X,), half=False) for p in POWERS],
    *[Case("pdist", (p,), fn=True, inputs=(X,), half=False) for p in POWERS if p >= 0],
    Case("pdist", fn=True, inputs=(Normal(1, 3),), id="one", grad=False),
]
