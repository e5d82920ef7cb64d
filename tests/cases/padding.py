"""Padding layers and ``pad``."""

from __future__ import annotations

from tests.cases.case import Case, Ints, Normal

FEATURES = {1: (Normal(2, 3, 5),), 2: (Normal(2, 3, 4, 5),), 3: (Normal(1, 2, 3, 4, 3),)}
ONE = {1: (Normal(3, 5),), 2: (Normal(3, 4, 5),), 3: (Normal(2, 3, 4, 3),)}
UNEVEN = {1: (2, 1), 2: (2, 1, 0, 3), 3: (2, 1, 0, 2, 1, 0)}
CROPPING = {1: (-2, 1), 2: (2, -1, -1, 2), 3: (2, -1, -2, 1, 1, 0)}
LAYERS = ("ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad")


def pad(x, widths, mode="constant", value=None, id="", **options) -> Case:
    return Case("pad", (widths, mode, value), {}, (x,), fn=True, id=id, **options)


CASES = [
    *(Case(f"{kind}{n}d", (1,), {}, FEATURES[n]) for kind in LAYERS for n in (1, 2, 3)),
    *(
        Case(f"{kind}{n}d", (UNEVEN[n],), {}, ONE[n], half=False)
        for kind in LAYERS
        for n in (1, 2, 3)
        if (kind, n) != ("ReflectionPad", 3)
    ),
    Case("ReflectionPad3d", ((2, 1, 3, 0, 1, 2),), {}, ONE[3]),
    *(Case(f"{kind}2d", (CROPPING[2],), {}, FEATURES[2], half=False) for kind in LAYERS),
    *(Case(f"ConstantPad{n}d", (UNEVEN[n], 3.5), {}, FEATURES[n]) for n in (1, 2, 3)),
    Case("ConstantPad1d", (), {"padding": [1, 2], "value": -1}, (Normal(5),), id="vector"),
    Case("ConstantPad2d", (1, 0.5), {}, (Normal(1, 2, 1, 2, 3),), id="five-axes"),
    Case("CircularPad1d", (5,), {}, FEATURES[1], id="whole-period"),
    pad(Normal(2, 3), (1, 2)),
    pad(Normal(2, 3), (), id="nothing"),
    pad(Normal(2, 3), (1, 0, 2, 0), "constant", 1.5),
    pad(Normal(2, 3), (-2, 1), "constant", 2),
    pad(Normal(2, 1, 2, 3), (0, 1, 0, 0, 2, 0, 1, 1), id="all-axes"),
    pad(Ints(2, 3), (1, 1), "constant", 2.9, id="integers", grad=False),
    pad(Normal(0, 2, 3), (1, 1), "reflect", id="empty-batch"),
    pad(Normal(1, 2, 1), (3, 4), "replicate"),
    pad(Normal(1, 2, 4), (-5, 3), "reflect", id="left-with-padding-only"),
    pad(Normal(1, 0, 4), (1, 1), "circular", id="no-channels"),
    pad(Ints(2, 3, 4), (1, 2, 1, 0), "replicate", id="integers", grad=False),
]
