"""PyTorch as the oracle: the same construction and call in both libraries, compared."""

from __future__ import annotations

import functools
import importlib
import pathlib
import warnings
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

import funcnets as fn
from funcnets import nn
from funcnets.nn import functional as F
from tests.cases.case import Case, Spec

torch.set_num_threads(1)


@functools.cache
def all_cases() -> list[Case]:
    """Every case of every family."""
    folder = pathlib.Path(__file__).parent / "cases"
    cases: list[Case] = []
    for path in sorted(folder.glob("*.py")):
        if path.stem not in ("__init__", "case"):
            cases += importlib.import_module(f"tests.cases.{path.stem}").CASES
    return cases


def make(spec: Any, rng: np.random.Generator) -> Any:
    """The NumPy value of a spec; structures are made element by element."""
    if isinstance(spec, Spec):
        return spec.make(rng)
    if isinstance(spec, (tuple, list)) and any(
        isinstance(s, (Spec, tuple, list, np.ndarray)) for s in spec
    ):
        return type(spec)(make(s, rng) for s in spec)
    return spec


def arguments(case: Case, step: int = 0) -> tuple[tuple, dict]:
    """The call's NumPy arguments, the same for the same case."""
    rng = np.random.default_rng(zlib.crc32(str(case).encode()) + step)
    return tuple(make(s, rng) for s in case.inputs), {k: make(s, rng) for k, s in case.call.items()}


def is_array(x: Any) -> bool:
    return isinstance(x, (np.ndarray, jax.Array, torch.Tensor))


def tree_map(function: Any, tree: Any) -> Any:
    """Over tuples, lists and dicts, torch tensors being leaves."""
    if isinstance(tree, (tuple, list)):
        items = [tree_map(function, x) for x in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    if isinstance(tree, dict):
        return {k: tree_map(function, v) for k, v in tree.items()}
    return function(tree)


def leaves(tree: Any) -> list[Any]:
    out: list[Any] = []
    tree_map(lambda x: out.append(x), tree)
    return out


def to_torch(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        # torch wants int64 indices
        return torch.from_numpy(x.astype(np.int64) if x.dtype == np.int32 else x.copy())
    return x


def to_jax(x: Any) -> Any:
    return jnp.asarray(x) if isinstance(x, np.ndarray) else x


def to_numpy(x: Any) -> np.ndarray:
    if isinstance(x, torch.Tensor):
        return x.detach().to(torch.float32).numpy() if x.is_floating_point() else x.detach().numpy()
    return np.asarray(x, np.float32) if jnp.issubdtype(x.dtype, jnp.floating) else np.asarray(x)


def outputs(tree: Any) -> list[np.ndarray]:
    """The arrays of an output, in order; None is left out."""
    return [to_numpy(x) for x in leaves(tree) if is_array(x)]


def close(ours: Any, theirs: Any, what: str, rtol: float, atol: float) -> None:
    ours, theirs = outputs(ours), outputs(theirs)
    assert len(ours) == len(theirs), f"{what}: {len(ours)} arrays against torch's {len(theirs)}"
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape, f"{what} {i}: shape {a.shape} against torch's {b.shape}"
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=f"{what} {i}")


def build(case: Case) -> tuple[Any, Any]:
    """The torch module and ours with its values; (function, function) for a function's case."""
    if case.fn:
        args, kwargs = tree_map(to_torch, case.args), tree_map(to_torch, case.kwargs)
        ours_args, ours_kwargs = tree_map(to_jax, case.args), tree_map(to_jax, case.kwargs)

        def theirs(*inputs: Any, **call: Any) -> Any:
            return getattr(torch.nn.functional, case.name)(*inputs, *args, **kwargs, **call)

        def ours(*inputs: Any, **call: Any) -> Any:
            return getattr(F, case.name)(*inputs, *ours_args, **ours_kwargs, **call)

        return theirs, ours
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(torch.nn, case.name)(
            *tree_map(to_torch, case.args), **tree_map(to_torch, case.kwargs)
        )
        ours = getattr(nn, case.name)(*tree_map(to_jax, case.args), **tree_map(to_jax, case.kwargs))
    # Away from the trivial starting values (zero biases, unit scales), which would hide mistakes.
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    ours.load_state_dict(theirs.state_dict())
    theirs.train(case.train)
    ours.train(case.train)
    return theirs, ours


def run_torch(theirs: Any, args: tuple, kwargs: dict, gradients: bool) -> tuple[Any, Any, Any]:
    """``(outputs, gradients of parameters by name, gradients of float inputs)`` of the last call."""
    tensors, keywords = tree_map(to_torch, args), tree_map(to_torch, kwargs)
    floats = [
        t
        for t in leaves((tensors, keywords))
        if isinstance(t, torch.Tensor) and t.is_floating_point()
    ]
    for t in floats if gradients else ():
        t.requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = theirs(*tensors, **keywords)
    if not gradients:
        return out, {}, []
    total = sum(
        (o * weights_like(o)).sum()
        for o in leaves(out)
        if isinstance(o, torch.Tensor) and o.requires_grad
    )
    parameters = {}
    if isinstance(theirs, torch.nn.Module):
        theirs.zero_grad()
        parameters = {n: p for n, p in theirs.named_parameters() if p.requires_grad}
    total.backward()
    zeros = lambda t: torch.zeros_like(t) if t.grad is None else t.grad  # noqa: E731
    return out, {n: zeros(p) for n, p in parameters.items()}, [zeros(t) for t in floats]


def weights_like(o: Any) -> Any:
    """Fixed weights for a scalar out of an output, so that every element's gradient is seen."""
    w = (
        np.cos(np.arange(int(np.prod(tuple(o.shape)))) + 0.5)
        .astype(np.float32)
        .reshape(tuple(o.shape))
    )
    return (
        torch.from_numpy(w).to(o.dtype) if isinstance(o, torch.Tensor) else jnp.asarray(w, o.dtype)
    )


def scalar(out: Any) -> jax.Array:
    parts = [
        jnp.sum(o * weights_like(o))
        for o in jax.tree.leaves(out)
        if jnp.issubdtype(o.dtype, jnp.floating)
    ]
    return functools.reduce(jnp.add, [p.astype(jnp.float32) for p in parts])


def is_float(x: Any) -> bool:
    return isinstance(x, (np.ndarray, jax.Array)) and jnp.issubdtype(x.dtype, jnp.floating)


def as_dtype(dtype: Any, tree: Any) -> Any:
    """The tree as NumPy arrays, the floating ones in another dtype."""
    arrays = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, arrays)


def split_floats(tree: Any) -> tuple[list[Any], Any]:
    """The float arrays of a call's arguments and a function that puts others in their place."""
    flat, structure = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
    places = [i for i, x in enumerate(flat) if is_float(x)]

    def rebuild(values: Any) -> Any:
        filled = list(flat)
        for i, v in zip(places, values, strict=True):
            filled[i] = v
        return jax.tree.unflatten(structure, filled)

    return [flat[i] for i in places], rebuild


def pure(ours: Any, train: bool) -> tuple[Any, Any, Any]:
    """``(apply, params, state)`` of a module or of a function."""
    if isinstance(ours, nn.Module):
        _, apply = fn.functionalize(ours)
        params, state = fn.get_variables(ours)
        key = jax.random.key(0)

        def call(params: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
            return apply(params, state, *args, rng=key, training=train, **kwargs)

        return call, params, state
    return (lambda _p, _s, *args, **kwargs: (ours(*args, **kwargs), {})), {}, {}
