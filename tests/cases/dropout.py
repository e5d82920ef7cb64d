"""Dropout where nothing is random: evaluation, p=0 and p=1."""

from __future__ import annotations

from tests.cases.case import Case, Ints, Normal

SHAPES = {
    "Dropout": [(2, 3), (4,)],
    "Dropout1d": [(2, 3, 4), (3, 4)],
    "Dropout2d": [(2, 3, 4, 4), (3, 4, 4), (2, 3)],
    "Dropout3d": [(2, 3, 2, 2, 2), (3, 2, 2, 2), (2, 3)],
    "AlphaDropout": [(2, 3), (4,)],
    "FeatureAlphaDropout": [(2, 3, 4), (2, 3)],
}

CASES = [
    case
    for name, shapes in SHAPES.items()
    for shape in shapes
    for case in (
        Case(name, inputs=(Normal(*shape),), train=False, id=f"{len(shape)}d"),
        Case(name, (0.0,), inputs=(Normal(*shape),), id=f"{len(shape)}d"),
        Case(name, (1.0,), inputs=(Normal(*shape),), id=f"{len(shape)}d"),
    )
] + [
    Case("Dropout", (0.3, True), inputs=(Normal(2, 3),), train=False),
    Case("AlphaDropout", (0.3, True), inputs=(Normal(2, 3),), train=False),
    Case("Dropout", inputs=(Ints(2, 3),), train=False, grad=False, id="integers"),
    Case("Dropout", inputs=(Normal(0, 3),), id="empty"),
    Case("dropout", inputs=(Normal(2, 3),), kwargs={"training": False}, fn=True),
    Case("dropout1d", inputs=(Normal(2, 3),), kwargs={"training": False}, fn=True),
    Case("dropout2d", inputs=(Normal(2, 3, 2, 2),), kwargs={"training": False}, fn=True),
    Case("dropout3d", inputs=(Normal(2, 3, 2, 2),), kwargs={"training": False}, fn=True),
    Case("alpha_dropout", inputs=(Normal(2, 3),), fn=True),
    Case("feature_alpha_dropout", inputs=(Normal(3),), fn=True),
]
