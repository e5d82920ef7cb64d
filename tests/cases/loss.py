"""Classification losses, as layers and as functions."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Ints, Normal, Uniform

CLASSES = 5
WEIGHT = np.array([0.5, 1, 2, 0, 0.25], np.float32)
REDUCTIONS = ("mean", "sum", "none")


def loss(name, input, target, id="", **options) -> Case:
    return Case(name, kwargs=options, inputs=(input, target), id=id)


def classes(name, **options) -> list[Case]:
    """Every rank, with class indices."""
    shapes = [(5,), (3, 5), (3, 5, 2), (2, 5, 2, 3), (2, 5, 1, 2, 2), (0, 5), (3, 5, 0)]
    return [
        loss(
            name,
            Normal(*shape),
            np.array(2) if len(shape) == 1 else Ints(shape[0], *shape[2:], high=CLASSES),
            id="x".join(map(str, shape)),
            **options,
        )
        for shape in shapes
    ]


X, Y = Normal(4, CLASSES), Ints(4, high=CLASSES)
IMAGES, LABELS = Normal(2, CLASSES, 2, 2), Ints(2, 2, 2, high=CLASSES)
#: A gradient to logits of +-1e4 is exactly 0 or 1, and must not be NaN.
FAR = np.array([[1e4, 0, -1e4], [0, 0, 0], [-1e4, -1e4, 1e4]], np.float32)
EDGES, OUTCOMES = (np.array(v, np.float32) for v in ([0, 1, 0.5, 1e-20], [0, 1, 1, 0]))

CASES = [
    *classes("CrossEntropyLoss"),
    *classes("NLLLoss"),
    *[
        loss(name, X, Y, reduction=reduction, **options)
        for name in ("CrossEntropyLoss", "NLLLoss")
        for reduction in REDUCTIONS
        for options in (
            {"weight": WEIGHT},
            {"ignore_index": 1},
            {"weight": WEIGHT, "ignore_index": 1},
        )
    ],
    *[
        loss("CrossEntropyLoss", IMAGES, LABELS, reduction=reduction, **options)
        for reduction in REDUCTIONS
        for options in (
            {"label_smoothing": 0.2},
            {"label_smoothing": 1, "weight": WEIGHT},
            {"label_smoothing": 0.2, "weight": WEIGHT, "ignore_index": 2},
        )
    ],
    *[
        loss("CrossEntropyLoss", Normal(*shape), Uniform(*shape), id="probabilities", **options)
        for shape, options in (
            ((5,), {}),
            ((3, 5), {"reduction": "none"}),
            ((3, 5), {"weight": WEIGHT}),
            ((3, 5), {"label_smoothing": 0.3, "reduction": "sum"}),
            ((2, 5, 2, 2), {"label_smoothing": 0.3, "weight": WEIGHT}),
            ((0, 5), {"reduction": "sum"}),
        )
    ],
    Case("CrossEntropyLoss", inputs=(X, Y), second=True, id="second"),
    loss("CrossEntropyLoss", FAR, np.array([1, 1, 1]), reduction="none", id="far"),
    loss("CrossEntropyLoss", X, np.array([1, 1, 1, 1]), ignore_index=1, id="all-ignored"),
    loss("CrossEntropyLoss", X, Y, size_average=False),
    loss("NLLLoss", X, Y, reduce=False),
    loss("NLLLoss", IMAGES, LABELS, weight=WEIGHT, reduction="none", id="images"),
    loss("NLLLoss2d", IMAGES, LABELS, weight=WEIGHT, ignore_index=2),
    *[
        Case("BCELoss", inputs=(Uniform(3, 4), Uniform(3, 4)), kwargs={"reduction": r}, second=True)
        for r in REDUCTIONS
    ],
    # PyTorch's gradient to the target is infinite here; that to the input is in test_loss.
    Case("BCELoss", (), {"reduction": "sum"}, (EDGES, OUTCOMES), grad=False, id="edges"),
    loss("BCELoss", Uniform(3, 4), Uniform(3, 4), weight=np.float32([1, 2, 3, 0])),
    loss("BCELoss", Uniform(3, 4), Uniform(3, 4), weight=np.float32([[1], [2], [3]])),
    *[
        Case(
            "BCEWithLogitsLoss",
            inputs=(Normal(3, 4), Uniform(3, 4)),
            kwargs={"reduction": r},
            second=True,
        )
        for r in REDUCTIONS
    ],
    loss("BCEWithLogitsLoss", FAR, Uniform(3, 3), id="far"),
    loss("BCEWithLogitsLoss", Normal(3, 4), Uniform(3, 4), weight=np.float32([[1], [2], [3]])),
    loss("BCEWithLogitsLoss", Normal(3, 4), Uniform(3, 4), pos_weight=np.float32([1, 2, 3, 0])),
    loss(
        "BCEWithLogitsLoss",
        Normal(2, 3),
        Uniform(2, 3),
        weight=np.float32([1, 2, 3]),
        pos_weight=np.full((2, 3), 3, np.float32),
        reduction="none",
    ),
]
