"""The older weight normalisation, with ``weight_g`` and ``weight_v`` on the module itself."""

from __future__ import annotations

import warnings
from typing import Any

import jax

from funcnets.core.cell import Cell
from funcnets.core.derived import Derivation
from funcnets.core.module import Module
from funcnets.core.tree import TreeNameError
from funcnets.errors import ArgumentError, UnsupportedError
from funcnets.nn.utils import _norms
from funcnets.nn.utils._computed import compute, rule_of, stop_computing
from funcnets.nn.utils.parametrize import find_cell, register

__all__ = ["AlreadyNormalisedError", "WeightNorm", "remove_weight_norm", "weight_norm"]


class AlreadyNormalisedError(ArgumentError, RuntimeError):
    """A parameter is normalised a second time."""


class WeightNorm:
    """The rule of a weight with its length and direction apart; see :func:`weight_norm`.

    Args:
        name: the name of the weight.
        dim: the axis along which there are several lengths, -1 for none.
    """

    prefix = ""

    def __init__(self, name: str, dim: int) -> None:
        self.name, self.dim = name, dim

    def compute_weight(self, module: Module) -> jax.Array:
        """The weight of ``module``."""
        v, g = getattr(module, f"{self.name}_v"), getattr(module, f"{self.name}_g")
        return _norms.weight_norm(_array(v), _array(g), self.dim)

    value = compute_weight

    def assign(self, module: Module, value: Any) -> None:
        """The weight is computed: this raises and says what to assign to."""
        raise UnsupportedError(
            f"'{self.name}' is computed from '{self.name}_g' and '{self.name}_v': assign to their .data"
        )


def _array(cell: Any) -> jax.Array:
    """The array of a cell, or within a call the array that it is already."""
    return cell.data if isinstance(cell, Cell) else cell


class _Apart:
    """Length and direction of a weight."""

    def __init__(self, cell: Cell, dim: int) -> None:
        self.cell, self.dim = cell, dim

    def __call__(self) -> list[jax.Array]:
        weight = self.cell.data
        return [_norms.norm_except_dim(weight, self.dim), weight]


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    r"""Train the lengths and the directions of a weight apart.

    PyTorch has deprecated it and recommends ``nn.utils.parametrizations.weight_norm``.

    .. math::
        w = g \, \frac{v}{\lVert v \rVert}

    Args:
        module: the module whose parameter it is.
        name: its name; :math:`g` is ``weight_g`` then, and :math:`v` is ``weight_v``. These are new
            parameters: make the optimizer afterwards.
        dim: the axis along which there are several lengths; None, or as in PyTorch -1, for a
            single one of the whole weight.

    Returns:
        ``module``, whose class is a subclass of the former one with the same name.

    Raises:
        ArgumentError: there is no such parameter or axis, or it is normalised already.
        ShapeError: its shape is not known yet.

    Examples:
        >>> import warnings
        >>> from funcnets import nn
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     layer = nn.utils.weight_norm(nn.Linear(20, 40))
        >>> layer
        Linear(in_features=20, out_features=40, bias=True)
        >>> layer.weight_g.shape, layer.weight_v.shape
        ((40, 1), (40, 20))

    References:
        Salimans and Kingma, 2016; torch.nn.utils.weight_norm
    """
    warnings.warn(
        "`torch.nn.utils.weight_norm` is deprecated in favor of "
        "`torch.nn.utils.parametrizations.weight_norm`.",
        FutureWarning,
        stacklevel=2,
    )
    refuse_second(module, name, WeightNorm, "weight_norm")
    cell = find_cell(module, name)
    dim = _norms.check_dim(dim, cell.ndim)
    derived = Derivation(_Apart(cell, dim), [cell])
    parts = {f"{name}_{part}": derived.cell_like(cell, i) for i, part in enumerate("gv")}
    refuse_taken(module, parts)
    delattr(module, name)
    for i, (part, new) in enumerate(parts.items()):
        derived.give(new, i, 1, (name,))
        register(module, part, new)
    compute(module, name, WeightNorm(name, dim))
    return module


def refuse_second(module: Module, name: str, kind: type, what: str) -> None:
    """Refuse to normalise what is normalised."""
    if isinstance(rule_of(module, name), kind):
        raise AlreadyNormalisedError(
            f"Cannot register two {what} hooks on the same parameter {name}"
        )


def refuse_taken(module: Module, names: Any) -> None:
    """Refuse names that are attributes already, before anything has changed."""
    for name in names:
        if hasattr(module, name):
            raise TreeNameError(f"attribute '{name}' already exists")


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make a weight-normalised weight an ordinary parameter again, with its present value.

    Args:
        module: the module.
        name: the name of the weight.

    Returns:
        ``module``.

    Raises:
        ArgumentError: the weight is not normalised by :func:`weight_norm`.

    Examples:
        >>> import warnings
        >>> from funcnets import nn
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     layer = nn.utils.weight_norm(nn.Linear(20, 40))
        >>> list(nn.utils.remove_weight_norm(layer).state_dict())
        ['bias', 'weight']

    References:
        torch.nn.utils.remove_weight_norm
    """
    rule = rule_of(module, name)
    if not isinstance(rule, WeightNorm):
        raise ArgumentError(f"weight_norm of '{name}' not found in {module}")
    trained, value = find_cell(module, f"{name}_v"), rule.compute_weight(module)
    stop_computing(module, name)
    for part in "gv":
        delattr(module, f"{name}_{part}")
    register(module, name, like(trained, value))
    return module


def like(cell: Cell, value: Any) -> Cell:
    """A cell of the kind of ``cell`` with a value."""
    kind: Any = type(cell)
    new = kind(value, device=cell._placement)
    if hasattr(new, "requires_grad_"):
        new.requires_grad_(cell.requires_grad)
    return new
