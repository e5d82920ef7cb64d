"""Modes, freezing, dtypes and devices of modules."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import init, nn
from funcnets.errors import (
    ArgumentError,
    DTypeError,
)
from tests.core.toys import Affine, Average, Chain, Counter, Net, cells

X = jnp.ones((2, 3))


class TestModes:
    def test_train_and_eval(self):
        model = Chain(Net(), Counter())
        assert model.training and model.eval() is model
        assert not any(m.training for m in model.modules())
        model.train()
        assert all(m.training for m in model.modules())
        model[0].train(False)
        assert [m.training for m in model.modules()] == [
            True,
            False,
            False,
            False,
            False,
            False,
            True,
        ]
        with pytest.raises(ArgumentError, match="^training mode is expected to be boolean$"):
            model.train(1)

    def test_requires_grad(self):
        model = Net()
        assert model.requires_grad_(False) is model
        assert not any(p.requires_grad for p in model.parameters())
        model.first.requires_grad_()
        assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]


class TestConversion:
    def model(self):
        model = Chain(Affine(2, 2), Counter(), Average(2))
        model.register_buffer("z", jnp.ones(2, jnp.complex64))
        return model

    @pytest.mark.parametrize("drawn", [False, True])
    @pytest.mark.parametrize(
        ("convert", "dtype"),
        [
            (lambda m: m.half(), jnp.float16),
            (lambda m: m.bfloat16(), jnp.bfloat16),
            (lambda m: m.half().float(), jnp.float32),
            (lambda m: m.to(jnp.float16), jnp.float16),
            (lambda m: m.to(np.float16), jnp.float16),
            (lambda m: m.to("bfloat16"), jnp.bfloat16),
            (lambda m: m.to(np.dtype("float16")), jnp.float16),
            (lambda m: m.to(dtype=jnp.bfloat16), jnp.bfloat16),
            (lambda m: m.to("cpu:0", jnp.float16), jnp.float16),
            (lambda m: m.to(jnp.ones(1, jnp.bfloat16)), jnp.bfloat16),
            (lambda m: m.type(jnp.float16), jnp.float16),
        ],
    )
    def test_floating_cells_change_and_others_do_not(self, convert, dtype, drawn):
        model = self.model()
        if drawn:
            fn.get_variables(model)
        before = np.asarray(copy.deepcopy(model)[0].weight)
        assert convert(model) is model
        for name in ("0.weight", "0.bias", "2.mean"):
            cell = cells(model)[name]
            assert cell.dtype == cell.data.dtype == dtype
        assert model[1].count.dtype == model[1].count.data.dtype == jnp.int32
        assert model.z.data.dtype == jnp.complex64
        np.testing.assert_allclose(np.asarray(model[0].weight, np.float32), before, rtol=1e-2)
        assert model(jnp.ones((1, 2), dtype)).dtype == dtype

    def test_init_gives_the_new_dtype(self):
        params, state = fn.functionalize(self.model().bfloat16()).init(jax.random.key(0))
        assert params["0"]["weight"].dtype == state["2"]["mean"].dtype == jnp.bfloat16
        assert state["1"]["count"].dtype == jnp.int32

    def test_to_complex(self):
        model = self.model().to(jnp.complex64)
        assert model[0].weight.dtype == model[0].weight.data.dtype == jnp.complex64

    def test_double_needs_the_option(self):
        for call in (
            lambda m: m.double(),
            lambda m: m.to(jnp.float64),
            lambda m: m.to(jnp.complex128),
        ):
            model = self.model()
            with pytest.raises(DTypeError, match="jax_enable_x64"):
                call(model)
            assert model[0].weight.dtype == jnp.float32

    def test_double_with_the_option(self):
        with jax.enable_x64(True):
            model = self.model().double()
            assert model[0].weight.data.dtype == jnp.float64
            assert nn.Parameter((2,), init.normal(), dtype=jnp.float64).data.dtype == jnp.float64
            assert nn.Parameter((2,)).dtype == jnp.float32  # as torch, whatever is enabled

    def test_devices(self):
        device = jax.devices()[1]
        model = self.model()
        fn.get_variables(Chain(model[0]))
        model.to(device)
        assert all(c.data.devices() == {device} for c in cells(model).values())
        model.to("cpu:2")
        assert model[0].weight.data.devices() == {jax.devices()[2]}
        model.cpu()
        assert model[0].weight.data.devices() == {jax.devices()[0]}
        with pytest.raises(
            ArgumentError, match="there is no device 'gpu:0'; this process has cpu:0"
        ):
            model.cuda()

    def test_sharding(self):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        model = Affine(2, 2).to(everywhere)
        assert model.weight.data.sharding == everywhere
        assert len(model(jnp.ones((1, 2))).devices()) == 2

    @pytest.mark.parametrize("target", [jnp.int32, "int8", bool])
    def test_only_to_floats(self, target):
        with pytest.raises(
            TypeError,
            match="^nn.Module.to only accepts floating point or complex dtypes, but got desired",
        ):
            self.model().to(target)

    def test_nonsense(self):
        with pytest.raises(TypeError, match="takes a dtype, a device or a Sharding, but got 5"):
            self.model().to(5)
        with pytest.raises(ArgumentError, match="there is no device 'nowhere'"):
            self.model().to("nowhere")
