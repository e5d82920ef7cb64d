"""Scaled products: against PyTorch where its CPU build has them, elsewhere against NumPy.

The layouts of the scales are written a second time here, element by element, from their description.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import functional as F
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.functional import ScalingType, SwizzleType

T, R, B16, B32, B128, SQUARE = ScalingType
PLAIN, SWIZZLED = SwizzleType
E4M3, E5M2, FP4 = jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float4_e2m1fn
WIDTH = {B16: 16, B32: 32, B128: 128, SQUARE: 128}
SCALE_DTYPE = {B16: E4M3, B32: jnp.float8_e8m0fnu}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def quantised(rng, *shape, dtype=E4M3):
    return jnp.asarray(rng.standard_normal(shape) * 2, jnp.float32).astype(dtype)


def scales(rng, *shape, recipe=T):
    values = 2.0 ** rng.integers(-2, 3, shape)  # exact in every dtype that scales have
    return np.asarray(values, np.float32).astype(SCALE_DTYPE.get(recipe, np.float32))


def wide(x):
    return np.asarray(x).astype(np.float64)


def ceil(a, b):
    return -(-a // b)


def swizzle(matrix):
    """The memory of ``SWIZZLE_32_4_4``, padded with what must not be read."""
    rows, columns = matrix.shape
    across = ceil(columns, 4)
    memory = np.full(ceil(rows, 128) * across * 512, np.nan, matrix.dtype)
    for r in range(rows):
        for c in range(columns):
            tile = r // 128 * across + c // 4
            memory[tile * 512 + r % 32 * 16 + r % 128 // 32 * 4 + c % 4] = matrix[r, c]
    return memory


def spread(scale, recipe, shape):
    """A plain scale as a factor for every element of (outer, K)."""
    row, column = np.arange(shape[0]), np.arange(shape[1])
    if recipe is T:
        return np.broadcast_to(wide(scale).reshape(1, 1), shape)
    if recipe is R:
        return np.broadcast_to(wide(scale).reshape(-1, 1), shape)
    if recipe is SQUARE:
        row = row // 128
    return wide(scale)[row][:, column // WIDTH[recipe]]


def to_torch(x):
    x = jnp.asarray(x)
    return torch.tensor(np.asarray(x.astype(jnp.float32))).to(getattr(torch, x.dtype.name))


def torch_members(*members):
    spaces = torch.nn.functional.ScalingType, torch.nn.functional.SwizzleType
    return [getattr(spaces[isinstance(m, SwizzleType)], m.name) for m in members]


# --- against PyTorch --------------------------------------------------------------------------


def test_the_enums_are_torchs():
    for ours in (ScalingType, SwizzleType):
        theirs = getattr(torch.nn.functional, ours.__name__).__members__
        assert {m.name: m.value for m in ours} == {n: m.value for n, m in theirs.items()}


@pytest.mark.parametrize("recipe", [T, R])
@pytest.mark.parametrize(
    ("dtypes", "options"),
    [
        ((E4M3, E4M3), {}),
        ((E4M3, E5M2), {"output_dtype": "float32"}),
        ((E5M2, E5M2), {"output_dtype": "float16", "bias": "float16"}),
        ((jnp.float8_e4m3fnuz, jnp.float8_e5m2fnuz), {"bias": "float32"}),
        ((E4M3, E4M3), {"output_dtype": None}),
        ((E4M3, E4M3), {"output_dtype": "float8_e5m2", "bias": "bfloat16"}),
        ((E4M3, E4M3), {"contraction_dim": [-1, -2]}),
    ],
)
def test_tensorwise_and_rowwise_equal_torch(rng, recipe, dtypes, options):
    a, b = quantised(rng, 5, 7, dtype=dtypes[0]), quantised(rng, 7, 6, dtype=dtypes[1])
    shapes = ((), (1, 1)) if recipe is T else ((5, 1), (1, 6))
    sa, sb = (np.asarray(rng.uniform(0.1, 2, s), np.float32) for s in shapes)
    ours, theirs = dict(options), dict(options)
    if options.get("output_dtype"):
        ours["output_dtype"] = getattr(jnp, options["output_dtype"])
        theirs["output_dtype"] = getattr(torch, options["output_dtype"])
    if "bias" in options:
        ours["bias"] = jnp.asarray(rng.standard_normal(6), options["bias"])
        theirs["bias"] = to_torch(ours["bias"])
    (theirs_recipe,) = torch_members(recipe)
    expected = torch.nn.functional.scaled_mm(
        *map(to_torch, (a, b, sa)), theirs_recipe, to_torch(sb), theirs_recipe, **theirs
    )
    call = jax.jit(lambda a, b, sa, sb: F.scaled_mm(a, b, sa, recipe, sb, recipe, **ours))
    got = call(a, b, sa, sb)
    assert got.dtype.name == str(expected.dtype).removeprefix("torch.")
    np.testing.assert_allclose(wide(got), expected.to(torch.float64), rtol=1e-6, atol=1e-6)


def test_an_output_in_float8_e4m3fn_saturates_as_in_torch():
    a, one = jnp.full((1, 2), 448.0, E4M3), jnp.ones(())
    (recipe,) = torch_members(T)
    theirs = torch.nn.functional.scaled_mm(
        to_torch(a), to_torch(a.T), torch.ones(()), recipe, torch.ones(()), recipe,
        output_dtype=torch.float8_e4m3fn,
    )  # fmt: skip
    assert float(F.scaled_mm(a, a.T, one, T, one, T, output_dtype=E4M3)[0, 0]) == float(theirs)


def test_empty_matrices():
    one = jnp.ones(())
    out = F.scaled_mm(jnp.ones((2, 0), E4M3), jnp.ones((0, 3), E4M3), one, T, one, T)
    assert out.shape == (2, 3)
    assert not out.any()
    assert F.scaled_mm(jnp.ones((0, 4), E4M3), jnp.ones((4, 3), E4M3), one, T, one, T).size == 0


# --- blocks -----------------------------------------------------------------------------------


def plain_scale(rng, recipe, outer, inner):
    """A scale as ``spread`` wants it, and as the function does."""
    if recipe is SQUARE:
        plain = scales(rng, ceil(outer, 128), ceil(inner, 128))
        padded = np.full((ceil(plain.shape[1], 4) * 4, plain.shape[0]), np.nan, np.float32)
        padded[: plain.shape[1]] = plain.T
        return plain, padded
    plain = scales(rng, outer, ceil(inner, WIDTH[recipe]), recipe=recipe)
    return plain, plain


BLOCKS = [
    (B128, B128, E4M3, (5, 300, 6)),
    (B128, SQUARE, E4M3, (5, 300, 140)),
    (SQUARE, B128, E4M3, (130, 256, 4)),
    (B32, B32, E4M3, (5, 70, 6)),
    (B32, B32, FP4, (133, 64, 6)),
    (B16, B16, FP4, (4, 40, 130)),
]


@pytest.mark.parametrize(
    ("recipe_a", "recipe_b", "dtype", "sizes", "order"),
    [(*b, PLAIN) for b in BLOCKS] + [(*b, SWIZZLED) for b in BLOCKS if b[0] in SCALE_DTYPE],
)
def test_blocks_equal_numpy(rng, recipe_a, recipe_b, dtype, sizes, order):
    m, k, n = sizes
    a, b = quantised(rng, m, k, dtype=dtype), quantised(rng, k, n, dtype=dtype)
    plain_a, given_a = plain_scale(rng, recipe_a, m, k)
    plain_b, given_b = plain_scale(rng, recipe_b, n, k)
    if order is SWIZZLED:
        given_a, given_b = swizzle(plain_a), swizzle(plain_b).reshape(128, -1)[None]
    expected = (wide(a) * spread(plain_a, recipe_a, (m, k))) @ (
        wide(b) * spread(plain_b, recipe_b, (n, k)).T
    )
    got = F.scaled_mm(
        a, b, given_a, recipe_a, given_b, recipe_b, order, order, output_dtype=jnp.float32
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [PLAIN, [SWIZZLED, PLAIN]])
def test_two_levels_of_scales(rng, order):
    a, b = quantised(rng, 3, 36, dtype=FP4), quantised(rng, 36, 5, dtype=FP4)
    fine = [scales(rng, 3, 3, recipe=B16), scales(rng, 5, 3, recipe=B16)]
    whole = [np.float32(0.25), np.full((1,), 8, np.float32)]
    expected = (
        2.0
        * (wide(a) * spread(fine[0], B16, (3, 36)))
        @ (wide(b) * spread(fine[1], B16, (5, 36)).T)
    )
    given = fine if order is PLAIN else [swizzle(s) for s in fine]
    recipe = [B16, T]
    got = F.scaled_mm(
        a, b, [given[0], whole[0]], recipe, (given[1], whole[1]), recipe, order, order
    )
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(wide(got), expected, rtol=0.01)


# --- groups -----------------------------------------------------------------------------------


class Grouped:
    """An operand ``(outer, K)`` of each group, and all of them as the function wants them."""

    def __init__(self, rng, recipe, dtype, outers, inners):
        sizes = list(zip(outers, inners, strict=True))
        self.parts = [quantised(rng, *s, dtype=dtype) for s in sizes]
        shape = lambda o, i: (o,) if recipe is R else (o, ceil(i, WIDTH[recipe]))  # noqa: E731
        self.scales = [scales(rng, *shape(*s), recipe=recipe) for s in sizes]
        self.whole = scales(rng, len(sizes))
        self.recipe = recipe

    def dense(self, g, two_levels):
        x = wide(self.parts[g]) * spread(self.scales[g], self.recipe, self.parts[g].shape)
        return x * self.whole[g] if two_levels else x

    def matrix(self, cut):
        return jnp.stack(self.parts) if cut is None else jnp.concatenate(self.parts, cut)

    def scale(self, cut, order):
        if order is SWIZZLED:
            memory = [swizzle(s) for s in self.scales]
            if cut is None:
                return np.stack(memory)
            rows = 128 * ceil(self.parts[0].shape[0], 128) if cut else -1
            across = 4 * ceil(self.scales[0].shape[1], 4)
            return np.concatenate(memory).reshape(rows, -1 if cut else across)
        if cut is None:
            return np.stack(self.scales)
        return np.concatenate(self.scales, 0 if self.recipe is R else cut)


SIZES = [3, 0, 131, 2]
LAYOUTS = {
    # cut axis of (outer, K), sizes of the groups: for a, for b
    "rows": ((0, SIZES, [40] * 4), (None, [6] * 4, [40] * 4)),
    "columns": ((None, [3] * 4, [40] * 4), (0, SIZES, [40] * 4)),
    "inner": ((1, [130] * 4, [70, 0, 33, 5]), (1, [6] * 4, [70, 0, 33, 5])),
    "batched": ((None, [3] * 4, [40] * 4), (None, [131] * 4, [40] * 4)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("recipe", "dtype", "order"),
    [
        (R, E4M3, PLAIN),
        (B32, E4M3, PLAIN),
        (B32, E4M3, SWIZZLED),
        (B16, FP4, PLAIN),
        (B16, FP4, SWIZZLED),
    ],
)
def test_groups_equal_numpy(rng, layout, recipe, dtype, order):
    (cut_a, *sizes_a), (cut_b, *sizes_b) = LAYOUTS[layout]
    a, b = Grouped(rng, recipe, dtype, *sizes_a), Grouped(rng, recipe, dtype, *sizes_b)
    two = recipe is B16
    products = [a.dense(g, two) @ b.dense(g, two).T for g in range(4)]
    join = {"rows": 0, "columns": 1}.get(layout)
    expected = np.stack(products) if join is None else np.concatenate(products, join)
    ends = {"rows": SIZES, "columns": SIZES, "inner": [70, 0, 33, 5]}.get(layout)
    offs = None if ends is None else jnp.asarray(np.cumsum(ends), jnp.int32)
    scale_a, scale_b = a.scale(cut_a, order), b.scale(cut_b, order)
    recipes = [recipe, T] if two else recipe

    @jax.jit  # with offsets that are not known
    def call(mat_a, mat_b, scale_a, scale_b, offs):
        return F.scaled_grouped_mm(
            mat_a, mat_b, scale_a, recipes, scale_b, recipes, order, order,
            offs=offs, output_dtype=jnp.float32,
        )  # fmt: skip

    if two:
        scale_a, scale_b = [scale_a, a.whole], [scale_b, b.whole]
    got = call(a.matrix(cut_a), b.matrix(cut_b).mT, scale_a, scale_b, offs)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_what_belongs_to_no_group_is_zero(rng):
    tokens, experts = quantised(rng, 6, 4), quantised(rng, 2, 4, 3)
    out = F.scaled_grouped_mm(
        tokens, experts, jnp.ones(6), R, jnp.ones((2, 3)), R, offs=jnp.array([1, 4])
    )
    assert out.dtype == jnp.bfloat16
    assert not out[4:].any()


@pytest.mark.parametrize("layout", ["rows", "inner"])
def test_too_few_scales_for_the_offsets_give_nan(rng, layout):
    (cut, *sizes), other = LAYOUTS[layout]
    a, b = Grouped(rng, B32, E4M3, *sizes), Grouped(rng, B32, E4M3, *other[1:])
    scale_a, scale_b = (x.scale(c, SWIZZLED) for x, c in ((a, cut), (b, other[0])))
    scale_a = scale_a.reshape(-1)[: -2 * 512].reshape(-1, 4)  # two tiles are missing
    out = F.scaled_grouped_mm(
        a.matrix(cut), b.matrix(other[0]).mT, scale_a, B32, scale_b, B32, SWIZZLED, SWIZZLED,
        offs=jnp.asarray(np.cumsum(sizes[0] if cut == 0 else sizes[1])),
    )  # fmt: skip
    last = out[-2:] if cut == 0 else out[-1]
    assert jnp.isnan(last).all()
    assert jnp.isfinite(out[:3] if cut == 0 else out[0]).all()


# --- transformations --------------------------------------------------------------------------


def test_gradients_of_scales_and_vmap(rng):
    a, b = quantised(rng, 2, 4), quantised(rng, 4, 3)
    rows, columns = jnp.ones((2, 1)), jnp.ones((1, 3))

    def call(rows, columns):
        return F.scaled_mm(a, b, rows, R, columns, R, output_dtype=jnp.float32)

    total = lambda r, c: call(r, c).sum()  # noqa: E731
    grads = jax.grad(total, argnums=(0, 1))(rows, columns)
    product = wide(a) @ wide(b)
    np.testing.assert_allclose(grads[0], product.sum(1, keepdims=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads[1], product.sum(0, keepdims=True), rtol=1e-5, atol=1e-5)
    two = jax.vmap(call, in_axes=(0, None))(jnp.stack([rows, 2 * rows]), columns)
    np.testing.assert_allclose(two, np.stack([product, 2 * product]), rtol=1e-5, atol=1e-5)


# --- refusals ---------------------------------------------------------------------------------

A, B, ONE = jnp.ones((4, 32), E4M3), jnp.ones((32, 6), E4M3), jnp.ones(())
MX = jnp.ones((4, 1), jnp.float8_e8m0fnu)


def mm(a=A, b=B, scale_a=ONE, recipe_a=T, scale_b=ONE, recipe_b=T, *rest, **options):
    return F.scaled_mm(a, b, scale_a, recipe_a, scale_b, recipe_b, *rest, **options)


def grouped(a=A, b=B, scale_a=None, recipe_a=R, scale_b=None, recipe_b=R, **options):
    scale_a = jnp.ones(8) if scale_a is None else scale_a
    scale_b = jnp.ones(12) if scale_b is None else scale_b
    options.setdefault("offs", jnp.array([16, 32]))
    return F.scaled_grouped_mm(a, b, scale_a, recipe_a, scale_b, recipe_b, **options)


REFUSED = {
    "fast": (lambda: mm(use_fast_accum=True), UnsupportedError, "use_fast_accum"),
    "rank": (lambda: mm(a=A[0]), ShapeError, "mat_a"),
    "sizes": (lambda: mm(b=B[:5]), ShapeError, "columns of mat_a"),
    "no array": (lambda: mm(b=[1.0]), DTypeError, "mat_b must be an array"),
    "axes": (lambda: mm(contraction_dim=(0, 1)), ArgumentError, "contraction_dim"),
    "one axis": (lambda: mm(contraction_dim=(-1,)), ArgumentError, "contraction_dim"),
    "float32": (lambda: mm(a=A.astype(jnp.float32)), DTypeError, "mat_a and mat_b"),
    "float4": (lambda: mm(a=A.astype(FP4), b=B.astype(FP4)), DTypeError, "TensorWise"),
    "pair": (lambda: mm(recipe_b=R), ArgumentError, "TensorWise with RowWise"),
    "squares": (lambda: mm(recipe_a=SQUARE, recipe_b=SQUARE), ArgumentError, "scale_recipe_a"),
    "number": (lambda: mm(recipe_a=0), ArgumentError, "scale_recipe_a must be of ScalingType"),
    "many": (lambda: mm(scale_a=[ONE, ONE]), ArgumentError, "scale_a and scale_recipe_a"),
    "swizzle kind": (lambda: mm(swizzle_b=1), ArgumentError, "swizzle_b must be of SwizzleType"),
    "swizzles": (lambda: mm(swizzle_a=[PLAIN, PLAIN]), ArgumentError, "swizzle_a"),
    "swizzled": (lambda: mm(swizzle_a=SWIZZLED), ArgumentError, "scale_a cannot be swizzled"),
    "scale": (lambda: mm(scale_a=2.0), DTypeError, "scale_a must be an array"),
    "scale dtype": (lambda: mm(scale_b=ONE.astype(jnp.float16)), DTypeError, "scale_b"),
    "two": (lambda: mm(scale_a=jnp.ones(2)), ShapeError, "scale_a must have one element"),
    "rows": (
        lambda: mm(scale_a=jnp.ones(4), recipe_a=R, scale_b=jnp.ones((1, 6)), recipe_b=R),
        ShapeError,
        r"scale_a must have shape \(4, 1\)",
    ),
    "columns": (
        lambda: mm(scale_a=jnp.ones((4, 1)), recipe_a=R, scale_b=jnp.ones((6, 1)), recipe_b=R),
        ShapeError,
        r"scale_b must have shape \(1, 6\)",
    ),
    "blocks": (
        lambda: mm(scale_a=MX, recipe_a=B32, scale_b=MX, recipe_b=B32),
        ShapeError,
        r"scale_b must have shape \(6, 1\)",
    ),
    "tiles": (
        lambda: mm(A, B, MX, B32, MX, B32, SWIZZLED, SWIZZLED),
        ShapeError,
        "scale_a must have 512 elements",
    ),
    "square shape": (
        lambda: mm(scale_a=jnp.ones((4, 1)), recipe_a=B128, scale_b=jnp.ones((1, 1)), recipe_b=SQUARE),
        ShapeError,
        r"scale_b must have shape \(4, 1\)",
    ),
    "bias shape": (lambda: mm(bias=jnp.ones(5)), ShapeError, "bias"),
    "bias dtype": (lambda: mm(bias=jnp.ones(6, jnp.int32)), DTypeError, "bias"),
    "output": (lambda: mm(output_dtype=jnp.int32), DTypeError, "output_dtype"),
    "grouped fast": (lambda: grouped(use_fast_accum=True), UnsupportedError, "use_fast_accum"),
    "grouped bias": (lambda: grouped(bias=jnp.ones(6)), UnsupportedError, "bias"),
    "grouped recipe": (
        lambda: grouped(scale_a=ONE, recipe_a=T, scale_b=ONE, recipe_b=T),
        ArgumentError,
        "TensorWise with TensorWise",
    ),
    "grouped offs": (lambda: grouped(offs=None), ArgumentError, "offs must be given"),
    "no groups": (lambda: grouped(offs=jnp.zeros(0, jnp.int32)), ShapeError, "offs must have"),
    "grouped rows": (lambda: grouped(scale_a=jnp.ones(4)), ShapeError, r"scale_a .* shape \(8,\)"),
    "grouped blocks": (
        lambda: grouped(scale_a=MX, recipe_a=B32, scale_b=MX, recipe_b=B32),
        ShapeError,
        r"scale_b must have shape \(6, at least 1\)",
    ),
    "grouped tiles": (
        lambda: grouped(
            scale_a=MX, recipe_a=B32, scale_b=MX, recipe_b=B32, swizzle_a=SWIZZLED
        ),
        ShapeError,
        "scale_a must have 2 axes and a multiple of 512",
    ),
    "grouped whole": (
        lambda: grouped(
            A.astype(FP4), B.astype(FP4), [jnp.ones((4, 2), E4M3), ONE], [B16, T],
            [jnp.ones((6, 2), E4M3), ONE], [B16, T],
        ),
        ShapeError,
        r"scale_a\[1\] must have shape \(2,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    call, error, match = REFUSED[name]
    with pytest.raises(error, match=match):
        call()
