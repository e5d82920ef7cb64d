"""Transformers beyond the shared table: stacks, copies, initial values, warnings, refusals."""

from __future__ import annotations

import copy
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ModeError, RngError, ShapeError
from funcnets.nn import functional as F

rng = np.random.default_rng(0)
subsequent = nn.Transformer.generate_square_subsequent_mask

PADDING = np.array([[False, False, False, True], [False, False, True, True]])
MEMORY_PADDING = np.array([[False] * 5, [True, False, False, True, True]])
WINDOW = np.abs(np.subtract.outer(np.arange(4), np.arange(5))) > 1


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def to_torch(x):
    return torch.tensor(np.asarray(x)) if isinstance(x, (np.ndarray, jax.Array)) else x


def to_jax(x):
    return jnp.asarray(x) if isinstance(x, np.ndarray) else x


def stack(library, kind, number=2, *, norm=True, **options):
    """An encoder or decoder of either library."""
    options = {"dropout": 0.0, **options}
    layer = getattr(library, f"Transformer{kind}Layer")(8, 2, 16, **options)
    switches = {"enable_nested_tensor": False} if kind == "Encoder" else {}
    last = library.LayerNorm(8) if norm else None
    return getattr(library, f"Transformer{kind}")(layer, number, last, **switches)


def twins(kind, number=2, **options):
    """Our stack and PyTorch's with the same values, in which the copies differ."""
    theirs, ours = (stack(library, kind, number, **options) for library in (torch.nn, nn))
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


def same(ours, theirs, *inputs, **masks):
    expected = theirs(*map(to_torch, inputs), **{k: to_torch(v) for k, v in masks.items()})
    out = ours(*map(to_jax, inputs), **{k: to_jax(v) for k, v in masks.items()})
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-4, atol=1e-5)
    return out


# --- stacks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "masks"),
    [
        ({}, {}),
        ({"norm_first": True, "norm": False}, {"mask": normal(4, 4)}),
        ({"batch_first": True}, {"src_key_padding_mask": PADDING}),
        ({"activation": "gelu"}, {"mask": WINDOW[:, :4], "src_key_padding_mask": PADDING}),
        ({"bias": False}, {"mask": subsequent(4)}),
        ({"bias": False}, {"mask": subsequent(4), "is_causal": True}),
        ({}, {"mask": subsequent(4, dtype=bool), "is_causal": False}),
        ({"batch_first": True}, {"mask": subsequent(4), "src_key_padding_mask": normal(2, 4)}),
    ],
)
def test_encoder(options, masks):
    shape = (2, 4, 8) if options.get("batch_first") else (4, 2, 8)
    same(*twins("Encoder", **options), normal(*shape), **masks)


@pytest.mark.parametrize(
    ("options", "masks"),
    [
        ({}, {}),
        ({"norm_first": True}, {"tgt_mask": subsequent(4)}),
        ({"batch_first": True, "norm": False}, {"memory_mask": WINDOW}),
        ({}, {"tgt_mask": subsequent(4), "memory_mask": normal(4, 5)}),
        ({}, {"memory_mask": WINDOW, "memory_is_causal": True}),
        (
            {"batch_first": True},
            {
                "tgt_mask": subsequent(4, dtype=bool),
                "memory_mask": WINDOW,
                "tgt_key_padding_mask": PADDING,
                "memory_key_padding_mask": MEMORY_PADDING,
            },
        ),
    ],
)
def test_decoder(options, masks):
    swap = (lambda x: x.swapaxes(0, 1)) if options.get("batch_first") else (lambda x: x)
    inputs = swap(normal(4, 2, 8)), swap(normal(5, 2, 8))
    same(*twins("Decoder", **options), *inputs, **masks)


def test_unbatched_stacks():
    same(*twins("Encoder", batch_first=True), normal(4, 8), mask=subsequent(4))
    same(*twins("Decoder", batch_first=True), normal(4, 8), normal(5, 8), tgt_mask=subsequent(4))


