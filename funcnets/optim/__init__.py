"""Optimizers under ``torch.optim``'s names, on optax; each also as a pure transformation, ``*_tx``."""

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
    "muon_tx",
    "nadam_tx",
    "radam_tx",
    "rmsprop_tx",
    "rprop_tx",
    "sgd_tx",
]
