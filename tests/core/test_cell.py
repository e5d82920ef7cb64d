"""Parameters and buffers: what they are, when they get a value, and how they stand for it."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import init, nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError, StateLeakError, UnsupportedError


class TestDescription:
    def test_a_shape_allocates_nothing(self):
        cell = nn.Parameter((10**6, 10**6), init.normal())
        assert cell.shape == (10**6, 10**6) and cell.dtype == jnp.float32
        assert (cell.ndim, cell.dim(), cell.numel()) == (2, 2, 10**12)
        assert cell.size() == (10**6, 10**6) and cell.size(-1) == 10**6
        assert len(cell) == 10**6 and cell.is_leaf and not cell.has_value

    def test_reading_brings_it_into_being_once(self):
        cell = nn.Parameter((3,), init.normal())
        first = cell.data
        assert cell.has_value and cell.data is first

    def test_without_an_initializer_it_is_zeros(self):
        assert nn.Buffer((2,)).tolist() == [0.0, 0.0]
        assert nn.Parameter(()).item() == 0.0

    @pytest.mark.parametrize(
        "shape", [(2, 3), [2, 3], (np.int64(2), 3), jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)]
    )
    def test_what_counts_as_a_shape(self, shape):
        cell = nn.Buffer(shape)
        assert cell.shape == (2, 3) and not cell.has_value
        assert cell.dtype == getattr(shape, "dtype", jnp.float32)

    def test_an_array_is_value_and_initial_value(self):
        cell = nn.Parameter(jnp.arange(3.0))
        assert cell.has_value and cell.tolist() == [0.0, 1.0, 2.0]

        class Holder(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = cell

        for seed in (0, 1):
            params, _ = fn.functionalize(Holder()).init(jax.random.key(seed))
            assert params["cell"].tolist() == [0.0, 1.0, 2.0]

    @pytest.mark.parametrize(
        "value", [np.ones(2, np.float64), 2.5, np.float32(3), jnp.asarray(1.0)]
    )
    def test_what_counts_as_an_array(self, value):
        cell = nn.Parameter(value)
        assert cell.dtype == jnp.float32 and cell.shape == np.shape(value)
        assert not cell.data.weak_type

    @pytest.mark.parametrize("value", [3, True, "w", None, [1.0, 2.0], (1.5,), (True,)])
    def test_what_is_neither_is_refused(self, value):
        with pytest.raises(
            DTypeError, match="Parameter takes a shape, such as .3, 4., or an array, but got"
        ):
            nn.Parameter(value)

    def test_other_refusals(self):
        with pytest.raises(ArgumentError, match="a dimension must be non-negative, but got -1"):
            nn.Parameter((2, -1))
        with pytest.raises(ArgumentError, match="an array and an initializer"):
            nn.Parameter(jnp.ones(2), init.zeros())
        with pytest.raises(ArgumentError, match="an initializer is a function"):
            nn.Parameter((2,), 0.5)
        with pytest.raises(DTypeError, match="only floating point and complex parameters"):
            nn.Parameter(jnp.arange(3))
        with pytest.raises(DTypeError, match="float64 needs .*jax_enable_x64"):
            nn.Parameter((2,), dtype=jnp.float64)
        with pytest.raises(DTypeError, match="int64 needs"):
            nn.Buffer(np.arange(2), dtype="int64")
        with pytest.raises(DTypeError, match="dtype must be a JAX or NumPy dtype"):
            nn.Buffer((2,), dtype="flot32")
        with pytest.raises(ArgumentError, match="there is no device 'tpu:3'"):
            nn.Buffer((2,), device="tpu:3")
        with pytest.raises(ArgumentError, match="device must be"):
            nn.Buffer((2,), device=3)

    def test_torchs_positional_flags(self):
        assert not nn.Parameter(jnp.ones(2), False).requires_grad
        assert not nn.Buffer(jnp.ones(2), False).persistent
        assert nn.Parameter(jnp.arange(2), requires_grad=False).dtype == jnp.int32

    def test_a_parameter_of_a_parameter_takes_its_value(self):
        first = nn.Parameter((2,), init.normal())
        second = nn.Parameter(first)
        assert (second == first).all() and second is not first

    def test_gradients_have_no_field(self):
        cell = nn.Parameter((2,))
        with pytest.raises(UnsupportedError, match="value_and_grad"):
            cell.grad  # noqa: B018
        with pytest.raises(UnsupportedError, match="no backward"):
            cell.backward()

    def test_device_and_sharding(self):
        device = jax.devices()[1]
        assert nn.Parameter((2,), device=device).data.devices() == {device}
        assert nn.Parameter((2,), device="cpu:2").data.devices() == {jax.devices()[2]}
        assert nn.Buffer(jnp.ones(2), device="cpu:1").data.devices() == {device}


class TestInitializers:
    def test_anybodys_function(self):
        cell = nn.Parameter((3, 4), jax.nn.initializers.he_normal())
        assert cell.data.shape == (3, 4) and cell.data.std() > 0

    def test_its_shape_is_checked_and_its_dtype_converted(self):
        cell = nn.Parameter((2,), lambda key, shape, dtype: jnp.ones(shape), dtype=jnp.bfloat16)
        assert cell.data.dtype == jnp.bfloat16
        wrong = nn.Parameter((3,), lambda key, shape, dtype: jnp.ones(2))
        with pytest.raises(ArgumentError, match=r"gave shape \(2,\) for a cell of shape \(3,\)"):
            wrong.data  # noqa: B018

        class Holder(nn.Module):
            def __init__(self, cell):
                super().__init__()
                self.cell = cell

        with pytest.raises(ArgumentError, match=r"gave shape \(2,\)"):
            fn.functionalize(Holder(wrong)).init(jax.random.key(0))
        assert (
            fn.functionalize(Holder(cell)).init(jax.random.key(0))[0]["cell"].dtype == jnp.bfloat16
        )

    def test_reinitialising_draws_again(self):
        cell = nn.Parameter((4,), init.normal())
        first = cell.data
        cell.reinitialise(init.normal())
        assert not cell.has_value
        assert not (cell.data == first).any()


class TestAssigningData:
    def test_value_and_initial_value_change(self):
        cell = nn.Parameter((2,), init.normal())
        cell.data = np.asarray([1.0, 2.0])
        assert cell.tolist() == [1.0, 2.0] and cell.dtype == jnp.float32
        cell.data = jnp.ones((3,), jnp.bfloat16)
        assert cell.shape == (3,) and cell.dtype == jnp.bfloat16

    def test_it_is_a_copy_of_what_may_change(self):
        torch_like = np.zeros(1 << 14, np.float32)
        # aligned as torch aligns its memory, where JAX would share it
        offset = (-torch_like.ctypes.data % 64) // 4
        source = torch_like[offset : offset + (1 << 13)]
        cell, buffer = nn.Parameter(source, dtype=jnp.float32), nn.Buffer((1 << 13,))
        buffer.data = source
        source[:] = 5
        assert (cell == 0).all() and (buffer == 0).all()

    def test_setting_items(self):
        cell = nn.Parameter(jnp.zeros(3))
        cell[1] = 4.0
        cell[2:] = jnp.ones(1)
        assert cell.tolist() == [0.0, 4.0, 1.0]

    def test_in_place_operators_change_the_cell(self):
        cell = same = nn.Parameter(jnp.full((2,), 4.0))
        cell *= 3.0
        cell -= jnp.ones(2)
        cell /= 2
        cell **= 2
        assert cell is same and cell.tolist() == [30.25, 30.25]

        class Holder(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = nn.Parameter(jnp.ones(2))

        model = Holder()
        kept = model.cell
        model.cell += 1
        for p in model.parameters():
            p *= 10.0
        assert model.cell is kept and kept.tolist() == [20.0, 20.0]

    def test_in_place_operators_keep_shape_and_dtype(self):
        cell = nn.Buffer(jnp.asarray([4, 6]))
        with pytest.raises(ShapeError, match=r"int32\[2\] would become float32\[2\]"):
            cell /= 2
        with (
            pytest.raises(ShapeError, match=r"int32\[2\] would become int32\[3, 2\]"),
            jax.numpy_rank_promotion("allow"),
        ):
            cell += jnp.ones((3, 2), jnp.int32)
        with pytest.raises(TypeError):
            cell += "x"
        assert cell.tolist() == [4, 6]

    def test_in_a_call_it_is_a_write(self):
        cell = nn.Buffer(jnp.zeros(2))

        @fn.jit
        def step():
            cell.data = cell.data + 1
            cell[0] = 7.0
            return cell.data

        assert step().tolist() == [7.0, 1.0]
        assert cell.tolist() == [7.0, 1.0]


class TestStandingForAnArray:
    a = np.asarray([[1.0, -2.0], [3.0, 4.0]], np.float32)

    @pytest.mark.parametrize(
        "call",
        [
            lambda x: x + 1, lambda x: 1 + x, lambda x: x - 1, lambda x: 1 - x, lambda x: x * 2,
            lambda x: 2 * x, lambda x: x / 2, lambda x: 2 / x, lambda x: x // 2, lambda x: 7 // x,
            lambda x: x % 3, lambda x: 7 % x, lambda x: x**2, lambda x: 2**x, lambda x: -x, lambda x: +x,
            abs, lambda x: x < 2, lambda x: x <= 1, lambda x: x > 1, lambda x: x >= 3, lambda x: x == 1,
            lambda x: x != 1, lambda x: x[0], lambda x: x[:, 1], lambda x: x[-1, 0], lambda x: x.T,
            lambda x: x.sum(), lambda x: x.mean(0), lambda x: x.reshape(4), lambda x: x.astype(np.int32),
            lambda x: divmod(x, 2)[1], lambda x: x.flatten(), lambda x: np.asarray(x) + 1,
            lambda x: np.asarray([*x]), lambda x: x.tolist(), len, lambda x: 1.0 in x, lambda x: 9.0 in x,
        ],
    )  # fmt: skip
    def test_as_numpy_would(self, call):
        np.testing.assert_allclose(call(nn.Parameter(self.a)), call(self.a), rtol=1e-6)

    def test_two_cells(self):
        p, q = nn.Parameter(self.a), nn.Buffer(self.a)
        np.testing.assert_array_equal(p @ q, self.a @ self.a)
        np.testing.assert_array_equal(p + q, 2 * self.a)
        np.testing.assert_array_equal(self.a @ p, self.a @ self.a)

    def test_bits(self):
        b = nn.Buffer(jnp.asarray([5, 6]))
        assert [(b & 3).tolist(), (1 | b).tolist(), (b ^ 1).tolist(), (b << 1).tolist(), (~b).tolist()] == [
            [1, 2], [5, 7], [4, 7], [10, 12], [-6, -7],
        ]  # fmt: skip

    def test_scalars(self):
        p = nn.Parameter(jnp.asarray(2.5))
        assert (float(p), int(p), bool(p), p.item()) == (2.5, 2, True, 2.5)
        assert f"{p:.2f}" == "2.50"
        with pytest.raises(TypeError, match="len.. of a 0-d tensor"):
            len(p)
        with pytest.raises(ValueError):
            bool(nn.Parameter(jnp.ones(2)))

    def test_to_numpy(self):
        p = nn.Parameter(jnp.ones(2))
        copied = p.numpy()
        copied[0] = 9
        assert p.tolist() == [1.0, 1.0]
        assert np.asarray(p, np.float64).dtype == np.float64
        assert np.array(p, copy=True).flags.writeable
        assert p.detach() is p.data and p.clone() is not p.data

    def test_unknown_attributes(self):
        with pytest.raises(AttributeError, match="Parameter has no attribute 'mul_'"):
            nn.Parameter((2,)).mul_  # noqa: B018

    def test_it_is_hashed_by_identity(self):
        p, q = nn.Parameter(jnp.ones(2)), nn.Parameter(jnp.ones(2))
        assert len({p, q, p}) == 2

    def test_some_jax_functions_take_it_and_the_others_refuse_it(self):
        p = nn.Parameter(jnp.ones((2, 2)))
        np.testing.assert_array_equal(jnp.asarray(p), p.data)
        with pytest.raises((TypeError, ValueError), match="explicitly convert your object"):
            jnp.sum(p)

    def test_as_an_argument_of_a_compiled_function(self):
        p = nn.Parameter(jnp.full((2,), 3.0))
        assert fn.jit(lambda x: x.sum())(p).item() == 6.0
        assert fn.jit(lambda d: d["x"][0].sum())({"x": [p]}).item() == 6.0
        assert fn.checkpoint(lambda x: x.sum())(p).item() == 6.0


class TestCopies:
    def test_deepcopy_is_independent_and_equal(self):
        first = nn.Parameter((3,), init.normal())
        twin = copy.deepcopy(first)  # before there is a value: both draw the same
        assert twin is not first and (twin == first).all()
        again = copy.deepcopy(first)
        again.data = jnp.zeros(3)
        assert (first == twin).all() and not (first == again).any()

    def test_deepcopy_keeps_ties(self):
        first = nn.Parameter((3,))
        a, b = copy.deepcopy([first, first])
        assert a is b and a is not first

    @pytest.mark.parametrize("drawn", [False, True])
    def test_pickle(self, drawn):
        first = nn.Parameter((3,), init.normal(), requires_grad=False, dtype=jnp.bfloat16)
        if drawn:
            first.data  # noqa: B018
        twin = pickle.loads(pickle.dumps(first))
        assert twin.has_value is drawn and not twin.requires_grad and twin.dtype == jnp.bfloat16
        assert (twin == first).all()

    def test_a_copy_survives_a_donated_step(self):
        first = nn.Buffer(jnp.zeros(3))
        step = fn.jit(lambda: setattr(first, "data", first.data + 1))
        step()
        twin = copy.deepcopy(first)
        step()
        assert twin.tolist() == [1.0] * 3 and first.tolist() == [2.0] * 3


class TestRequiresGrad:
    def test_setting_it(self):
        p = nn.Parameter((2,))
        assert p.requires_grad_(False) is p and not p.requires_grad
        p.requires_grad = True
        assert p.requires_grad
        with pytest.raises(DTypeError, match="this one is int32"):
            nn.Parameter(jnp.arange(2), requires_grad=False).requires_grad_()

    def test_a_trained_cell_cannot_become_an_integer(self):
        p = nn.Parameter(jnp.ones(2))
        for call in (
            lambda: setattr(p, "data", jnp.arange(2)),
            lambda: fn.jit(lambda: setattr(p, "data", jnp.arange(2)))(),
        ):
            with pytest.raises(DTypeError, match="can require gradients, but this one is int32"):
                call()
        assert p.tolist() == [1.0, 1.0]
        p.requires_grad = False
        p.data = jnp.arange(2)
        assert p.dtype == jnp.int32

    def test_a_buffer_has_none(self):
        assert nn.Buffer((2,)).requires_grad is False


class TestTypedKeys:
    def test_a_buffer_may_hold_one(self):
        buffer = nn.Buffer(jax.random.key(3))
        assert buffer.shape == () and jnp.issubdtype(buffer.dtype, jax.dtypes.prng_key)
        assert "key<fry>" in repr(buffer)

        @fn.jit
        def step():
            buffer.data, now = jax.random.split(buffer.data)
            return jax.random.uniform(now)

        assert step() != step()


def test_a_value_is_drawn_inside_somebodys_trace_as_an_array():
    cell = nn.Parameter((3,), init.normal())
    expected = copy.deepcopy(cell)
    out = jax.jit(lambda: cell.data * 1)()
    assert not isinstance(cell._value, jax.core.Tracer)
    assert (out == expected.data).all()


def test_a_write_in_somebodys_trace_is_refused():
    cell = nn.Buffer((2,))
    with pytest.raises(StateLeakError, match="assigning the data of a Buffer"):
        jax.jit(lambda x: setattr(cell, "data", x))(jnp.ones(2))
