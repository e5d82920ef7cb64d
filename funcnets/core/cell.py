"""Cells: the named leaves of a model, each a description first and an array when somebody asks.

A cell is a shape, a dtype and an initializer. Building one allocates nothing. Its value comes into
being when it is first read, from the ticket it took from ``manual_seed``'s counter when it was
created. ``Parameter`` and ``Buffer`` are the two kinds; an optimizer's moments are Buffers, too.

Inside a call a module hands out arrays, never cells (``core/frame.py``). Outside, a cell behaves like
the array it stands for: operators, indexing, ``numpy.asarray``, printing.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe, positive, resolve_dtype
from funcnets.core import frame as frames
from funcnets.core.arraylike import ArrayLike
from funcnets.core.convert import as_array, available, placement, refuse_tracer
from funcnets.core.draw import draw
from funcnets.core.keys import ticket_keys
from funcnets.core.pack import Pack, value_of
from funcnets.core.printing import CellText
from funcnets.core.version import Version
from funcnets.errors import (
    ArgumentError,
    DTypeError,
    ShapeError,
    StateLeakError,
    UnsupportedError,
)
from funcnets.init import Given, Initializer, initializer_from, zeros

__all__ = ["Buffer", "Cell", "Parameter", "Stateful", "Version"]


class Stateful:
    """What has cells and a structure: a Module or an Optimizer. ``fn.jit`` threads its cells."""

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        """Every cell with its dotted path."""
        raise NotImplementedError

    def _parts(self) -> Iterator[Stateful]:
        """This object and everything below it that has a fingerprint of its own."""
        yield self

    def _fingerprint(self) -> Any:
        """A comparable value that changes with whatever a trace depends on, arrays apart."""
        raise NotImplementedError

    def _will_write(self) -> Iterator[Cell]:
        """The cells that a call is likely to write; a guess that saves tracing twice."""
        yield from ()


class Tickets:
    """The seed of the stateful face and how many cells were created since it was set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.restart(int.from_bytes(os.urandom(8), "little"))

    def restart(self, seed: int) -> None:
        with self._lock:
            self.seed, self._issued = seed, 0

    def take(self) -> tuple[int, int, int]:
        with self._lock:
            self._issued += 1
            return (*split_seed(self.seed), self._issued)


def split_seed(seed: int) -> tuple[int, int]:
    """The two 32-bit words of a 64-bit seed."""
    return seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF


tickets = Tickets()
NO_TICKET = (0, 0, 0)


def is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(
        isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in value
    )