def test_evaluation_agrees_with_torchs_fused_layers_on_what_is_not_padding():
    theirs = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2
    )
    ours = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    ours.load_state_dict(theirs.state_dict())
    x = normal(2, 4, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls its nested tensors a prototype
        expected = theirs.eval()(torch.tensor(x), src_key_padding_mask=torch.tensor(PADDING))
    out = ours.eval()(jnp.asarray(x), src_key_padding_mask=jnp.asarray(PADDING))
    np.testing.assert_allclose(out[~PADDING], expected[~PADDING], rtol=1e-4, atol=1e-5)
    assert not expected[PADDING].any()  # the difference that docs/torch-differences.md lists
    assert jnp.isfinite(out).all()


def test_a_sequence_of_nothing_but_padding_stays_finite():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    init, apply = fn.functionalize(layer)
    params, state = init(jax.random.key(0))
    padding = jnp.ones((2, 4), bool)

    def loss(params, x):
        return (apply(params, state, x, src_key_padding_mask=padding)[0] ** 2).sum()

    gradients = jax.grad(loss, (0, 1))(params, jnp.asarray(normal(4, 2, 8)))
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_memory_that_is_masked_does_not_matter():
    decoder = stack(nn, "Decoder")
    tgt, memory = jnp.asarray(normal(4, 2, 8)), jnp.asarray(normal(5, 2, 8))
    hidden = jnp.asarray(MEMORY_PADDING).T[..., None]
    by_padding = [
        decoder(tgt, m, memory_key_padding_mask=jnp.asarray(MEMORY_PADDING))
        for m in (memory, jnp.where(hidden, 9.0, memory))
    ]
    np.testing.assert_allclose(*by_padding, rtol=1e-5, atol=1e-6)
    last = jnp.zeros((4, 5), bool).at[:, -1].set(True)
    by_mask = [
        decoder(tgt, m, memory_mask=last) for m in (memory, memory.at[-1].set(jnp.ones((2, 8))))
    ]
    np.testing.assert_allclose(*by_mask, rtol=1e-5, atol=1e-6)


def test_a_causal_decoder_does_not_see_the_future():
    decoder = stack(nn, "Decoder")
    tgt, memory = jnp.asarray(normal(4, 2, 8)), jnp.asarray(normal(5, 2, 8))
    full = decoder(tgt, memory, tgt_mask=subsequent(4))
    for length in (1, 3):  # so that it can be run step by step
        part = decoder(tgt[:length], memory, tgt_mask=subsequent(length))
        np.testing.assert_allclose(part, full[:length], rtol=1e-4, atol=1e-5)


# --- copies and initial values ----------------------------------------------------------------


def test_copies_start_equal_and_apart_from_each_other():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    drawn = np.asarray(layer.linear1.weight.data)  # one is drawn before the copies, the rest after
    encoder = nn.TransformerEncoder(layer, 2)
    first, second = (dict(m.named_parameters()) for m in encoder.layers)
    for name in first:
        assert first[name] is not second[name]
        np.testing.assert_array_equal(first[name].data, second[name].data)
        np.testing.assert_array_equal(first[name].data, dict(layer.named_parameters())[name].data)
    np.testing.assert_array_equal(first["linear1.weight"].data, drawn)
    first["linear1.weight"].data = jnp.zeros((16, 8))
    assert second["linear1.weight"].data.any()


def test_the_pure_init_draws_copies_by_path():
    init, _ = fn.functionalize(stack(nn, "Encoder"))
    layers = init(jax.random.key(0))[0]["layers"]
    assert (layers["0"]["linear1"]["weight"] != layers["1"]["linear1"]["weight"]).all()


def small(library, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library.Transformer(64, 2, 2, 2, 96, **options)


def test_transformer_draws_matrices_apart_and_keeps_the_biases_of_the_copies():
    ours = small(nn)
    first, second = (dict(m.named_parameters()) for m in ours.encoder.layers)
    for name in first:
        equal = bool((first[name].data == second[name].data).all())
        assert equal == (first[name].ndim == 1), name


@pytest.mark.parametrize("pure", [False, True])
def test_initial_distributions(pure):
    torch.manual_seed(0)
    ours, theirs = small(nn), small(torch.nn)
    if pure:
        init, _ = fn.functionalize(ours)
        values = dict(fn.core.layer.flatten(init(jax.random.key(0))[0]))
    else:
        values = ours.state_dict()
    for name, other in theirs.state_dict().items():
        value, other = np.asarray(values[name]), other.numpy()
        assert value.shape == other.shape
        # Uniform or constant, so two numbers tell all.
        np.testing.assert_allclose(value.std(), other.std(), rtol=0.25 if other.ndim == 1 else 0.05)
        np.testing.assert_allclose(np.abs(value).max(), np.abs(other).max(), rtol=0.1)


def test_tied_weights_survive_the_copies():
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    layer.linear2.weight = layer.linear1.weight
    encoder = nn.TransformerEncoder(layer, 2)
    for twin in encoder.layers:
        assert twin.linear1.weight is twin.linear2.weight
    assert encoder.layers[0].linear1.weight is not encoder.layers[1].linear1.weight
    assert copy.deepcopy(encoder).layers[0].linear1.weight is not encoder.layers[0].linear1.weight


# --- the whole model --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True, "bias": False}, {"batch_first": True}]
)
def test_transformer_prints_and_saves_as_torch(options):
    ours, theirs = small(nn, **options), small(torch.nn, **options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]


def test_transformer_trains_with_all_masks():
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.1, batch_first=True)
    src, tgt = jnp.asarray(normal(2, 5, 8)), jnp.asarray(normal(2, 4, 8))
    masks = {
        "src_mask": subsequent(5, dtype=bool),
        "tgt_mask": subsequent(4, dtype=bool),
        "memory_mask": jnp.asarray(WINDOW),
        "src_key_padding_mask": jnp.asarray(MEMORY_PADDING),
        "tgt_key_padding_mask": jnp.asarray(PADDING),
        "memory_key_padding_mask": jnp.asarray(MEMORY_PADDING),
    }

    @fn.jit
    def step(src, tgt):
        return fn.value_and_grad(lambda m: ((m(src, tgt, **masks) - tgt) ** 2).mean())(model)

    (first, gradients), (second, _) = step(src, tgt), step(src, tgt)
    assert first != second  # dropout
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
    model.eval()
    assert step(src, tgt)[0] == step(src, tgt)[0]


