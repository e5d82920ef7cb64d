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
from funcnets.nn import functional as F


def small(shape, seed, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).integers(-3, 4, shape), dtype)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@functools.partial(jax.jit, static_argnums=(0, 4))
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
    @settings(max_examples=3, deadline=None, derandomize=True)
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
        Plan("blocks", "fold", "blocks_w"),
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
        Plan("depth", "depth", "depth"),
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
        jax.vmap(grad, (0, None))(xs, w),
    )


@pytest.mark.parametrize("name", PLANNED)
def test_derivatives_of_the_chosen_forms(name):
    x_shape, w_shape, window, forms = PLANNED[name]
    assert lower.plan(x_shape, w_shape, window) == forms
    x, w = small(x_shape, 1), small(w_shape, 2)
    ours = jax.jit(functools.partial(outcomes, lambda x, w: lower.convolve(x, w, window)))(x, w)
    native = jax.jit(functools.partial(outcomes, lambda x, w: lower.native(x, w, window)))(x, w)
    equal(ours, native)


def test_eager_calls_are_compiled_once():
    (x, again), w = small((2, 2, 4, 6, 6), 1), small((4, 1, 3, 3), 2)
    window = Window((1, 1), ((0, 0),) * 2, (1, 1), 4)

    def loss(x, w):
        return jnp.sum(F.conv2d(x, w, groups=4))

    equal(loss(x, w), jnp.sum(lower.native(x, w, window)))
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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_other_dtypes_are_native(dtype):
    x, w, window = (
        small((2, 4, 6), 1, dtype),
        small((4, 1, 3), 2, dtype),
        Window((1,), ((0, 0),), (1,), 4),
    )
    jaxpr = str(jax.make_jaxpr(lambda x, w: lower.convolve(x, w, window))(x, w))
    assert "platform_index" not in jaxpr and "conv_general_dilated" in jaxpr
    assert lower.convolve(x, w, window).dtype == dtype


def test_an_empty_batch_and_no_batch():
    w = small((4, 1, 3, 3), 2)
    assert F.conv2d(jnp.zeros((0, 4, 6, 6)), w, groups=4).shape == (0, 4, 4, 4)
    x = small((4, 6, 6), 1)
    equal(F.conv2d(x, w, groups=4), F.conv2d(x[None], w, groups=4)[0])


def test_other_platforms_get_the_native_convolution():
    x, w = jnp.ones((2, 4, 6, 6)), jnp.ones((4, 1, 3, 3))
    step = jax.jit(jax.grad(lambda x, w: jnp.sum(F.conv2d(x, w, groups=4)), (0, 1)))
    for platform, direct in (("cpu", 0), ("tpu", 2)):
        text = step.trace(x, w).lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution(") == direct, platform
    both = jax.export.export(step, platforms=("cpu", "tpu"))(x, w)
    equal(both.call(x, w), step(x, w))
