"""Optimizers under ``torch.optim``'s names, on optax; each also as a pure transformation, ``*_tx``."""

from typing import TYPE_CHECKING

from funcnets._later import later

if TYPE_CHECKING:
    from funcnets.optim import lr_scheduler, schedules, swa_utils
    from funcnets.optim.adadelta import Adadelta, adadelta_tx
    from funcnets.optim.adafactor import Adafactor, adafactor_tx
    from funcnets.optim.adagrad import Adagrad, adagrad_tx
    from funcnets.optim.adam import Adam, AdamW, adam_tx, adamw_tx
    from funcnets.optim.adamax import Adamax, adamax_tx
    from funcnets.optim.asgd import ASGD, asgd_tx
    from funcnets.optim.lbfgs import LBFGS, lbfgs_tx
    from funcnets.optim.muon import Muon, muon_tx
    from funcnets.optim.nadam import NAdam, nadam_tx
    from funcnets.optim.optimizer import Optimizer
    from funcnets.optim.radam import RAdam, radam_tx
    from funcnets.optim.rmsprop import RMSprop, rmsprop_tx
    from funcnets.optim.rprop import Rprop, rprop_tx
    from funcnets.optim.sgd import SGD, sgd_tx
    from funcnets.optim.sparse_adam import SparseAdam

_HOMES = {
    "ASGD": "funcnets.optim.asgd",
    "Adadelta": "funcnets.optim.adadelta",
    "Adafactor": "funcnets.optim.adafactor",
    "Adagrad": "funcnets.optim.adagrad",
    "Adam": "funcnets.optim.adam",
    "AdamW": "funcnets.optim.adam",
    "Adamax": "funcnets.optim.adamax",
    "LBFGS": "funcnets.optim.lbfgs",
    "Muon": "funcnets.optim.muon",
    "NAdam": "funcnets.optim.nadam",
    "Optimizer": "funcnets.optim.optimizer",
    "RAdam": "funcnets.optim.radam",
    "RMSprop": "funcnets.optim.rmsprop",
    "Rprop": "funcnets.optim.rprop",
    "SGD": "funcnets.optim.sgd",
    "SparseAdam": "funcnets.optim.sparse_adam",
    "adadelta_tx": "funcnets.optim.adadelta",
    "adafactor_tx": "funcnets.optim.adafactor",
    "adagrad_tx": "funcnets.optim.adagrad",
    "adam_tx": "funcnets.optim.adam",
    "adamax_tx": "funcnets.optim.adamax",
    "adamw_tx": "funcnets.optim.adam",
    "asgd_tx": "funcnets.optim.asgd",
    "lbfgs_tx": "funcnets.optim.lbfgs",
    "lr_scheduler": "funcnets.optim.lr_scheduler",
    "muon_tx": "funcnets.optim.muon",
    "nadam_tx": "funcnets.optim.nadam",
    "radam_tx": "funcnets.optim.radam",
    "rmsprop_tx": "funcnets.optim.rmsprop",
    "rprop_tx": "funcnets.optim.rprop",
    "schedules": "funcnets.optim.schedules",
    "sgd_tx": "funcnets.optim.sgd",
    "swa_utils": "funcnets.optim.swa_utils",
}

__getattr__, __dir__ = later(__name__, _HOMES)

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "adadelta_tx",
    "adafactor_tx",
    "adagrad_tx",
    "adam_tx",
    "adamax_tx",
    "adamw_tx",
    "asgd_tx",
    "lbfgs_tx",
    "lr_scheduler",
    "muon_tx",
    "nadam_tx",
    "radam_tx",
    "rmsprop_tx",
    "rprop_tx",
    "schedules",
    "sgd_tx",
    "swa_utils",
]
