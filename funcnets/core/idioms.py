"""What to write instead, for errors of JAX that somebody coming from PyTorch meets.

Arrays are JAX's own and have its methods, and its errors cannot know what was meant. Where one of them passes
through a module or a function under ``fn.jit``, a line is added to it as a note. The error itself stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

from jax import errors

__all__ = ["meant_module", "note_idiom"]

#: The first that fits.
TRACED = (
    (
        errors.TracerArrayConversionError,
        "a NumPy function got an array that is being traced, which has no numbers yet: use the function of jax.numpy",
    ),
    (
        errors.TracerBoolConversionError,
        "Python's if, while, and, or, assert need a value, and an array that is being traced has none yet: use jnp.where "
        "or jax.lax.cond; an argument of fn.jit that is an option can be named in static_argnames",
    ),
    (
        errors.TracerIntegerConversionError,
        "Python needs an integer here (range, a shape, the index of a list), and an array that is being traced has no "
        "value yet: an argument of fn.jit that is a size can be named in static_argnames",
    ),
    (
        errors.ConcretizationTypeError,
        "float(x), int(x), x.item() and sizes need a value, and an array that is being traced has none yet: return the "
        "array, and convert it outside of the compiled function",
    ),
)

#: Of PyTorch's tensors, by what JAX's arrays have for it.
METHODS = {
    "backward": "loss, grads = fn.value_and_grad(f)(model), then optimizer.step(grads)",
    "grad": "loss, grads = fn.value_and_grad(f)(model)",
    "detach": "jax.lax.stop_gradient(x), or x itself outside of a gradient",
    "requires_grad_": "fn.grad(f)(x), the gradient with respect to x",
    "requires_grad": "fn.grad(f)(x), the gradient with respect to x",
    "numpy": "np.asarray(x)",
    "cpu": "np.asarray(x), or jax.device_put(x, device)",
    "cuda": "jax.device_put(x, device); arrays are on the accelerator if there is one",
    "to": "x.astype(dtype), or jax.device_put(x, device)",
    "type": "x.astype(dtype)",
    "float": "x.astype(jnp.float32)",
    "half": "x.astype(jnp.float16)",
    "bfloat16": "x.astype(jnp.bfloat16)",
    "long": "x.astype(jnp.int32)",
    "int": "x.astype(jnp.int32)",
    "bool": "x.astype(bool)",
    "unsqueeze": "x[:, None] or jnp.expand_dims(x, axis)",
    "permute": "x.transpose(0, 2, 1), which takes the order of all axes",
    "t": "x.T",
    "contiguous": "x; delete the call",
    "dim": "x.ndim",
    "numel": "x.size",
    "expand": "jnp.broadcast_to(x, shape)",
    "expand_as": "jnp.broadcast_to(x, y.shape)",
    "view_as": "x.reshape(y.shape)",
    "chunk": "jnp.split(x, sections, axis)",
    "split": "jnp.split(x, sections, axis)",
    "masked_fill": "jnp.where(mask, value, x)",
    "gather": "jnp.take_along_axis(x, index, axis)",
    "scatter": "x.at[index].set(y)",
    "topk": "jax.lax.top_k(x, k)",
    "norm": "jnp.linalg.norm(x)",
    "new_zeros": "jnp.zeros(shape, x.dtype)",
    "matmul": "x @ y",
    "bmm": "x @ y",
    "mm": "x @ y",
}

#: Other words of PyTorch, by what JAX says to them.
WORDS = (
    (r"unexpected keyword argument '(dim|keepdim)'", "JAX's word for {} is {word}"),
    (r"argument of array\.view\(\)|as a data type", "PyTorch's x.view(shape) is x.reshape(shape)"),
    (r"'int' object is not callable", "PyTorch's x.size(0) is x.shape[0]; x.size is a number"),
)
MISSING = re.compile(r"(?:ArrayImpl|Tracer)'?(?: object)? has no attribute '?(\w+)")


def meant_module(value: Any) -> str:
    """What was meant by something that is no module and stands where one should, as the end of a message."""
    if isinstance(value, type):
        return f": {value.__name__} is a class, write {value.__name__}(...)"
    if isinstance(value, (list, tuple)):
        return "; modules in a list are separate arguments, or the argument of nn.ModuleList"
    if callable(value):
        return "; call a function in forward, or use its module (F.relu is nn.ReLU())"
    return ""


def note_idiom(error: BaseException) -> None:
    """Add, once, what is to be written instead; nothing where the error is of another kind."""
    if getattr(error, "_funcnets_idiom", False):
        return
    text = _remedy(error)
    if text is not None:
        error.add_note(text)
        error._funcnets_idiom = True  # pyright: ignore[reportAttributeAccessIssue]


def _remedy(error: BaseException) -> str | None:
    for kind, text in TRACED:
        if isinstance(error, kind):
            return text
    message = str(error)
    if isinstance(error, AttributeError):
        found = MISSING.search(message)
        name = found[1] if found else ""
        if name in METHODS:
            return f"PyTorch's x.{name} is here {METHODS[name]}"
        if name.endswith("_") and not name.startswith("_"):
            return f"arrays are immutable: instead of x.{name}(...) compute another array and assign it"
        return None
    for pattern, text in WORDS:
        found = re.search(pattern, message)
        if found and isinstance(error, (TypeError, NotImplementedError)):
            name = found[1] if found.groups() else ""
            return text.format(name, word={"dim": "axis", "keepdim": "keepdims"}.get(name))
    return None
