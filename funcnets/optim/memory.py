"""What an optax transformation keeps between steps, as cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from funcnets.core.cell import Buffer, Parameter, materialise
from funcnets.init import Initializer

__all__ = ["Memory"]


class Memory:
    """The state of a transformation for the parameters that took their first step together.

    Parameters that join later (unfrozen, say) get a memory of their own, so that their step count
    starts at one as in PyTorch. Once ``started``, a memory holds the same parameters for good:
    compiled steps rely on it.

    Args:
        cells: the parameters.
    """

    def __init__(self, cells: Sequence[Parameter]) -> None:
        self.cells = list(cells)
        self.started = False
        # By the place in the state, so that what a change of options leaves in place is kept.
        self._buffers: dict[Any, Buffer] = {}

    def arrange(
        self, tx: optax.GradientTransformation
    ) -> tuple[list[Any], list[Any], list[Buffer], Any]:
        """What ``tx`` keeps, described without allocating it.

        Args:
            tx: the transformation, with the options of now.

        Returns:
            The places, the shapes and dtypes, the cells, and the structure to put their arrays into.
        """
        shapes = {str(i): jax.ShapeDtypeStruct(c.shape, c.dtype) for i, c in enumerate(self.cells)}
        rows, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(tx.init, shapes))
        begin = self._beginning(tx)
        for i, (path, leaf) in enumerate(rows):
            if (path, leaf.shape) not in self._buffers:
                self._buffers[path, leaf.shape] = Buffer(leaf, _Start(begin, i))
        buffers = [self._buffers[path, leaf.shape] for path, leaf in rows]
        return [path for path, _ in rows], [leaf for _, leaf in rows], buffers, structure

    def _beginning(self, tx: optax.GradientTransformation) -> Callable[[int], jax.Array]:
        """A function that gives the i-th array of ``tx.init``, which runs once for all of them."""
        waiting: dict[int, jax.Array] = {}

        def begin(i: int) -> jax.Array:
            if i not in waiting:
                materialise(self.cells)
                params: Any = {str(n): c._value for n, c in enumerate(self.cells)}
                held = {id(value) for value in params.values()}
                for n, value in enumerate(jax.tree.leaves(tx.init(params))):
                    # A transformation may keep the parameters themselves, or one array in two places.
                    value = jnp.asarray(value)
                    waiting[n] = jnp.copy(value) if id(value) in held else value
                    held.add(id(waiting[n]))
            return waiting.pop(i)

        return begin


class _Start(Initializer):
    """One array of the initial state."""

    needs_key: ClassVar[bool] = False

    def __init__(self, begin: Callable[[int], jax.Array], index: int) -> None:
        object.__setattr__(self, "begin", begin)
        object.__setattr__(self, "index", index)

    def __call__(self, key: Any, shape: Any, dtype: Any = None) -> jax.Array:
        return self.begin(self.index)  # pyright: ignore[reportAttributeAccessIssue]

    __eq__ = object.__eq__  # pyright: ignore[reportAssignmentType]
    __hash__ = object.__hash__
