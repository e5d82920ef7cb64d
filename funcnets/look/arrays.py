"""An array at a glance: its numbers' range and a small histogram, cheap whatever its size."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Glance", "bars", "glance", "placement_text"]

MOST = 1 << 18  # numbers that are looked at
BINS = 24


@dataclass
class Glance:
    """What is said of an array: a few words, and heights of a histogram between two numbers."""

    words: list[str]
    heights: list[int]
    low: float = 0.0
    high: float = 0.0


def glance(value: jax.Array) -> Glance:
    """Look at the numbers of an array; of a large one at some of them, evenly spread.

    Args:
        value: any array; keys and deleted arrays are named as such.
    """
    if value.is_deleted():
        return Glance(["deleted: a compiled function has reused its memory"], [])
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return Glance(["random keys" if value.size > 1 else "a random key"], [])
    if value.size == 0:
        return Glance(["empty"], [])
    numbers, whole = _numbers(value)
    if numbers.size == 0:
        return Glance(["on devices of other processes"], [])
    words = [] if whole else [f"of a sample of {numbers.size:,}"]
    dtype = value.dtype
    if dtype == jnp.bool_:
        share = float(np.mean(numbers))
        return Glance([*words, f"{share:.1%} true"], [int((~numbers).sum()), int(numbers.sum())])
    if jnp.issubdtype(dtype, jnp.complexfloating):
        words, numbers = [*words, "absolute values"], np.abs(numbers)
    wide = numbers.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    for count, name in (
        (int(np.isnan(wide).sum()), "NaN"),
        (int(np.isinf(wide).sum()), "infinite"),
    ):
        if count:
            words.append(f"{count:,} {name}")
    if finite.size == 0:
        return Glance(words, [])
    low, high = float(finite.min()), float(finite.max())
    exact = jnp.issubdtype(dtype, jnp.integer)
    if low == high:
        return Glance([*words, f"all {_text(low, exact)}"], [])
    words += [
        f"min {_text(low, exact)}",
        f"mean {finite.mean():.3g}",
        f"max {_text(high, exact)}",
    ]
    with np.errstate(over="ignore"):
        span = np.isfinite(high - low)
    heights = np.histogram(finite if span else finite / 4, BINS)[0].tolist()
    return Glance(words, heights, low, high)


def _text(value: float, exact: bool) -> str:
    return f"{int(value):,}" if exact else f"{value:.3g}"


def _numbers(value: jax.Array) -> tuple[np.ndarray, bool]:
    """Numbers of an array on the host, and whether they are all of them."""
    # Each device's part by itself; gathering a sharded array is what must not happen. The parts are
    # temporary objects, so that nothing stays that refers to the array's memory.
    parts = [shard.data for shard in value.addressable_shards if shard.replica_id == 0]
    size = sum(part.size for part in parts)
    step = max(1, -(-size // MOST))
    found = []
    for part in parts:
        if step > 1 and next(iter(part.devices())).platform != "cpu":
            part = part.reshape(-1)[::step]  # on the device, so that little is fetched
            found.append(np.array(part).reshape(-1))
            continue
        found.append(np.array(np.asarray(part).reshape(-1)[::step]))
    numbers = np.concatenate(found) if found else np.zeros(0)
    if (
        numbers.dtype.kind == "V"
        or not np.issubdtype(numbers.dtype, np.generic)
        or numbers.dtype.kind not in "biufc"
    ):
        numbers = numbers.astype(np.float32)
    return numbers, step == 1 and size == value.size


def placement_text(value: jax.Array) -> str:
    """Where an array is, if that is worth a word: the devices and how it is split among them."""
    devices = value.sharding.device_set
    if len(devices) == 1:
        (device,) = devices
        return "" if device == jax.devices()[0] else str(device)
    spec = getattr(value.sharding, "spec", None)
    if value.sharding.is_fully_replicated:
        return f"copied to {len(devices)} devices"
    axes = (
        ", ".join("-" if axis is None else str(axis) for axis in spec) if spec is not None else ""
    )
    return f"split over {len(devices)} devices" + (f" ({axes})" if axes else "")


def bars(seen: Glance) -> str:
    """The histogram as inline SVG."""
    if not seen.heights:
        return ""
    top, n = max(seen.heights), len(seen.heights)
    wide = 72 / n
    shapes = "".join(
        f'<rect x="{i * wide:.1f}" y="{18 - h:.1f}" width="{max(wide - 0.6, 0.6):.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(max(0.8, 18 * v / top) if v else 0.0 for v in seen.heights)
        if h
    )
    return f'<svg class="fnl-bars" width="72" height="18" viewBox="0 0 72 18" role="img" aria-label="histogram">{shapes}</svg>'
