"""How a convolution is computed on a CPU, where XLA's own is fast for some shapes and very slow for others.

``convolve`` is ``lax.conv_general_dilated`` with the channels second. On other platforms than the CPU it is
nothing else. On the CPU ``plan`` names a form for each of the three products of a convolution: the output,
the gradient of the input and that of the weight. All forms are the same sums in another order:

    native    XLA's convolution as JAX writes it
    last      the same, channels last in all three products
    taps      depthwise: a multiply-add for each element of the kernel (``spread``, ``tap_sums``: its gradients)
    merge     groups: as many together as make 32 channels, zeros between them, one convolution each
    columns   more weights than pixels: one matrix product with the weight as it is stored
    pixels    a kernel of one element: one matrix product, channels last
    images    the same as one matrix product for each image, channels first
    blocks    few channels: neighbours along the last axis become channels (``fold``: as a matrix product)
    depth     three axes: what the kernel meets along the first becomes channels of images

What XLA does (0.10): a convolution goes to a fast kernel if it has two axes, the channels last, more than 16
channels on one side at least, and neither an output nor a kernel larger than the unpadded input. All others
are loops, up to a hundred times slower. It moves the channels itself, but only in a program's outermost
computation, not in the body of a scan. The fast kernel takes groups for a dense convolution. Below 32 bits
all forms compute in float32.

The gradients come from one ``custom_jvp``: the tangent is a convolution of the input's tangent, written in
the form whose transpose is fast, plus one of the weight's. So forward mode, reverse mode and all higher
derivatives are JAX's own. An infinite or undefined number may reach further than its kernel: zeros are
multiplied, too.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

__all__ = [
    "FORMS",
    "Plan",
    "Window",
    "chosen",
    "convolve",
    "native",
    "output_sizes",
    "plan",
    "with_transpose",
]

#: A kernel of more elements than these is not written out element by element.
MOST_TAPS = 64


class Window(NamedTuple):
    """The options of a convolution, one entry for each spatial axis."""

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    groups: int = 1


class Plan(NamedTuple):
    """The forms of the three products."""

    output: str
    input_gradient: str
    weight_gradient: str


def plan(
    x: tuple[int, ...], w: tuple[int, ...], window: Window, dtype: Any = jnp.float32
) -> Plan | None:
    """The forms for arrays of these shapes and this dtype; None is native for all three.

    ``python -m benchmarks.lowering conv`` prints the measurements behind it.
    """
    (out_channels, channels, *kernel), taps_count = w, math.prod(w[2:])
    sizes = output_sizes(x, w, window)
    pixels_count, reach = math.prod(sizes), _reach(w, window)
    if 0 in x or 0 in w or not jnp.issubdtype(dtype, jnp.floating):
        return None
    if window.groups > 1:
        if channels > 1:
            return Plan("merge", "merge_x", "merge_w")
        return Plan("taps", "spread", "tap_sums") if taps_count <= MOST_TAPS else None
    # Smaller columns than weights; XLA would write out the weights in two other orders.
    few = x[0] * pixels_count <= out_channels
    beyond = any(r + 1 > size for r, size in zip(reach, x[2:], strict=True))
    if (few or beyond) and taps_count <= MOST_TAPS:
        return Plan("columns", "columns", "columns")
    if taps_count == 1 and not any(map(any, window.pads)):
        # One product for each image repeats the weight, one for all moves the channels: what is less.
        repeats = channels * out_channels > pixels_count * (channels + out_channels)
        return Plan(*["pixels" if repeats else "images"] * 3)
    if len(kernel) == 3:
        return Plan("depth", "depth_x", "depth_w")
    plain = len(kernel) == 2 and window.strides[-1] == 1 and window.dilations == (1, 1)
    if plain and channels <= 8 and out_channels <= 16:
        return Plan("blocks", "fold", "last_w")
    return Plan("last", "last_x", "last_w")


def convolve(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """The convolution of ``x`` (N, C, ...) with ``w`` (O, C // groups, ...)."""
    forms = plan(x.shape, w.shape, window, x.dtype)
    return native(x, w, window) if forms is None else _planned(x, w, window, forms)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _planned(x: jax.Array, w: jax.Array, window: Window, forms: Plan) -> jax.Array:
    return _differentiable(x, w, window, forms)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _differentiable(x: jax.Array, w: jax.Array, window: Window, forms: Plan) -> jax.Array:
    return chosen(x, w, window, forms.output)


def _tangent(window: Window, forms: Plan, primals: Any, tangents: Any) -> Any:
    (x, w), (dx, dw) = primals, tangents
    out, parts = _differentiable(x, w, window, forms), []
    if not isinstance(dx, SymbolicZero):
        parts.append(chosen(dx, w, window, forms.input_gradient))
    if not isinstance(dw, SymbolicZero):
        parts.append(chosen(x, dw, window, forms.weight_gradient))
    return out, functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(out)


_differentiable.defjvp(_tangent, symbolic_zeros=True)


def chosen(x: jax.Array, w: jax.Array, window: Window, form: str) -> jax.Array:
    """In this form on a CPU, in XLA's own elsewhere."""
    if form == "native":
        return native(x, w, window)
    here, there = functools.partial(_widened, form, window), functools.partial(_native, window)
    return lax.platform_dependent(x, w, cpu=here, default=there)


def _widened(form: str, window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
    # XLA rounds after each of the operations that a form is made of, native only once, at the end.
    wide = jnp.float32 if x.dtype.itemsize < 4 else x.dtype
    return FORMS[form](x.astype(wide), w.astype(wide), window).astype(x.dtype)


def _native(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
    return native(x, w, window)


def native(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        w,
        window.strides,
        window.pads,
        rhs_dilation=window.dilations,
        feature_group_count=window.groups,
    )


def taps(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """What each tap meets, scaled and added; every input channel has output channels of its own."""
    met = _met(_pad(_repeated(x, w.shape), 2, *window.pads), w.shape, window, x.shape)
    return functools.reduce(jnp.add, [m * s for m, s in zip(met, _scales(w), strict=True)])


def spread(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """The same, the input scaled by each tap and moved: the transpose pads once and takes slices."""
    sizes, reach = _sizes(x, w, window), _reach(w.shape, window)
    x = _repeated(x, w.shape)
    moved = []
    for at, scale in zip(_elements(w.shape), _scales(w), strict=True):
        shift = [i * d for i, d in zip(at, window.dilations, strict=True)]
        moved.append(_pad(x * scale, 2, *((r - i, i) for r, i in zip(reach, shift, strict=True))))
    out = functools.reduce(jnp.add, moved)
    out = _pad(out, 2, *((lo - r, hi - r) for r, (lo, hi) in zip(reach, window.pads, strict=True)))
    ends = [(size - 1) * s + 1 for size, s in zip(sizes, window.strides, strict=True)]
    return lax.slice(out, (0,) * x.ndim, (*x.shape[:2], *ends), (1, 1, *window.strides))


def tap_sums(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """The same, its transpose in ``w`` forms the sums of all taps in one pass.

    As separate sums, which JAX would make, XLA writes out what each tap meets.
    """

    def transpose(y: jax.Array) -> jax.Array:
        met = _met(_pad(_repeated(x, w.shape), 2, *window.pads), w.shape, window, x.shape)
        zeros, axes = (jnp.zeros((), x.dtype),) * len(met), (0, *range(2, x.ndim))
        sums = lax.reduce(tuple(m * y for m in met), zeros, _add_each, axes)
        return jnp.stack(sums, -1).reshape(w.shape)

    shape = (x.shape[0], w.shape[0], *output_sizes(x.shape, w.shape, window))
    return with_transpose(lambda w: taps(x, w, window), transpose, w, shape)


def _add_each(a: Any, b: Any) -> Any:
    return tuple(map(lax.add, a, b))


def with_transpose(
    function: Any, transpose: Any, x: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """``function(x)``, linear and of this shape, with ``transpose`` for reverse mode.

    JAX has one public operation whose transpose is the caller's and which takes part in everything else:
    a linear system. Here (x, y) = (x, function(x) + 0) solves x = x, y - function(x) = 0. It is one vector,
    since JAX wants a tangent for each of several; XLA sees that what is joined is taken apart again.
    """

    def parts(v: jax.Array) -> tuple[jax.Array, jax.Array]:
        return v[: x.size].reshape(x.shape), v[x.size :].reshape(shape)

    def joined(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.concatenate([a.ravel(), b.ravel()])

    def matvec(v: jax.Array) -> jax.Array:
        a, b = parts(v)
        return joined(a, b - function(a))

    def solve(_: Any, v: jax.Array) -> jax.Array:
        a, b = parts(v)
        return joined(a, function(a) + b)

    def transpose_solve(_: Any, v: jax.Array) -> jax.Array:
        a, b = parts(v)
        return joined(a + transpose(b), b)

    known = joined(x, jnp.zeros(shape, x.dtype))
    return parts(lax.custom_linear_solve(matvec, known, solve, transpose_solve))[1]


def last(x: jax.Array, w: jax.Array, window: Window, linear: str = "") -> jax.Array:
    """The convolution over arrays with the channels last, ``linear`` naming what it will be transposed in."""
    order = tuple(range(2, w.ndim))
    out = _last(jnp.moveaxis(x, 1, -1), jnp.transpose(w, (*order, 1, 0)), window, linear)
    return jnp.moveaxis(out, -1, 1)


def _last(x: jax.Array, w: jax.Array, window: Window, linear: str) -> jax.Array:
    """``x`` (N, H, W, C) and ``w`` (KH, KW, C, O), in all three products.

    JAX's transposes name their axes in another order, and XLA orders them by transposing only in a program's
    outermost computation: in the body of a loop they would be slow.
    """
    n = w.ndim - 2
    letters = "DHW"[-n:]
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    strides, pads, dilations, _ = window
    axes, reach = tuple(range(n)), [d * (k - 1) for d, k in zip(dilations, w.shape, strict=False)]

    def forward(x: jax.Array, w: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, w, strides, pads, rhs_dilation=dilations, dimension_numbers=layout
        )

    def of_input(y: jax.Array) -> jax.Array:
        # The mirrored kernel over y, which is spread by the stride.
        before = [r - lo for r, (lo, _) in zip(reach, pads, strict=True)]
        wide = [
            (b, size + r - b - (out - 1) * s - 1)
            for b, size, r, out, s in zip(
                before, x.shape[1:-1], reach, y.shape[1:-1], strides, strict=True
            )
        ]
        return lax.conv_general_dilated(
            y,
            jnp.swapaxes(lax.rev(w, axes), -1, -2),
            (1,) * n,
            wide,
            lhs_dilation=strides,
            rhs_dilation=dilations,
            dimension_numbers=layout,
        )

    def of_weight(y: jax.Array) -> jax.Array:
        # Channels as the batch, the batch as channels, y as the kernel.
        wide = [
            (lo, (out - 1) * s + r + 1 - size - lo)
            for (lo, _), size, r, out, s in zip(
                pads, x.shape[1:-1], reach, y.shape[1:-1], strides, strict=True
            )
        ]
        out = lax.conv_general_dilated(
            jnp.swapaxes(x, 0, -1),
            jnp.moveaxis(y, 0, -2),
            dilations,
            wide,
            rhs_dilation=strides,
            dimension_numbers=layout,
        )
        return jnp.moveaxis(out, 0, -2)

    if not linear:
        return forward(x, w)
    shape = jax.eval_shape(forward, x, w).shape
    if linear == "x":
        return with_transpose(lambda x: forward(x, w), of_input, x, shape)
    return with_transpose(lambda w: forward(x, w), of_weight, w, shape)


def merge(x: jax.Array, w: jax.Array, window: Window, linear: str = "") -> jax.Array:
    groups, (out_channels, channels) = window.groups, w.shape[:2]
    together = next(
        m for m in range(1, groups + 1) if groups % m == 0 and (m * channels >= 32 or m == groups)
    )
    parts = groups // together
    if together > 1:
        # (parts, together, O, together, C, ...), zero where the two groups differ
        same = jnp.eye(together, dtype=w.dtype).reshape(
            1, together, 1, together, *(1,) * (w.ndim - 1)
        )
        w = w.reshape(parts, together, out_channels // groups, 1, channels, *w.shape[2:])
        w = (w * same).reshape(out_channels, together * channels, *w.shape[5:])
    alone = window._replace(groups=1)
    pairs = zip(jnp.split(x, parts, axis=1), jnp.split(w, parts, axis=0), strict=True)
    return jnp.concatenate([last(a, b, alone, linear) for a, b in pairs], axis=1)


def columns(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """What each output pixel sees, (N, H', W', C * K), times the weight, (O, C * K)."""
    seen = jnp.stack(_met(_pad(x, 2, *window.pads), w.shape, window, x.shape), -1)
    seen = jnp.moveaxis(seen, 1, -2)
    seen = seen.reshape(*seen.shape[:-2], -1)
    out = lax.dot_general(seen, w.reshape(w.shape[0], -1), (((seen.ndim - 1,), (1,)), ((), ())))
    return jnp.moveaxis(out, -1, 1)


def pixels(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    x = jnp.moveaxis(_strided(x, window), 1, -1)
    out = lax.dot_general(x, w.reshape(w.shape[:2]), (((x.ndim - 1,), (1,)), ((), ())))
    return jnp.moveaxis(out, -1, 1)


def images(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    x = _strided(x, window)
    repeated = jnp.broadcast_to(w.reshape(w.shape[:2]), (x.shape[0], *w.shape[:2]))
    out = lax.dot_general(repeated, x.reshape(*x.shape[:2], -1), (((2,), (1,)), ((0,), (0,))))
    return out.reshape(*out.shape[:2], *x.shape[2:])


def blocks(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """b output columns at a time are the output channels of a convolution over blocks of b columns."""
    rows, weights = _blocked(x, w, window)
    within = window._replace(pads=(window.pads[0], (0, 0)))
    return _unblocked(_last(rows, weights, within, ""), x, w, window)


def fold(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """The same blocks as the rows of a matrix: the transpose is a product and a few sums."""
    rows, weights = _blocked(x, w, window)
    (height, reach), (size, _), (stride, _) = (
        weights.shape[:2],
        _sizes(x, w, window),
        window.strides,
    )
    rows = _pad(rows, 1, window.pads[0])
    steps = rows.shape[2] - reach + 1
    rows = jnp.concatenate([rows[:, :, r : r + steps] for r in range(reach)], -1)
    rows = jnp.concatenate(
        [rows[:, k : k + (size - 1) * stride + 1 : stride] for k in range(height)], -1
    )
    out = lax.dot_general(rows, weights.reshape(-1, weights.shape[-1]), (((3,), (0,)), ((), ())))
    return _unblocked(out, x, w, window)


def _block(w: jax.Array) -> int:
    """How many columns: as many as fill the fast kernel's 16 to 32 channels."""
    return 2 if w.shape[0] > 8 else 4


def _blocked(x: jax.Array, w: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """``x`` as (N, H, W / b, b * C) and ``w`` as (KH, reach, b * C, b * O)."""
    (out_channels, channels, height, width), b = w.shape, _block(w)
    steps = -(-_sizes(x, w, window)[-1] // b)
    reach = -(-(b + width - 1) // b)
    left, total = window.pads[-1][0], (steps + reach - 1) * b
    rows = _pad(jnp.moveaxis(x, 1, -1), 2, (left, total - left - x.shape[-1]))
    rows = rows.reshape(*rows.shape[:2], -1, b * channels)
    last = jnp.transpose(w, (2, 3, 1, 0))
    # The kernel of the j-th of b outputs begins j columns later.
    shifted = [
        jnp.pad(last, [(0, 0), (j, reach * b - width - j), (0, 0), (0, 0)]) for j in range(b)
    ]
    weights = jnp.stack(shifted, 3)  # (KH, reach * b, C, b, O)
    return rows, weights.reshape(height, reach, b * channels, b * out_channels)


def _unblocked(out: jax.Array, x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """(N, H', W' / b, b * O) as (N, O, H', W')."""
    out = out.reshape(*out.shape[:2], -1, w.shape[0])
    return jnp.moveaxis(out[:, :, : _sizes(x, w, window)[-1]], -1, 1)


def depth(x: jax.Array, w: jax.Array, window: Window, linear: str = "") -> jax.Array:
    (batch, *_), (out_channels, _, size, *kernel) = x.shape, w.shape
    stride, dilation, steps = window.strides[0], window.dilations[0], _sizes(x, w, window)[0]
    padded = _pad(x, 2, window.pads[0])
    met = [
        lax.slice_in_dim(padded, i * dilation, i * dilation + (steps - 1) * stride + 1, stride, 2)
        for i in range(size)
    ]
    planes = jnp.moveaxis(jnp.stack(met, 1), 3, 1)  # (N, D', KD, C, H, W)
    planes = planes.reshape(batch * steps, -1, *x.shape[3:])
    weights = jnp.moveaxis(w, 2, 1).reshape(out_channels, -1, *kernel)
    within = Window(window.strides[1:], window.pads[1:], window.dilations[1:])
    forms = plan(planes.shape, weights.shape, within)
    out = FORMS[forms[("", "x", "w").index(linear)] if forms else "native"](planes, weights, within)
    return jnp.moveaxis(out.reshape(batch, steps, *out.shape[1:]), 1, 2)


FORMS: dict[str, Callable[[jax.Array, jax.Array, Window], jax.Array]] = {
    f.__name__: f for f in (native, taps, spread, tap_sums, columns, pixels, images, blocks, fold)
}
# To be transposed in the input and in the weight.
for _form in (last, merge, depth):
    FORMS[_form.__name__] = _form
    for _argument in ("x", "w"):
        FORMS[f"{_form.__name__}_{_argument}"] = functools.partial(_form, linear=_argument)


def output_sizes(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """The spatial sizes of the output."""
    return tuple(
        (size + lo + hi - r - 1) // s + 1
        for size, (lo, hi), r, s in zip(
            x[2:], window.pads, _reach(w, window), window.strides, strict=True
        )
    )


def _sizes(x: jax.Array, w: jax.Array, window: Window) -> tuple[int, ...]:
    return output_sizes(x.shape, w.shape, window)


def _reach(w: tuple[int, ...], window: Window) -> list[int]:
    """How far the kernel's last element is from its first."""
    return [d * (k - 1) for d, k in zip(window.dilations, w[2:], strict=True)]


def _elements(w: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The indices of the kernel's elements, the last axis fastest."""
    return list(itertools.product(*map(range, w[2:])))


def _pad(x: jax.Array, axis: int, *widths: tuple[int, int]) -> jax.Array:
    """Zeros around the axes that begin with this one, or negative widths cut off."""
    config = [(0, 0, 0)] * x.ndim
    config[axis : axis + len(widths)] = [(*width, 0) for width in widths]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _strided(x: jax.Array, window: Window) -> jax.Array:
    return x[(slice(None), slice(None), *(slice(None, None, s) for s in window.strides))]


def _met(
    padded: jax.Array, w: tuple[int, ...], window: Window, x: tuple[int, ...]
) -> list[jax.Array]:
    """What each of the kernel's elements meets in the padded ``x``, (N, C, H', W')."""
    sizes, met = output_sizes(x, w, window), []
    for at in _elements(w):
        starts = [i * d for i, d in zip(at, window.dilations, strict=True)]
        ends = [
            a + (size - 1) * s + 1 for a, size, s in zip(starts, sizes, window.strides, strict=True)
        ]
        met.append(
            lax.slice(padded, (0, 0, *starts), (*padded.shape[:2], *ends), (1, 1, *window.strides))
        )
    return met


def _repeated(x: jax.Array, w: tuple[int, ...]) -> jax.Array:
    """A channel for each output channel."""
    several = w[0] // x.shape[1]
    return x if several == 1 else jnp.repeat(x, several, axis=1)


def _scales(w: jax.Array) -> list[jax.Array]:
    """The weight of each tap, (1, O, 1, ...)."""
    shape = (1, -1, *(1,) * (w.ndim - 2))
    return [w[(slice(None), 0, *at)].reshape(shape) for at in _elements(w.shape)]