def test_pure_call_needs_a_mode_and_a_key_for_dropout_only():
    x = jnp.ones((4, 2, 8))
    init, apply = fn.functionalize(nn.TransformerEncoderLayer(8, 2, 16))
    variables = init(jax.random.key(0))
    with pytest.raises(ModeError, match="training"):
        apply(*variables, x)
    with pytest.raises(RngError, match="rng"):
        apply(*variables, x, training=True)
    one, two = (apply(*variables, x, training=True, rng=jax.random.key(i))[0] for i in (1, 2))
    assert (one != two).any()
    _, without = fn.functionalize(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0))
    out = apply(*variables, x, training=False)[0]
    np.testing.assert_array_equal(without(*variables, x)[0], out)


class Doubles(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(jnp.ones((8, 8)))

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        return 2 * src


def test_custom_stacks():
    encoder, decoder = Doubles(), stack(nn, "Decoder", 1)
    model = nn.Transformer(8, 2, custom_encoder=encoder, custom_decoder=decoder)
    assert model.encoder is encoder
    assert model.decoder is decoder
    assert np.unique(encoder.weight.data).size > 8  # Xavier-uniform like every other matrix
    src, tgt = jnp.asarray(normal(5, 2, 8)), jnp.asarray(normal(4, 2, 8))
    np.testing.assert_array_equal(model(src, tgt), decoder(tgt, 2 * src))


def test_activations():
    x = jnp.asarray(normal(4, 2, 8))
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=nn.GELU())
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=torch.nn.GELU())
    assert repr(layer) == repr(theirs)
    by_name = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu")
    by_name.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(layer(x), by_name(x))
    assert nn.TransformerDecoderLayer(8, 2).activation is F.relu
    nn.TransformerDecoderLayer(8, 2, 16, activation=jnp.tanh)(x, x)


