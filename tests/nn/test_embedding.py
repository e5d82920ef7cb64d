"""Embedding, EmbeddingBag and one_hot beyond the shared table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.nn import functional as F

W = jnp.arange(18.0).reshape(6, 3)
INDICES = jnp.array([[1, 2, 0], [5, 1, 1]])
FLAT = jnp.array([1, 2, 0, 5, 1, 1, 3])
OFFSETS = jnp.array([0, 3, 3, 5])


# --- construction ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_sizes_and_options_that_cannot_be(cls):
    with pytest.raises(ArgumentError, match="num_embeddings"):
        cls(-1, 3)
    with pytest.raises(ArgumentError, match="embedding_dim"):
        cls(6, 3.0)
    with pytest.raises(ShapeError, match="_weight"):
        cls(5, 3, _weight=W)
    with pytest.raises(ShapeError, match="2D embeddings"):
        cls.from_pretrained(W[0])
    with pytest.raises(UnsupportedError, match="sparse"):
        cls(6, 3, sparse=True)
    for padding_idx in (6, -7):
        with pytest.raises(ArgumentError, match="padding_idx"):
            cls(6, 3, padding_idx=padding_idx)
    with pytest.raises(ArgumentError, match="padding_idx"):
        cls(0, 3, padding_idx=0)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ArgumentError, match="mode"):
        nn.EmbeddingBag(6, 3, mode="min")


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_the_table_is_standard_normal_with_a_row_of_zeros(cls):
    layer = cls(500, 20, padding_idx=-2)
    table = np.asarray(layer.weight)
    assert (table[498] == 0).all()
    rest = np.delete(table, 498, axis=0)
    assert (rest != 0).all()
    np.testing.assert_allclose([rest.mean(), rest.std()], [0, 1], atol=0.03)


def test_the_row_of_zeros_is_there_in_the_pure_face_too():
    init, _ = fn.functionalize(nn.Embedding(6, 3, padding_idx=1))
    for draw in (init, jax.jit(init)):
        table = draw(jax.random.key(0))[0]["weight"]
        assert [bool((row == 0).all()) for row in table] == [False, True] + [False] * 4


@pytest.mark.parametrize("cls", [nn.Embedding, nn.EmbeddingBag])
def test_from_pretrained(cls):
    frozen = cls.from_pretrained(W, padding_idx=1)
    assert not frozen.weight.requires_grad
    np.testing.assert_array_equal(np.asarray(frozen.weight), W)  # the padding row stays as it is
    assert cls.from_pretrained(W, freeze=False).weight.requires_grad
    params, state = fn.get_variables(frozen)
    assert params == {}
    assert set(state) == {"weight"}


def test_from_pretrained_passes_the_options_on():
    layer = nn.Embedding.from_pretrained(W, True, 1, 2.0, 1.0, True)
    assert repr(layer) == repr(
        torch.nn.Embedding.from_pretrained(torch.ones(6, 3), True, 1, 2.0, 1.0, True)
    )
    options = (True, 2.0, 1.0, True, "sum", False, True, 3)
    bag, theirs = (
        cls.from_pretrained(table, *options)
        for cls, table in ((nn.EmbeddingBag, W), (torch.nn.EmbeddingBag, torch.ones(6, 3)))
    )
    assert repr(bag) == repr(theirs)
    assert bag.include_last_offset


# --- looking up -----------------------------------------------------------------------------------


def test_an_index_out_of_range_gives_nan_and_no_gradient():
    rows = F.embedding(jnp.array([1, 6, -1]), W)
    assert jnp.isnan(rows).any(axis=1).tolist() == [False, True, True]
    gradient = jax.grad(lambda w: F.embedding(jnp.array([1, 6, -1]), w)[0].sum())(W)
    assert gradient.sum(axis=1).tolist() == [0, 3, 0, 0, 0, 0]
    bags = F.embedding_bag(jnp.array([[1, 0], [6, 0], [-1, 0]]), W)
    assert jnp.isnan(bags).any(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16, jnp.uint32])
def test_integers_of_any_width_are_indices(dtype):
    np.testing.assert_array_equal(F.embedding(INDICES.astype(dtype), W), W[INDICES])


@pytest.mark.parametrize("x", [INDICES.astype(jnp.float32), INDICES == 1, [1, 2]])
def test_what_is_no_array_of_integers_is_refused(x):
    for function in (F.embedding, F.embedding_bag):
        with pytest.raises(DTypeError, match="input must be an array of integers"):
            function(x, W)
    with pytest.raises(DTypeError, match="tensor must be an array of integers"):
        F.one_hot(x)


def test_functions_refuse_a_table_that_is_none_and_sparse_gradients():
    for function in (F.embedding, F.embedding_bag):
        with pytest.raises(ShapeError, match="weight"):
            function(INDICES, W[0])
        with pytest.raises(UnsupportedError, match="sparse"):
            function(INDICES, W, sparse=True)
        with pytest.raises(ArgumentError, match="padding_idx"):
            function(INDICES, W, padding_idx=6)


def test_max_norm_leaves_the_parameter_as_it_is():
    layer = nn.Embedding.from_pretrained(W, max_norm=1.0)
    norms = jnp.linalg.norm(layer(INDICES), axis=-1)
    np.testing.assert_allclose(norms, np.ones((2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(layer.weight), W)


def test_embedding_renorm_is_what_torch_writes_into_the_table():
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(np.array(W)), max_norm=4.0)
    theirs(torch.tensor([1, 4, 4]))
    got = F.embedding_renorm(W, jnp.array([1, 4, 4]), 4.0)
    np.testing.assert_allclose(got, theirs.weight.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(F.embedding_renorm(W, jnp.array([6, -1]), 1.0), W)


def test_scaling_by_frequency_counts_beyond_what_half_precision_can():
    x = jnp.zeros(300, jnp.int32)
    table = jnp.ones((2, 1), jnp.bfloat16)
    scaled = jax.grad(lambda w: F.embedding(x, w, scale_grad_by_freq=True)[:4].sum())(table)
    np.testing.assert_allclose(scaled[0, 0], 4 / 300, rtol=0.01)


# --- bags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "match"),
    [
        ((INDICES, W, OFFSETS), {}, ArgumentError, "offsets must be None"),
        ((FLAT, W), {}, ArgumentError, "offsets"),
        ((FLAT, W, OFFSETS[None]), {}, ShapeError, "offsets"),
        ((FLAT, W, OFFSETS[:0]), {"include_last_offset": True}, ShapeError, "offsets"),
        ((FLAT, W, OFFSETS.astype(jnp.float32)), {}, DTypeError, "offsets"),
        ((INDICES[None], W), {}, ShapeError, "input"),
        ((INDICES, W), {"mode": "min"}, ArgumentError, "mode"),
        ((INDICES, W), {"mode": "max", "scale_grad_by_freq": True}, ArgumentError, "scale_grad"),
        ((INDICES, W), {"per_sample_weights": W[:2]}, UnsupportedError, "mode='sum'"),
        (
            (INDICES, W),
            {"mode": "sum", "per_sample_weights": W[:3, :2]},
            ShapeError,
            "per_sample_weights",
        ),
        (
            (INDICES, W),
            {"mode": "sum", "per_sample_weights": W[:2].astype(jnp.float16)},
            DTypeError,
            "per_sample_weights",
        ),
    ],
)
def test_arguments_of_a_bag_that_do_not_fit(args, kwargs, error, match):
    with pytest.raises(error, match=match):
        F.embedding_bag(*args, **kwargs)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_empty_inputs_give_empty_bags(mode):
    offsets = jnp.array([0, 0])
    assert F.embedding_bag(FLAT[:0], W, offsets, mode=mode).tolist() == [[0.0] * 3] * 2
    assert F.embedding_bag(INDICES[:, :0], W, mode=mode).tolist() == [[0.0] * 3] * 2


def test_a_last_bag_that_ends_before_the_input_is_averaged_over_its_own_elements():
    ends = jnp.array([0, 3, 5])
    got = F.embedding_bag(FLAT, W, ends, include_last_offset=True)
    np.testing.assert_allclose(got, [W[FLAT[:3]].mean(0), W[FLAT[3:5]].mean(0)], rtol=1e-6)


def test_the_maximum_passes_its_gradient_to_the_first_of_equals():
    table = jnp.zeros((6, 3))
    got = jax.grad(lambda w: F.embedding_bag(FLAT, w, OFFSETS, mode="max").sum())(table)
    weight = torch.zeros(6, 3, requires_grad=True)
    x, offsets = torch.tensor(np.array(FLAT)), torch.tensor(np.array(OFFSETS))
    torch.nn.functional.embedding_bag(x, weight, offsets, mode="max").sum().backward()
    np.testing.assert_array_equal(got, weight.grad)


def test_nan_is_a_maximum():
    table = W.at[1, 0].set(jnp.nan)
    for args in ((FLAT, table, OFFSETS), (INDICES, table)):
        got = F.embedding_bag(*args, mode="max")
        assert bool(jnp.isnan(got[0, 0]))
        assert not bool(jnp.isnan(got[:, 1:]).any())


def test_scaling_by_frequency_in_bags_divides_by_the_count():
    def total(w):
        return F.embedding_bag(FLAT, w, OFFSETS, mode="sum", scale_grad_by_freq=True).sum()

    assert jax.grad(total)(W)[:, 0].tolist() == [1, 1, 1, 1, 0, 1]


# --- one_hot --------------------------------------------------------------------------------------


def test_one_hot_finds_the_number_of_classes():
    got = F.one_hot(INDICES)
    assert got.dtype == jnp.int32
    expected = torch.nn.functional.one_hot(torch.tensor(np.array(INDICES, np.int64)))
    np.testing.assert_array_equal(got, expected)


def test_one_hot_refuses_what_it_cannot_know():
    with pytest.raises(ArgumentError, match="num_classes"):
        jax.jit(F.one_hot)(INDICES)
    with pytest.raises(ArgumentError, match="num_classes"):
        F.one_hot(INDICES[:0])
    with pytest.raises(ArgumentError, match="negative"):
        F.one_hot(INDICES - 1)
    for number in (0, -2, 2.0):
        with pytest.raises(ArgumentError, match="num_classes"):
            F.one_hot(INDICES, number)


def test_one_hot_of_classes_out_of_range_is_all_zeros():
    assert F.one_hot(jnp.array([3, -1]), 3).tolist() == [[0] * 3] * 2
    assert jax.jit(lambda x: F.one_hot(x, 3))(jnp.array([1])).tolist() == [[0, 1, 0]]
