"""Products of 8 and 4 bit matrices that come with scales.

The operands are taken back to float32 and multiplied: the reference that the fast kernels of some
devices approximate. How scales lie in memory is in ``_scales.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import as_array, as_int, describe, require_ndim, resolve_dtype
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.functional._scales import (
    Groups,
    Scale,
    ScalingType,
    SwizzleType,
    factor,
    factor_of_cut_columns,
    factor_of_cut_rows,
)
from funcnets.functional.grouped_mm import check_groups, grouped_mm

__all__ = ["ScalingType", "SwizzleType", "scaled_grouped_mm", "scaled_mm"]


class _Format(NamedTuple):
    """A pair of recipes that PyTorch has, and the dtypes of the operands they are for."""

    a: tuple[ScalingType, ...]
    b: tuple[ScalingType, ...]
    dtypes: tuple[str, ...]
    grouped: bool


_T, _16 = ScalingType.TensorWise, ScalingType.BlockWise1x16
_R, _32 = ScalingType.RowWise, ScalingType.BlockWise1x32
_128, _SQUARE = ScalingType.BlockWise1x128, ScalingType.BlockWise128x128
_E4M3 = ("float8_e4m3fn",)
_FP8 = (*_E4M3, "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_FP4 = ("float4_e2m1fn",)

_FORMATS = (
    _Format((_T,), (_T,), _FP8, False),
    _Format((_R,), (_R,), _FP8, True),
    _Format((_128,), (_128,), _E4M3, False),
    _Format((_128,), (_SQUARE,), _E4M3, False),
    _Format((_SQUARE,), (_128,), _E4M3, False),
    _Format((_32,), (_32,), _E4M3, True),  # MXFP8
    _Format((_32,), (_32,), _FP4, True),  # MXFP4
    _Format((_16,), (_16,), _FP4, False),  # NVFP4 without the scale of the whole
    _Format((_16, _T), (_16, _T), _FP4, True),  # NVFP4
)


def scaled_mm(
    mat_a: jax.Array,
    mat_b: jax.Array,
    scale_a: jax.Array | Sequence[jax.Array],
    scale_recipe_a: ScalingType | Sequence[ScalingType],
    scale_b: jax.Array | Sequence[jax.Array],
    scale_recipe_b: ScalingType | Sequence[ScalingType],
    swizzle_a: SwizzleType | Sequence[SwizzleType] | None = None,
    swizzle_b: SwizzleType | Sequence[SwizzleType] | None = None,
    bias: jax.Array | None = None,
    output_dtype: Any = jnp.bfloat16,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> jax.Array:
    r"""The product of two float8 or float4 matrices, each to be multiplied by its scales first.

    .. math:: y = (s_A \odot A)(s_B \odot B) + b

    The scales multiply in float32 and the sums are taken in float32. A recipe tells what shares one
    scale, and so the shape of the scales; :math:`\lceil\cdot\rceil` rounds up to whole blocks:

    ================= ================== ================================================= ========
    recipe            operands           shape of ``scale_a``; ``scale_b`` has N for M     dtype
    ================= ================== ================================================= ========
    TensorWise        float8             one element                                       float32
    RowWise           float8             :math:`(M, 1)`; ``scale_b``: :math:`(1, N)`       float32
    BlockWise1x128    float8_e4m3fn      :math:`(M, \lceil K/128 \rceil)`                  float32
    BlockWise128x128  float8_e4m3fn      :math:`(\lceil K/128 \rceil` up to a multiple of  float32
                                         4, :math:`\lceil M/128 \rceil)`
    BlockWise1x32     float8_e4m3fn,     :math:`(M, \lceil K/32 \rceil)`                   e8m0fnu
                      float4_e2m1fn
    BlockWise1x16     float4_e2m1fn      :math:`(M, \lceil K/16 \rceil)`                   e4m3fn
    ================= ================== ================================================= ========

    Both operands have the same recipe, but BlockWise1x128 also goes with BlockWise128x128 on either
    side. ``[BlockWise1x16, TensorWise]`` takes two scales, ``[blocks, whole]``. Blocks lie along
    :math:`K` in both operands. With ``SWIZZLE_32_4_4`` the scales of BlockWise1x32 and
    BlockWise1x16 come in any shape, padded to :math:`128 \lceil M/128 \rceil` rows and a multiple of
    4 columns, and tile by tile of 128 rows and 4 columns: row :math:`32 q + p` and column :math:`j`
    of a tile is its element :math:`16 p + 4 q + j`.

    float4 is one element per value here, while PyTorch packs two into a byte along :math:`K`.

    Args:
        mat_a: :math:`(M, K)`.
        mat_b: :math:`(K, N)`.
        scale_a: the scales of ``mat_a``, one array for each recipe.
        scale_recipe_a: what shares one scale.
        scale_b: the scales of ``mat_b``.
        scale_recipe_b: what shares one scale.
        swizzle_a: how ``scale_a`` lies in memory, one for each recipe or for the first; None is
            ``NO_SWIZZLE``.
        swizzle_b: how ``scale_b`` lies in memory.
        bias: :math:`(N)` in float32, bfloat16 or float16.
        output_dtype: the dtype of the result; None is that of ``mat_a``. float8_e4m3fn saturates.
        contraction_dim: the axes that are summed over, ``(-1, -2)``, which is the only choice.
        use_fast_accum: False; sums are not taken in less than float32.

    Returns:
        :math:`(M, N)` of ``output_dtype``.

    Raises:
        ArgumentError: recipes that do not go together, or options that are not valid.
        DTypeError: operands, scales or ``bias`` of a dtype that the recipes do not take.
        ShapeError: operands, scales or ``bias`` that do not fit together.
        UnsupportedError: ``use_fast_accum`` is True.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> a, b = jnp.ones((2, 4), jnp.float8_e4m3fn), jnp.ones((4, 3), jnp.float8_e4m3fn)
        >>> rows, columns = jnp.array([[1.0], [2.0]]), jnp.ones((1, 3))
        >>> recipe = F.ScalingType.RowWise
        >>> F.scaled_mm(a, b, rows, recipe, columns, recipe).tolist()
        [[4.0, 4.0, 4.0], [8.0, 8.0, 8.0]]

    References:
        Rouhani et al., "Microscaling data formats for deep learning", 2023;
        torch.nn.functional.scaled_mm
    """
    _refuse_fast(use_fast_accum)
    mat_a, mat_b = as_array("mat_a", mat_a), as_array("mat_b", mat_b)
    require_ndim("mat_a", mat_a, (2,), "(M, K)")
    require_ndim("mat_b", mat_b, (2,), "(K, N)")
    if mat_a.shape[1] != mat_b.shape[0]:
        raise ShapeError(
            f"the columns of mat_a must be as many as the rows of mat_b, but got "
            f"mat_a {describe(mat_a)} and mat_b {describe(mat_b)}"
        )
    _check_contraction(contraction_dim, mat_a, mat_b)
    scales_a, scales_b = _scales(
        (mat_a, scale_a, scale_recipe_a, swizzle_a), (mat_b, scale_b, scale_recipe_b, swizzle_b)
    )
    dtype = _output_dtype(mat_a.dtype if output_dtype is None else output_dtype)
    bias = _bias(bias, mat_b.shape[1])

    a, b = mat_a.astype(jnp.float32), mat_b.astype(jnp.float32).T
    for scale in scales_a:
        a = a * factor(scale, a.shape, (a.shape[0], 1))
    for scale in scales_b:
        b = b * factor(scale, b.shape, (1, b.shape[0]))
    out = lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    return _cast(out if bias is None else out + bias, dtype)


def scaled_grouped_mm(
    mat_a: jax.Array,
    mat_b: jax.Array,
    scale_a: jax.Array | Sequence[jax.Array],
    scale_recipe_a: ScalingType | Sequence[ScalingType],
    scale_b: jax.Array | Sequence[jax.Array],
    scale_recipe_b: ScalingType | Sequence[ScalingType],
    swizzle_a: SwizzleType | Sequence[SwizzleType] | None = None,
    swizzle_b: SwizzleType | Sequence[SwizzleType] | None = None,
    bias: jax.Array | None = None,
    offs: jax.Array | None = None,
    output_dtype: Any = jnp.bfloat16,
    contraction_dim: Sequence[int] = (),
    use_fast_accum: bool = False,
) -> jax.Array:
    r"""One product of scaled float8 or float4 matrices per group: :func:`grouped_mm` with scales.

    The shapes of the operands, what ``offs`` cuts and the result are those of :func:`grouped_mm`,
    the recipes those of :func:`scaled_mm` as far as PyTorch takes them in groups: RowWise,
    BlockWise1x32 and ``[BlockWise1x16, TensorWise]``. Shapes of ``scale_a``, where ``scale_b`` has N
    for M, and :math:`\lceil\cdot\rceil` rounds up to whole blocks of :math:`B` elements:

    =============== ===================== ============================== ===========================
    recipe          :math:`(G, M, K)`     :math:`(M, K)`, rows cut       :math:`(M, K)`, columns cut
    =============== ===================== ============================== ===========================
    RowWise         :math:`(G, M)`        :math:`(M)`                    :math:`(G M)`, group by
                                                                         group
    TensorWise      :math:`(G)`           :math:`(G)`                    :math:`(G)`
    blocks          :math:`(G, M,         :math:`(M,                     :math:`(M, \text{blocks of
                    \lceil K/B \rceil)`   \lceil K/B \rceil)`            all groups})`
    blocks,         :math:`(G, \cdot)`    2D, the padded tiles of one    2D, the padded tiles of one
    swizzled                              group after another            group after another
    =============== ===================== ============================== ===========================

    Where columns are cut, every group begins with a block of its own. If block scales are fewer
    than ``offs`` asks for, which cannot be seen under ``jax.jit``, the rows or groups that lack them
    are NaN.

    Args:
        mat_a: the left operand, :math:`(M, K)` or :math:`(G, M, K)`.
        mat_b: the right operand, :math:`(K, N)` or :math:`(G, K, N)`, of the same dtype.
        scale_a: the scales of ``mat_a``, one array for each recipe.
        scale_recipe_a: what shares one scale.
        scale_b: the scales of ``mat_b``.
        scale_recipe_b: what shares one scale.
        swizzle_a: how ``scale_a`` lies in memory, one for each recipe or for the first; None is
            ``NO_SWIZZLE``.
        swizzle_b: how ``scale_b`` lies in memory.
        bias: None; PyTorch refuses anything else as well.
        offs: :math:`(G)` integers that do not decrease, the end of each group; required unless both
            operands are 3D.
        output_dtype: the dtype of the result; None is bfloat16.
        contraction_dim: the axes that are summed over, ``(-1, -2)``, which is the only choice.
        use_fast_accum: False; sums are not taken in less than float32.

    Returns:
        The products, of ``output_dtype``.

    Raises:
        ArgumentError: recipes that do not go together, or options that are not valid.
        DTypeError: operands or scales of a dtype that the recipes do not take.
        ShapeError: operands, scales or ``offs`` that do not fit together.
        UnsupportedError: a ``bias`` is given, or ``use_fast_accum`` is True.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> tokens = jnp.ones((6, 4), jnp.float8_e4m3fn)
        >>> experts = jnp.ones((3, 4, 8), jnp.float8_e4m3fn)
        >>> recipe = F.ScalingType.RowWise
        >>> F.scaled_grouped_mm(
        ...     tokens, experts, jnp.ones(6), recipe, jnp.ones((3, 8)), recipe,
        ...     offs=jnp.array([1, 4, 6]),
        ... ).shape
        (6, 8)

    References:
        torch.nn.functional.scaled_grouped_mm
    """
    _refuse_fast(use_fast_accum)
    if bias is not None:
        raise UnsupportedError("bias is not supported by scaled_grouped_mm; add it to the result")
    mat_a, mat_b, offs = check_groups(mat_a, mat_b, offs)
    if offs is not None and not offs.size:
        raise ShapeError("offs must have the end of at least one group, but it is empty")
    _check_contraction(contraction_dim, mat_a, mat_b)
    scales_a, scales_b = _scales(
        (mat_a, scale_a, scale_recipe_a, swizzle_a),
        (mat_b, scale_b, scale_recipe_b, swizzle_b),
        grouped=True,
    )
    dtype = _output_dtype(jnp.bfloat16 if output_dtype is None else output_dtype)

    cut_columns = mat_a.ndim == mat_b.ndim == 2

    def scaled(x: jax.Array, scales: list[Scale]) -> jax.Array:
        original = x.astype(jnp.float32)  # (..., outer, K)
        for scale in scales:
            if offs is None or original.ndim == 3:
                part = factor(scale, original.shape, original.shape[:-1])
            elif cut_columns:
                part = factor_of_cut_columns(scale, original.shape, Groups(offs, x.shape[1]))
            else:
                part = factor_of_cut_rows(scale, original.shape, Groups(offs, x.shape[0]))
            original = original * part
        return original

    out = grouped_mm(scaled(mat_a, scales_a), scaled(mat_b.mT, scales_b).mT, offs=offs)
    return _cast(out, dtype)


# --- checks -----------------------------------------------------------------------------------


def _refuse_fast(use_fast_accum: bool) -> None:
    if use_fast_accum:
        raise UnsupportedError(
            "use_fast_accum=True asks for sums in less than float32, which is not there: "
            "leave it False"
        )


def _check_contraction(dims: Sequence[int], a: jax.Array, b: jax.Array) -> None:
    axes = tuple(as_int("contraction_dim", d) for d in dims)
    if axes and axes not in ((-1, -2), (a.ndim - 1, b.ndim - 2)):
        raise ArgumentError(
            "contraction_dim must be empty or (-1, -2), the columns of mat_a and the rows of "
            f"mat_b, but got {axes}; transpose the operands"
        )


def _output_dtype(dtype: Any) -> Any:
    dtype = resolve_dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise DTypeError(f"output_dtype must be a floating point dtype, but got {dtype}")
    return dtype


def _bias(bias: Any, columns: int) -> jax.Array | None:
    if bias is None:
        return None
    bias = as_array("bias", bias)
    if bias.dtype.name not in ("float32", "bfloat16", "float16"):
        raise DTypeError(f"bias must be float32, bfloat16 or float16, but got {describe(bias)}")
    if bias.shape not in ((columns,), (1, columns)):
        raise ShapeError(
            f"bias must have one element for each of the {columns} columns of mat_b, but got "
            f"{describe(bias)}"
        )
    return bias.astype(jnp.float32).reshape(1, columns)


def _cast(x: jax.Array, dtype: Any) -> jax.Array:
    # This type has no infinity: PyTorch gives its largest number where JAX gives NaN.
    return (jnp.clip(x, -448.0, 448.0) if dtype.name == "float8_e4m3fn" else x).astype(dtype)


def _scales(*operands: tuple[Any, Any, Any, Any], grouped: bool = False) -> list[list[Scale]]:
    """The checked scales of both operands, each given as ``(matrix, scales, recipes, swizzles)``."""
    found = []
    for side, (_, scale, recipe, swizzle) in zip("ab", operands, strict=True):
        recipes = _members(f"scale_recipe_{side}", recipe, ScalingType)
        arrays = scale if isinstance(scale, (list, tuple)) else [scale]
        if len(arrays) != len(recipes):
            raise ArgumentError(
                f"scale_{side} and scale_recipe_{side} must be equally many, but got "
                f"{len(arrays)} and {len(recipes)}"
            )
        swizzles = [] if swizzle is None else _members(f"swizzle_{side}", swizzle, SwizzleType)
        if len(swizzles) > len(recipes):
            raise ArgumentError(
                f"swizzle_{side} must be None, or one for each of the {len(recipes)} scales, "
                f"but got {len(swizzles)}"
            )
        swizzles += [SwizzleType.NO_SWIZZLE] * (len(recipes) - len(swizzles))
        names = [f"scale_{side}" + (f"[{i}]" if i else "") for i in range(len(recipes))]
        found.append(list(zip(names, arrays, recipes, swizzles, strict=True)))
    _check_format([x for x, *_ in operands], [[r for _, _, r, _ in f] for f in found], grouped)
    return [[Scale.of(*one) for one in side] for side in found]


def _members(name: str, given: Any, kind: Any) -> list[Any]:
    members = list(given) if isinstance(given, (list, tuple)) else [given]
    for member in members:
        if not isinstance(member, kind):
            raise ArgumentError(
                f"{name} must be of {kind.__name__}, such as {next(iter(kind))}, but got "
                f"{describe(member)}"
            )
    return members


def _check_format(matrices: list[Any], recipes: list[list[ScalingType]], grouped: bool) -> None:
    a, b = (tuple(r) for r in recipes)
    known = [f for f in _FORMATS if f.grouped or not grouped]
    fitting = [f for f in known if (f.a, f.b) == (a, b)]
    text = lambda *pair: " with ".join("+".join(r.name for r in rs) for rs in pair)  # noqa: E731
    if not fitting:
        listed = ", ".join(dict.fromkeys(text(f.a, f.b) for f in known))
        raise ArgumentError(
            f"scale_recipe_a and scale_recipe_b must be one of {listed}, but got {text(a, b)}"
        )
    if not any({m.dtype.name for m in matrices} <= set(f.dtypes) for f in fitting):
        listed = ", or both ".join(" or ".join(f.dtypes) for f in fitting)
        got = " and ".join(describe(m) for m in matrices)
        raise DTypeError(f"mat_a and mat_b must both be {listed} for {text(a, b)}, but got {got}")
