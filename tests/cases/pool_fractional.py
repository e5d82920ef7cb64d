"""Fractional max pooling with the random numbers given."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal

FLAT = np.random.default_rng(0).uniform(size=(2, 3, 2)).astype(np.float32)
DEEP = np.random.default_rng(1).uniform(size=(1, 2, 3)).astype(np.float32)
IMAGE = (Normal(2, 3, 7, 8),)
VOLUME = (Normal(1, 2, 5, 6, 7),)


def layer(name, *args, inputs, id="", **options) -> Case:
    return Case(name, args, options, inputs, id=id)


CASES = [
    layer("FractionalMaxPool2d", 2, 3, inputs=IMAGE, _random_samples=FLAT),
    layer("FractionalMaxPool2d", (3, 2), (4, 3), None, True, FLAT, inputs=IMAGE),
    layer("FractionalMaxPool2d", 2, output_ratio=(0.5, 0.7), inputs=IMAGE, _random_samples=FLAT),
    layer(
        "FractionalMaxPool2d",
        2,
        4,
        inputs=(Normal(3, 6, 5),),
        _random_samples=FLAT[:1],
        id="unbatched",
    ),
    layer("FractionalMaxPool2d", 5, 1, inputs=IMAGE, _random_samples=FLAT, id="one-window"),
    layer("FractionalMaxPool3d", 2, 3, inputs=VOLUME, _random_samples=DEEP),
    layer(
        "FractionalMaxPool3d",
        (1, 2, 3),
        output_ratio=0.5,
        return_indices=True,
        inputs=VOLUME,
        _random_samples=DEEP,
    ),
    Case("fractional_max_pool2d", (2, 3, None, False, FLAT), {}, IMAGE, fn=True),
    Case("fractional_max_pool3d", (2, (2, 3, 4), None, True, DEEP), {}, VOLUME, fn=True),
    Case("fractional_max_pool2d_with_indices", (2, 3), {"_random_samples": FLAT}, IMAGE, fn=True),
    Case("fractional_max_pool3d_with_indices", (2, 2), {"_random_samples": DEEP}, VOLUME, fn=True),
]
