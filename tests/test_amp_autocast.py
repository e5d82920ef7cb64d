"""``fn.autocast``: where it holds, what it computes, and that compiled functions follow it."""

from __future__ import annotations

import operator
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import amp, nn, optim
from funcnets.errors import DTypeError

X, W = jnp.ones((2, 3)), jnp.ones((4, 3))
BF16, F16, F32 = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16), jnp.dtype(jnp.float32)


class Net(nn.Module):
    """A convolution, a batch norm, a recurrent network, an attention and a linear map."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last, self.fc = nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x))).swapaxes(1, 2)
        x, _ = self.rnn(x)
        x, _ = self.attend(x, x, x)
        return self.fc(self.last(x))


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv1d(3, 4, 3, padding=1), torch.nn.BatchNorm1d(4)
        self.rnn = torch.nn.LSTM(4, 4, batch_first=True)
        self.attend = torch.nn.MultiheadAttention(4, 2, batch_first=True)
        self.last, self.fc = torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))).swapaxes(1, 2)
        x, _ = self.rnn(x)
        x, _ = self.attend(x, x, x)
        return self.fc(self.last(x))


class TestWhereItHolds:
    def test_a_block(self):
        assert F.linear(X, W).dtype == F32
        with fn.autocast(jnp.bfloat16):
            assert F.linear(X, W).dtype == BF16
            assert amp.is_autocast_enabled() and amp.get_autocast_dtype() == BF16
        assert F.linear(X, W).dtype == F32
        assert not amp.is_autocast_enabled() and amp.get_autocast_dtype() is None

    def test_nested_blocks_and_one_object_twice(self):
        outer = fn.autocast(jnp.bfloat16)
        with outer:
            with fn.autocast(jnp.float16):
                assert F.linear(X, W).dtype == F16
                with fn.autocast(enabled=False):
                    assert F.linear(X, W).dtype == F32
                with outer:
                    assert F.linear(X, W).dtype == BF16
                assert F.linear(X, W).dtype == F16
            assert F.linear(X, W).dtype == BF16
        assert F.linear(X, W).dtype == F32

    def test_within_a_disabled_block_half_precision_is_converted_by_hand(self):
        with fn.autocast():
            low = F.linear(X, W)
            with fn.autocast(enabled=False), pytest.raises(DTypeError, match=r"one dtype.*astype"):
                F.linear(low, jnp.ones((2, 4)))

    def test_a_function_an_exception_and_another_thread(self):
        @fn.autocast(jnp.float16)
        def f(stop=False):
            if stop:
                raise KeyError
            return F.linear(X, W).dtype

        assert f() == F16
        with pytest.raises(KeyError):
            f(stop=True)
        assert F.linear(X, W).dtype == F32
        seen = []
        with fn.autocast():
            thread = threading.Thread(target=lambda: seen.append(F.linear(X, W).dtype))
            thread.start()
            thread.join()
        assert seen == [F32]

    @pytest.mark.parametrize("dtype", ["cuda", "cpu", jnp.float32, jnp.int8, None, 3])
    def test_other_dtypes_are_refused(self, dtype):
        with pytest.raises(DTypeError, match=r"bfloat16 or jnp.float16, but got"):
            fn.autocast(dtype)


class TestCompiled:
    def test_a_compiled_function_follows(self):
        traces = []

        @jax.jit
        def f(x):
            traces.append(1)
            return F.linear(x, W)

        for _ in range(2):
            assert f(X).dtype == F32
            with fn.autocast():
                assert f(X).dtype == BF16
            with fn.autocast(jnp.float16):
                assert f(X).dtype == F16
        assert len(traces) == 3

    def test_so_does_one_with_modules(self):
        model, traces = nn.Linear(3, 4), []

        @fn.jit
        def f(x):
            traces.append(1)
            return model(x)

        for _ in range(2):
            assert f(X).dtype == F32
            with fn.autocast():
                assert f(X).dtype == BF16
        assert len(traces) == 2

    @pytest.mark.parametrize("where", ["inside", "around", "in the forward pass"])
    def test_a_training_step_keeps_parameters_and_gradients_in_float32(self, where):
        model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(12, 2))
        traces, dtypes = [], set()
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        x = jax.random.normal(jax.random.key(0), (4, 3, 5))

        def loss_fn(m):
            with fn.autocast(enabled=where == "in the forward pass"):
                out = m(x)
            return F.mse_loss(out, jnp.ones(out.shape))

        @fn.jit
        def step():
            traces.append(1)
            loss, grads = fn.value_and_grad(loss_fn)(model)
            dtypes.update(g.dtype for g in jax.tree.leaves(grads))
            optimizer.step(grads)
            return loss

        if where == "inside":
            step = fn.jit(fn.autocast()(step._fun))
        with fn.autocast(enabled=where == "around"):
            losses = [step() for _ in range(8)]
        assert losses[-1] < 0.8 * losses[0] and losses[0].dtype == F32
        assert len(traces) == 1 and dtypes == {F32}
        floats = [c.dtype for _, c in model._cells() if jnp.issubdtype(c.dtype, jnp.floating)]
        assert set(floats) == {F32}

    def test_matrix_products_are_in_low_precision_and_self_attention_is_projected_once(self):
        model, x = nn.MultiheadAttention(4, 2), jnp.ones((5, 2, 4))
        _, apply = fn.functionalize(model)
        params, state = fn.get_variables(model)
        with fn.autocast():
            jaxpr = jax.make_jaxpr(lambda p: apply(p, state, x, x, x)[0][0])(params)
        products = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "dot_general"]
        assert len(products) == 4  # in, scores, values, out
        assert {v.aval.dtype for e in products for v in e.invars} == {BF16}

    def test_vmap_grad_scan_and_checkpoint(self):
        model = nn.Linear(3, 3)
        with fn.autocast():
            assert fn.vmap(model)(jnp.ones((2, 3))).dtype == BF16
            assert fn.grad(lambda m: m(X).astype(F32).sum())(model)["weight"].dtype == F32
            step = lambda c, _: (model(c).astype(F32), None)  # noqa: E731
            assert fn.scan(step, X, length=2)[0].dtype == F32
            again = fn.checkpoint(model)
            assert again(X).dtype == BF16
            grad = fn.grad(lambda m: again(X).astype(F32).sum())(model)["weight"]
        np.testing.assert_array_equal(grad, 2.0)


class TestRules:
    def test_what_is_neither_float32_nor_half_is_left_alone(self):
        with jax.enable_x64(True), fn.autocast():
            assert F.linear(jnp.ones(3, "float64"), jnp.ones((2, 3), "float64")).dtype == "float64"
            assert F.softmax(jnp.ones(3, "float64"), 0).dtype == "float64"
        with fn.autocast():
            z = jnp.ones((1, 1, 3), jnp.complex64)
            assert F.conv1d(z, z).dtype == jnp.complex64
            assert F.interpolate(jnp.ones((1, 1, 2), jnp.uint8), 4).dtype == jnp.uint8

    def test_parameters_as_inputs_and_numpy_arrays(self):
        layer = nn.Linear(3, 4)
        with fn.autocast():
            assert F.linear(np.ones((2, 3), np.float32), layer.weight, layer.bias).dtype == BF16

    def test_functions_of_ones_own(self):
        with fn.autocast():
            product = amp.low_precision(jnp.einsum)("ij,kj->ik", X, b := X.astype(F16))
            assert product.dtype == BF16 and b.dtype == F16
            assert amp.full_precision(jnp.exp)(X.astype(BF16)).dtype == F32
            assert amp.promote(operator.add)(X, X.astype(BF16)).dtype == F32
            assert amp.promote(operator.add)(X.astype(BF16), X.astype(BF16)).dtype == BF16

            @amp.low_precision
            def several(pair, *, scale, factor=2.0):
                return [p.dtype for p in pair], scale.dtype, factor

            assert several((X, X), scale=X) == ([BF16, BF16], BF16, 2.0)
        assert several([X], scale=X) == ([F32], F32, 2.0)
        with pytest.raises(Exception, match=r"implicit dtype promotion|promot"):
            amp.promote(operator.add)(X, X.astype(BF16))

    def test_softmax_to_a_given_dtype(self):
        with fn.autocast():
            assert F.softmax(X, 1, dtype=jnp.bfloat16).dtype == BF16

    def test_a_linear_map_and_its_loss_in_one(self):
        y = jnp.array([0, 1])
        with fn.autocast():
            both = F.linear_cross_entropy(X, W, y)
            apart = F.cross_entropy(F.linear(X, W), y)
        assert both.dtype == F32
        np.testing.assert_allclose(both, apart, rtol=1e-2)


def test_values_and_gradients_are_those_of_torch_on_cpu():
    torch.manual_seed(0)
    theirs, ours = TorchNet(), Net()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = theirs(x)
        loss = torch.nn.functional.mse_loss(out, torch.ones_like(out))
    loss.backward()

    @fn.jit
    def gradients(x):
        def loss_fn(m):
            with fn.autocast():
                out = m(x)
                return F.mse_loss(out, jnp.ones_like(out))

        return fn.value_and_grad(loss_fn)(ours)

    value, grads = gradients(jnp.asarray(x.numpy()))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-2)
    named = dict(fn.core.layer.flatten(grads))
    largest = max(float(p.grad.abs().max()) for p in theirs.parameters())
    for name, p in theirs.named_parameters():
        assert named[name].dtype == F32 and p.grad.dtype == torch.float32
        # That of the bias before the batch norm is nothing but rounding.
        scale = max(float(p.grad.abs().max()), 0.05 * largest)
        np.testing.assert_allclose(named[name] / scale, p.grad / scale, atol=0.06, err_msg=name)


def test_a_model_in_bfloat16_trains_as_torch_does():
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 1)
    ).to(torch.bfloat16)
    ours = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 1))
    ours = ours.to(jnp.bfloat16)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(32, 3).to(torch.bfloat16)
    y = x.sum(1, keepdim=True)
    torch_optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    optimizer = optim.SGD(ours.parameters(), lr=0.05, momentum=0.9)
    as_jax = lambda t: jnp.asarray(t.float().numpy()).astype(jnp.bfloat16)  # noqa: E731
    inputs, targets = as_jax(x), as_jax(y)

    @fn.jit
    def step(x, y):
        loss, grads = fn.value_and_grad(lambda m: F.mse_loss(m(x), y))(ours)
        optimizer.step(grads)
        return loss

    expected, losses = [], []
    for _ in range(20):
        torch_optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(theirs(x), y)
        loss.backward()
        torch_optimizer.step()
        expected.append(loss.item())
        losses.append(float(step(inputs, targets)))
    assert {c.dtype for _, c in ours._cells()} == {BF16}
    assert losses[-1] < 0.3 * losses[0]
    np.testing.assert_allclose(losses, expected, rtol=0.1, atol=0.05)
