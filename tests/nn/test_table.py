"""The one table of all modules and functions, against PyTorch and through JAX's transformations."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from tests import oracle
from tests.cases.case import Case

CASES = oracle.all_cases()
IDS = [str(c) for c in CASES]


def test_every_case_has_its_own_name():
    repeated = {i for i in IDS if IDS.count(i) > 1}
    assert not repeated


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values_gradients_and_buffers_equal_torch(case: Case):
    theirs, ours = oracle.build(case)
    call, params, state = oracle.pure(ours, case.train)
    for step in range(case.steps - 1):
        args, kwargs = oracle.arguments(case, step)
        oracle.run_torch(theirs, args, kwargs, False)
        _, state = call(
            params,
            state,
            *oracle.tree_map(oracle.to_jax, args),
            **oracle.tree_map(oracle.to_jax, kwargs),
        )
    args, kwargs = oracle.arguments(case, case.steps - 1)
    out, parameter_grads, input_grads = oracle.run_torch(theirs, args, kwargs, case.grad)
    floats, rebuild = oracle.split_floats(oracle.tree_map(oracle.to_jax, (args, kwargs)))

    def forward(params, floats):
        new_args, new_kwargs = rebuild(floats)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result, new_state = call(params, state, *new_args, **new_kwargs)
        return (oracle.scalar(result) if case.grad else jnp.zeros(())), (result, new_state)

    # One compilation gives outputs, gradients and buffers.
    compiled = jax.jit(jax.value_and_grad(forward, argnums=(0, 1), has_aux=True))
    (_, (result, new_state)), (ours_params, ours_inputs) = compiled(params, floats)
    oracle.close(result, out, "output", case.rtol, case.atol)
    if case.grad:
        named = dict(fn.core.layer.flatten(ours_params))
        assert set(named) == set(parameter_grads)
        for name, gradient in parameter_grads.items():
            oracle.close(
                named[name], gradient, f"gradient of {name}", 10 * case.rtol, 10 * case.atol
            )
        oracle.close(ours_inputs, input_grads, "gradient of input", 10 * case.rtol, 10 * case.atol)
    if not case.fn:
        buffers = dict(theirs.named_buffers())
        named = dict(fn.core.layer.flatten(new_state))
        assert set(named) == set(buffers)
        for name, value in buffers.items():
            oracle.close(named[name], value, f"buffer {name}", case.rtol, case.atol)


@pytest.mark.parametrize(
    "case", [c for c in CASES if not c.fn], ids=[str(c) for c in CASES if not c.fn]
)
def test_text_and_state_dict_equal_torch(case: Case):
    theirs, ours = oracle.build(case)
    assert repr(ours) == repr(theirs)
    expected = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected
    assert list(ours.state_dict()) == list(expected)
    back = {k: torch.from_numpy(np.array(v)) for k, v in ours.state_dict().items()}
    theirs.load_state_dict(back)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_eager_vmap_and_half_precision(case: Case):
    _, ours = oracle.build(case)
    call, params, state = oracle.pure(ours, case.train)
    args, kwargs = oracle.tree_map(oracle.to_jax, oracle.arguments(case))
    floats, rebuild = oracle.split_floats((args, kwargs))

    def forward(params, floats):
        new_args, new_kwargs = rebuild(floats)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(params, state, *new_args, **new_kwargs)[0]

    if isinstance(ours, nn.Module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ours(*args, **kwargs)  # the stateful face, eagerly
    else:
        expected = forward(params, floats)
    # The inputs are made with NumPy and all else is one program: compiling is what takes the time.
    floats = [np.asarray(x) for x in floats]
    halves = [x * x.dtype.type(0.5) for x in floats]
    lows = [(jnp.bfloat16, 0.06), (jnp.float16, 0.02)] if case.half and floats else []
    todo = {}
    if case.vmap and floats:
        todo["two"] = params, [np.stack(pair) for pair in zip(floats, halves, strict=True)]
        todo["half"] = params, halves
    for dtype, _ in lows:
        low = oracle.as_dtype(dtype, (params, floats))
        todo[dtype] = low
        todo[dtype, "rounded"] = oracle.as_dtype(np.float32, low)

    @jax.jit
    def compiled(todo):
        mapped = jax.vmap(forward, in_axes=(None, 0))
        return [(mapped if name == "two" else forward)(*args) for name, args in zip(names, todo)]

    names, inputs = list(todo), list(todo.values())
    got = dict(zip(names, jax.device_get(compiled(inputs)) if names else [], strict=True))
    if "two" in got:
        for row, single in enumerate((expected, got["half"])):
            mapped = jax.tree.map(lambda x: np.asarray(x[row]), got["two"])  # noqa: B023
            oracle.close(mapped, single, "vmap", 1e-4, 1e-4)
    for dtype, tolerance in lows:
        pairs = zip(*map(jax.tree.leaves, (got[dtype], got[dtype, "rounded"])), strict=True)
        for g, r in pairs:
            assert g.dtype == (dtype if oracle.is_float(r) else r.dtype)
            np.testing.assert_allclose(
                np.asarray(g, np.float32),
                np.asarray(r, np.float32),
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{jnp.dtype(dtype).name}",
            )


SECOND = [c for c in CASES if c.second]


@pytest.mark.parametrize("case", SECOND, ids=[str(c) for c in SECOND])
def test_second_derivatives_equal_torch(case: Case):
    theirs, ours = oracle.build(case)
    call, params, state = oracle.pure(ours, case.train)
    args, kwargs = oracle.arguments(case)
    tensors, keywords = oracle.tree_map(oracle.to_torch, (args, kwargs))
    floats = [
        t
        for t in oracle.leaves((tensors, keywords))
        if isinstance(t, torch.Tensor) and t.is_floating_point()
    ]
    for t in floats:
        t.requires_grad_(True)
    out = theirs(*tensors, **keywords)
    total = sum((o * oracle.weights_like(o)).sum() for o in oracle.leaves(out) if o.requires_grad)
    firsts = torch.autograd.grad(total, floats, create_graph=True, allow_unused=True)
    norm = sum((g**2).sum() for g in firsts if g is not None)
    expected = torch.autograd.grad(norm, floats, allow_unused=True)
    values, rebuild = oracle.split_floats(oracle.tree_map(oracle.to_jax, (args, kwargs)))

    def scalar(values):
        new_args, new_kwargs = rebuild(values)
        return oracle.scalar(call(params, state, *new_args, **new_kwargs)[0])

    def squared(values):
        return sum(jnp.sum(g**2) for g in jax.grad(scalar)(values))

    got = jax.jit(jax.grad(squared))(values)
    expected = [
        torch.zeros_like(f) if g is None else g for f, g in zip(floats, expected, strict=True)
    ]
    oracle.close(got, expected, "second derivative", 100 * case.rtol, 100 * case.atol)
