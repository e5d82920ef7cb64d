"""The scales of :func:`~funcnets.functional.scaled_mm`: who shares one, and where it lies in memory.

Everything here sees an operand as ``(..., outer, inner)`` with the contracted axis last, so that the
two operands are alike. Nothing here is public but the two enums.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnets._args import as_array, describe
from funcnets.errors import ArgumentError, DTypeError, ShapeError


class ScalingType(enum.Enum):
    """What shares one scale: an array, a row, or a block of rows x elements of the contracted axis.

    Examples:
        >>> from funcnets import functional as F
        >>> F.ScalingType.BlockWise1x32.value
        3

    References:
        torch.nn.functional.ScalingType
    """

    TensorWise = 0
    RowWise = 1
    BlockWise1x16 = 2
    BlockWise1x32 = 3
    BlockWise1x128 = 4
    BlockWise128x128 = 5


class SwizzleType(enum.Enum):
    """How scales lie in memory: in order, or in tiles of 128 x 4 as tensor cores read them.

    Examples:
        >>> from funcnets import functional as F
        >>> F.SwizzleType.SWIZZLE_32_4_4.value
        1

    References:
        torch.nn.functional.SwizzleType
    """

    NO_SWIZZLE = 0
    SWIZZLE_32_4_4 = 1


#: The height and the width of what shares one scale.
_BLOCKS = {
    ScalingType.BlockWise1x16: (1, 16),
    ScalingType.BlockWise1x32: (1, 32),
    ScalingType.BlockWise1x128: (1, 128),
    ScalingType.BlockWise128x128: (128, 128),
}
_DTYPES = {
    ScalingType.BlockWise1x16: "float8_e4m3fn",
    ScalingType.BlockWise1x32: "float8_e8m0fnu",
}


class Scale(NamedTuple):
    """One scale of an operand, checked but for its shape, which depends on the operand's."""

    name: str
    array: jax.Array
    recipe: ScalingType
    swizzled: bool
    described: str

    @classmethod
    def of(cls, name: str, array: Any, recipe: ScalingType, swizzle: SwizzleType) -> Scale:
        array = as_array(name, array)
        dtype = _DTYPES.get(recipe, "float32")
        if array.dtype.name != dtype:
            raise DTypeError(f"{name} must be {dtype} for {recipe.name}, but got {describe(array)}")
        swizzled = swizzle is not SwizzleType.NO_SWIZZLE
        if swizzled and recipe not in _DTYPES:
            raise ArgumentError(
                f"{name} cannot be swizzled: {swizzle.name} is for "
                f"{' and '.join(r.name for r in _DTYPES)}, not for {recipe.name}"
            )
        return cls(name, array.astype(jnp.float32), recipe, swizzled, describe(array))

    def expect(self, fits: bool, shape: Any) -> None:
        if not fits:
            how = f"{self.recipe.name}{', swizzled,' if self.swizzled else ''}"
            raise ShapeError(
                f"{self.name} must have {shape} for {how} of this operand, but got {self.described}"
            )

    def expect_shape(self, *shape: int) -> None:
        self.expect(self.array.shape == shape, f"shape {shape}")


class Groups:
    """Where each index along a cut axis belongs; the ends of the groups may be traced."""

    def __init__(self, ends: jax.Array, size: int) -> None:
        ends = ends.astype(jnp.int32)
        starts = jnp.concatenate([jnp.zeros(1, jnp.int32), ends[:-1]])
        index = jnp.arange(size, dtype=jnp.int32)
        #: The group; what lies behind the last end counts as of the last group.
        self.of = jnp.searchsorted(ends[:-1], index, side="right").astype(jnp.int32)
        #: The index within the group.
        self.place = index - starts[self.of]
        self.sizes = ends - starts
        self.count = ends.shape[0]


def factor(scale: Scale, shape: tuple[int, ...], rows: tuple[int, ...]) -> jax.Array:
    """What multiplies an operand that is not cut; ``rows`` is the shape of its RowWise scales."""
    *lead, outer, inner = shape
    array = scale.array
    if scale.recipe is ScalingType.TensorWise:
        scale.expect(array.shape == tuple(lead) if lead else array.size == 1, _each(lead, 1))
        return array.reshape(*lead, 1, 1)
    if scale.recipe is ScalingType.RowWise:
        scale.expect_shape(*rows)
        return array.reshape(*lead, outer, 1)
    high, wide = _BLOCKS[scale.recipe]
    columns = _blocks(inner, wide)
    if scale.swizzled:
        height, width = _up(outer, 128), _up(columns, 4)
        size = height * width
        fits = array.shape == (*lead, size) if lead else array.size == size
        scale.expect(fits, _each(lead, size))
        array = _unswizzle(array.reshape(*lead, -1, 32, 4, 4), height, width)
        array = array[..., :outer, :columns]
    elif high > 1:
        scale.expect_shape(_up(columns, 4), _blocks(outer, high))
        array = jnp.repeat(array[:columns].T, high, axis=0)[:outer]
    else:
        scale.expect_shape(*lead, outer, columns)
    return jnp.repeat(array, wide, axis=-1)[..., :inner]


