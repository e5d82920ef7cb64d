"""How first values get into memory: both ways give the same bits, and the arrays are ordinary ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

import funcnets as fn
from funcnets import init, nn
from funcnets.core import draw as drawing
from funcnets.core import fill as filling
from funcnets.core.draw import draw
from funcnets.core.fill import BLOCK, COLUMNS, ROWS

RULES = [init.uniform(-2.0, 3.0), init.normal(1.0, 2.5), init.uniform(-0.3, 0.3), init.normal()]
# Less than a row, a row and a bit, more than a call of the kernel, nothing, a scalar.
SHAPES = [(3, 5), (COLUMNS + 1,), (ROWS + 3, COLUMNS), (0, 4), ()]


def bits(array):
    return np.asarray(array).view(f"u{array.dtype.itemsize}")


class TestTheKernel:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_draws_what_numpy_does(self, dtype, monkeypatch):
        specs = [(rule, shape, jnp.dtype(dtype)) for shape in SHAPES for rule in RULES]
        keys = np.random.default_rng(0).integers(0, 2**32, (len(specs), 2), dtype=np.uint32)
        by_blocks = draw(specs, keys)
        monkeypatch.setattr(filling, "COMPILED", 0)
        left: list[object] = []
        monkeypatch.setattr(filling, "_fill_blocks", lambda blocks, _: left.extend(blocks))
        by_rows = draw(specs, keys)
        assert not left
        for spec, one, other in zip(specs, by_blocks, by_rows, strict=True):
            assert one.shape == other.shape == spec[1]
            np.testing.assert_array_equal(bits(one), bits(other), err_msg=str(spec))

    def test_counts_beyond_32_bits(self):
        key, low = np.array([3, 4], np.uint32), np.arange(5, 13, dtype=np.uint32)
        got = filling.row(
            "uniform", 8, key, np.uint32(2), np.uint32(5), np.float32(1), np.float32(0)
        )
        words = threefry_2x32(jnp.asarray(key), jnp.asarray(np.concatenate([0 * low + 2, low])))
        unit = np.asarray((words[:8] ^ words[8:]) >> np.uint32(9)) * 2.0**-23
        np.testing.assert_array_equal(got, (unit * 2 - 1).astype(np.float32))


class TestTheArrays:
    raw = np.array([[1, 2]], np.uint32)

    @pytest.mark.parametrize("rule", [init.normal(), init.uniform(), init.ones()], ids=str)
    def test_a_donated_one_is_taken_over(self, rule):
        """Which the backend does with memory of its own only."""
        (array,) = draw([(rule, (64, 64), jnp.float32)], self.raw)
        before, place = np.array(array), array.unsafe_buffer_pointer()
        after = jax.jit(lambda x: x + 1, donate_argnums=0)(array)
        assert array.is_deleted() and after.unsafe_buffer_pointer() == place
        np.testing.assert_array_equal(after, before + 1)

    @pytest.mark.parametrize("rule", [init.normal(), init.uniform(-2.0, 3.0)], ids=str)
    def test_the_other_way_where_memory_cannot_be_written(self, rule, monkeypatch):
        spec = (rule, (3, BLOCK), jnp.dtype("float16"))
        (in_place,) = draw([spec], self.raw)
        monkeypatch.setattr(drawing, "_WRITABLE", [])
        monkeypatch.setattr(drawing, "_memory", None)
        (copied,) = draw([spec], self.raw)
        np.testing.assert_array_equal(bits(copied), bits(in_place))

    @pytest.mark.parametrize("shape", [(), (3,), (5, 4), (0, 3), (3, 0), (2, 3, 4)], ids=str)
    @pytest.mark.parametrize("dtype", ["int4", "bool", "complex64", "float8_e4m3fn", "bfloat16"])
    def test_constants_of_any_kind(self, dtype, shape):
        (array,) = draw([(init.ones(), shape, jnp.dtype(dtype))], self.raw)
        assert array.shape == shape and array.dtype == jnp.dtype(dtype)
        assert (np.asarray(array) == np.ones((), dtype)).all()

    @pytest.mark.parametrize("dtype", ["float8_e4m3fn", "complex64"])
    def test_unusual_dtypes(self, dtype):
        spec = (init.normal(), (5, 4), jnp.dtype(dtype))
        key = jax.random.wrap_key_data(self.raw[0])
        (array,) = draw([spec], self.raw)
        np.testing.assert_array_equal(array, init.normal()(key, *spec[1:]))

    def test_a_concrete_key_within_a_trace(self):
        pair, key = fn.functionalize(nn.Embedding(3, 4)), jax.random.key(0)
        within = jax.jit(lambda x: pair.init(key)[0]["weight"] + x)(0.0)
        np.testing.assert_array_equal(within, pair.init(key)[0]["weight"])
