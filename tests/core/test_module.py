"""Modules: registration, walking, access, deletion, copies, modes and conversion."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.errors import (
    DTypeError,
    ModuleAccessError,
)
from tests.core.toys import Affine, Chain, Counter, Net, Noise, cells

X = jnp.ones((2, 3))


class Old(nn.Module):
    """The old way of calling super()."""

    def __init__(self, n):
        super(Old, self).__init__()
        self.fc = Affine(n, n)

    def forward(self, x):
        return self.fc(x)


class Stepping(Counter):
    @fn.jit
    def step(self, x):
        return self(x)


class TestRegistration:
    def test_super_with_arguments(self):
        assert [n for n, _ in Old(3).named_parameters()] == ["fc.weight", "fc.bias"]
        assert Old(3)(X).shape == (2, 3)

    def test_a_mixin_after_module_is_initialised_too(self):
        class Mixin:
            def __init__(self):
                self.extra = 5

        class Both(nn.Module, Mixin):
            pass

        assert Both().extra == 5

    @pytest.mark.parametrize(
        ("value", "word"),
        [(nn.Parameter((2,)), "parameters"), (Affine(2, 2), "module"), (nn.Buffer((2,)), "buffer")],
    )
    def test_before_init(self, value, word):
        class Early(nn.Module):
            def __init__(self):
                self.x = value

        with pytest.raises(
            ModuleAccessError, match=rf"^cannot assign {word} before Module.__init__\(\) call$"
        ):
            Early()

    def test_a_plain_attribute_before_init_is_fine(self):
        class Early(nn.Module):
            def __init__(self):
                self.size = 3
                super().__init__()
                self.fc = Affine(self.size, 1)

        assert Early().size == 3

    def test_reading_before_init_says_so(self):
        class Early(nn.Module):
            def __init__(self):
                self.fc  # noqa: B018

        with pytest.raises(
            AttributeError, match=r"'Early' object has no attribute 'fc'; did you call super"
        ):
            Early()

    @pytest.mark.parametrize("kind", ["parameter", "buffer", "module"])
    def test_register_before_init(self, kind):
        class Early(nn.Module):
            def __init__(self):
                getattr(self, f"register_{kind}")("x", None)

        with pytest.raises(ModuleAccessError, match=f"cannot assign {kind} before"):
            Early()

    def test_none_keeps_a_place(self):
        model = Affine(2, 2, bias=False)
        assert model.bias is None
        assert [n for n, _ in model.named_parameters()] == ["weight"]
        model.bias = nn.Parameter((2,))
        assert [n for n, _ in model.named_parameters()] == ["weight", "bias"]
        model.bias = None
        assert model.bias is None and list(model.state_dict()) == ["weight"]

    def test_a_name_moves_between_homes(self):
        model = nn.Module()
        model.x = 1
        model.x = nn.Parameter((2,))
        assert "x" not in model.__dict__ and list(dict(model.named_parameters())) == ["x"]
        del model.x
        model.x = nn.Buffer((2,))
        model.x = nn.Parameter((3,))
        assert not dict(model.named_buffers()) and model.x.shape == (3,)
        del model.x
        model.x = nn.Buffer((2,))
        model.x = Affine(1, 1)
        assert not dict(model.named_buffers()) and list(dict(model.named_children())) == ["x"]
        model.x = nn.Parameter((4,))
        assert not dict(model.named_children()) and model.x.shape == (4,)

    def test_buffers(self):
        model = nn.Module()
        model.register_buffer("a", jnp.ones(2))
        model.register_buffer("b", np.ones(2), persistent=False)
        model.register_buffer("c", None)
        model.register_buffer("d", 0.5)
        model.e = nn.Buffer((2,), persistent=False)
        assert [n for n, _ in model.named_buffers()] == ["a", "b", "d", "e"]
        assert list(model.state_dict()) == ["a", "d"]
        model.b = jnp.zeros(3)
        assert isinstance(model.b, nn.Buffer) and model.b.shape == (3,)
        assert list(model.state_dict()) == ["a", "d"]  # still not persistent
        model.c = jnp.zeros(3)
        assert list(model.state_dict()) == ["a", "c", "d"]

    def test_assigning_to_a_buffer_keeps_the_cell(self):
        model = Counter()
        cell = model.count
        model.count = 5
        assert model.count is cell and cell.item() == 5
        with pytest.raises(DTypeError, match="cannot assign 'five' as buffer 'count'"):
            model.count = "five"
        assert cell.item() == 5

    def test_a_parameter_wants_a_parameter(self):
        model = Affine(2, 2)
        with pytest.raises(
            TypeError,
            match=r"cannot assign float32\[2, 2\] as parameter 'weight'.*weight\.data = array",
        ):
            model.weight = jnp.ones((2, 2))
        with pytest.raises(TypeError, match=r"cannot assign .* as parameter 'weight'"):
            model.weight = Affine(2, 2)
        with pytest.raises(TypeError, match=r"cannot assign 3 as child module 'fc' "):
            Old(2).fc = 3
        with pytest.raises(TypeError, match="as child module 'fc'"):
            Old(2).fc = nn.Buffer((2,))

    def test_registering_something_else(self):
        model = nn.Module()
        with pytest.raises(TypeError, match="cannot assign 3 to parameter 'w'"):
            model.register_parameter("w", 3)
        with pytest.raises(TypeError, match=r"to parameter 'w' .nn.Parameter or None required"):
            model.register_parameter("w", nn.Buffer((2,)))
        for value in ("x", 3, nn.Parameter((2,))):
            with pytest.raises(TypeError, match="to buffer 'b' .an array or None required"):
                model.register_buffer("b", value)
        assert not model.state_dict()


class TestWalking:
    def model(self):
        shared = Affine(2, 2)
        return Chain(Chain(shared, Counter()), shared, Affine(2, 2, bias=False))

    def test_named_parameters(self):
        model = self.model()
        assert [n for n, _ in model.named_parameters()] == ["0.0.weight", "0.0.bias", "2.weight"]
        assert [n for n, _ in model.named_parameters("m")] == [
            "m.0.0.weight",
            "m.0.0.bias",
            "m.2.weight",
        ]
        assert [n for n, _ in model.named_parameters(recurse=False)] == []
        assert [n for n, _ in model[2].named_parameters("p", recurse=False)] == ["p.weight"]
        assert [n for n, _ in model.named_parameters(remove_duplicate=False)] == [
            "0.0.weight", "0.0.bias", "1.weight", "1.bias", "2.weight",
        ]  # fmt: skip
        assert len(list(model.parameters())) == 3
        assert len(list(model[2].parameters(recurse=False))) == 1

    def test_named_buffers(self):
        model = self.model()
        assert [n for n, _ in model.named_buffers()] == ["0.1.count"]
        assert len(list(model.buffers())) == 1 and not list(model.buffers(recurse=False))

    def test_modules(self):
        model = self.model()
        assert [n for n, _ in model.named_modules()] == ["", "0", "0.0", "0.1", "2"]
        assert [n for n, _ in model.named_modules(prefix="m")] == [
            "m",
            "m.0",
            "m.0.0",
            "m.0.1",
            "m.2",
        ]
        assert [n for n, _ in model.named_modules(remove_duplicate=False)] == [
            "",
            "0",
            "0.0",
            "0.1",
            "1",
            "2",
        ]
        assert len(list(model.modules())) == 5
        memo = {model[1]}
        assert [n for n, _ in model.named_modules(memo)] == ["", "0", "0.1", "2"]
        assert model in memo

    def test_children(self):
        shared = Affine(1, 1)
        model = Chain(shared, shared, Counter())
        model.register_module("gone", None)
        assert [n for n, _ in model.named_children()] == ["0", "2"]
        assert list(model.children()) == [shared, model[2]]

    def test_apply_goes_bottom_up(self):
        seen = []
        model = Chain(Chain(Counter()), Noise())
        assert model.apply(lambda m: seen.append(type(m).__name__)) is model
        assert seen == ["Counter", "Chain", "Noise", "Chain"]

    def test_apply_initialises(self):
        def zero(m):
            if isinstance(m, Affine):
                nn.init.ones_(m.weight)

        model = Net().apply(zero)
        assert (model.first.weight == 1).all() and (model.last.weight == 1).all()


class TestAccess:
    def test_by_path(self):
        model = Chain(Net(), Counter())
        assert model.get_submodule("") is model
        assert model.get_submodule("0.first") is model[0].first
        assert model.get_parameter("0.first.weight") is model[0].first.weight
        assert model.get_buffer("1.count") is model[1].count

    @pytest.mark.parametrize(
        ("method", "path", "text"),
        [
            ("get_submodule", "0.nope", "Net has no attribute `nope`"),
            ("get_submodule", "0.first.weight", "`weight` is not an nn.Module"),
            ("get_parameter", "1.count", "`count` is not an nn.Parameter"),
            ("get_parameter", "1.nope", "Counter has no attribute `nope`"),
            ("get_parameter", "nope.x", "Chain has no attribute `nope`"),
            ("get_buffer", "0.first.weight", "`weight` is not a buffer"),
        ],
    )
    def test_what_is_not_there(self, method, path, text):
        with pytest.raises(AttributeError) as caught:
            getattr(Chain(Net(), Counter()), method)(path)
        assert str(caught.value).startswith(text)

    def test_set_submodule(self):
        model = Chain(Net(), Counter())
        model.set_submodule("0.first", Affine(3, 4, bias=False))
        assert model[0].first.bias is None
        model.set_submodule("0.new", Counter())
        assert isinstance(model[0].new, Counter)
        with pytest.raises(AttributeError, match="Net has no attribute `other`"):
            model.set_submodule("0.other", Counter(), strict=True)
        with pytest.raises(AttributeError, match="`weight` is not an nn.Module"):
            model.set_submodule("0.last.weight", Counter())
        with pytest.raises(ValueError, match="Cannot set the submodule without a target name!"):
            model.set_submodule("", Counter())
        with pytest.raises(ValueError, match="`module` is not an nn.Module, found <class 'int'>"):
            model.set_submodule("0", 3)

    def test_dir_lists_everything_registered(self):
        model = Chain(Affine(1, 1), Counter())
        model.hyper = 3
        names = dir(model)
        assert "hyper" in names and "forward" in names and "0" not in names
        assert {"weight", "bias", "n_in"} <= set(dir(model[0])) and "count" in dir(model[1])
        assert names == sorted(names)

    def test_inside_a_call_paths_give_arrays(self):
        model = Chain(Affine(2, 2), Counter())
        kinds = fn.jit(
            lambda: (
                [
                    isinstance(a, jax.Array)
                    for a in (model.get_parameter("0.weight"), model.get_buffer("1.count"))
                ]
                and model.get_parameter("0.weight").sum()
            )
        )
        assert kinds().shape == ()


class TestDeletion:
    def test_each_kind(self):
        model = Net()
        model.hyper = 1
        del model.first.bias, model.norm.mean, model.noise, model.hyper
        assert [n for n, _ in model.named_parameters()] == [
            "first.weight",
            "last.weight",
            "last.bias",
        ]
        assert not list(model.buffers()) and "noise" not in dict(model.named_children())
        for owner, name in (
            (model.first, "bias"),
            (model, "noise"),
            (model, "hyper"),
            (model, "never"),
        ):
            with pytest.raises(
                AttributeError, match=f"'{type(owner).__name__}' object has no attribute '{name}'"
            ):
                delattr(owner, name)


class TestCopies:
    def test_deepcopy_is_equal_and_apart(self):
        model = Chain(Net(), Counter())
        twin = copy.deepcopy(model)
        assert repr(twin) == repr(model)
        for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not set(model.modules()) & set(twin.modules())
        assert not {id(p) for p in cells(model).values()} & {id(p) for p in cells(twin).values()}
        twin[1](X)
        assert (model[1].count.item(), twin[1].count.item()) == (0, 1)

    def test_deepcopy_keeps_ties_modes_freezing_and_hooks(self):
        model = Chain(Affine(2, 2), Affine(2, 2))
        model[1].weight = model[0].weight
        model[0].eval()
        model[1].bias.requires_grad = False
        model.register_forward_hook(lambda m, a, out: out * 0)
        twin = copy.deepcopy(model)
        assert twin[1].weight is twin[0].weight is not model[0].weight
        assert twin.training and not twin[0].training and not twin[1].bias.requires_grad
        assert (twin(jnp.ones((1, 2))) == 0).all()
        twin._forward_hooks.clear()
        assert (model(jnp.ones((1, 2))) == 0).all()

    @pytest.mark.parametrize("drawn", [False, True])
    def test_pickle(self, drawn):
        model = Chain(Net(), Counter())
        model[0].noise.eval()
        if drawn:
            fn.get_variables(model)
        twin = pickle.loads(pickle.dumps(model))
        assert repr(twin) == repr(model) and not twin[0].noise.training
        assert any(p.has_value for p in twin.parameters()) is drawn
        for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_copies_have_their_own_compiled_methods(self):
        model = Stepping()
        model.step(X)
        for twin in (
            copy.copy(copy.deepcopy(model)),
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
        ):
            twin.step(X)
            twin.step(X)
            assert (model.count.item(), twin.count.item()) == (1, 3)

    def test_a_model_is_freed(self):
        model = Net()
        model(X)
        fn.functionalize(model)
        fn.grad(lambda m: m(X).sum())(model)
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None
