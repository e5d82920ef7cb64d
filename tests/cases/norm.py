"""LayerNorm, RMSNorm, GroupNorm, LocalResponseNorm, CrossMapLRN2d."""

from __future__ import annotations

from tests.cases.case import Case, Normal

CASES = [
    Case("LayerNorm", (5,), inputs=(Normal(2, 3, 5),), second=True),
    Case("LayerNorm", (5,), inputs=(Normal(5),), id="unbatched"),
    Case("LayerNorm", ([3, 5],), {"eps": 0.1}, (Normal(2, 3, 5),)),
    Case("LayerNorm", ((3, 5),), {"bias": False}, (Normal(3, 5),)),
    Case("LayerNorm", (5,), {"elementwise_affine": False}, (Normal(2, 5),)),
    Case("LayerNorm", (1,), inputs=(Normal(2, 1),)),
    Case("LayerNorm", (5,), inputs=(Normal(0, 5),), id="empty"),
    Case("RMSNorm", (5,), inputs=(Normal(2, 3, 5),), second=True),
    Case("RMSNorm", ((3, 5), 0.1), inputs=(Normal(2, 3, 5),)),
    Case("RMSNorm", (5,), {"elementwise_affine": False}, (Normal(5),)),
    Case("GroupNorm", (2, 4), inputs=(Normal(2, 4, 3),), second=True),
    Case("GroupNorm", (1, 4), inputs=(Normal(2, 4),)),
    Case("GroupNorm", (4, 4), {"eps": 0.1}, (Normal(2, 4, 3, 2),)),
    Case("GroupNorm", (2, 4), {"affine": False}, (Normal(1, 4),)),
    Case("GroupNorm", (2, 4), {"bias": False}, (Normal(2, 4, 2),)),
    Case("GroupNorm", (2, 4), inputs=(Normal(0, 4, 3),), id="empty"),
    Case("LocalResponseNorm", (2,), inputs=(Normal(2, 5, 3),), second=True),
    Case("LocalResponseNorm", (3, 0.5, 1.5, 2.0), inputs=(Normal(2, 5, 3, 2),)),
    Case("LocalResponseNorm", (1,), inputs=(Normal(2, 3, 2, 2, 2),)),
    Case("LocalResponseNorm", (9, 1.0), inputs=(Normal(1, 3, 2),)),
    # The gradient that PyTorch gives is not that of its values: see functional/norm.py.
    *(
        Case("CrossMapLRN2d", (size, 0.5, 0.75, 1.5), inputs=(Normal(2, 7, 2, 2),), grad=False)
        for size in (1, 2, 3, 4, 5)
    ),
    Case("CrossMapLRN2d", (3,), inputs=(Normal(2, 2, 2, 2),), grad=False, id="few_channels"),
    Case("layer_norm", ((5,),), fn=True, inputs=(Normal(2, 5),)),
    Case("rms_norm", ((5,),), fn=True, inputs=(Normal(2, 5),)),
    Case("group_norm", (2,), fn=True, inputs=(Normal(2, 4, 3),)),
    Case("local_response_norm", (2,), fn=True, inputs=(Normal(2, 4, 3),)),
]
