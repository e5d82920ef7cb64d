"""Pooling: maximum, average, power mean, adaptive."""

from __future__ import annotations

import math

import numpy as np

from tests.cases.case import Case, Ints, Normal, Uniform

SEQUENCE = (Normal(2, 3, 9),)
IMAGE = (Normal(2, 3, 6, 7),)
VOLUME = (Normal(1, 2, 4, 5, 4),)
TIES = np.round(np.random.default_rng(0).standard_normal((2, 2, 6, 6))).astype(np.float32)
HOLES = np.where(
    np.random.default_rng(1).uniform(size=(1, 2, 5, 5)) < 0.4, -np.inf, TIES[:1, :, :5, :5]
)
NAN = np.where(
    np.random.default_rng(2).uniform(size=(1, 2, 5, 5)) < 0.2, np.nan, TIES[:1, :, :5, :5]
)


def layer(name, *args, inputs, id="", half=True, second=False, **options) -> Case:
    return Case(name, args, options, inputs, id=id, half=half, second=second)


def fn(name, *args, inputs, id="", half=True, grad=True, **options) -> Case:
    return Case(name, args, options, inputs, fn=True, id=id, half=half, grad=grad)


CASES = [
    layer("MaxPool1d", 3, inputs=SEQUENCE),
    layer("MaxPool1d", (2,), inputs=(Normal(3, 9),), stride=(3,), padding=1, id="unbatched"),
    layer("MaxPool1d", 3, inputs=SEQUENCE, stride=2, padding=1, dilation=2, return_indices=True),
    layer("MaxPool1d", 9, inputs=SEQUENCE, return_indices=True, id="all"),
    layer("MaxPool2d", 2, inputs=IMAGE, second=True),
    layer("MaxPool2d", (3, 2), inputs=IMAGE, stride=[2, 1], padding=(1, 0), dilation=(1, 2)),
    layer("MaxPool2d", 3, inputs=IMAGE, stride=2, padding=1, ceil_mode=True, return_indices=True),
    layer("MaxPool2d", 3, inputs=(TIES,), stride=1, return_indices=True, id="ties"),
    layer("MaxPool2d", 3, inputs=(Normal(3, 6, 7),), stride=2, id="unbatched"),
    Case("MaxPool2d", (2,), {}, (Ints(2, 3, 4, 4),), grad=False, id="integers"),
    layer("MaxPool3d", 2, inputs=VOLUME),
    layer("MaxPool3d", (2, 3, 2), inputs=(Normal(2, 4, 5, 4),), stride=1, return_indices=True),
    layer("AvgPool1d", 3, inputs=SEQUENCE),
    layer("AvgPool1d", 4, 3, inputs=(Normal(3, 9),), padding=2, ceil_mode=True, id="unbatched"),
    layer("AvgPool1d", (3,), (2,), (1,), inputs=SEQUENCE, count_include_pad=False),
    layer("AvgPool2d", 2, inputs=IMAGE, second=True),
    layer("AvgPool2d", (3, 2), inputs=IMAGE, stride=(2, 3), padding=(1, 0), ceil_mode=True),
    layer("AvgPool2d", 3, inputs=IMAGE, padding=1, stride=2, count_include_pad=False),
    layer("AvgPool2d", 3, 2, 1, True, False, inputs=(Normal(3, 6, 7),), id="unbatched"),
    layer("AvgPool2d", 2, inputs=IMAGE, divisor_override=3),
    layer("AvgPool3d", 2, inputs=VOLUME),
    layer("AvgPool3d", (2, 3, 2), (1, 2, 1), (1, 1, 0), inputs=VOLUME, count_include_pad=False),
    layer("AvgPool3d", 2, inputs=(Normal(2, 4, 5, 4),), ceil_mode=True, divisor_override=-2),
    layer("AdaptiveAvgPool1d", 4, inputs=SEQUENCE),
    layer("AdaptiveAvgPool1d", (3,), inputs=(Normal(3, 9),), id="unbatched"),
    layer("AdaptiveAvgPool1d", 12, inputs=SEQUENCE, id="longer-than-input"),
    layer("AdaptiveAvgPool2d", 1, inputs=IMAGE),
    layer("AdaptiveAvgPool2d", (4, None), inputs=IMAGE),
    layer("AdaptiveAvgPool2d", (3, 5), inputs=(Normal(3, 6, 7),), id="unbatched"),
    Case("AdaptiveAvgPool2d", (0,), {}, IMAGE, grad=False, half=False),
    layer("AdaptiveAvgPool3d", (2, 3, None), inputs=VOLUME),
    layer("AdaptiveAvgPool3d", 3, inputs=(Normal(2, 4, 5, 4),), id="unbatched"),
    layer("AdaptiveMaxPool1d", 4, inputs=SEQUENCE, return_indices=True),
    layer("AdaptiveMaxPool1d", 12, inputs=(Normal(3, 9),), id="longer-than-input"),
    layer("AdaptiveMaxPool2d", (None, 3), inputs=IMAGE),
    layer("AdaptiveMaxPool2d", 4, inputs=(TIES,), return_indices=True, id="ties"),
    Case("AdaptiveMaxPool2d", ((3, 0),), {}, IMAGE, grad=False, half=False),
    layer("AdaptiveMaxPool3d", 2, inputs=VOLUME, return_indices=True),
    layer("AdaptiveMaxPool3d", (None, 4, 3), inputs=(Normal(2, 4, 5, 4),), id="unbatched"),
    layer("LPPool1d", 2, 3, inputs=SEQUENCE, stride=2),
    layer("LPPool1d", 1.5, 4, inputs=(Uniform(3, 9, low=0.1),), ceil_mode=True, id="unbatched"),
    layer("LPPool2d", 2, (3, 2), inputs=IMAGE, stride=(2, 1), second=True),
    layer("LPPool2d", 2, 2, inputs=(TIES,), id="zeros"),
    layer("LPPool2d", math.inf, 2, inputs=IMAGE),
    layer("LPPool2d", -math.inf, 2, inputs=IMAGE),
    layer("LPPool3d", 4.0, 2, inputs=VOLUME),
    fn("max_pool1d", 20, inputs=(Normal(2, 2, 37),), stride=4, padding=9, id="long-kernel"),
    fn("max_pool2d", 5, inputs=(TIES,), stride=1, padding=2, return_indices=True, id="ties"),
    fn(
        "max_pool2d",
        3,
        inputs=(HOLES.astype(np.float32),),
        padding=1,
        return_indices=True,
        id="inf",
    ),
    fn("max_pool2d", 2, inputs=(NAN.astype(np.float32),), stride=1, return_indices=True, id="nan"),
    fn("max_pool3d", 2, inputs=VOLUME, ceil_mode=True),
    fn("max_pool1d_with_indices", 3, 1, inputs=SEQUENCE),
    fn("max_pool2d_with_indices", 3, inputs=IMAGE, padding=1),
    fn("max_pool3d_with_indices", 2, inputs=VOLUME),
    fn("avg_pool1d", 3, inputs=SEQUENCE, ceil_mode=True, count_include_pad=False),
    fn("avg_pool2d", 3, 1, 1, inputs=(Normal(0, 3, 4, 4),), id="empty-batch", half=False),
    fn("avg_pool3d", 2, inputs=VOLUME, padding=1),
    fn("adaptive_avg_pool1d", 5, inputs=SEQUENCE),
    fn("adaptive_avg_pool2d", (None, 2), inputs=IMAGE),
    fn("adaptive_avg_pool3d", 2, inputs=VOLUME),
    fn("adaptive_max_pool1d", 5, True, inputs=SEQUENCE),
    fn("adaptive_max_pool2d", 3, inputs=(NAN.astype(np.float32),), return_indices=True, id="nan"),
    fn("adaptive_max_pool3d", 3, inputs=VOLUME),
    fn("adaptive_max_pool1d_with_indices", 5, inputs=SEQUENCE),
    fn("adaptive_max_pool2d_with_indices", (5, 3), inputs=IMAGE),
    fn("adaptive_max_pool3d_with_indices", 3, inputs=VOLUME),
    fn("lp_pool1d", 2.0, 3, 1, inputs=SEQUENCE),
    fn("lp_pool2d", 3, 2, inputs=(Uniform(2, 3, 5, 5, low=0.1),), ceil_mode=True),
    fn("lp_pool3d", 2, 2, inputs=VOLUME),
]
