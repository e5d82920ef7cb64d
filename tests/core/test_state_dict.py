"""Saving and loading: names, error text, dtypes and hooks as in PyTorch, and nothing half-loaded."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import StateDictError, StateLeakError
from tests.core.toys import Affine, Chain, Counter, Net


def build(lib):
    """The same little model in torch and here."""

    class Layer(lib.Module):
        def __init__(self, n):
            super().__init__()
            ones = torch.ones if lib is torch.nn else jnp.ones
            self.weight = lib.Parameter(ones((n, 2)))
            self.register_parameter("bias", None)
            self.register_buffer("mean", ones(n))
            self.register_buffer("count", ones(()))
            self.register_buffer("scratch", ones(n), persistent=False)

    class Model(lib.Module):
        def __init__(self):
            super().__init__()
            self.a = Layer(2)
            self.b = lib.Module()
            self.b.c = Layer(3)

    return Model()


def snapshot(model):
    return {k: np.array(v) for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(
        np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


GOOD = {
    "a.weight": np.full((2, 2), 2.0, np.float32), "a.mean": np.full(2, 3.0, np.float32),
    "a.count": np.float32(4.0), "b.c.weight": np.full((3, 2), 5.0, np.float32),
    "b.c.mean": np.full(3, 6.0, np.float32), "b.c.count": np.float32(7.0),
}  # fmt: skip


def changed(**changes):
    """GOOD with entries replaced, added, or dropped where None; ``__`` stands for a dot."""
    saved = dict(GOOD)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            saved.pop(name)
        else:
            saved[name] = value
    return saved


def as_torch(value):
    return torch.as_tensor(value) if isinstance(value, (np.ndarray, np.generic)) else value


CASES = {
    "fits": {},
    "missing": {"a__mean": None, "b__c__weight": None},
    "unexpected": {"zzz": np.ones(1), "a__bias": np.ones(2), "b__d__x": np.ones(1), "a__scratch": np.ones(2)},
    "unexpected deep": {"b__c__deep__er": np.ones(1), "a__weight__x": np.ones(1)},
    "sizes": {"a__weight": np.ones((3, 2)), "b__c__mean": np.ones((3, 1)), "a__count": np.ones((2,))},
    "not an array": {"a__weight": [1.0, 2.0], "a__count": 3.0, "b__c__mean": "x"},
    "everything": {
        "a__mean": None, "b__c__count": None, "other": np.ones(1), "a__new": np.ones(1),
        "a__weight": np.ones(4), "b__c__weight": np.ones((2, 2)), "b__c__mean": {"x": 1},
    },
    "old scalar": {"a__count": np.full(1, 9.0, np.float32)},
    "extra": {"a___extra_state": 5},
}  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_result_and_error_text_are_torchs_char_for_char(name, strict):
    saved = changed(**CASES[name])
    results = []
    for lib in (torch.nn, nn):
        model = build(lib)
        given = {k: as_torch(v) for k, v in saved.items()} if lib is torch.nn else saved
        try:
            results.append(repr(model.load_state_dict(given, strict=strict)))
        except RuntimeError as error:
            results.append(str(error))
    assert results[1] == results[0]


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("fits", "old scalar")])
def test_nothing_is_half_loaded(name):
    model = build(nn)
    before = snapshot(model)
    with pytest.raises(StateDictError):
        model.load_state_dict(changed(**CASES[name]))
    assert same(snapshot(model), before)


def test_what_fits_is_loaded():
    model = build(nn)
    result = model.load_state_dict(GOOD)
    assert repr(result) == str(result) == "<All keys matched successfully>"
    assert same(snapshot(model), {k: np.asarray(v) for k, v in GOOD.items()})


def test_not_strict_loads_what_is_there():
    model = build(nn)
    missing, unexpected = model.load_state_dict(
        {"a.mean": GOOD["a.mean"], "other": np.ones(1)}, strict=False
    )
    assert unexpected == ["other"]
    assert missing == ["a.weight", "a.count", "b.c.weight", "b.c.mean", "b.c.count"]
    assert (model.a.mean == 3).all() and (model.b.c.mean == 1).all()


def test_the_title_is_the_class_and_both_bases_are_caught():
    with pytest.raises(
        RuntimeError, match=r"^Error\(s\) in loading state_dict for Model:\n\tMissing key\(s\)"
    ):
        build(nn).load_state_dict({})
    with pytest.raises(
        TypeError, match="^Expected state_dict to be dict-like, got <class 'list'>.$"
    ):
        build(nn).load_state_dict([])


class TestSaving:
    def test_keys_order_and_metadata(self):
        ours, theirs = build(nn).state_dict(), build(torch.nn).state_dict()
        assert list(ours) == list(theirs) == list(GOOD)
        assert isinstance(ours, OrderedDict)
        assert {k: dict(v) for k, v in ours._metadata.items()} == {
            k: dict(v) for k, v in theirs._metadata.items()
        }

    def test_values_are_arrays_or_cells(self):
        model = build(nn)
        assert all(isinstance(v, jax.Array) for v in model.state_dict().values())
        assert model.state_dict(keep_vars=True)["a.weight"] is model.a.weight

    def test_destination_and_prefix(self):
        destination = OrderedDict(first=1)
        assert build(nn).state_dict(destination=destination, prefix="m.") is destination
        assert list(destination)[:2] == ["first", "m.a.weight"]

    def test_saved_arrays_survive_donated_steps(self):
        model = Counter()
        step = fn.jit(lambda x: model(x))
        step(jnp.ones(1))
        saved = model.state_dict()
        step(jnp.ones(1))
        step(jnp.ones(1))
        assert saved["count"].item() == 1 and model.count.item() == 3
        model.load_state_dict(saved)
        step(jnp.ones(1))
        assert saved["count"].item() == 1 and model.count.item() == 2

    def test_it_pickles(self):
        saved = pickle.loads(pickle.dumps(build(nn).state_dict()))
        assert list(saved) == list(GOOD)

    def test_a_round_trip_through_torch(self):
        ours, theirs = build(nn), build(torch.nn)
        theirs.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in GOOD.items()})
        ours.load_state_dict(theirs.state_dict())
        assert same(snapshot(ours), {k: np.asarray(v) for k, v in GOOD.items()})


class TestDtypes:
    def test_values_are_converted_to_the_modules_dtype(self):
        model = build(nn).bfloat16()
        model.load_state_dict(GOOD)
        assert model.a.weight.dtype == model.a.weight.data.dtype == jnp.bfloat16
        assert (model.a.weight == 2).all()

    def test_assign_keeps_the_dtype_of_the_state_dict(self):
        model = build(nn)
        model.a.weight.requires_grad = False
        model.load_state_dict(
            {k: jnp.asarray(v, jnp.float16) for k, v in GOOD.items()}, assign=True
        )
        assert model.a.weight.dtype == model.a.mean.data.dtype == jnp.float16
        assert not model.a.weight.requires_grad and model.b.c.weight.requires_grad

    @pytest.mark.parametrize("assign", [False, True])
    @pytest.mark.parametrize(
        "dtype",
        [
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.int64,
            torch.bool,
            torch.uint8,
        ],
    )
    def test_torch_tensors(self, dtype, assign):
        model = build(nn).requires_grad_(False)
        given = {k: torch.as_tensor(v).to(dtype) for k, v in GOOD.items()}
        model.load_state_dict(
            {**model.state_dict(), **given} if not assign else given, assign=assign
        )
        for name, tensor in given.items():
            got = dict(model.state_dict())[name]
            np.testing.assert_array_equal(np.asarray(got, np.float32), tensor.float().numpy())
        wanted = {torch.float64: "float32", torch.int64: "int32"}.get(
            dtype, str(dtype).removeprefix("torch.")
        )
        assert model.a.weight.dtype.name == (wanted if assign else "float32")

    def test_torch_parameters_views_and_odd_bits(self):
        model = build(nn)
        weight = torch.nn.Parameter(torch.tensor([[1.0, -0.0], [float("inf"), 1e-40]]).T)
        mean = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16)[::2]
        model.load_state_dict({"a.weight": weight, "a.mean": mean}, strict=False)
        np.testing.assert_array_equal(model.a.weight, weight.detach().numpy())
        assert np.signbit(np.asarray(model.a.weight)[1, 0])
        assert model.a.mean.tolist() == [1.0, 3.0]

    @pytest.mark.parametrize("assign", [False, True])
    def test_the_values_are_a_copy(self, assign):
        """Torch changes tensors in place, and JAX would share their memory."""
        model = Affine(64, 64)
        given = {"weight": torch.ones(64, 64), "bias": torch.ones(64)}
        model.load_state_dict(given, assign=assign)
        for tensor in given.values():
            tensor.fill_(5)
        assert (model.weight == 1).all() and (model.bias == 1).all()
        other = Affine(64, 64)
        other.load_state_dict(model.state_dict(), assign=assign)
        other.weight.data = jnp.zeros((64, 64))
        assert (model.weight == 1).all()

    def test_integers_for_what_is_trained_are_refused_with_torchs_text(self):
        given = {k: torch.as_tensor(v).to(torch.int32) for k, v in GOOD.items()}
        texts = []
        for lib in (torch.nn, nn):
            model = build(lib)
            with pytest.raises(RuntimeError) as caught:
                model.load_state_dict(given, assign=True)
            texts.append(str(caught.value))
        assert texts[1] == texts[0] and texts[0].count("can require gradients") == 2
        assert model.a.mean.dtype == jnp.float32  # nothing is half-loaded

    def test_a_typed_key(self):
        model, other = nn.Module(), nn.Module()
        model.rng, other.rng = nn.Buffer(jax.random.key(3)), nn.Buffer(jax.random.key(4))
        other.load_state_dict(model.state_dict())
        assert (other.rng.data == jax.random.key(3)).all()


class TestTied:
    def model(self):
        model = Chain(Affine(2, 2), Affine(2, 2, bias=False))
        model[1].weight = model[0].weight
        return model

    def test_every_name_is_saved_and_wanted(self):
        model = self.model()
        saved = model.state_dict()
        assert list(saved) == ["0.weight", "0.bias", "1.weight"]
        saved = {k: np.full(v.shape, 3.0) for k, v in saved.items()}
        model.load_state_dict(saved)
        assert model[1].weight is model[0].weight and (model[0].weight == 3).all()
        del saved["1.weight"]
        with pytest.raises(StateDictError, match='Missing key.s. in state_dict: "1.weight". $'):
            model.load_state_dict(saved)

    def test_assign_keeps_the_tie(self):
        model = self.model()
        model.load_state_dict(
            {k: np.full(v.shape, 3.0, np.float16) for k, v in model.state_dict().items()},
            assign=True,
        )
        assert model[1].weight is model[0].weight and model[0].weight.dtype == jnp.float16

    def test_the_last_name_wins_as_in_torch(self):
        model = self.model()
        saved = {k: np.asarray(v) for k, v in model.state_dict().items()}
        model.load_state_dict(
            {**saved, "0.weight": np.ones((2, 2)), "1.weight": np.full((2, 2), 2.0)}
        )
        assert (model[0].weight == 2).all()


class TestAround:
    def test_inside_a_call_it_is_refused(self):
        model = Counter()
        with pytest.raises(StateLeakError, match="load_state_dict was called inside a call"):
            fn.jit(lambda: model.load_state_dict({"count": np.int32(1)}))()

    def test_tracers_are_refused(self):
        model = Affine(1, 1, bias=False)
        with pytest.raises(
            StateLeakError, match='loading "weight" inside a raw JAX transformation'
        ):
            jax.jit(lambda x: model.load_state_dict({"weight": x}))(jnp.ones((1, 1)))

    def test_loading_before_anything_is_drawn_draws_nothing(self):
        model = Net()
        other = copy.deepcopy(model)
        saved = other.state_dict()
        assert not any(p.has_value for p in model.parameters())
        model.load_state_dict(saved)
        for a, b in zip(model.state_dict().values(), saved.values(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_initial_values_of_the_pure_face_stay(self):
        model = Affine(2, 2)
        first = fn.functionalize(model).init(jax.random.key(0))[0]
        model.load_state_dict({"weight": np.ones((2, 2)), "bias": np.ones(2)})
        again = fn.functionalize(model).init(jax.random.key(0))[0]
        np.testing.assert_array_equal(first["weight"], again["weight"])

    def test_a_compiled_step_goes_on_with_the_loaded_values(self):
        model = Counter()
        step = fn.jit(lambda x: model(x))
        step(jnp.ones(1))
        model.load_state_dict({"count": np.int32(10)})
        step(jnp.ones(1))
        assert model.count.item() == 11

    def test_set_variables_copies_torch_tensors_too(self):
        model, weight = Affine(64, 64), torch.ones(64, 64)
        fn.set_variables(model, {"weight": weight, "bias": torch.zeros(64)})
        weight.fill_(7)
        assert (model.weight == 1).all()
