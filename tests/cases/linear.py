"""Linear, Bilinear, Identity, Flatten, Unflatten and their functions."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal, Uniform

CASES = [
    Case("Identity", (54,), {"unused": 0.1}, (Normal(2, 3),)),
    Case("Linear", (3, 4), inputs=(Normal(2, 3),), second=True),
    Case("Linear", (3, 4), inputs=(Normal(3),), id="unbatched"),
    Case("Linear", (3, 4), inputs=(Normal(2, 1, 5, 3),), id="4d"),
    Case("Linear", (3, 4), {"bias": False}, (Normal(2, 3),)),
    Case("Linear", (3, 4, False), inputs=(Normal(0, 3),), id="empty"),
    Case("Linear", (0, 4), inputs=(Normal(2, 0),), vmap=False),
    Case("Linear", (3, 0), inputs=(Normal(2, 3),)),
    Case("Bilinear", (2, 3, 4), inputs=(Normal(5, 2), Normal(5, 3)), second=True),
    Case("Bilinear", (2, 3, 4, False), inputs=(Normal(2), Normal(3)), id="unbatched"),
    Case("Bilinear", (2, 3, 4), inputs=(Normal(5, 2, 2), Normal(5, 2, 3)), id="3d"),
    Case("Bilinear", (1, 1, 1), inputs=(Normal(2, 1), Normal(2, 1))),
    Case("Flatten", inputs=(Normal(2, 3, 4),)),
    Case("Flatten", (0, -2), inputs=(Normal(2, 3, 4),)),
    Case("Flatten", (1, 1), inputs=(Normal(2, 3, 4),)),
    Case("Flatten", (0,), inputs=(np.array(0.5, np.float32),), id="0d"),
    Case("Flatten", (-2,), inputs=(Normal(2, 0, 4),), id="empty"),
    Case("Unflatten", (1, (2, 3)), inputs=(Normal(2, 6, 4),)),
    Case("Unflatten", (-1, [2, -1]), inputs=(Normal(2, 6),)),
    Case("Unflatten", (0, (1, 2)), inputs=(Normal(2),)),
    Case("Unflatten", (1, (2, -1)), inputs=(Normal(2, 0),), id="empty"),
    Case("linear", fn=True, inputs=(Normal(2, 3), Normal(4, 3), Normal(4))),
    Case("linear", fn=True, inputs=(Normal(2, 3), Normal(3)), id="vector"),
    Case("linear", fn=True, inputs=(Normal(3), Normal(3)), id="dot"),
    Case("linear", fn=True, inputs=(Normal(2, 3), Normal(4, 3), Normal(1)), id="one_bias"),
    Case("linear", fn=True, inputs=(Normal(2, 3), Normal(4, 3), Normal(2, 4)), id="matrix_bias"),
    Case(
        "bilinear",
        fn=True,
        inputs=(Uniform(5, 2), Uniform(5, 3), Normal(4, 2, 3), Normal(4)),
    ),
]
