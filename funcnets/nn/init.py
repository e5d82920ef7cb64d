"""PyTorch's in-place initialisers: they put a pure initializer of ``funcnets.init`` into a Parameter.

``nn.init.xavier_uniform_(layer.weight)`` works before and after the parameter has a value. The value
is drawn again when it is next read, and the pure face's ``init`` uses the new initializer as well.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax

from funcnets import init
from funcnets._args import describe
from funcnets.core.cell import Cell
from funcnets.errors import DTypeError, UnsupportedError
from funcnets.init import calculate_gain

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

C = TypeVar("C", bound=Cell)


def _put(cell: C, rule: init.Initializer, generator: Any = None) -> C:
    if not isinstance(cell, Cell):
        kind = "an immutable array" if isinstance(cell, jax.Array) else describe(cell)
        raise DTypeError(
            f"an in-place initialiser takes a Parameter or Buffer, but got {kind}; "
            "for a new array call the pure one: funcnets.init.normal()(key, shape, dtype)"
        )
    if generator is not None:
        raise UnsupportedError(
            "generator is not supported: seed with fn.manual_seed, or pass a key to init"
        )
    rule.check(cell.shape)
    cell.reinitialise(rule)
    return cell


def uniform_(tensor: C, a: float = 0.0, b: float = 1.0, generator: None = None) -> C:
    """Fill with uniform draws from [a, b).

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        a, b: see :func:`funcnets.init.uniform`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.uniform_
    """
    return _put(tensor, init.uniform(a, b), generator)


def normal_(tensor: C, mean: float = 0.0, std: float = 1.0, generator: None = None) -> C:
    """Fill with normal draws.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        mean, std: see :func:`funcnets.init.normal`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.normal_
    """
    return _put(tensor, init.normal(mean, std), generator)


def trunc_normal_(
    tensor: C,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: None = None,
) -> C:
    """Fill with normal draws that lie within [a, b].

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        mean, std, a, b: see :func:`funcnets.init.trunc_normal`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.trunc_normal_
    """
    return _put(tensor, init.trunc_normal(mean, std, a, b), generator)


def constant_(tensor: C, val: float) -> C:
    """Fill with one value.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        val: see :func:`funcnets.init.constant`.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.constant_
    """
    return _put(tensor, init.constant(val))


def ones_(tensor: C) -> C:
    """Fill with ones.

    Args:
        tensor: a Parameter or Buffer, with or without a value.

    Returns:
        ``tensor``, with :func:`funcnets.init.ones`.

    References:
        torch.nn.init.ones_
    """
    return _put(tensor, init.ones())


def zeros_(tensor: C) -> C:
    """Fill with zeros.

    Args:
        tensor: a Parameter or Buffer, with or without a value.

    Returns:
        ``tensor``, with :func:`funcnets.init.zeros`.

    References:
        torch.nn.init.zeros_
    """
    return _put(tensor, init.zeros())


def eye_(tensor: C) -> C:
    """Fill a matrix with the identity.

    Args:
        tensor: a Parameter or Buffer, with or without a value.

    Returns:
        ``tensor``, with :func:`funcnets.init.eye`.

    References:
        torch.nn.init.eye_
    """
    return _put(tensor, init.eye())


def dirac_(tensor: C, groups: int = 1) -> C:
    """Fill a convolution's weight so that it passes its input through.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        groups: see :func:`funcnets.init.dirac`.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.dirac_
    """
    return _put(tensor, init.dirac(groups))


def xavier_uniform_(tensor: C, gain: float = 1.0, generator: None = None) -> C:
    """Fill with Glorot's uniform draws.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        gain: see :func:`funcnets.init.xavier_uniform`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.xavier_uniform_
    """
    return _put(tensor, init.xavier_uniform(gain), generator)


def xavier_normal_(tensor: C, gain: float = 1.0, generator: None = None) -> C:
    """Fill with Glorot's normal draws.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        gain: see :func:`funcnets.init.xavier_normal`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.xavier_normal_
    """
    return _put(tensor, init.xavier_normal(gain), generator)


def kaiming_uniform_(
    tensor: C,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: None = None,
) -> C:
    """Fill with He's uniform draws.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        a, mode, nonlinearity: see :func:`funcnets.init.kaiming_uniform`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.kaiming_uniform_
    """
    return _put(tensor, init.kaiming_uniform(a, mode, nonlinearity), generator)


def kaiming_normal_(
    tensor: C,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: None = None,
) -> C:
    """Fill with He's normal draws.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        a, mode, nonlinearity: see :func:`funcnets.init.kaiming_normal`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.kaiming_normal_
    """
    return _put(tensor, init.kaiming_normal(a, mode, nonlinearity), generator)


def orthogonal_(tensor: C, gain: float = 1, generator: None = None) -> C:
    """Fill with a (semi-)orthogonal matrix.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        gain: see :func:`funcnets.init.orthogonal`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.orthogonal_
    """
    return _put(tensor, init.orthogonal(gain), generator)


def sparse_(tensor: C, sparsity: float, std: float = 0.01, generator: None = None) -> C:
    """Fill with normal draws of which a fraction of every column is zero.

    Args:
        tensor: a Parameter or Buffer, with or without a value.
        sparsity, std: see :func:`funcnets.init.sparse`.
        generator: refused: seed with ``fn.manual_seed``.

    Returns:
        ``tensor``.

    References:
        torch.nn.init.sparse_
    """
    return _put(tensor, init.sparse(sparsity, std), generator)
