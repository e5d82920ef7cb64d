"""Cells whose shape is not known yet, and modules that find it from their first input.

An unsettled cell is a cell like every other, in the same dicts and under the same names; it has a
dtype and a place, and no shape. What settles it is a description, not a value: the first input may be
traced, or be a mere shape, and the value is drawn later, as always.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from funcnets._args import describe, positive
from funcnets.core import frame as frames
from funcnets.core.cell import Buffer, Cell, Parameter, Version, is_shape, tickets
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, ShapeError, UnsupportedError

__all__ = [
    "LazyModuleMixin",
    "UninitializedBuffer",
    "UninitializedParameter",
    "is_lazy",
    "unsettled_again",
]


class Unsettled(Cell):
    """The part of a cell that waits for its shape."""

    __slots__ = ()

    #: The class of the cell from then on.
    cls_to_become: ClassVar[type[Cell]]

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Settle the shape; the cell is an ordinary one from then on, and has no value yet.

        Args:
            shape: a tuple of ints.
            device: where the value will be placed, if that changes.
            dtype: its dtype, if that changes.
        """
        if not is_shape(shape):
            raise ArgumentError(f"shape must be a tuple of integers, but got {describe(shape)}")
        sizes = tuple(positive("a dimension", size, minimum=0) for size in shape)
        with frames.outside():  # it may be found within a call, which it does not depend on
            self.convert(dtype, device)
        self._describe(sizes, self._dtype)

    def _describe(self, shape: tuple[int, ...], dtype: Any) -> None:
        super()._describe(shape, dtype)
        self.__class__ = self.cls_to_become  # pyright: ignore[reportAttributeAccessIssue]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(Unsettled, Parameter):
    """A Parameter whose shape is not known yet; ``materialize(shape)`` makes it an ordinary one.

    Args:
        requires_grad: whether the value is trained.
        device: where the value will be placed.
        dtype: its dtype, float32 by default.

    Raises:
        ShapeError: (on reading its value or its shape) it is not known yet.

    Examples:
        >>> from funcnets import nn
        >>> weight = nn.UninitializedParameter()
        >>> weight
        <UninitializedParameter>
        >>> weight.materialize((2, 3))
        >>> weight.shape
        (2, 3)

    References:
        torch.nn.parameter.UninitializedParameter
    """

    __slots__ = ()
    cls_to_become = Parameter

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__((), None, requires_grad, dtype=dtype, device=device)
        self._shape = None


class UninitializedBuffer(Unsettled, Buffer):
    """A Buffer whose shape is not known yet; ``materialize(shape)`` makes it an ordinary one.

    Args:
        requires_grad: False; a buffer is not trained.
        device: where the value will be placed.
        dtype: its dtype, float32 by default.
        persistent: whether it is part of ``state_dict``.

    Raises:
        UnsupportedError: ``requires_grad=True``.
        ShapeError: (on reading its value or its shape) it is not known yet.

    Examples:
        >>> from funcnets import nn
        >>> mean = nn.UninitializedBuffer()
        >>> mean.materialize((3,))
        >>> mean
        tensor([0., 0., 0.])

    References:
        torch.nn.parameter.UninitializedBuffer
    """

    __slots__ = ()
    cls_to_become = Buffer

    def __init__(
        self,
        requires_grad: bool = False,
        device: Any = None,
        dtype: Any = None,
        persistent: bool = True,
    ) -> None:
        if requires_grad:
            raise UnsupportedError(
                "a buffer is not trained: use UninitializedParameter for what requires gradients"
            )
        super().__init__((), None, persistent, dtype=dtype, device=device)
        self._shape = None


def is_lazy(param: Any) -> bool:
    """Whether ``param`` is a Parameter or Buffer whose shape is not known yet.

    Args:
        param: anything.

    References:
        torch.nn.parameter.is_lazy
    """
    return isinstance(param, Cell) and not param.settled


class LazyModuleMixin(Module):
    """A module that finds the shapes of its cells from its first input; put it before the other base.

    A subclass registers ``UninitializedParameter`` and ``UninitializedBuffer`` cells and defines
    ``initialize_parameters``, which is given what ``forward`` is going to be given. It looks at
    shapes only, calls ``materialize`` on each cell and puts initializers in. After that the module's
    class is ``cls_to_become``, if there is one.

    The first input may be an array, a tracer (under ``fn.jit``, ``fn.grad``, ...) or a shape (under
    ``fn.eval_shape``): the values are drawn later.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))
        >>> out = fn.eval_shape(model, jax.ShapeDtypeStruct((5, 4), jnp.float32))
        >>> model
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=2, bias=True)
        )

    References:
        torch.nn.modules.lazy.LazyModuleMixin
    """

    cls_to_become: ClassVar[type[Module] | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._initialize_hook = self.register_forward_pre_hook(
            self._infer_parameters, with_kwargs=True
        )

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Settle the shapes of all cells; every subclass defines it."""
        raise UnsupportedError(
            f"initialize_parameters is not implemented for {type(self).__name__}"
        )

    def has_uninitialized_params(self) -> bool:
        """Whether the shape of some parameter or buffer of this module itself is not known yet."""
        return any(map(is_lazy, [*self._parameters.values(), *self._buffers.values()]))

    def _infer_parameters(self, module: LazyModuleMixin, args: Any, kwargs: Any) -> None:
        # Outside of the call, where the attributes are cells and may be given other initializers.
        with frames.outside():
            module.initialize_parameters(*args, **kwargs)
            if module.has_uninitialized_params():
                raise ShapeError(f"module {self._get_name()} has not been fully initialized")
            module._initialize_hook.remove()
            del module._initialize_hook
            if module.cls_to_become is not None:
                object.__setattr__(module, "__class__", module.cls_to_become)


@contextmanager
def unsettled_again(root: Module) -> Iterator[None]:
    """Let a call settle lazy modules for the time being: afterwards they, and the random streams, are as before.

    Args:
        root: the module whose lazy modules are meant.
    """
    lazy = [
        module
        for _, module in root._walk()
        if isinstance(module, LazyModuleMixin)
        or any(map(is_lazy, [*module._parameters.values(), *module._buffers.values()]))
    ]
    cells = {c: None for m in lazy for _, c in m._cells(recurse=False, rows=True)}
    before = [(m, m.__class__, {**vars(m)}, _dicts(m)) for m in lazy]
    described = [(c, c.__class__, [(n, getattr(c, n)) for n in _DESCRIPTION]) for c in cells]
    seed, issued = tickets.seed, tickets._issued
    try:
        yield
    finally:
        with tickets._lock:
            if tickets.seed == seed:
                tickets._issued = issued
        for module, kind, attributes, dicts in before:
            object.__setattr__(module, "__class__", kind)
            vars(module).clear()
            vars(module).update(attributes)
            for name, content in dicts.items():  # the same dicts: handles of hooks know them
                attributes[name].clear()
                attributes[name].update(content)
        for cell, kind, description in described:
            cell.__class__ = kind
            for name, value in description:
                object.__setattr__(cell, name, value)
        if lazy:
            Version.structure += 1


_DESCRIPTION = ("_shape", "_dtype", "_ticket", "_placement", "_value", "_pack", "initializer")


def _dicts(module: Module) -> dict[str, dict[Any, Any]]:
    return {name: dict(value) for name, value in vars(module).items() if isinstance(value, dict)}
