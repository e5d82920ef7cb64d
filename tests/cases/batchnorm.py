"""BatchNorm, SyncBatchNorm and InstanceNorm: modes, running statistics, ranks."""

from __future__ import annotations

from tests.cases.case import Case, Normal, Uniform

X = (Normal(4, 3, 2),)
# Statistics of what is nearly constant amplify rounding, and vmap halves the inputs.
CASES = [
    Case("BatchNorm1d", (3,), inputs=(Normal(4, 3),), second=True),
    Case("BatchNorm1d", (3,), inputs=X, steps=3, id="three_steps"),
    Case("BatchNorm1d", (3,), inputs=X, train=False, id="eval"),
    Case("BatchNorm1d", (3,), {"momentum": None}, X, steps=3),
    Case("BatchNorm1d", (3, 0.1, 0.5), inputs=X, steps=2),
    Case("BatchNorm1d", (3,), {"affine": False}, X),
    Case("BatchNorm1d", (3,), {"bias": False}, X),
    Case("BatchNorm1d", (3,), {"track_running_stats": False}, X),
    Case("BatchNorm1d", (3,), {"track_running_stats": False}, X, train=False, id="eval"),
    Case("BatchNorm1d", (3,), {"affine": False, "track_running_stats": False}, (Normal(4, 2),)),
    Case("BatchNorm1d", (3,), inputs=(Normal(0, 3),), id="empty"),
    Case("BatchNorm1d", (3,), inputs=(Normal(1, 3, 2),), id="one_sample"),
    Case("BatchNorm2d", (3,), inputs=(Normal(2, 3, 2, 3),), steps=2),
    Case("BatchNorm2d", (3,), inputs=(Normal(2, 3, 2, 3),), train=False, id="eval"),
    Case("BatchNorm3d", (3,), inputs=(Normal(2, 3, 2, 1, 2),)),
    Case("SyncBatchNorm", (3,), inputs=(Normal(4, 3),), steps=2),
    Case("SyncBatchNorm", (3,), {"bias": False}, (Normal(2, 3, 2, 2),), train=False),
    Case("InstanceNorm1d", (3,), inputs=(Normal(2, 3, 4),), second=True),
    Case("InstanceNorm1d", (3,), inputs=(Normal(3, 4),), id="unbatched"),
    Case("InstanceNorm1d", (3,), {"affine": True}, (Normal(2, 3, 4),)),
    Case("InstanceNorm1d", (3,), {"affine": True, "bias": False}, (Normal(3, 4),)),
    Case("InstanceNorm1d", (3,), {"track_running_stats": True}, (Normal(2, 3, 4),), steps=2),
    Case(
        "InstanceNorm1d",
        (3,),
        {"track_running_stats": True},
        (Normal(2, 3, 4),),
        train=False,
        id="eval",
    ),
    Case(
        "InstanceNorm1d",
        (3, 0.1, 0.5),
        {"track_running_stats": True},
        (Normal(3, 4),),
        steps=2,
        id="unbatched",
    ),
    Case(
        "InstanceNorm1d", (3,), {"track_running_stats": True, "momentum": None}, (Normal(2, 3, 4),)
    ),
    Case("InstanceNorm1d", (3,), inputs=(Normal(2, 4, 4),), id="other_channels"),
    Case("InstanceNorm2d", (3,), inputs=(Normal(2, 3, 2, 3),)),
    Case("InstanceNorm2d", (3,), inputs=(Normal(3, 2, 3),), id="unbatched"),
    Case("InstanceNorm3d", (3,), {"affine": True}, (Normal(2, 3, 2, 1, 2),)),
    Case("InstanceNorm3d", (3,), inputs=(Normal(3, 2, 1, 2),), id="unbatched"),
    Case("batch_norm", (None, None), {"training": True}, X, fn=True),
    Case(
        "batch_norm",
        fn=True,
        inputs=(Normal(4, 3), Normal(3), Uniform(3, low=0.5), Normal(3), Normal(3)),
        grad=False,
        id="given",
    ),
    Case("instance_norm", fn=True, inputs=(Normal(2, 3, 4),)),
    Case(
        "instance_norm",
        fn=True,
        inputs=(Normal(2, 3, 4), Normal(3), Uniform(3, low=0.5)),
        call={"use_input_stats": False},
        grad=False,
        id="given",
    ),
]