def factor_of_cut_rows(scale: Scale, shape: tuple[int, ...], groups: Groups) -> jax.Array:
    """What multiplies an operand whose rows are cut into groups."""
    outer, inner = shape
    array = scale.array
    if scale.recipe is ScalingType.TensorWise:
        scale.expect_shape(groups.count)
        return array[groups.of][:, None]
    if scale.recipe is ScalingType.RowWise:
        scale.expect_shape(outer)
        return array[:, None]
    _, wide = _BLOCKS[scale.recipe]
    columns = _blocks(inner, wide)
    if scale.swizzled:
        width = _up(columns, 4)
        _expect_tiles(scale, 128 * width, _up(outer, 128) * width)
        # Tiles of rows follow each other in memory, so all groups unswizzle as one matrix.
        array = _unswizzle(array.reshape(-1, 32, 4, 4), array.size // max(width, 1), width)
        row = _starts(_up(groups.sizes, 128))[groups.of] + groups.place
        array = array[:, :columns].at[row].get(mode="fill", fill_value=jnp.nan)
    else:
        scale.expect_shape(outer, columns)
    return jnp.repeat(array, wide, axis=-1)[:, :inner]


def factor_of_cut_columns(scale: Scale, shape: tuple[int, ...], groups: Groups) -> jax.Array:
    """What multiplies an operand whose contracted axis is cut into groups."""
    outer, inner = shape
    array = scale.array
    if scale.recipe is ScalingType.TensorWise:
        scale.expect_shape(groups.count)
        return array[groups.of][None]
    if scale.recipe is ScalingType.RowWise:
        scale.expect_shape(groups.count * outer)
        return array.reshape(groups.count, outer)[groups.of].T
    _, wide = _BLOCKS[scale.recipe]
    least = _blocks(inner, wide)
    columns = _blocks(groups.sizes, wide)  # of each group
    column = groups.place // wide
    if not scale.swizzled:
        fits = array.ndim == 2 and array.shape[0] == outer and array.shape[1] >= least
        scale.expect(fits, f"shape ({outer}, at least {least})")
        place = _starts(columns)[groups.of] + column
        return array.at[:, place].get(mode="fill", fill_value=jnp.nan)
    height = _up(outer, 128)
    _expect_tiles(scale, height * 4, height * _up(least, 4))
    # A group is (rows of tiles, columns of tiles), of which only the first is the same for all.
    tiles = _blocks(columns, 4)
    row = jnp.arange(outer, dtype=jnp.int32)[:, None]
    before = _starts(tiles)[groups.of] * (height // 128)
    tile = before[None] + row // 128 * tiles[groups.of][None] + column[None] // 4
    place = tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + column[None] % 4
    return array.reshape(-1).at[place].get(mode="fill", fill_value=jnp.nan)


def _each(lead: list[int], size: int) -> str:
    text = "one element" if size == 1 else f"{size} elements"
    return f"{text} for each of the {lead[0]} groups" if lead else text


# --- layout -----------------------------------------------------------------------------------


def _blocks(size: Any, block: int) -> Any:
    """How many blocks cover ``size`` elements."""
    return -(-size // block)


def _up(size: Any, multiple: int) -> Any:
    return _blocks(size, multiple) * multiple


def _starts(sizes: jax.Array) -> jax.Array:
    return jnp.cumsum(sizes) - sizes


def _unswizzle(tiles: jax.Array, height: int, width: int) -> jax.Array:
    """``(..., tiles, 32, 4, 4)`` as ``(..., height, width)``."""
    lead = tiles.shape[:-4]
    # (..., row of tiles, column of tiles, p, q, j) holds row 32 q + p and column j of its tile.
    tiles = tiles.reshape(*lead, height // 128, width // 4, 32, 4, 4)
    return jnp.swapaxes(tiles, -4, -2).reshape(*lead, height, width)


def _expect_tiles(scale: Scale, multiple: int, least: int) -> None:
    size = scale.array.size
    fits = scale.array.ndim == 2 and size >= least and (size % multiple == 0 if multiple else True)
    scale.expect(fits, f"2 axes and a multiple of {multiple} elements, at least {least},")
