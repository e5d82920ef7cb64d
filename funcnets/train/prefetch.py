"""Batches on their way to the device, while the step before them runs."""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from funcnets._args import describe, positive
from funcnets.core.arraylike import unwrap
from funcnets.core.convert import from_torch, placement
from funcnets.errors import DTypeError

__all__ = ["Prefetcher", "prefetch", "to_device"]


def to_device(batch: Any, device: Any = None) -> Any:
    """The arrays of a batch as arrays of the device.

    Args:
        batch: a tree (tuple, list, dict, ...) of NumPy or JAX arrays, torch tensors and numbers.
        device: a ``jax.Device`` or ``Sharding``; None for the default one.

    Returns:
        The same tree of ``jax.Array``. What is not JAX's is copied: its owner may change it.

    Raises:
        DTypeError: something in the batch is not an array; its place is named.
    """
    return jax.tree.map_with_path(lambda path, leaf: _array(path, leaf, device), batch)


def _array(path: Any, leaf: Any, device: Any) -> jax.Array:
    leaf = unwrap(leaf)
    if isinstance(leaf, jax.Array):
        return leaf if device is None else jax.device_put(leaf, device)
    if hasattr(leaf, "detach") and hasattr(leaf, "cpu"):  # a torch tensor
        leaf = from_torch(leaf)
    if hasattr(leaf, "__array__") or isinstance(leaf, (bool, int, float, complex)):
        # A copy of our own: JAX reads the memory later, or shares it, and its owner may change it.
        leaf = np.array(leaf)
        if leaf.dtype.kind not in "OUSMm":
            return jax.device_put(leaf, device)
    place = "batch" + jax.tree_util.keystr(path)
    raise DTypeError(
        f"{place} is {describe(leaf)}: a batch is a tuple, list or dict of arrays. Leave other things out where the "
        "batches are made"
    )


class Prefetcher(Iterator[Any]):
    """The iterator that :func:`prefetch` returns; :meth:`close` ends its thread.

    Args:
        data: the batches.
        size: how many may wait.
        device: where they go.
        limit: the most batches to take from ``data``.
    """

    def __init__(
        self, data: Iterable[Any], size: int = 2, device: Any = None, limit: int | None = None
    ) -> None:
        self._data, self._source = data, iter(data)
        self._device = placement(device)
        self._limit = limit
        self._position: Any = None
        self._stop = threading.Event()
        self._queue: queue.Queue[tuple[str, Any, Any]] = queue.Queue(max(size, 1))
        self._thread: threading.Thread | None = None
        self._ended = False
        if size:
            # What is set for this thread only must hold in the other one, too.
            config: Any = jax.config
            settings = (config.jax_enable_x64, config.jax_default_device)
            self._thread = threading.Thread(
                target=self._fill, args=settings, name="funcnets-prefetch", daemon=True
            )
            self._thread.start()

    @property
    def position(self) -> Any:
        """Where ``data`` stood after the last batch that was handed out; None if it cannot say.

        A loader says it with ``state_dict()``, an iterator of grain's with ``get_state()``.
        """
        return self._position

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        kind, value, position = self._take() if self._thread is None else self._queue.get()
        if position is not None:
            self._position = position
        if kind == "batch":
            return value
        self._ended = True
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Take no further batch. Those that wait are dropped."""
        self._ended = True
        self._stop.set()
        if self._thread is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            # It may be inside of the loader, which cannot be interrupted; it ends after that.
            self._thread.join(timeout=1.0)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    # --- in the other thread ---

    def _take(self) -> tuple[str, Any, Any]:
        """The next batch, the end or an error, and the position after it."""
        try:
            if self._limit is not None:
                if not self._limit:
                    return "end", None, None
                self._limit -= 1
            batch = next(self._source)
        except StopIteration:
            return "end", None, self._where()
        except Exception as error:
            return "error", error, None
        try:
            position = self._where()
            return "batch", to_device(batch, self._device), position
        except Exception as error:
            return "error", error, None

    def _where(self) -> Any:
        """The position of the data, as a copy that does not move on."""
        if hasattr(self._data, "state_dict"):
            return copy.deepcopy(self._data.state_dict())  # pyright: ignore[reportAttributeAccessIssue]
        if hasattr(self._source, "get_state"):
            return copy.deepcopy(self._source.get_state())  # pyright: ignore[reportAttributeAccessIssue]
        return None

    def _fill(self, x64: bool, device: Any) -> None:
        with jax.enable_x64(x64), jax.default_device(device):
            kind = "batch"
            while kind == "batch" and not self._stop.is_set():
                item = self._take()
                kind = item[0]
                while not self._stop.is_set():
                    try:
                        self._queue.put(item, timeout=0.1)
                        break
                    except queue.Full:
                        continue


def prefetch(data: Iterable[Any], size: int = 2, *, device: Any = None) -> Prefetcher:
    """Iterate over ``data`` with the next batches on the device already.

    A thread takes batches and copies them to the device while the caller computes. ``fit`` does this by
    itself; in a loop of one's own it is ``for x, y in train.prefetch(loader): step(x, y)``.

    Args:
        data: an iterable of batches: trees of NumPy or JAX arrays, torch tensors, numbers.
        size: how many batches may wait; 0 for no thread, so that a batch is taken when asked for.
        device: a ``jax.Device``, a ``Sharding`` or a name like ``"cpu:0"``; None for the default device.

    Returns:
        An iterator of the same trees of ``jax.Array``; a context manager that ends the thread.

    Raises:
        DTypeError: something in a batch is not an array. Errors of ``data`` come out where the batch
            would have.

    Examples:
        >>> import numpy as np
        >>> from funcnets import train
        >>> with train.prefetch([np.zeros((2, 3)), np.zeros((1, 3))]) as batches:
        ...     [batch.shape for batch in batches]
        [(2, 3), (1, 3)]

    References:
        torch.utils.data.DataLoader's prefetch_factor and pin_memory
    """
    if not isinstance(data, Iterable):
        raise DTypeError(f"data must be an iterable of batches, but got {describe(data)}")
    return Prefetcher(data, positive("size", size, minimum=0), device)
