"""``Module``: a tree of named cells, sub-modules and hyper-parameters, and a rule, ``forward``.

Building a module allocates nothing. Calling one runs ``forward`` in a frame (``core/frame.py``), in
which ``self.weight`` is an array and ``self.running_mean = new`` is collected as a write. Everything
else here is bookkeeping under PyTorch's names; walking the tree is in ``core/tree.py``, saving
in ``core/state_dict.py``, hooks are in ``core/hooks.py``, text is in ``core/printing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.core import Tracer

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.cell import Buffer, Cell, Parameter, Version
from funcnets.core.convert import as_array, available, placement, refuse_tracer
from funcnets.core.frame import Frame, _current
from funcnets.core.hooks import Hooks
from funcnets.core.idioms import meant_module
from funcnets.core.printing import ModuleText, describe_call
from funcnets.core.random import advance, stream
from funcnets.core.state_dict import StateDict
from funcnets.core.tree import Tree, TreeNameError
from funcnets.core.version import step_lock
from funcnets.errors import (
    ArgumentError,
    DTypeError,
    ModuleAccessError,
    StateLeakError,
    UnsupportedError,
)

__all__ = ["Module"]

_NONE: Mapping[str, Any] = {}


class Module(Tree, Hooks, StateDict, ModuleText):
    """Base class of all models and layers; subclass it as ``torch.nn.Module``.

    Assign parameters, buffers and sub-modules in ``__init__`` (after ``super().__init__()``), write
    the computation in ``forward``. The instance can then be called, printed, iterated, trained,
    saved and loaded as in PyTorch, and ``fn.functionalize(model)`` gives its pure face.

    Inside ``forward`` parameters and buffers are arrays (or tracers). Assigning to a buffer there is
    a write that the running call collects. Outside, they are ``Parameter`` and ``Buffer`` objects.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> class Affine(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.scale = nn.Parameter(jnp.ones(3))
        ...         self.linear = nn.Linear(3, 2)
        ...
        ...     def forward(self, x):
        ...         return self.linear(self.scale * x)
        >>> model = Affine()
        >>> [name for name, _ in model.named_parameters()]
        ['scale', 'linear.weight', 'linear.bias']
        >>> model(jnp.ones((5, 3))).shape
        (5, 2)

    References:
        torch.nn.Module
    """

    def __init__(self) -> None:
        # Past our own __setattr__, which needs these to exist.
        for name in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_training", True)
        self._init_hooks()
        super().__init__()

    # --- attributes ---------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        if "_modules" not in state:
            if isinstance(value, (Module, Cell)):
                kind = {Module: "module", Parameter: "parameters", Buffer: "buffer"}
                what = next(text for cls, text in kind.items() if isinstance(value, cls))
                raise ModuleAccessError(f"cannot assign {what} before Module.__init__() call")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._drop(name, state, self._buffers, self._modules)
            self.register_parameter(name, value)
        elif name in self._parameters:
            if value is not None:
                raise DTypeError(
                    f"cannot assign {describe(value)} as parameter '{name}' (a Parameter or None expected); "
                    f"to change its value outside of a call write module.{name}.data = array"
                )
            self.register_parameter(name, None)
        elif isinstance(value, Module):
            self._drop(name, state, self._buffers)
            self.register_module(name, value)
        elif name in self._modules:
            if value is not None:
                raise DTypeError(
                    f"cannot assign {describe(value)} as child module '{name}' (a Module or None expected)"
                )
            self.register_module(name, None)
        elif isinstance(value, Buffer):
            self._drop(name, state)
            self.register_buffer(name, value, value.persistent)
        elif name in self._buffers:
            self._assign_buffer(name, value)
        else:
            self._assign_plain(name, value)

    def _drop(self, name: str, *homes: dict[str, Any]) -> None:
        for home in homes:
            home.pop(name, None)

    def _assign_buffer(self, name: str, value: Any) -> None:
        cell, frame = self._buffers[name], frames.current()
        if value is None or cell is None:
            self.register_buffer(name, value, cell is None or cell.persistent)
            return
        if not (
            isinstance(value, jax.Array)
            or hasattr(value, "__array__")
            or isinstance(value, (int, float))
        ):
            raise DTypeError(
                f"cannot assign {describe(value)} as buffer '{name}' (an array or None expected)"
            )
        if frame is not None:
            frame.write(cell, as_array(value, None), f"buffer '{name}'")
            return
        cell.data = value

    def _assign_plain(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):  # which decides what it keeps
            object.__setattr__(self, name, value)
            return
        for leaf in jax.tree.leaves(value) if isinstance(value, (list, tuple, dict)) else (value,):
            if isinstance(leaf, Tracer):
                raise StateLeakError(
                    f"storing a tracer in the plain attribute '{name}' of {type(self).__name__}: it would outlive "
                    "its trace. Return it, or make it state: self.register_buffer(...) in __init__ and then "
                    f"self.{name} = value, which the running call threads"
                )
        Version.structure += 1
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        state = self.__dict__
        # Written out, since every forward comes by here for each of its cells.
        cells = state.get("_parameters", _NONE)
        if name not in cells:
            cells = state.get("_buffers", _NONE)
        if name in cells:
            cell, frame = cells[name], _current.get()
            if frame is None or cell is None:
                return cell
            frame.used[self] = None
            value = frame.values.get(cell)
            return frame.read(cell) if value is None else value
        if name in state.get("_modules", ()):
            if (frame := frames.current()) is not None:
                frame.used[self] = None
            return state["_modules"][name]
        hint = "" if "_modules" in state else "; did you call super().__init__() first?"
        raise ModuleAccessError(f"'{type(self).__name__}' object has no attribute '{name}'{hint}")

    def __delattr__(self, name: str) -> None:
        Version.structure += 1
        for home in (self._parameters, self._buffers, self._modules):
            if name in home:
                del home[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {
            *dir(type(self)),
            *self.__dict__,
            *self._parameters,
            *self._buffers,
            *self._modules,
        }
        return sorted(n for n in names if n and not n[0].isdigit())

    # --- registration -------------------------------------------------------------------------

    def _check_name(self, kind: str, name: Any) -> None:
        if "_modules" not in self.__dict__:
            raise ModuleAccessError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise DTypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise TreeNameError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise TreeNameError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in self.__dict__[f"_{kind}s"]:
            raise TreeNameError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter, or None as the place of one that is switched off (a bias, say)."""
        self._check_name("parameter", name)
        if param is not None and not isinstance(param, Parameter):
            raise DTypeError(
                f"cannot assign {describe(param)} to parameter '{name}' (nn.Parameter or None required)"
            )
        Version.structure += 1
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Add state that is not trained: an array, a ``Buffer``, or None.

        Args:
            name: attribute name.
            tensor: the value, or ``nn.Buffer(shape, initializer)`` to allocate nothing yet.
            persistent: whether ``state_dict`` contains it.
        """
        self._check_name("buffer", name)
        if tensor is not None and not isinstance(tensor, Buffer):
            if not (hasattr(tensor, "__array__") or isinstance(tensor, float)) or isinstance(
                tensor, Parameter
            ):
                raise DTypeError(
                    f"cannot assign {describe(tensor)} to buffer '{name}' (an array or None required)"
                )
            tensor = Buffer(tensor)
        if tensor is not None:
            tensor.persistent = persistent
        Version.structure += 1
        self._buffers[name] = tensor

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a child module under ``name``; the same as assigning it as an attribute."""
        self._check_name("module", name)
        if module is not None and not isinstance(module, Module):
            raise DTypeError(
                f"{type(module).__name__} is not a Module subclass{meant_module(module)}"
            )
        Version.structure += 1
        self._modules[name] = module

    add_module = register_module

    # --- mode, freezing, conversion -----------------------------------------------------------

    @property
    def training(self) -> bool:
        """Whether the module is in training mode; in a pure call, what ``training=`` says."""
        frame = frames.current()
        if frame is None:
            return self._training
        frame.used[self] = None
        return frame.training(self)

    @training.setter
    def training(self, mode: bool) -> None:
        if mode != self._training:
            if frames.current() is not None:
                raise StateLeakError(
                    "the mode was changed inside a call: call train() or eval() outside"
                )
            Version.structure += 1
        object.__setattr__(self, "_training", mode)

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it in training mode, or in evaluation mode with False."""
        if not isinstance(mode, bool):
            raise ArgumentError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Self:
        """Put this module and all below it in evaluation mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or train (True) all parameters below this module."""
        for _, cell in self._cells(("_parameters",), rows=True):
            cell.requires_grad = requires_grad
        return self

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn`` with every module below this one and then with this one; for initialisation."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Self:
        """Convert floating point parameters and buffers, or place all of them.

        Args:
            *args: a dtype, a ``jax.Device``, a ``Sharding``, a device name such as ``"cpu:0"``, an
                array whose dtype is taken, or several of these.
            dtype: the dtype by name.
            device: the device or sharding by name.

        Returns:
            This module.
        """
        for arg in args:
            if hasattr(arg, "dtype") and hasattr(arg, "shape") and not isinstance(arg, type):
                dtype = arg.dtype
            elif isinstance(arg, (str, jax.Device, jax.sharding.Sharding)) and not _is_dtype_name(
                arg
            ):
                device = arg
            else:
                dtype = arg
        if dtype is not None:
            try:
                dtype = jnp.dtype(dtype)
            except TypeError:
                raise DTypeError(
                    f"to() takes a dtype, a device or a Sharding, but got {describe(dtype)}"
                ) from None
            if not jnp.issubdtype(dtype, jnp.inexact):
                raise DTypeError(
                    "nn.Module.to only accepts floating point or complex dtypes, "
                    f"but got desired dtype={dtype}"
                )
            dtype = available(dtype)
        device = placement(device)
        for _, cell in self._cells(rows=True):
            converts = dtype is not None and (
                jnp.issubdtype(cell.dtype, jnp.floating)
                or (
                    jnp.issubdtype(cell.dtype, jnp.inexact)
                    and jnp.issubdtype(dtype, jnp.complexfloating)
                )
            )
            cell.convert(dtype if converts else None, device)
        return self

    def float(self) -> Self:
        """Convert floating point parameters and buffers to float32."""
        return self.to(jnp.float32)

    def double(self) -> Self:
        """Convert floating point parameters and buffers to float64 (needs ``jax_enable_x64``)."""
        if not jax.config.read("jax_enable_x64"):
            raise DTypeError(
                'float64 needs jax.config.update("jax_enable_x64", True) before double()'
            )
        return self.to(jnp.float64)

    def half(self) -> Self:
        """Convert floating point parameters and buffers to float16."""
        return self.to(jnp.float16)

    def bfloat16(self) -> Self:
        """Convert floating point parameters and buffers to bfloat16."""
        return self.to(jnp.bfloat16)

    def type(self, dst_type: Any) -> Self:
        """Convert floating point parameters and buffers to ``dst_type``."""
        return self.to(dtype=dst_type)

    def cpu(self) -> Self:
        """Place all parameters and buffers on the first CPU device."""
        return self.to("cpu")

    def cuda(self, device: int = 0) -> Self:
        """Place all parameters and buffers on a GPU."""
        return self.to(f"gpu:{device}")

    # --- calling ------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation; every subclass defines it."""
        raise UnsupportedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run hooks and ``forward`` in the current frame, or in one of the call's own."""
        frame = _current.get()
        if frame is None:
            with rooted_frame():
                return self(*args, **kwargs)
        if id(self) not in frame._paths:
            frame.enter(self)
        frame.used[self] = None
        try:
            if frame.taps is not None:
                return frame.taps.watch(self, args, kwargs)
            if not self._forward_pre_hooks and not self._forward_hooks:
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except Exception as error:
            describe_call(error, self, frame, args, kwargs)
            raise

    def make_rng(self) -> jax.Array:
        """A fresh key for this module's random draw, from the call's ``rng`` or from ``manual_seed``.

        Every module, every draw within a call and every call gets another one.
        """
        frame = frames.current()
        if frame is not None:
            return frame.next_key(self, type(self).__name__)
        with rooted_frame() as frame:
            return frame.next_key(self, type(self).__name__)

    # --- what cannot exist here ---------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients are values here and are never accumulated: this raises and says so."""
        raise UnsupportedError(
            "there is nothing to zero: fn.value_and_grad returns fresh gradients every time; delete this line"
        )

    def share_memory(self) -> Self:
        """Arrays are immutable and not shared between processes: this raises and says so."""
        raise UnsupportedError(
            "JAX arrays are not shared between processes: use one process with several devices (model.to(sharding))"
        )

    def _no_backward_hooks(self, *args: Any, **kwargs: Any) -> Any:
        """There is no tape in JAX whose steps could be hooked: this raises and says so."""
        raise UnsupportedError(
            "JAX has no backward pass to hook: change the gradients that fn.value_and_grad returns, or wrap the "
            "function in jax.custom_vjp"
        )

    register_backward_hook = _no_backward_hooks
    register_full_backward_hook = _no_backward_hooks
    register_full_backward_pre_hook = _no_backward_hooks

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compilation is a function's property here: this raises and says so."""
        raise UnsupportedError(
            "use fn.jit on the function that calls the model: step = fn.jit(lambda x: model(x))"
        )


def _is_dtype_name(arg: Any) -> bool:
    if not isinstance(arg, str):
        return False
    try:
        jnp.dtype(arg)
    except TypeError:
        return False
    return True


def stream_key(frame: Frame, what: str) -> jax.Array:
    """A key from ``manual_seed``'s stream, which advances like any other buffer.

    In an eager call it advances at once: no other thread, and no call after a failed one, gets the key.
    """
    if frame.rooted:
        with step_lock:
            successor, now = advance(stream.lend())
            stream._set(successor, lent=False)
        return now
    successor, now = advance(frame.read(stream))
    frame.write(stream, successor, "the state of the random generator")
    return now


class rooted_frame:
    """The frame of a call outside of any other: reads are the cells' values, writes go back to them.

    Nothing is written when the call fails.
    """

    __slots__ = ("frame", "token")

    def __enter__(self) -> Frame:
        self.frame = Frame(Cell.lend, rng=stream_key, rooted=True)
        self.token = _current.set(self.frame)
        return self.frame

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        _current.reset(self.token)
        if kind is None:
            for cell, value in self.frame.written.items():
                refuse_tracer(value, "a write to the state of a module")
                cell._describe(value.shape, value.dtype)
                cell._set(value)
