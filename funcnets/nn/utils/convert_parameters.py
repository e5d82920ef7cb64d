"""All parameters as one vector, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.cell import Cell, Stateful
from funcnets.core.convert import as_array
from funcnets.errors import DTypeError, ShapeError

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def _leaves(parameters: Any) -> tuple[list[Any], Any]:
    """The parameters or arrays, and the structure in which they came."""
    if isinstance(parameters, Stateful):
        raise DTypeError(
            f"pass {type(parameters).__name__}.parameters(), or a tree of arrays, instead of the module itself"
        )
    if isinstance(parameters, Iterable) and not isinstance(
        parameters, (Mapping, tuple, list, Cell, jax.Array, np.ndarray)
    ):
        parameters = list(parameters)
    leaves, structure = jax.tree.flatten(parameters, is_leaf=lambda x: isinstance(x, Cell))
    for leaf in leaves:
        if not isinstance(leaf, (Cell, jax.Array, np.ndarray)):
            raise DTypeError(f"parameters must be Parameters or arrays, but got {describe(leaf)}")
    return leaves, structure


def parameters_to_vector(parameters: Any) -> jax.Array:
    """All elements of some parameters in one vector.

    Args:
        parameters: an iterable of Parameters, such as ``model.parameters()``; or any pytree of
            arrays, such as the ``params`` of the pure face. A dict of arrays is taken in the order
            of its sorted keys, as by ``jax.tree.leaves``.

    Returns:
        A vector, of the widest of their dtypes.

    Raises:
        DTypeError: something else than Parameters and arrays.

    Examples:
        >>> from funcnets import nn
        >>> nn.utils.parameters_to_vector(nn.Linear(3, 2).parameters()).shape
        (8,)

    References:
        torch.nn.utils.parameters_to_vector
    """
    leaves, _ = _leaves(parameters)
    if not leaves:
        raise ShapeError("parameters_to_vector needs at least one parameter, but got none")
    arrays = [leaf.data if isinstance(leaf, Cell) else jnp.asarray(leaf) for leaf in leaves]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*(array.dtype for array in arrays))
    return jnp.concatenate([array.ravel().astype(dtype) for array in arrays])


def vector_to_parameters(vec: Any, parameters: Any) -> Any:
    """Put the elements of a vector into parameters, in their order, shapes and dtypes.

    Args:
        vec: a vector, as :func:`parameters_to_vector` gives it.
        parameters: an iterable of Parameters, whose values are replaced; or a pytree of arrays, of
            which a new one is made.

    Returns:
        None for Parameters; for arrays a pytree of the same structure.

    Raises:
        DTypeError: ``vec`` is not an array.
        ShapeError: it has not as many elements as the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> layer = nn.Linear(3, 2)
        >>> nn.utils.vector_to_parameters(jnp.arange(8.0), layer.parameters())
        >>> layer.bias.tolist()
        [6.0, 7.0]
        >>> nn.utils.vector_to_parameters(jnp.arange(3.0), {"b": jnp.zeros(1), "a": jnp.zeros(2)})["b"].tolist()
        [2.0]

    References:
        torch.nn.utils.vector_to_parameters
    """
    if not isinstance(vec, (Cell, jax.Array, np.ndarray)):
        raise DTypeError(f"vec must be an array, but got {describe(vec)}")
    vector = as_array(vec, None)
    leaves, structure = _leaves(parameters)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    if vector.shape != (sum(sizes),):
        raise ShapeError(
            f"vec must have shape ({sum(sizes)},), the number of elements of the parameters, but got {describe(vector)}"
        )
    parts = jnp.split(vector, np.cumsum(sizes)[:-1].tolist()) if leaves else []
    values = [
        part.reshape(leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    if not any(isinstance(leaf, Cell) for leaf in leaves):
        return jax.tree.unflatten(structure, values)
    if not all(isinstance(leaf, Cell) for leaf in leaves):
        raise DTypeError("parameters must all be Parameters or all be arrays, but are of both")
    for leaf, value in zip(leaves, values, strict=True):
        leaf.data = value
    return None
