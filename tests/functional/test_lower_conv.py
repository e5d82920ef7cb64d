"""Every form of a convolution against XLA's own, derivatives included.

The arrays hold small integers, so that the sums are exact in any order.
"""

from __future__ import annotations

import contextlib
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnets.functional import _lower_conv as lower
from funcnets.functional._lower_conv import Plan, Window
from funcnets.functional._lower_conv_transpose import adjoint
from funcnets.functional._lower_conv_transpose import native as native_adjoint
from funcnets.nn import functional as F


def small(shape, seed, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 4, shape), dtype)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


#: Compiled in less time, to run in more.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(quick, static_argnums=(0, 4))
def products(form, x, w, seed_of_y, window):
    """The output and its two transposes."""
    function = lower.FORMS[form]
    y, pull = jax.vjp(lambda x, w: function(x, w, window), x, w)
    return y, pull(jnp.round(3 * jax.random.normal(jax.random.key(seed_of_y), y.shape)))


@st.composite
def windows(draw, n, *, stride=3, dilation=2, padding=3, kernel=3, last_stride=None):
    kernels = tuple(draw(st.integers(1, kernel)) for _ in range(n))
    strides = [draw(st.integers(1, stride)) for _ in range(n)]
    strides[-1] = last_stride or strides[-1]
    dilations = tuple(draw(st.integers(1, dilation)) for _ in range(n))
    pads = tuple((draw(st.integers(0, padding)), draw(st.integers(0, padding))) for _ in range(n))
    sizes = tuple(
        max(1, d * (k - 1) + 1 - lo - hi) + draw(st.integers(0, 5))
        for k, d, (lo, hi) in zip(kernels, dilations, pads, strict=True)
    )
    return kernels, sizes, Window(tuple(strides), pads, dilations)


@st.composite
def cases(draw, form):
    """Shapes and a window that a form is made for."""
    out, channels, groups = draw(st.integers(1, 12)), draw(st.integers(1, 4)), 1
    axes = st.integers(1, 3)
    kind = form.split("_")[0]
    if kind in ("pixels", "images"):
        kernels, sizes, window = draw(windows(draw(axes), kernel=1, padding=0, dilation=1))
    elif kind in ("blocks", "fold"):
        kernels, sizes, window = draw(windows(2, dilation=1, last_stride=1, kernel=4))
    elif kind == "depth":
        kernels, sizes, window = draw(windows(3, stride=2, padding=1))
    else:
        kernels, sizes, window = draw(windows(draw(axes)))
    if form in ("taps", "spread", "tap_sums"):
        groups = draw(st.integers(2, 4))
        out, channels = groups * draw(st.integers(1, 2)), 1
    if kind == "merge":
        groups = draw(st.sampled_from([2, 4, 6]))
        out, channels = groups * draw(st.integers(1, 3)), draw(st.sampled_from([2, 11, 33]))
    x = (draw(st.integers(1, 3)), groups * channels, *sizes)
    return x, (out, channels, *kernels), window._replace(groups=groups)


@pytest.mark.parametrize("form", sorted(set(lower.FORMS) - {"native"}))
def test_a_form_is_the_native_convolution(form):
    @settings(max_examples=2, deadline=None, derandomize=True)
    @given(cases(form))
    def check(case):
        x, w, window = small(case[0], 1), small(case[1], 2), case[2]
        equal(products(form, x, w, 3, window), products("native", x, w, 3, window))

    check()


