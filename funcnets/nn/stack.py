"""``Stack``: repeated blocks of equal structure, compiled once whatever their number.

It is an extension: PyTorch has ModuleList and Sequential, which here are unrolled, so that the time to trace
and to compile a deep model grows with its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, overload

from funcnets._args import describe
from funcnets.core.alike import difference
from funcnets.core.blocks import call_blocks
from funcnets.core.cell import Cell
from funcnets.core.module import Module
from funcnets.core.stacked import Stacked
from funcnets.errors import ArgumentError, ShapeError, UnsupportedError
from funcnets.nn.container import ModuleList
from funcnets.nn.container_base import Holder, check_modules, position

__all__ = ["Stack"]


class Stack(Holder):
    r"""Blocks of equal structure, called one after the other, as one loop over stacked parameters.

    .. math:: y = f_{N-1}(\dots f_1(f_0(x)))

    It computes what a Sequential of the blocks computes, number for number, random draws included. It
    is iterated, indexed, sliced, printed and saved as a ModuleList of them: ``state_dict`` has the
    names ``0.linear.weight``, ``1.linear.weight``, ..., and a block's own parameters and buffers can be
    read, assigned and initialised as ever.

    Inside, each of them is a row of one array. In a compiled call the blocks are one ``jax.lax.scan``
    over these arrays: tracing and compiling take the same time whatever the number of blocks. So
    gradients and the pure face's ``params`` and ``state`` have the stacked arrays, under the names that a
    block gives them: ``params["linear"]["weight"]`` has the shape ``(N, *shape)``. Their initial
    values are those that the blocks would have in a ModuleList, from every key and every seed.

    The blocks are called one after the other, as a Sequential calls them, where a loop cannot do that: in an
    eager call, which compiles nothing; if some have another mode than the others, or hooks; if a module that all
    share writes a buffer; if what a block returns is not like its input. A parameter is trained in all blocks or
    frozen in all of them.

    A slice is a Stack of the same blocks, and a loop over some of the rows when it is called. Its parameters, and those
    of a copy of it, are those of the blocks one by one; ``nn.Stack(copy.deepcopy(stack[:6]))`` stacks copies anew.

    Args:
        blocks: modules of equal structure: of one class, with equal hyper-parameters, the shapes and dtypes
            of parameters and buffers being equal. They are taken over, not copied. A parameter or module
            that all of them share stays shared.
        remat: compute the activations of a block again in the backward pass instead of storing
            them; True, or a policy of ``jax.checkpoint_policies`` for what is stored all the same.

    Shape:
        - input: what a block takes. What a block returns must be like it.
        - output: the same.

    Raises:
        ArgumentError: the blocks are not of equal structure; the difference is named. Or a block belongs to
            another Stack already, or contains one. Later, from whatever needs the stacked arrays: parameters are
            no longer alike in all blocks, or are frozen in some of them.
        DTypeError: a block is not a module.
        ShapeError: a block has parameters whose shape is not known yet.
        UnsupportedError: (on adding, exchanging or removing a block) the number is fixed.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> stack = nn.Stack(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(24))
        >>> stack
        ModuleList(
          (0-23): 24 x Sequential(
            (0): Linear(in_features=4, out_features=4, bias=True)
            (1): Tanh()
          )
        )
        >>> fn.jit(stack)(jnp.ones((2, 4))).shape
        (2, 4)
        >>> stack[3][0].weight.shape, list(stack.state_dict())[:2]
        ((4, 4), ['0.0.weight', '0.0.bias'])
        >>> fn.get_variables(stack)[0]["0"]["weight"].shape
        (24, 4, 4)

    References:
        jax.lax.scan; jax.checkpoint; torch.nn.ModuleList
    """

    def __init__(
        self, blocks: Iterable[Module], *, remat: bool | Callable[..., bool] = False
    ) -> None:
        super().__init__()
        modules = check_modules("Stack", blocks)
        if not modules or None in modules:
            raise ArgumentError("a Stack is made of one or more modules, but got none, or None")
        if not isinstance(remat, bool) and not callable(remat):
            raise ArgumentError(f"remat must be True, False or a policy, but got {describe(remat)}")
        stacked = _columns(modules)
        self._hold(modules)
        self.remat = remat
        self._stacked = {name: Stacked(cells, name) for name, cells in stacked}

    def _hold(self, modules: Iterable[Module]) -> None:
        self._modules.update({str(i): module for i, module in enumerate(modules)})

    # --- a list of blocks ---

    def __iter__(self) -> Iterator[Module]:
        return iter(self._elements.values())

    @overload
    def __getitem__(self, idx: slice) -> Self: ...

    @overload
    def __getitem__(self, idx: int) -> Any: ...

    def __getitem__(self, idx: int | slice) -> Any:
        if not isinstance(idx, slice):
            return list(self)[position(idx, len(self))]
        part = object.__new__(type(self))
        Module.__init__(part)
        part._hold(list(self)[idx])
        part.remat = self.remat
        object.__setattr__(part, "_training", self._training)
        return part

    def __repr__(self) -> str:
        # PyTorch's text: what is stored, and under which names, is what a ModuleList has.
        text = ModuleList.__repr__(self)  # pyright: ignore[reportArgumentType]
        return text.replace(self._get_name(), "ModuleList", 1)

    def register_module(self, name: str, module: Module | None) -> None:
        """Refused: the blocks of a Stack are fixed."""
        raise UnsupportedError(
            "the blocks of a Stack cannot be exchanged, added or removed, since each of their parameters is a row of "
            "one array: make another Stack, of copy.deepcopy(block) for those of this one"
        )

    add_module = register_module

    # --- the call ---

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """Call every block with the output of the one before.

        Args:
            input: of the first block.
            *args: further arguments, the same for all blocks.
            **kwargs: likewise.
        """
        return call_blocks(list(self), input, args, kwargs, self.remat)


def _columns(modules: list[Module]) -> list[tuple[str, list[Cell]]]:
    """The cells to be stacked, by the name that they have in a block, if the blocks can be."""
    for number, module in enumerate(modules):
        unsettled = [path for path, cell in module._cells() if not cell.settled]
        if unsettled:
            raise ShapeError(
                f"the shapes of {', '.join(unsettled)} of block {number} are not known yet: call each block, or "
                "fn.eval_shape(block, example), before they are stacked"
            )
        if any(cell.whole is not None for _, cell in module._cells(rows=True)):
            raise ArgumentError(
                f"parameters of block {number} belong to a Stack already: copy.deepcopy(block) gives a block that stands "
                "for itself; in blocks that contain repeated blocks, those are an nn.ModuleList or nn.Sequential"
            )
        found = difference(modules[0], module, calls=False)
        if found is not None:
            raise ArgumentError(
                f"the blocks of a Stack must be of equal structure, but block 0 and block {number} differ: {found}; "
                "use nn.ModuleList or nn.Sequential for blocks that differ"
            )
    stacked = []
    for rows in zip(*(module._cells() for module in modules), strict=True):
        cells = [cell for _, cell in rows]
        if len(set(cells)) == len(cells):
            stacked.append((rows[0][0], cells))
        elif len(set(cells)) > 1:
            raise ArgumentError(
                f"some blocks of the Stack share '{rows[0][0]}' and others do not: share it among all or none"
            )
    return stacked
