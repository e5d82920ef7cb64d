"""funcnets: define models as in PyTorch, compute with them as in JAX.

    import funcnets as fn
    from funcnets import nn, optim
    import funcnets.nn.functional as F

``nn.Module`` is the base class of models. ``fn.functionalize(model)`` is its pure face; ``fn.jit``,
``fn.value_and_grad`` and the other lifts are JAX's transformations for its stateful face.
"""

import importlib as _importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from funcnets import core, errors, functional, init, nn, optim
from funcnets.core.functional_call import functional_call
from funcnets.core.jit import jit
from funcnets.core.keys import child_key
from funcnets.core.layer import Layer, functionalize, get_variables, set_variables
from funcnets.core.lifts import checkpoint, eval_shape, grad, scan, value_and_grad, vmap
from funcnets.core.module import Module
from funcnets.core.random import initial_seed, manual_seed

if TYPE_CHECKING:
    from funcnets import amp, io, layers, train
    from funcnets.amp import GradScaler, autocast
    from funcnets.io import load, save

__version__ = _version("funcnets")

# What a script may not need is imported when it is first used: a room, or a name out of one.
_LATER = {
    "GradScaler": "funcnets.amp:GradScaler",
    "amp": "funcnets.amp",
    "autocast": "funcnets.amp:autocast",
    "io": "funcnets.io",
    "layers": "funcnets.layers",
    "load": "funcnets.io:load",
    "save": "funcnets.io:save",
    "train": "funcnets.train",
}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'funcnets' has no attribute {name!r}")
    module, _, attribute = _LATER[name].partition(":")
    value = _importlib.import_module(module)
    globals()[name] = value = getattr(value, attribute) if attribute else value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "GradScaler",
    "Layer",
    "Module",
    "amp",
    "autocast",
    "checkpoint",
    "child_key",
    "core",
    "errors",
    "eval_shape",
    "functional",
    "functional_call",
    "functionalize",
    "get_variables",
    "grad",
    "init",
    "initial_seed",
    "io",
    "jit",
    "layers",
    "load",
    "manual_seed",
    "nn",
    "optim",
    "save",
    "scan",
    "set_variables",
    "train",
    "value_and_grad",
    "vmap",
]
