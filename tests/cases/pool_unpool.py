"""The way back from max pooling."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal

SPREAD = np.array([[[1, 2, 4, 7], [0, 3, 5, 6]]], np.int32)  # (1, 2, 4): one of each pair
PLANE = np.array([[[[0, 3], [13, 11]], [[5, 2], [8, 15]]]], np.int32)  # (1, 2, 2, 2) in 4 x 4
VOLUME = np.array([5, 60], np.int32).reshape(1, 2, 1, 1, 1)

# Where windows share a maximum the values are equal, as pooling makes them.
SHARED = (np.full((1, 2, 2, 2), 0.7, np.float32), np.full((1, 2, 2, 2), 4, np.int32))


def layer(name, *args, inputs, id="", call=None, **options) -> Case:
    return Case(name, args, options, inputs, call or {}, id=id)


def fn(name, *args, inputs, id="", **options) -> Case:
    return Case(name, args, options, inputs, fn=True, id=id)


CASES = [
    layer("MaxUnpool1d", 2, inputs=(Normal(1, 2, 4), SPREAD)),
    layer("MaxUnpool1d", (2,), inputs=(Normal(2, 4), SPREAD[0]), call={"output_size": (9,)}),
    layer("MaxUnpool1d", 4, 2, 1, inputs=(Normal(1, 2, 4), SPREAD)),
    layer("MaxUnpool2d", 2, inputs=(Normal(1, 2, 2, 2), PLANE)),
    layer("MaxUnpool2d", (2, 3), stride=2, padding=(0, 1), inputs=(Normal(1, 2, 2, 2), PLANE % 12)),
    layer(
        "MaxUnpool2d",
        2,
        inputs=(Normal(2, 2, 2), PLANE[0]),
        call={"output_size": [5, 4]},
        id="unbatched",
    ),
    layer("MaxUnpool2d", 2, inputs=(Normal(1, 2, 2, 2), PLANE), call={"output_size": (1, 2, 5, 5)}),
    layer("MaxUnpool3d", 4, inputs=(Normal(1, 2, 1, 1, 1), VOLUME)),
    layer("MaxUnpool3d", 4, 2, inputs=(Normal(2, 1, 1, 1), VOLUME[0]), id="unbatched"),
    fn("max_unpool1d", 2, inputs=(Normal(1, 2, 4), SPREAD)),
    fn("max_unpool2d", 3, 1, inputs=SHARED, id="shared-maximum"),
    fn("max_unpool3d", 4, inputs=(Normal(1, 2, 1, 1, 1), VOLUME), output_size=(5, 6, 4)),
]
