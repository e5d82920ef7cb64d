"""Optimizers under ``torch.optim``'s names, on optax; each also as a pure transformation, ``*_tx``."""

from funcnets.optim.adam import Adam, AdamW, adam_tx, adamw_tx
from funcnets.optim.optimizer import Optimizer
from funcnets.optim.sgd import SGD, sgd_tx

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "adam_tx", "adamw_tx", "sgd_tx"]
