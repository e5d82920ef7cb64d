"""The batches of one epoch after the other, out of whatever the user has."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError
from funcnets.train.prefetch import Prefetcher

__all__ = ["Batches"]

_END = object()


class Batches:
    """A loader, iterable, iterator or function that makes one, epoch by epoch.

    Args:
        name: what it is called in errors.
        data: the user's object.
        per_epoch: how many batches make an epoch; None for all that an iteration gives. With it the
            iteration goes on from epoch to epoch, and begins again where it ends.
        size: how many batches wait on the device.
        device: where they go.
    """

    def __init__(self, name: str, data: Any, per_epoch: int | None, size: int, device: Any) -> None:
        self.name, self.data, self.per_epoch = name, data, per_epoch
        self.size, self.device = size, device
        self._made = callable(data) and not hasattr(data, "__iter__")
        if not self._made and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
            raise DTypeError(
                f"{name} must be an iterable of batches, such as a list or a loader, or a function that returns "
                f"one, but got {describe(data)}"
            )
        if isinstance(data, (str, bytes, dict)) or hasattr(data, "shape"):
            raise DTypeError(
                f"{name} must be an iterable of batches, but got {describe(data)}: one array is cut into batches by "
                "train.ArrayLoader((x, y), batch_size=...)"
            )
        self._open: Prefetcher | None = None
        self._source: Any = None
        self._left: Any = None
        self.total = self._length()

    def _length(self) -> int | None:
        """The number of batches in an epoch, if it is known."""
        if self.per_epoch is not None or self._made:
            return self.per_epoch
        try:
            length = len(self.data)
        except (TypeError, NotImplementedError, AttributeError):
            return None
        return length if isinstance(length, int) and length < 2**31 else None

    @property
    def position(self) -> Any:
        """Where the data stands: after the batch that was handed out last, or at the end of the epoch."""
        return self._left if self._open is None else self._open.position

    # --- one epoch ---

    def epoch(
        self, number: int, *, used: int = 0, resumed: bool = False, position: Any = None
    ) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch, each with the position of the data after it.

        Args:
            number: the epoch, from 1.
            used: how many batches of it were used before a checkpoint.
            resumed: whether this is the first epoch after a checkpoint was read.
            position: what ``position`` was when that was written.

        Returns:
            Pairs of a batch on the device and a position, which is None if the data cannot tell.

        Raises:
            ArgumentError: there is no batch.
        """
        count, goal = used, np.inf if self.per_epoch is None else self.per_epoch
        while count < goal:
            begun, before = self._open is None, count
            opened = self._open or self._begin(number, used if resumed else None, position)
            resumed, position = False, None
            for batch in opened:
                count += 1
                yield batch, opened.position
                if count >= goal:
                    return
            self._finish()
            if self.per_epoch is None or (begun and count == before):
                break
        if not count:
            raise ArgumentError(self._empty(number))

    def _begin(self, number: int, used: int | None, position: Any) -> Prefetcher:
        """Start an iteration; ``used`` is None unless it goes on where a checkpoint was written."""
        source = self._source = self._make(number) if self._made else self.data
        if used is not None and position is not None and hasattr(source, "load_state_dict"):
            source.load_state_dict(position)
        elif used is not None:
            source = self._advance(source, number, used, position)
        self._open = Prefetcher(source, self.size, self.device)
        return self._open

    def _advance(self, source: Any, number: int, used: int, position: Any) -> Any:
        """An iterator of ``source`` beyond the batches that were used."""
        iterator = iter(source)
        if self.per_epoch is not None:  # one iteration over all epochs
            used += (number - 1) * self.per_epoch
        if used and position is not None and hasattr(iterator, "set_state"):
            iterator.set_state(position)
            return iterator
        for _ in range(used):
            if next(iterator, _END) is _END:
                iterator = iter(source)
                next(iterator, None)
        return iterator

    def _make(self, number: int) -> Any:
        wants = any(
            p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
            for p in inspect.signature(self.data).parameters.values()
        )
        return self.data(number) if wants else self.data()

    def _empty(self, number: int) -> str:
        text = f"{self.name} gave no batch in epoch {number}"
        if self._source is not None and hasattr(self._source, "__next__"):
            text += (
                ": it is an iterator, which can be used only once. Pass a list, a loader, or a function that "
                "returns a new iterator for each epoch"
            )
        return text

    def _finish(self) -> None:
        if self._open is not None:
            self._left = self._open.position
            self._open.close()
        self._open = None

    def close(self, *, rewind: bool = False) -> None:
        """End the thread.

        Args:
            rewind: put a loader that can back to where the batches that were used end.
        """
        opened, source = self._open, self._source
        self._finish()
        if rewind and opened is not None and hasattr(source, "load_state_dict"):
            position = opened.position
            if position is not None:
                source.load_state_dict(position)
