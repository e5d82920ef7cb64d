"""Learning rate schedulers under ``torch.optim.lr_scheduler``'s names, for the stateful optimizers.

The same schedules as pure functions of the step are in :mod:`funcnets.optim.schedules`.
"""

from funcnets.optim.lr_scheduler.base import LRScheduler
from funcnets.optim.lr_scheduler.combined import ChainedScheduler, SequentialLR
from funcnets.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from funcnets.optim.lr_scheduler.cycles import CyclicLR, OneCycleLR
from funcnets.optim.lr_scheduler.factors import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from funcnets.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
