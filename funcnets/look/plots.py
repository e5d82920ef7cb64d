"""Plots with matplotlib: filters of a convolution, a confusion matrix, attention maps. Each returns its Axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets._args import choice, describe, optional, positive
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, DTypeError, ShapeError

__all__ = ["plot_attention", "plot_confusion", "plot_filters"]


def _axes(ax: Any, what: str, size: tuple[float, float]) -> Any:
    if ax is not None:
        return ax
    plt = optional("matplotlib.pyplot", "plot", what)
    return plt.subplots(figsize=size, layout="constrained")[1]


def _numbers(name: str, value: Any) -> np.ndarray:
    """An array of real numbers on the host."""
    value = value.data if hasattr(value, "has_value") else value
    if isinstance(value, Tracer):
        raise DTypeError(
            f"{name} cannot be plotted inside a transformed function, where it has no numbers: {describe(value)}"
        )
    if hasattr(value, "dtype") and not (
        jnp.issubdtype(value.dtype, jnp.floating)
        or jnp.issubdtype(value.dtype, jnp.integer)
        or value.dtype == jnp.bool_
    ):
        raise DTypeError(f"{name} must be an array of real numbers, but got {describe(value)}")
    try:
        return np.asarray(value).astype(np.float64)
    except (TypeError, ValueError):
        raise DTypeError(
            f"{name} must be an array of real numbers, but got {describe(value)}"
        ) from None


def plot_filters(
    weight: Any,
    *,
    columns: int | None = None,
    limit: int = 64,
    normalize: bool = True,
    cmap: str = "gray",
    ax: Any = None,
) -> Any:
    """Show the filters of a convolution as a grid of small images.

    A filter of 3 input channels is a colour image; of any other number, its channels are averaged.

    Args:
        weight: a layer with a ``weight``, such as ``nn.Conv2d``, or an array, a Parameter included.
        columns: filters in a row; by default the grid is about square.
        limit: the number of filters shown at most, the first ones.
        normalize: whether every filter is stretched to the full range by itself, or all of them together.
        cmap: matplotlib's name of the colours, for filters that are not in colour.
        ax: a matplotlib ``Axes`` to draw into; a new figure without it.

    Shape:
        - weight: (filters, channels, height, width), or (filters, height, width).

    Returns:
        The matplotlib ``Axes``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ShapeError: the weight has another shape, or is empty.
        DTypeError: it is no array of real numbers, or the module has no weight.

    Examples:
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> from funcnets import look, nn
        >>> ax = look.plot_filters(nn.Conv2d(3, 8, 5))
        >>> ax.get_title()
        '8 filters of 5 x 5'
    """
    if isinstance(weight, Module):
        cell = weight._parameters.get("weight")
        if cell is None:
            raise DTypeError(
                f"plot_filters needs a layer with a weight, but got {describe(weight)}"
            )
        weight = cell
    filters = _numbers("weight", weight)
    if filters.ndim == 3:
        filters = filters[:, None]
    if filters.ndim != 4 or 0 in filters.shape:
        raise ShapeError(
            "plot_filters shows a weight of shape (filters, channels, height, width), or (filters, height, width), "
            f"but got {describe(weight)}"
        )
    positive("limit", limit)
    total = len(filters)
    filters = filters[:limit]
    colour = filters.shape[1] == 3
    images = np.moveaxis(filters, 1, -1) if colour else filters.mean(1)
    images = np.where(np.isfinite(images), images, 0.0)
    axes = tuple(range(1, images.ndim)) if normalize else None
    low, high = (edge(images, axis=axes, keepdims=True) for edge in (np.min, np.max))
    images = (images - low) / np.where(high > low, high - low, 1.0)
    count, height, width = images.shape[:3]
    across = math.ceil(math.sqrt(count)) if columns is None else positive("columns", columns)
    across = min(across, count)
    down = -(-count // across)
    # Half a pixel of free space would be lost: one, whatever the size.
    grid = np.full((down * (height + 1) - 1, across * (width + 1) - 1, *images.shape[3:]), np.nan)
    for i, image in enumerate(images):
        y, x = (i // across) * (height + 1), (i % across) * (width + 1)
        grid[y : y + height, x : x + width] = image
    if colour:  # free space is transparent
        alpha = np.isfinite(grid[..., :1]).astype(float)
        grid = np.concatenate([np.nan_to_num(grid), alpha], -1)
    ax = _axes(ax, "plot_filters", (1 + 0.55 * across, 0.8 + 0.55 * down))
    ax.imshow(grid, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    shown = f"{count} of {total}" if count < total else str(total)
    ax.set_title(f"{shown} filters of {height} x {width}", fontsize=10)
    return ax


def plot_confusion(
    matrix: Any,
    labels: Sequence[Any] | None = None,
    *,
    normalize: str | None = None,
    cmap: str = "Blues",
    ax: Any = None,
) -> Any:
    """Show a confusion matrix, with its numbers.

    Args:
        matrix: the counts, a row for each true class and a column for each predicted one: what
            ``train.ConfusionMatrix`` computes.
        labels: the names of the classes; their numbers if not given.
        normalize: None for counts; ``"true"`` for the share of each row, ``"pred"`` for that of each column,
            ``"all"`` for that of the whole.
        cmap: matplotlib's name of the colours.
        ax: a matplotlib ``Axes`` to draw into; a new figure without it.

    Shape:
        - matrix: (classes, classes).

    Returns:
        The matplotlib ``Axes``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ShapeError: the matrix is not square, or empty.
        ArgumentError: the number of labels is another, or ``normalize`` is something else.
        DTypeError: it is no array of real numbers.

    Examples:
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> from funcnets import look
        >>> ax = look.plot_confusion([[5, 1], [2, 4]], ["cat", "dog"])
        >>> [text.get_text() for text in ax.texts]
        ['5', '1', '2', '4']
    """
    choice("normalize", normalize, (None, "true", "pred", "all"))
    counts = _numbers("matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ShapeError(
            f"a confusion matrix has a row and a column for each class, but got {describe(np.asarray(matrix))}"
        )
    n = len(counts)
    names = [str(name) for name in (range(n) if labels is None else labels)]
    if len(names) != n:
        raise ArgumentError(f"the confusion matrix has {n} classes, but got {len(names)} labels")
    if normalize is not None:
        axis = {"true": 1, "pred": 0, "all": None}[normalize]
        total = counts.sum(axis=axis, keepdims=True)
        counts = np.divide(counts, total, out=np.zeros_like(counts), where=total != 0)
    size = min(12.0, 2.2 + 0.55 * n)
    ax = _axes(ax, "plot_confusion", (size, size))
    finite = counts[np.isfinite(counts)]
    top = finite.max(initial=0.0) or 1.0
    ax.imshow(counts, cmap=cmap, vmin=0, vmax=top)
    long = any(len(name) > 3 for name in names)
    ax.set_xticks(range(n), names, rotation=45 if long else 0, ha="right" if long else "center")
    ax.set_yticks(range(n), names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    if n <= 30:
        whole = bool((finite == np.round(finite)).all()) and normalize is None
        for i, j in np.ndindex(n, n):
            value = counts[i, j]
            text = f"{value:.0f}" if whole else f"{value:.2f}"
            shade = "white" if value > 0.55 * top else "black"
            ax.text(j, i, text, ha="center", va="center", color=shade, fontsize=9 if n <= 12 else 6)
    return ax


def plot_attention(
    weights: Any,
    queries: Sequence[Any] | None = None,
    keys: Sequence[Any] | None = None,
    *,
    head: int | None = None,
    cmap: str = "viridis",
    ax: Any = None,
) -> Any:
    """Show attention weights as a map: what each query, a row, attends to.

    Args:
        weights: what ``nn.MultiheadAttention`` returns for one example.
        queries: what is written beside the rows, the words of a sentence perhaps.
        keys: what is written below the columns; ``queries`` if those fit and these are not given.
        head: which head is shown of several; without it their mean.
        cmap: matplotlib's name of the colours.
        ax: a matplotlib ``Axes`` to draw into; a new figure without it.

    Shape:
        - weights: (queries, keys), or (heads, queries, keys).

    Returns:
        The matplotlib ``Axes``.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ShapeError: the weights have another shape, or are empty.
        ArgumentError: the number of words is another, or there is no such head.
        DTypeError: it is no array of real numbers.

    Examples:
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> import jax.numpy as jnp
        >>> from funcnets import look
        >>> ax = look.plot_attention(jnp.eye(3), ["a", "red", "fox"])
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['a', 'red', 'fox']
    """
    maps = _numbers("weights", weights)
    if maps.ndim not in (2, 3) or 0 in maps.shape:
        raise ShapeError(
            "attention weights of one example have the shape (queries, keys) or (heads, queries, keys), "
            f"but got {describe(weights)}; take one example of a batch: weights[0]"
        )
    if head is not None and (maps.ndim == 2 or not -len(maps) <= head < len(maps)):
        heads = len(maps) if maps.ndim == 3 else "no"
        raise ArgumentError(f"head={head} of weights that have {heads} heads: {describe(weights)}")
    if maps.ndim == 3:
        maps = maps.mean(0) if head is None else maps[head]
    rows, columns = maps.shape
    if keys is None and queries is not None and rows == columns:
        keys = queries
    for name, words, size in (("queries", queries, rows), ("keys", keys, columns)):
        if words is not None and len(words) != size:
            raise ArgumentError(f"the weights have {size} {name}, but got {len(words)} words")
    ax = _axes(ax, "plot_attention", (min(12.0, 2.5 + 0.3 * columns), min(12.0, 1.8 + 0.3 * rows)))
    image = ax.imshow(maps, cmap=cmap, vmin=0)
    ax.figure.colorbar(image, ax=ax, shrink=0.8)
    if keys is not None:
        ax.set_xticks(range(columns), [str(word) for word in keys], rotation=60, ha="right")
    if queries is not None:
        ax.set_yticks(range(rows), [str(word) for word in queries])
    ax.set_xlabel("keys")
    ax.set_ylabel("queries")
    return ax
