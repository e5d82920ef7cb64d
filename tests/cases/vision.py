"""Shuffles, patches, resizing, sampling at given places."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Normal, Uniform

SEQUENCE = (Normal(2, 3, 5),)
IMAGE = (Normal(2, 3, 4, 5),)
VOLUME = (Normal(1, 2, 3, 4, 2),)
GRID = Uniform(2, 3, 4, 2, low=-1.4, high=1.4)
GRID3 = Uniform(1, 2, 3, 2, 3, low=-1.4, high=1.4)
EXACT = np.array([[-1, -1], [1, 1], [0, 0.5], [-1.5, 2.5]], np.float32).reshape(1, 2, 2, 2)


def layer(name, *args, inputs, id="", half=True, **options) -> Case:
    return Case(name, args, options, inputs, id=id, half=half)


def resize(inputs, size=None, id="", half=False, **options) -> Case:
    return Case("interpolate", (size,), options, inputs, fn=True, id=id, half=half, rtol=2e-5)


def sample(*inputs, id="", half=False, **options) -> Case:
    return Case("grid_sample", (), options, inputs, fn=True, id=id, half=half, rtol=1e-4, atol=2e-5)


CASES = [
    layer("PixelShuffle", 2, inputs=(Normal(2, 8, 2, 3),)),
    layer("PixelShuffle", 3, inputs=(Normal(9, 2, 3),), id="unbatched"),
    layer("PixelUnshuffle", 2, inputs=(Normal(2, 2, 4, 6),)),
    layer("PixelUnshuffle", 1, inputs=(Normal(2, 1, 2, 4, 6),), id="two-batch-axes"),
    layer("ChannelShuffle", 2, inputs=(Normal(2, 6, 3),)),
    layer("ChannelShuffle", 3, inputs=(Normal(2, 6, 2, 3),)),
    layer("Unfold", 2, inputs=IMAGE),
    layer("Unfold", (2, 3), (1, 2), (1, 0), (2, 1), inputs=IMAGE),
    layer("Unfold", [2, 2], inputs=(Normal(3, 4, 4),), stride=2, id="unbatched"),
    layer("Fold", (4, 5), 2, inputs=(Normal(2, 8, 12),)),
    layer("Fold", (4, 5), (2, 3), (1, 2), (1, 0), (2, 1), inputs=(Normal(2, 12, 3),)),
    layer("Fold", 4, 2, inputs=(Normal(8, 4),), stride=2, id="unbatched"),
    layer("Upsample", 7, inputs=SEQUENCE),
    layer("Upsample", (6, 10), inputs=IMAGE, mode="bilinear"),
    layer("Upsample", scale_factor=2, inputs=VOLUME),
    layer("Upsample", scale_factor=(1.5, 2.3), inputs=IMAGE, mode="bicubic"),
    layer("Upsample", None, 1.7, "linear", True, inputs=SEQUENCE),
    layer("Upsample", None, 1.7, "linear", False, True, inputs=SEQUENCE),
    layer("Upsample", scale_factor=2, inputs=VOLUME, mode="trilinear", align_corners=True),
    layer("UpsamplingNearest2d", scale_factor=2, inputs=IMAGE),
    layer("UpsamplingNearest2d", (7, 3), inputs=IMAGE),
    layer("UpsamplingBilinear2d", 6, inputs=IMAGE),
    layer("UpsamplingBilinear2d", scale_factor=(2, 1.5), inputs=IMAGE),
    resize(SEQUENCE, 3),
    resize(SEQUENCE, scale_factor=1.3),
    resize(SEQUENCE, scale_factor=1.3, recompute_scale_factor=True),
    resize(SEQUENCE, 8, mode="nearest-exact"),
    resize(IMAGE, (3, 9), mode="nearest-exact"),
    resize(VOLUME, (2, 5, 3), mode="nearest-exact", half=True),
    resize(VOLUME, scale_factor=(1.0, 0.5, 2.0)),
    resize(SEQUENCE, 3, mode="area"),
    resize(IMAGE, scale_factor=0.6, mode="area", half=True),
    resize(VOLUME, 2, mode="area"),
    resize(IMAGE, 3, mode="bilinear", half=True),
    resize(IMAGE, (4, 1), mode="bilinear", align_corners=True),
    resize(IMAGE, scale_factor=1.4, mode="bilinear", recompute_scale_factor=False),
    resize(IMAGE, 7, mode="bicubic", half=True),
    resize(IMAGE, (3, 8), mode="bicubic", align_corners=True),
    resize(IMAGE, (4, 5), mode="bicubic", id="same-size"),
    resize(VOLUME, (4, 3, 5), mode="trilinear"),
    resize((Normal(1, 2, 9, 8),), (3, 5), mode="bilinear", antialias=True, half=True),
    resize((Normal(1, 2, 9, 8),), (12, 4), mode="bicubic", antialias=True),
    resize((Normal(1, 2, 9, 8),), (4, 5), mode="bicubic", antialias=True, align_corners=True),
    resize((Normal(1, 2, 9, 8),), (5, 3), mode="lanczos", antialias=True),
    resize((Normal(1, 2, 9, 8),), scale_factor=0.4, mode="bilinear", antialias=True),
    Case("upsample", (7,), {}, SEQUENCE, fn=True, half=False),
    Case("upsample_nearest", (7,), {}, IMAGE, fn=True, half=False),
    Case("upsample_bilinear", (7,), {}, IMAGE, fn=True, half=False),
    *(
        sample(*IMAGE, GRID, mode=mode, padding_mode=padding, align_corners=padding == "border")
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
    ),
    *(
        sample(*VOLUME, GRID3, mode=mode, padding_mode=padding, align_corners=padding != "border")
        for mode in ("bilinear", "nearest")
        for padding in ("zeros", "border", "reflection")
    ),
    sample(*IMAGE, GRID, half=True),
    sample(Normal(1, 2, 3, 3), EXACT, padding_mode="border", align_corners=True, id="at-borders"),
    sample(Normal(1, 2, 3, 3), EXACT, padding_mode="reflection", align_corners=False, id="ends"),
    sample(Normal(1, 2, 1, 3), EXACT, padding_mode="reflection", align_corners=True, id="one-row"),
    Case("affine_grid", ((2, 1, 3, 4),), {}, (Normal(2, 2, 3),), fn=True),
    Case("affine_grid", ((2, 1, 1, 4), True), {}, (Normal(2, 2, 3),), fn=True),
    Case("affine_grid", ((1, 1, 2, 3, 4), False), {}, (Normal(1, 3, 4),), fn=True),
    Case("unfold", (2,), {"stride": 2, "padding": 1}, IMAGE, fn=True),
    Case("fold", ((4, 5), 2), {"stride": 2, "padding": 1}, (Normal(2, 8, 9),), fn=True),
    Case("pixel_shuffle", (2,), {}, (Normal(1, 4, 2, 2),), fn=True),
    Case("pixel_unshuffle", (2,), {}, (Normal(1, 1, 2, 2),), fn=True),
    Case("channel_shuffle", (2,), {}, (Normal(1, 4, 2),), fn=True),
    Case("native_channel_shuffle", (2,), {}, (Normal(1, 4, 2),), fn=True, grad=False),
]
