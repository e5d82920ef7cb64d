"""funcnets: define models as in PyTorch, compute with them as in JAX.

    import funcnets as fn
    from funcnets import nn, optim
    import funcnets.nn.functional as F

``nn.Module`` is the base class of models. ``fn.functionalize(model)`` is its pure face; ``fn.jit``,
``fn.value_and_grad`` and the other lifts are JAX's transformations for its stateful face.
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from funcnets import core, errors, init
from funcnets._later import later as _later
from funcnets.core.functional_call import functional_call
from funcnets.core.jit import jit
from funcnets.core.keys import child_key
from funcnets.core.layer import Layer, functionalize, get_variables, set_variables
from funcnets.core.lifts import checkpoint, eval_shape, grad, scan, value_and_grad, vmap
from funcnets.core.module import Module
from funcnets.core.random import initial_seed, manual_seed

if TYPE_CHECKING:
    from funcnets import amp, functional, io, layers, look, nn, optim, train
    from funcnets.amp import GradScaler, autocast
    from funcnets.io import load, save
    from funcnets.look import capture, draw, explain_compiles, find_nan, summary

__version__ = _version("funcnets")

_HOMES = {
    "GradScaler": "funcnets.amp",
    "amp": "funcnets.amp",
    "autocast": "funcnets.amp",
    "capture": "funcnets.look",
    "draw": "funcnets.look",
    "explain_compiles": "funcnets.look",
    "find_nan": "funcnets.look",
    "functional": "funcnets.functional",
    "io": "funcnets.io",
    "layers": "funcnets.layers",
    "load": "funcnets.io",
    "look": "funcnets.look",
    "nn": "funcnets.nn",
    "optim": "funcnets.optim",
    "save": "funcnets.io",
    "summary": "funcnets.look",
    "train": "funcnets.train",
}

#: Of ``import torch``: what there is nothing of here, since JAX has it.
_ELSEWHERE = {
    "no_grad": "not needed, gradients are computed where fn.grad asks; jax.lax.stop_gradient(x) stops one",
    "inference_mode": "not needed, gradients are computed where fn.grad asks",
    "tensor": "arrays are jnp.asarray(x)",
    "Tensor": "arrays are jax.Array",
    "cat": "use jnp.concatenate(arrays, axis)",
    "stack": "use jnp.stack(arrays, axis)",
    "zeros": "use jnp.zeros(shape)",
    "ones": "use jnp.ones(shape)",
    "arange": "use jnp.arange(n)",
    "randn": "use jax.random.normal(key, shape)",
    "compile": "use fn.jit(function)",
    "device": "use jax.devices(); arrays are on the accelerator if there is one",
    "cuda": "use jax.devices(); arrays are on the accelerator if there is one",
    "utils": "use train.ArrayLoader or any iterable of batches for data, funcnets.nn.utils for the rest",
}

__getattr__, __dir__ = _later(__name__, _HOMES, _ELSEWHERE)

__all__ = [
    "GradScaler",
    "Layer",
    "Module",
    "amp",
    "autocast",
    "capture",
    "checkpoint",
    "child_key",
    "core",
    "draw",
    "errors",
    "eval_shape",
    "explain_compiles",
    "find_nan",
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
    "look",
    "manual_seed",
    "nn",
    "optim",
    "save",
    "scan",
    "set_variables",
    "summary",
    "train",
    "value_and_grad",
    "vmap",
]