PLANNED = {  # name: input, weight, window, plan
    "depthwise": (
        (2, 4, 5, 6),
        (8, 1, 3, 2),
        Window((2, 1), ((1, 1), (0, 1)), (1, 2), 4),
        Plan("taps", "spread", "tap_sums"),
    ),
    "groups": (
        (2, 6, 5, 4),
        (4, 3, 3, 3),
        Window((1, 1), ((1, 1), (1, 1)), (1, 1), 2),
        Plan("merge", "merge_x", "merge_w"),
    ),
    "more weights than pixels": (
        (1, 3, 4, 4),
        (9, 3, 3, 3),
        Window((2, 2), ((1, 1), (1, 1)), (1, 1)),
        Plan("columns", "columns", "columns"),
    ),
    "kernel beyond the image": (
        (9, 2, 2),
        (3, 2, 3),
        Window((1,), ((1, 1),), (1,)),
        Plan("columns", "columns", "columns"),
    ),
    "one element": (
        (2, 3, 9, 4),
        (4, 3, 1, 1),
        Window((2, 1), ((0, 0), (0, 0)), (1, 1)),
        Plan("images", "images", "images"),
    ),
    "one element, small image": (
        (9, 8, 3),
        (8, 8, 1),
        Window((1,), ((0, 0),), (1,)),
        Plan("pixels", "pixels", "pixels"),
    ),
    "few channels": (
        (2, 1, 8, 9),
        (6, 1, 3, 4),
        Window((1, 1), ((0, 0), (1, 2)), (1, 1)),
        Plan("blocks", "fold", "last_w"),
    ),
    "nothing special": (
        (2, 3, 7, 6),
        (9, 3, 3, 2),
        Window((2, 1), ((3, 1), (0, 0)), (1, 2)),
        Plan("last", "last_x", "last_w"),
    ),
    "three axes": (
        (2, 2, 5, 4, 4),
        (3, 2, 3, 2, 3),
        Window((2, 1, 1), ((1, 1), (0, 0), (1, 1)), (1, 1, 1)),
        Plan("depth", "depth_x", "depth_w"),
    ),
}


def outcomes(function, x, w):
    """Values, both modes, second derivatives, and the same over a further axis."""

    def loss(x, w):
        return jnp.sum(function(x, w) ** 2)

    grad = jax.grad(loss, (0, 1))
    xs, ws = jnp.stack([x, 2 * x]), jnp.stack([w, -w])
    return (
        function(x, w),
        jax.jvp(function, (x, w), (w[0, 0].ravel()[0] * x, w + 1)),
        jax.jvp(lambda w: function(x, w), (w,), (w,)),
        grad(x, w),
        jax.jvp(grad, (x, w), (x - 1, w)),
        jax.grad(lambda x: jnp.sum(grad(x, w)[1]))(x),
        jax.grad(lambda w: jnp.sum(grad(x, w)[0]))(w),
        jax.vmap(grad)(xs, ws),
    )


@pytest.mark.parametrize("name", PLANNED)
def test_plan(name):
    x_shape, w_shape, window, forms = PLANNED[name]
    assert lower.plan(x_shape, w_shape, window) == forms
    assert lower.plan(x_shape, w_shape, window, jnp.int32) is None
    assert lower.plan((0, *x_shape[1:]), w_shape, window) is None


WITH_GIVEN_TRANSPOSES = ["depthwise", "groups", "few channels", "nothing special", "three axes"]


@pytest.mark.parametrize("name", WITH_GIVEN_TRANSPOSES)
def test_derivatives_of_the_chosen_forms(name):
    x_shape, w_shape, window, _ = PLANNED[name]
    x, w = small(x_shape, 1), small(w_shape, 2)
    ours = functools.partial(outcomes, lambda x, w: lower.convolve(x, w, window))
    native = functools.partial(outcomes, lambda x, w: lower.native(x, w, window))
    equal(quick(ours)(x, w), quick(native)(x, w))


@pytest.mark.parametrize("function", [F.conv2d, F.conv_transpose2d])
def test_eager_calls_are_compiled_once(function):
    (x, again), w = small((2, 2, 4, 6, 6), 1), small((4, 1, 3, 3), 2)

    def loss(x, w):
        return jnp.sum(function(x, w, groups=4))

    loss(x, w)
    jax.grad(loss)(x, w)
    with count_compilations() as compiled:
        loss(again, w)
        jax.grad(loss)(again, w)
    assert not compiled


