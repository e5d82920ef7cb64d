"""Losses between numbers, and of distributions, as layers and as functions."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Ints, Normal, Uniform

REDUCTIONS = ("mean", "sum", "none")
X, Y = Normal(3, 4), Normal(3, 4)
#: Differences of 0, of the default bend, and around it.
A, B = (np.array(v, np.float32) for v in ([0, 0, 0, 1, 1.5, 2], [1, -1, 0.5, 1, 2, -2]))
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def loss(name, *inputs, id="", **options) -> Case:
    return Case(name, kwargs=options, inputs=inputs, id=id)


def corners(name, **options) -> Case:
    return loss(name, A, B, id="corners", **options)


CASES = [
    *[
        loss(name, X, Y, reduction=reduction)
        for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
        for reduction in REDUCTIONS
    ],
    Case("MSELoss", inputs=(X, Y), second=True, id="second"),
    loss("MSELoss", X, Ints(3, 4), id="integer-target"),
    loss("MSELoss", X, Normal(4), id="broadcast"),
    loss("MSELoss", Normal(0, 2), Normal(0, 2), id="empty"),
    loss("MSELoss", X, Y, size_average=False),
    loss("L1Loss", X, Y, reduce=False),
    corners("L1Loss"),
    corners("SmoothL1Loss"),
    corners("SmoothL1Loss", beta=0.5),
    corners("SmoothL1Loss", beta=0),
    corners("HuberLoss"),
    corners("HuberLoss", delta=0.5),
    *[
        Case(name, fn=True, inputs=(X, Y), kwargs={"weight": WEIGHT, "reduction": reduction})
        for name in ("mse_loss", "l1_loss", "huber_loss")
        for reduction in REDUCTIONS
    ],
    *[
        loss("PoissonNLLLoss", Uniform(3, 4, low=0.1), Uniform(3, 4, high=5.0), **options)
        for options in (
            {},
            {"log_input": False},
            {"full": True, "reduction": "none"},
            {"log_input": False, "full": True, "eps": 0.5, "reduction": "sum"},
        )
    ],
    loss("PoissonNLLLoss", Normal(3, 4), Ints(4, high=5), full=True, id="counts"),
    *[
        loss("GaussianNLLLoss", X, Y, Uniform(*shape, low=0.1), id=f"{shape}", **options)
        for shape, options in (
            ((3, 4), {}),
            ((3,), {"full": True}),
            ((3, 1), {"reduction": "sum"}),
            ((1, 4), {"reduction": "none"}),
        )
    ],
    loss("GaussianNLLLoss", X, Y, 1.5, id="number"),
    loss("GaussianNLLLoss", X, Normal(4), np.zeros((3, 4), np.float32), eps=0.1, id="least"),
    *[
        loss("KLDivLoss", Normal(3, 4), Uniform(3, 4, low=0.1), reduction=reduction)
        for reduction in (*REDUCTIONS, "batchmean")
    ],
    loss("KLDivLoss", X, Y, reduction="batchmean", log_target=True),
    loss("KLDivLoss", X, Uniform(4, low=0.1), reduction="batchmean", id="broadcast"),
    loss("KLDivLoss", X, Y, reduce=True, size_average=False, log_target=True),
]