class Cell(ArrayLike, CellText):
    """Shape, dtype, initializer and, once asked for, a value. Use :class:`Parameter` or :class:`Buffer`."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_bunch",
        "_dtype",
        "_lent",
        "_pack",
        "_placement",
        "_replaced",
        "_shape",
        "_ticket",
        "_value",
        "initializer",
    )

    #: Whether the value is trained: lives in ``params`` rather than in ``state``.
    requires_grad: bool = False
    persistent: bool = True
    #: Of a row of a stacked cell, that cell and its number there; of a stacked cell, its rows
    #: (``core/stacked.py``).
    whole: Any = None
    row: int = 0
    rows: tuple[Cell, ...] = ()

    def __init__(
        self,
        shape_or_array: Any,
        initializer: Callable[..., Any] | None = None,
        *,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        kind = type(self).__name__
        dtype = None if dtype is None else available(dtype)
        self._placement = placement(device)
        self._value: jax.Array | None = None
        self._pack: Pack | None = None
        self._lent = False
        self._bunch = 0  # of cells that are packed together (core/pack.py)
        self._replaced = False  # whether some compiled program replaces its value
        self._ticket = NO_TICKET
        if isinstance(shape_or_array, Cell):
            shape_or_array = shape_or_array.data
        if isinstance(shape_or_array, jax.ShapeDtypeStruct):
            dtype = shape_or_array.dtype if dtype is None else dtype
            shape_or_array = shape_or_array.shape
        if is_shape(shape_or_array):
            self._shape: tuple[int, ...] | None = tuple(
                positive("a dimension", d, minimum=0) for d in shape_or_array
            )
            self._dtype = resolve_dtype(dtype)
            self.initializer: Initializer = (
                zeros() if initializer is None else initializer_from(initializer)
            )
            self._take_ticket()
            return
        if isinstance(shape_or_array, (bool, int, str)) or not (
            isinstance(shape_or_array, float) or hasattr(shape_or_array, "__array__")
        ):
            raise DTypeError(
                f"{kind} takes a shape, such as (3, 4), or an array, but got {describe(shape_or_array)}; "
                "for one number write jnp.asarray(number)"
            )
        if initializer is not None:
            raise ArgumentError(
                f"{kind} got an array and an initializer: pass a shape with the initializer"
            )
        array = as_array(shape_or_array, dtype)
        refuse_tracer(array, f"creating a {kind} from a traced array")
        self._shape, self._dtype = array.shape, array.dtype
        self.initializer = Given(array)
        self._set(array)

    # --- what it is ---

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, known without a value."""
        if self._shape is None:
            raise ShapeError(
                f"the shape of this {type(self).__name__} is not known yet: it is found by the first call of its "
                "module, by fn.eval_shape(model, example), by functionalize(model).init(key, example) and by "
                "loading a state_dict"
            )
        return self._shape

    @property
    def settled(self) -> bool:
        """Whether the shape is known: a lazy module's cells learn theirs from its first input."""
        return self._shape is not None

    @property
    def dtype(self) -> Any:
        """The dtype, known without a value."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its entry ``dim`` (as in PyTorch; the number of elements is ``numel()``)."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def has_value(self) -> bool:
        """Whether the value exists already. Reading it brings it into being."""
        return self._value is not None or self._pack is not None

    @property
    def is_leaf(self) -> bool:
        """True: a cell is never the result of a computation."""
        return True

    # --- its value ---

    @property
    def data(self) -> jax.Array:
        """The value as a ``jax.Array`` (a tracer inside a transformed call).

        Assigning an array sets the value, and makes it the initial value that ``init`` gives, too.
        """
        frame = frames.current()
        return self.lend() if frame is None else frame.read(self)

    @data.setter
    def data(self, value: Any) -> None:
        array = as_array(value, None)
        self.check_dtype(array.dtype)
        frame = frames.current()
        if frame is not None:
            frame.write(self, array, "the data of a cell")
            return
        refuse_tracer(array, f"assigning the data of a {type(self).__name__}")
        self._describe(array.shape, array.dtype)
        self.initializer = Given(array)
        self._set(array)

    def check_dtype(self, dtype: Any) -> None:
        """Refuse a dtype that the cell cannot have."""

    def _describe(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Take over a shape and a dtype, which may be the present ones."""
        if shape != self._shape or dtype != self._dtype:
            Version.structure += 1
        self._shape, self._dtype = shape, dtype

    def lend(self) -> jax.Array:
        """The value, handed to somebody who may keep it: its memory must not be reused."""
        if self._lent and self._value is not None:
            return self._value
        if self._value is None:
            materialise([self])
        if not self._lent:
            self._lent = True
            Version.lent += self._replaced
        return value_of(self)

    def _set(self, array: jax.Array, *, lent: bool = True) -> None:
        """Give the cell a concrete value; ``lent`` unless nobody else can hold it."""
        if self.whole is not None:
            self.whole.part()
        if self._placement is not None:
            array = jax.device_put(array, self._placement)
        self._value, self._pack, self._lent = array, None, lent
        Version.lent += self._replaced

    def _take_ticket(self) -> None:
        # Constants take none, as they draw nothing in PyTorch: adding a counter, or an optimizer's
        # memory, must not change the values of what is created later.
        self._ticket = tickets.take() if self.initializer.needs_key else NO_TICKET

    def forget(self) -> None:
        """Drop the value: the next read draws it from the initializer."""
        if self.whole is not None:
            self.whole.part()
        self._value = self._pack = None
        Version.lent += 1

    def reinitialise(self, initializer: Any) -> None:
        """Put in another initializer and draw from it, with a new ticket, when next read."""
        frame = frames.current()
        # A cell that was only just created, by a layer that a call makes, concerns nobody yet.
        if frame is not None and (self.has_value or self in frame.values):
            raise StateLeakError(
                "an in-place initialiser ran inside a call: initialise in __init__, or outside the call"
            )
        self.initializer = initializer_from(initializer)
        self._take_ticket()
        self.forget()

    def convert(self, dtype: Any = None, device: Any = None) -> None:
        """Change dtype or placement, of the value if there is one."""
        changes = dtype is not None and jnp.dtype(dtype) != self._dtype
        if (changes or device is not None) and frames.current() is not None:
            raise StateLeakError(
                "dtype or placement was changed inside a call: convert the module outside"
            )
        if changes:
            self._dtype = available(dtype)
            Version.structure += 1
            if self.has_value:
                self._set(value_of(self).astype(self._dtype), lent=False)
        if device is not None:
            self._placement = placement(device)
            if self.has_value:
                self._set(value_of(self))

    __hash__ = object.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> Cell:
        twin = copy.copy(self)
        memo[id(self)] = twin
        return twin

    def __copy__(self) -> Cell:
        twin = object.__new__(type(self))
        twin.__setstate__(self.__getstate__())
        if self.has_value:  # both now stand for the same memory
            self._lent = twin._lent = True
            Version.lent += 1
        return twin

    def __getstate__(self) -> dict[str, Any]:
        value = value_of(self) if self.has_value else None
        names = [
            s for c in type(self).__mro__ for s in getattr(c, "__slots__", ()) if s[:2] != "__"
        ]
        slots = {n: getattr(self, n) for n in names} | {"_value": value, "_pack": None, "_bunch": 0}
        # A copy of a row stands for itself.
        own = {k: v for k, v in self.__dict__.items() if k not in ("whole", "row")}
        return {"slots": slots, "dict": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state["slots"].items():
            object.__setattr__(self, name, value)
        self.__dict__.update(state["dict"])


class Parameter(Cell):
    """A trained leaf of a model: a shape with an initializer, or an array.

    Args:
        shape_or_array: a tuple of ints, which allocates nothing, or an array (JAX, NumPy, or another
            Parameter), which becomes the value and the initial value.
        initializer: a pure function ``(key, shape, dtype) -> array`` such as those of
            ``funcnets.init`` or ``jax.nn.initializers``; zeros if not given.
        requires_grad: whether the value is trained. Frozen parameters live in ``state``, get no
            gradient and no optimizer memory.
        dtype: float32 if not given with a shape; the array's own with an array.
        device: a ``jax.Device`` or ``Sharding`` on which the value is placed.

    Raises:
        DTypeError: neither a shape nor an array, or integers that should be trained.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import init, nn
        >>> nn.Parameter((2, 3), init.xavier_uniform()).shape
        (2, 3)
        >>> nn.Parameter(jnp.ones(2))
        Parameter containing:
        tensor([1., 1.], requires_grad=True)

    References:
        torch.nn.Parameter
    """

    __slots__ = ("_requires_grad",)

    def __init__(
        self,
        shape_or_array: Any,
        initializer: Callable[..., Any] | None = None,
        requires_grad: bool = True,
        *,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        if isinstance(initializer, bool):  # torch's Parameter(data, requires_grad)
            initializer, requires_grad = None, initializer
        super().__init__(shape_or_array, initializer, dtype=dtype, device=device)
        self._requires_grad = bool(requires_grad)
        self.check_dtype(self._dtype)

    @property
    def requires_grad(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the value is trained; assigning changes what ``params`` and ``state`` hold."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not self._requires_grad:
            self._refuse_integers(self._dtype)
        if bool(value) != self._requires_grad:
            if frames.current() is not None:
                raise StateLeakError("requires_grad was changed inside a call: change it outside")
            Version.structure += 1
        self._requires_grad = bool(value)

    def check_dtype(self, dtype: Any) -> None:
        if self._requires_grad:
            self._refuse_integers(dtype)

    def _refuse_integers(self, dtype: Any) -> None:
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise DTypeError(
                f"only floating point and complex parameters can require gradients, but this one is {dtype}; "
                "pass requires_grad=False or use a Buffer"
            )

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        """Set ``requires_grad`` and return the parameter."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Any:
        """Gradients are values here, not a field: this raises and says so."""
        raise UnsupportedError(
            "a Parameter has no .grad: fn.value_and_grad(loss_fn)(model) returns the gradients, "
            "and optimizer.step(grads) takes them"
        )

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """There is no tape in JAX: this raises and says what to use."""
        raise UnsupportedError("there is no backward(): use fn.grad or fn.value_and_grad")


class Buffer(Cell):
    """A leaf of a model that is state rather than trained: running statistics, a table, a counter.

    Args:
        shape_or_array: as for :class:`Parameter`.
        initializer: as for :class:`Parameter`.
        persistent: whether it is part of ``state_dict``.
        dtype: float32 if not given with a shape; the array's own with an array.
        device: a ``jax.Device`` or ``Sharding`` on which the value is placed.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Buffer(jnp.arange(3))
        tensor([0, 1, 2], dtype=torch.int32)

    References:
        torch.nn.Buffer
    """

    __slots__ = ("persistent",)

    def __init__(
        self,
        shape_or_array: Any,
        initializer: Callable[..., Any] | None = None,
        persistent: bool = True,
        *,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        if isinstance(initializer, bool):  # torch's Buffer(data, persistent)
            initializer, persistent = None, initializer
        super().__init__(shape_or_array, initializer, dtype=dtype, device=device)
        self.persistent = persistent


# --- helpers ----------------------------------------------------------------------------------


def materialise(cells: Iterable[Cell]) -> None:
    """Draw the values of those cells that have none, together, and unpack those that are packed."""
    missing = [c for c in cells if c._value is None]
    if missing and any(c._pack is not None for c in missing):
        with jax.ensure_compile_time_eval():
            for cell in missing:
                if cell._pack is not None and cell.whole is None:
                    value_of(cell)
        missing = [c for c in missing if not c.has_value]
    if not missing:
        return
    # Inside somebody's trace the values must still be arrays, not part of the trace.
    with jax.ensure_compile_time_eval():
        drawn = [c for cell in missing for c in cell.rows or (cell,) if not c.has_value]
        keys = ticket_keys([c._ticket for c in drawn])
        values = draw([(c.initializer, c.shape, c._dtype) for c in drawn], keys)
        for cell, value in zip(drawn, values, strict=True):
            cell._set(value, lent=cell.initializer.shared)
        for cell in missing:
            if cell.rows:
                cell.join()  # pyright: ignore[reportAttributeAccessIssue]
