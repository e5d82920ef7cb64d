"""Strictness for every test: no implicit dtype promotion, no implicit rank broadcasting, warnings are errors."""

from __future__ import annotations

import gc
import os
import pathlib
import sys
from importlib.metadata import version

# One compilation cache for all workers and runs; set before JAX is imported.
_cache = pathlib.Path(__file__).parent.parent / ".jax_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Four devices on one machine, for the sharding tests; programs that are compiled fast rather than well,
# since each runs once on a handful of numbers.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # Halves the time that compiling takes. XLA stops at an option that it does not know (any more).
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
    )
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax  # noqa: E402
import pytest  # noqa: E402

import funcnets as fn  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish() -> None:
    """Collect garbage rarely: compiled programs are many objects that live on, and going through all of
    them at every turn takes more time than the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same seed, and none leaves a frame behind."""
    from funcnets.core import frame

    fn.manual_seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    yield
    assert frame.current() is None
