"""The plots: what is on the Axes, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

from funcnets import nn  # noqa: E402
from funcnets.errors import ArgumentError, DTypeError, ShapeError  # noqa: E402
from funcnets.look import plot_attention, plot_confusion, plot_filters  # noqa: E402


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def image(ax):
    (found,) = ax.images
    return np.ma.filled(np.ma.asarray(found.get_array(), float), np.nan)


def test_filters_are_a_grid_of_images():
    weight = np.arange(5 * 2 * 3 * 3, dtype=np.float32).reshape(5, 2, 3, 3)
    ax = plot_filters(jnp.asarray(weight), columns=3, normalize=False)
    grid, mean = image(ax), weight.mean(1)
    assert grid.shape == (2 * 4 - 1, 3 * 4 - 1)
    low, high = mean.min(), mean.max()
    np.testing.assert_allclose(grid[:3, 4:7], (mean[1] - low) / (high - low), rtol=1e-6)
    assert np.isnan(grid[3]).all() and np.isnan(grid[4:, 8:]).all()
    each = image(plot_filters(weight))
    assert each[:3, :3].min() == 0 and each[:3, :3].max() == 1
    assert ax.get_title() == "5 filters of 3 x 3"


def test_filters_of_three_channels_are_in_colour():
    layer = nn.Conv2d(3, 80, 5, bias=False)
    ax = plot_filters(layer)
    assert image(ax).shape == (8 * 6 - 1, 8 * 6 - 1, 4)
    np.testing.assert_array_equal(np.unique(image(ax)[..., 3]), [0, 1])
    assert ax.get_title() == "64 of 80 filters of 5 x 5"


def test_plots_draw_into_given_axes():
    _, axes = plt.subplots(3)
    assert plot_filters(jnp.ones((2, 3, 3)), ax=axes[0]) is axes[0]
    assert plot_confusion(np.eye(2), ax=axes[1]) is axes[1]
    assert plot_attention(jnp.ones((2, 3)), ax=axes[2]) is axes[2]
    assert len(plt.get_fignums()) == 1


def test_a_confusion_matrix_has_its_numbers_and_names():
    ax = plot_confusion(jnp.array([[8, 2], [0, 0]]), ["cat", "a long name"])
    assert [t.get_text() for t in ax.texts] == ["8", "2", "0", "0"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "a long name"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    ax = plot_confusion([[8, 2], [0, 0]], normalize="true")
    assert [t.get_text() for t in ax.texts] == ["0.80", "0.20", "0.00", "0.00"]
    ax = plot_confusion([[8, 2], [0, 0]], normalize="pred")
    np.testing.assert_array_equal(image(ax), [[1, 1], [0, 0]])


def test_attention_maps():
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(0), (4, 3, 3)))
    ax = plot_attention(weights, ["a", "red", "fox"])
    np.testing.assert_allclose(image(ax), np.asarray(weights).mean(0), rtol=1e-6)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "red", "fox"]
    ax = plot_attention(weights, head=-1, keys=["x", "y", "z"])
    np.testing.assert_allclose(image(ax), np.asarray(weights[-1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("plot", "error", "match"),
    [
        (lambda: plot_filters(nn.Linear(3, 2)), ShapeError, "shape .filters, channels, height"),
        (lambda: plot_filters(nn.ReLU()), DTypeError, "needs a layer with a weight"),
        (lambda: plot_filters(jnp.zeros((0, 1, 3, 3))), ShapeError, "but got float32"),
        (lambda: plot_filters(jax.random.key(0)), DTypeError, "array of real numbers"),
        (lambda: plot_filters(np.ones((2, 1, 3, 3)), limit=0), ArgumentError, "limit"),
        (lambda: plot_confusion(np.ones((2, 3))), ShapeError, "row and a column for each class"),
        (lambda: plot_confusion(np.eye(2), ["a"]), ArgumentError, "2 classes, but got 1 labels"),
        (lambda: plot_confusion(np.eye(2), normalize="rows"), ArgumentError, "normalize"),
        (lambda: plot_confusion([["a"]]), DTypeError, "real numbers"),
        (lambda: plot_attention(jnp.ones((2, 4, 3, 3))), ShapeError, "take one example"),
        (lambda: plot_attention(jnp.ones((2, 3)), ["a"]), ArgumentError, "2 queries, but got 1"),
        (lambda: plot_attention(jnp.ones((2, 3)), head=0), ArgumentError, "no heads"),
        (lambda: plot_attention(jnp.ones((2, 3, 3)), head=2), ArgumentError, "2 heads"),
        (lambda: jax.jit(plot_attention)(jnp.ones((2, 3))), DTypeError, "inside a transformed"),
    ],
)
def test_what_cannot_be_plotted_is_refused(plot, error, match):
    with pytest.raises(error, match=match):
        plot()
    assert plt.get_fignums() == []
