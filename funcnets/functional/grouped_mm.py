"""Matrix products in groups of unequal sizes, the core of a mixture of experts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe, integer, require_ndim, resolve_dtype
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.functional._numeric import real

__all__ = ["grouped_mm"]


def _cut(x: jax.Array, axis: int, offs: jax.Array) -> jax.Array:
    """A 2D array once for each group, with 0 outside of the group: ``(groups, *x.shape)``."""
    place = jnp.arange(x.shape[axis], dtype=offs.dtype)[None]
    starts = jnp.concatenate([jnp.zeros(1, offs.dtype), offs[:-1]])
    member = (starts[:, None] <= place) & (place < offs[:, None])  # (groups, x.shape[axis])
    return jnp.where(jnp.expand_dims(member, 2 - axis), x[None], jnp.zeros((), x.dtype))


def grouped_mm(
    mat_a: jax.Array,
    mat_b: jax.Array,
    *,
    offs: jax.Array | None = None,
    bias: jax.Array | None = None,
    out_dtype: Any = None,
) -> jax.Array:
    r"""One matrix product per group, with group sizes that are known only at run time.

    A 3D operand has one matrix per group. A 2D operand is cut into groups along one axis, where
    ``offs`` tells the ends: group :math:`g` is ``offs[g - 1]:offs[g]``. What lies behind the last
    end belongs to no group; rows and columns of the result without a group are 0.

    ================== ================== =================== =============================
    ``mat_a``          ``mat_b``          result              what is cut
    ================== ================== =================== =============================
    :math:`(M, K)`     :math:`(G, K, N)`  :math:`(M, N)`      rows: tokens sorted by expert
    :math:`(G, M, K)`  :math:`(K, N)`     :math:`(M, N)`      columns of ``mat_b``
    :math:`(M, K)`     :math:`(K, N)`     :math:`(G, M, N)`   :math:`K`: a gradient of weights
    :math:`(G, M, K)`  :math:`(G, K, N)`  :math:`(G, M, N)`   nothing: a batched product
    ================== ================== =================== =============================

    The groups are masks here, so that every transformation applies and sizes may be traced. It
    costs as much as all tokens through all experts; where that is too much, ``jax.lax.ragged_dot``
    has faster forms for some devices.

    Args:
        mat_a: the left operand.
        mat_b: the right operand, of the same dtype.
        offs: :math:`(G)` integers that do not decrease, the end of each group; required unless both
            operands are 3D. Their values cannot be checked under ``jax.jit``.
        bias: None; PyTorch refuses anything else as well.
        out_dtype: the dtype of the result, that of ``mat_a`` by default. Sums are taken in float32
            for half-precision operands.

    Returns:
        The products, shaped as in the table.

    Raises:
        ShapeError: if the operands do not fit together or ``offs`` does not fit them.
        DTypeError: if the dtypes differ or are not real floating point.
        ArgumentError: if ``offs`` is missing where it is needed, or given for two 3D operands.
        UnsupportedError: if a ``bias`` is given.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> tokens, experts = jnp.ones((6, 4)), jnp.ones((3, 4, 8))
        >>> F.grouped_mm(tokens, experts, offs=jnp.array([1, 4, 6])).shape
        (6, 8)

    References:
        torch.nn.functional.grouped_mm
    """
    if bias is not None:
        raise UnsupportedError("bias is not supported by grouped_mm; add it to the result")
    mat_a, mat_b, offs = check_groups(mat_a, mat_b, offs)
    dtype = mat_a.dtype if out_dtype is None else resolve_dtype(out_dtype)
    if offs is None:
        rule = "gmk,gkn->gmn"
    elif mat_b.ndim == 3:
        mat_a, rule = _cut(mat_a, 0, offs), "gmk,gkn->mn"
    elif mat_a.ndim == 3:
        mat_b, rule = _cut(mat_b, 1, offs), "gmk,gkn->mn"
    else:
        mat_a, mat_b, rule = _cut(mat_a, 1, offs), _cut(mat_b, 0, offs), "gmk,gkn->gmn"
    wide = jnp.float32 if jnp.finfo(mat_a.dtype).bits < 32 else mat_a.dtype
    return jnp.einsum(rule, mat_a, mat_b, preferred_element_type=wide).astype(dtype)


def check_groups(
    mat_a: Any, mat_b: Any, offs: Any
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The operands and the ends of the groups as arrays that fit together."""
    mat_a, mat_b = real("mat_a", mat_a), real("mat_b", mat_b)
    for name, x in (("mat_a", mat_a), ("mat_b", mat_b)):
        require_ndim(name, x, (2, 3), "(rows, columns) or (groups, rows, columns)")
    got = f"mat_a {describe(mat_a)} and mat_b {describe(mat_b)}"
    if mat_a.dtype != mat_b.dtype:
        raise DTypeError(f"mat_a and mat_b must have one dtype, but got {got}")
    if mat_a.shape[-1] != mat_b.shape[-2]:
        raise ShapeError(
            f"the columns of mat_a must be as many as the rows of mat_b, but got {got}"
        )
    groups = [x.shape[0] for x in (mat_a, mat_b) if x.ndim == 3]
    if (offs is None) != (len(groups) == 2):
        raise ArgumentError(
            f"offs must be {'None for two 3D operands' if offs is not None else 'given'}, "
            f"but got offs {describe(offs)} for {got}"
        )
    if offs is not None:
        offs = integer("offs", offs)
        require_ndim("offs", offs, (1,), "(groups,)")
        groups.append(offs.shape[0])
    if len(set(groups)) > 1:
        ends = "" if offs is None else f", offs {describe(offs)}"
        raise ShapeError(f"the operands must have the same number of groups, but got {got}{ends}")
    return mat_a, mat_b, offs