@contextlib.contextmanager
def count_compilations():
    """What JAX compiles meanwhile."""
    seen, logger = [], logging.getLogger("jax._src.interpreters.pxla")
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger.addHandler(handler)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.mark.parametrize("name", ["depthwise", "more weights than pixels", "three axes", "cut"])
def test_derivatives_of_the_transposed_convolution(name):
    x_shape, w_shape, window, forms = PLANNED["nothing special" if name == "cut" else name]
    if name == "cut":  # as output_padding gives it
        window = window._replace(pads=((3, 1), (0, -1)))
    assert lower.plan(x_shape, w_shape, window) == forms
    y_shape = (x_shape[0], w_shape[0], *lower.output_sizes(x_shape, w_shape, window))
    y, w, sizes = small(y_shape, 1), small(w_shape, 2), x_shape[2:]
    ours = functools.partial(outcomes, lambda y, w: adjoint(y, w, window, sizes))
    native = functools.partial(outcomes, lambda y, w: native_adjoint(y, w, window, x_shape))
    equal(quick(ours)(y, w), quick(native)(y, w))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_rounded_once(dtype):
    x, w = (jnp.asarray(np.random.default_rng(0).normal(size=s), dtype) for s in SHAPES)
    y = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 4)), dtype)

    def products(function, x, w):
        return function(x, w), *jax.vjp(function, x, w)[1](y)

    ours = jax.jit(functools.partial(products, lambda x, w: lower.convolve(x, w, WINDOW)))(x, w)
    wide = jax.jit(functools.partial(products, exact))(x, w)
    for a, b in zip(ours, wide, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(
            a.astype(float), b.astype(float), rtol=float(jnp.finfo(dtype).eps)
        )


SHAPES, WINDOW = ((2, 4, 6), (4, 1, 3)), Window((1,), ((0, 0),), (1,), 4)


def exact(x, w):
    return lower.native(x.astype(jnp.float32), w.astype(jnp.float32), WINDOW).astype(x.dtype)


def test_integers_are_native():
    x, w = (small(shape, 1, jnp.int32) for shape in SHAPES)
    jaxpr = str(jax.make_jaxpr(lambda x, w: lower.convolve(x, w, WINDOW))(x, w))
    assert "platform_index" not in jaxpr and "conv_general_dilated" in jaxpr
    equal(lower.convolve(x, w, WINDOW), lower.native(x, w, WINDOW))


def test_inside_a_loop_and_an_inner_jit():
    xs, w = jnp.stack([small((2, 3, 6, 6), i) for i in range(2)]), small((3, 3, 3, 3), 2)
    window = Window((1, 1), ((1, 1),) * 2, (1, 1))

    def loop(convolution, xs, w):
        @jax.jit
        def inner(h, x):
            h = jax.checkpoint(lambda h, x: convolution(h + x, w, window))(h, x)
            return h, jnp.sum(h)

        return jnp.sum(jax.lax.scan(inner, jnp.zeros_like(xs[0]), xs)[1])

    ours, native = (
        jax.jit(jax.grad(functools.partial(loop, f), (0, 1)))(xs, w)
        for f in (lower.convolve, lower.native)
    )
    equal(ours, native)


def test_an_empty_batch_and_no_batch():
    w = small((4, 1, 3, 3), 2)
    assert F.conv2d(jnp.zeros((0, 4, 6, 6)), w, groups=4).shape == (0, 4, 4, 4)
    x = small((4, 6, 6), 1)
    equal(F.conv2d(x, w, groups=4), F.conv2d(x[None], w, groups=4)[0])


@pytest.mark.parametrize("function", [F.conv2d, F.conv_transpose2d])
def test_other_platforms_get_the_native_convolution(function):
    x, w = jnp.ones((2, 4, 6, 6)), jnp.ones((4, 1, 3, 3))
    step = jax.jit(jax.grad(lambda x, w: jnp.sum(function(x, w, groups=4)), (0, 1)))
    for platform, direct in (("cpu", 0), ("tpu", 2)):
        text = step.trace(x, w).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution(") == direct, platform
    both = jax.export.export(step, platforms=("cpu", "tpu"))(x, w)
    equal(both.call(x, w), step(x, w))
