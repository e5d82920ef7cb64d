"""Batches of arrays that are in memory, in an order that a seed decides and a checkpoint can resume.

This is all that funcnets has of data loading. For data on disk, transformations and worker processes
use a library made for that: ``grain``, or a ``torch.utils.data.DataLoader``; ``fit`` takes either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_int, describe, positive
from funcnets.core.random import initial_seed
from funcnets.errors import ArgumentError, ShapeError, StateDictError

__all__ = ["ArrayLoader"]


class ArrayLoader:
    r"""Iterates over the batches of arrays, one epoch a ``for`` loop.

    The order of epoch :math:`e` depends on the seed, on :math:`e` and on the number of samples only: it is the
    same on every machine and with every version of NumPy. Batches of NumPy arrays are fresh NumPy
    arrays; arrays that are on a device already stay there.

    The position can be saved after any batch and restored: ``state_dict`` and ``load_state_dict``. The
    next loop then goes on with the batch after it. A loop that was left early does not: the next one
    begins the next epoch, as with PyTorch's loader.

    Args:
        arrays: an array, or a tuple, dict or other pytree of arrays, which share their first axis. A batch
            has the same structure.
        batch_size: samples in a batch.
        shuffle: draw a new order for every epoch, or keep the order of the arrays.
        seed: of the orders; if None, that of ``fn.manual_seed`` when the loader is made.
        drop_last: leave out a last batch that is not full.

    Shape:
        - arrays: :math:`(N, ...)` each
        - a batch: :math:`(\text{batch\_size}, ...)` each; the last one of an epoch may be shorter

    Raises:
        ShapeError: an array has no first axis, or another length than the rest; or there are none.
        ArgumentError: ``batch_size`` is not positive, or no batch would be left.

    Examples:
        >>> import numpy as np
        >>> from funcnets.train import ArrayLoader
        >>> loader = ArrayLoader((np.arange(5), np.arange(5) ** 2), batch_size=2)
        >>> for x, y in loader:
        ...     print(x, y)
        [0 1] [0 1]
        [2 3] [4 9]
        [4] [16]
        >>> loader = ArrayLoader({"x": np.arange(100)}, batch_size=10, shuffle=True, seed=0)
        >>> batches = iter(loader)
        >>> first, position = next(batches), loader.state_dict()
        >>> second = next(batches)
        >>> again = ArrayLoader({"x": np.arange(100)}, batch_size=10, shuffle=True)
        >>> again.load_state_dict(position)
        >>> bool((next(iter(again))["x"] == second["x"]).all())
        True

    References:
        torch.utils.data.DataLoader; torchdata.stateful_dataloader.StatefulDataLoader
    """

    def __init__(
        self,
        arrays: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self._arrays = jax.tree.map(_as_array, arrays)
        self._samples = _common_length(self._arrays)
        self._batch_size = positive("batch_size", batch_size)
        self._shuffle, self._drop_last = bool(shuffle), bool(drop_last)
        # Shifted, so that every file format holds it as an integer of 64 bits with a sign.
        self._seed = initial_seed() >> 1 if seed is None else positive("seed", seed, minimum=0)
        if not len(self):
            raise ArgumentError(
                f"no batch of {batch_size} is full with {self._samples} samples: choose a smaller batch_size, "
                "or drop_last=False"
            )
        # Where the first loop begins; after that the running or last one tells.
        self._start = (0, 0)
        self._running: _Epoch | None = None

    # --- what it is ---

    @property
    def batch_size(self) -> int:
        """Samples in a batch."""
        return self._batch_size

    @property
    def num_samples(self) -> int:
        """The length of the arrays."""
        return self._samples

    @property
    def epoch(self) -> int:
        """The number of the epoch that runs, or that the next loop begins; the first is 0."""
        return self._position[0]

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        whole, rest = divmod(self._samples, self._batch_size)
        return whole if self._drop_last or not rest else whole + 1

    def __repr__(self) -> str:
        arrays = jax.tree.map(describe, self._arrays)
        return (
            f"{type(self).__name__}({arrays}, batch_size={self._batch_size}, shuffle={self._shuffle}, "
            f"seed={self._seed}, drop_last={self._drop_last})"
        )

    # --- iterating ---

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch, or what a restored position left of it."""
        epoch, batch = self._start if self._running is None else (self._running.epoch + 1, 0)
        self._running = _Epoch(self, epoch, batch)
        return self._running

    def set_epoch(self, epoch: int) -> None:
        """Let the next loop be epoch number ``epoch``."""
        self._start, self._running = (positive("epoch", epoch, minimum=0), 0), None

    @property
    def _position(self) -> tuple[int, int]:
        if self._running is None:
            return self._start
        if self._running.finished:
            return self._running.epoch + 1, 0
        return self._running.epoch, self._running.batch

    def _order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self._samples)
        # The raw bits of a generator never change between versions of NumPy, its permutation may.
        bits = np.random.Philox(np.random.SeedSequence((self._seed, epoch)))
        return np.argsort(bits.random_raw(self._samples), kind="stable")

    def _take(self, chosen: np.ndarray) -> Any:
        return jax.tree.map(
            lambda a: a[chosen] if isinstance(a, np.ndarray) else jnp.take(a, chosen, axis=0),
            self._arrays,
        )

    # --- saving ---

    def state_dict(self) -> dict[str, Any]:
        """The position: after the last batch that was handed out.

        Returns:
            Numbers only: the epoch, the batches of it that were handed out, and what the order depends
            on. When a loop has ended the epoch is the next one. Between the last batch and the end it is
            the present one: restored from there, the first loop has no batch left.
        """
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch, **self._identity(), "seed": self._seed}

    def _identity(self) -> dict[str, Any]:
        return {
            "num_samples": self._samples,
            "batch_size": self._batch_size,
            "shuffle": self._shuffle,
            "drop_last": self._drop_last,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to a position; the next loop goes on from there, in the order of the saved seed.

        Args:
            state_dict: what ``state_dict()`` of a loader with as many samples and the same batches gave.

        Raises:
            StateDictError: it is of another kind, or of a loader over other batches.
        """
        expected = self.state_dict()
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(expected):
            names = list(state_dict) if isinstance(state_dict, Mapping) else describe(state_dict)
            raise StateDictError(
                f"the position of a loader has the entries {', '.join(expected)}, but got {names}"
            )
        state = {name: _number(name, value) for name, value in state_dict.items()}
        wrong = [
            f"{name} is {value}, and was {state[name]}"
            for name, value in self._identity().items()
            if value != state[name]
        ]
        if not 0 <= state["batch"] <= len(self):
            wrong.append(f"there are {len(self)} batches, and the position is {state['batch']}")
        wrong += [f"{n} is {state[n]}" for n in ("epoch", "seed") if state[n] < 0]
        if wrong:
            raise StateDictError(
                f"this position belongs to other batches: {'; '.join(wrong)}. Make the loader as it was made then"
            )
        self._seed = state["seed"]
        self._start, self._running = (state["epoch"], state["batch"]), None


class _Epoch(Iterator[Any]):
    """One loop over a loader. The position moves before a batch is handed out."""

    def __init__(self, loader: ArrayLoader, epoch: int, batch: int) -> None:
        self._loader, self.epoch, self.batch = loader, epoch, batch
        self._order = loader._order(epoch)
        self.finished = False

    def __next__(self) -> Any:
        if self.batch >= len(self._loader):
            self.finished = True
            raise StopIteration
        start = self.batch * self._loader.batch_size
        batch = self._loader._take(self._order[start : start + self._loader.batch_size])
        self.batch += 1
        return batch


def _as_array(value: Any) -> Any:
    """NumPy and JAX arrays as they are, others that NumPy can read as NumPy arrays."""
    if isinstance(value, (np.ndarray, jax.Array)):
        return value
    if hasattr(value, "__array__"):
        return np.asarray(value)
    raise ShapeError(
        f"arrays must be arrays that share their first axis, but got {describe(value)}; "
        "make an array of a list of numbers with np.asarray(...)"
    )


def _common_length(arrays: Any) -> int:
    leaves = jax.tree.leaves_with_path(arrays)
    lengths = {a.shape[0] if a.ndim else None for _, a in leaves}
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        listed = ", ".join(f"{jax.tree_util.keystr(p) or 'it'}: {describe(a)}" for p, a in leaves)
        raise ShapeError(
            f"arrays must share a first axis of one length or more, but got {listed or 'none'}"
        )
    return lengths.pop()  # pyright: ignore[reportReturnType]


def _number(name: str, value: Any) -> Any:
    """A number that may have come back from a file as an array."""
    plain = value.item() if hasattr(value, "item") and np.size(value) == 1 else value
    try:
        return plain if isinstance(plain, bool) else as_int(name, plain)
    except ArgumentError as error:
        raise StateDictError(f"the position of a loader is damaged: {error}") from None