# --- warnings and refusals --------------------------------------------------------------------


def warned(library, norm_eps=None, **options):
    """The warnings of building an encoder."""
    activation = options.pop("activation", "relu")
    activation = activation(library) if callable(activation) else activation
    layer = library.TransformerEncoderLayer(12, activation=activation, **options)
    if norm_eps:
        layer.norm1.eps = norm_eps
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder = library.TransformerEncoder(layer, 1)
    return [str(w.message) for w in caught], encoder


@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"batch_first": True, "activation": "gelu"},
        {"batch_first": True, "activation": lambda library: library.GELU()},
        {},
        {"batch_first": True, "norm_first": True},
        {"batch_first": True, "bias": False},
        {"batch_first": True, "activation": lambda library: library.Tanh()},
        {"batch_first": True, "norm_eps": 0.1},
        {"batch_first": True, "nhead": 3},
    ],
)
def test_warns_of_layers_without_nested_tensors_where_torch_does(options):
    options = {"nhead": 2, **options}
    (theirs, their_encoder), (ours, encoder) = (warned(lib, **options) for lib in (torch.nn, nn))
    assert len(ours) == len(theirs)
    assert all(m.startswith("enable_nested_tensor is True, but use_nested") for m in ours)
    for name in ("use_nested_tensor", "enable_nested_tensor", "mask_check", "num_layers"):
        assert getattr(encoder, name) == getattr(their_encoder, name)


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: nn.TransformerEncoderLayer(8, 3), ArgumentError, "num_heads=3"),
        (lambda: nn.TransformerEncoderLayer(8, 2, dropout=1.2), ArgumentError, "between 0 and 1"),
        (lambda: nn.TransformerEncoderLayer(8, 2, activation="tanh"), ArgumentError, "activation"),
        (lambda: nn.TransformerDecoderLayer(8, 2, activation=3), ArgumentError, "activation"),
        (lambda: stack(nn, "Encoder", 0), ArgumentError, "num_layers must be positive"),
        (lambda: stack(nn, "Decoder", -1), ArgumentError, "num_layers must be positive"),
        (lambda: nn.TransformerDecoder(jnp.tanh, 2), DTypeError, "decoder_layer must be a module"),
        (lambda: subsequent(-1), ArgumentError, "sz"),
        (lambda: subsequent(3, dtype=int), DTypeError, "dtype must be floating point or bool"),
    ],
)
def test_refuses_options(build, error, match):
    with pytest.raises(error, match=match):
        build()


@pytest.mark.parametrize(
    ("src", "tgt", "match"),
    [
        ((2, 5, 8), (3, 4, 8), "same batch size"),
        ((2, 5, 8), (4, 8), "same batch size"),
        ((5, 8), (2, 4, 8), "same batch size"),
        ((2, 5, 7), (2, 4, 8), "d_model=8"),
        ((2, 5, 8), (2, 4, 7), "d_model=8"),
        ((8,), (8,), "query"),
    ],
)
def test_transformer_refuses_inputs(src, tgt, match):
    model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    with pytest.raises(ShapeError, match=match):
        model(jnp.ones(src), jnp.ones(tgt))


def test_a_promise_without_a_mask_is_refused():
    with pytest.raises(ArgumentError, match="attn_mask"):
        stack(nn, "Encoder")(jnp.ones((4, 2, 8)), is_causal=True)
    with pytest.raises(ArgumentError, match="attn_mask"):
        stack(nn, "Decoder")(jnp.ones((4, 2, 8)), jnp.ones((5, 2, 8)), memory_is_causal=True)
