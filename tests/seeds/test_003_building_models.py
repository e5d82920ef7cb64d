"""Document 003, "Building Models with PyTorch": a tiny model and its parameters, LeNet, a tagger, layers.

The document imports ``torch.functional as F``, which has neither ``relu`` nor ``max_pool2d``; it means
``torch.nn.functional``, as here.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn
from tests.seeds.helpers import (
    CHECK_IDS,
    CHECKS,
    Seed,
    in_torch,
    integers,
    normal,
    numbers,
    run,
    uniform,
)


class TinyModel(nn.Module):
    def __init__(self):
        super(TinyModel, self).__init__()

        self.linear1 = nn.Linear(100, 200)
        self.activation = nn.ReLU()
        self.linear2 = nn.Linear(200, 10)
        self.softmax = nn.Softmax()

    def forward(self, x):
        x = self.linear1(x)
        x = self.activation(x)
        x = self.linear2(x)
        x = self.softmax(x)
        return x


class LeNet(nn.Module):
    def __init__(self):
        super(LeNet, self).__init__()
        # 1 input image channel (black & white), 6 output channels, 5x5 square convolution
        # kernel
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 3)
        # an affine operation: y = Wx + b
        self.fc1 = nn.Linear(16 * 6 * 6, 120)  # 6*6 from image dimension
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        # Max pooling over a (2, 2) window
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        # If the size is a square you can only specify a single number
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.reshape(-1, self.num_flat_features(x))
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x

    def num_flat_features(self, x):
        size = x.shape[1:]  # all dimensions except the batch dimension
        num_features = 1
        for s in size:
            num_features *= s
        return num_features


class LSTMTagger(nn.Module):
    def __init__(self, embedding_dim, hidden_dim, vocab_size, tagset_size):
        super(LSTMTagger, self).__init__()
        self.hidden_dim = hidden_dim

        self.word_embeddings = nn.Embedding(vocab_size, embedding_dim)

        # The LSTM takes word embeddings as inputs, and outputs hidden states
        # with dimensionality hidden_dim.
        self.lstm = nn.LSTM(embedding_dim, hidden_dim)

        # The linear layer that maps from hidden state space to tag space
        self.hidden2tag = nn.Linear(hidden_dim, tagset_size)

    def forward(self, sentence):
        embeds = self.word_embeddings(sentence)
        lstm_out, _ = self.lstm(embeds.reshape(len(sentence), 1, -1))
        tag_space = self.hidden2tag(lstm_out.reshape(len(sentence), -1))
        tag_scores = F.log_softmax(tag_space, dim=1)
        return tag_scores


SEEDS = [
    Seed(
        "tiny_model",
        lambda _, TinyModel: TinyModel(),
        normal(4, 100),
        uniform(4, 10),
        (4, 10),
        TinyModel,
        lr=0.5,
        text="TinyModel(\n"
        "  (linear1): Linear(in_features=100, out_features=200, bias=True)\n"
        "  (activation): ReLU()\n"
        "  (linear2): Linear(in_features=200, out_features=10, bias=True)\n"
        "  (softmax): Softmax(dim=None)\n"
        ")",
        quiet=True,
    ),
    Seed(
        "lenet",
        lambda _, LeNet: LeNet(),
        normal(2, 1, 32, 32),
        integers(10, 2),
        (2, 10),
        LeNet,
        loss="CrossEntropyLoss",
    ),
    Seed(
        "lstm_tagger",
        lambda _, LSTMTagger: LSTMTagger(6, 5, 9, 3),
        integers(9, 4),
        integers(3, 4),
        (4, 3),
        LSTMTagger,
        loss="NLLLoss",
    ),
    Seed("linear", lambda nn, _: nn.Linear(3, 2), uniform(1, 3), normal(1, 2), (1, 2)),
]


@pytest.mark.parametrize("check", CHECKS, ids=CHECK_IDS)
@pytest.mark.parametrize("model", SEEDS, ids=str)
def test_model(model, check):
    run(check, model)


# --- the tiny model's listing -----------------------------------------------------------------

LISTING = (pathlib.Path(__file__).parent / "tiny_model.txt").read_text()


def listing(tinymodel) -> str:
    """What the document prints."""
    lines = ["The model:", tinymodel, "\n\nJust one layer:", tinymodel.linear2, "\n\nModel params:"]
    lines += [*tinymodel.parameters(), "\n\nLayer params:", *tinymodel.linear2.parameters()]
    return "\n".join(map(str, lines)) + "\n"


def shown(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers of a listing; those that it leaves out are zero."""
    values = np.zeros(shape, np.float32)
    rows = text.replace("...,\n", "").replace(" ..., ", "")
    printed = numbers(rows)
    if printed.shape == shape:
        return printed
    edge = np.r_[:3, -3:0]
    values[np.ix_(edge, edge if shape[1] > 10 else np.arange(shape[1]))] = printed
    return values


def test_the_listing_of_the_document_is_reproduced_character_by_character():
    parameters = LISTING[LISTING.index("Model params") : LISTING.index("Layer params")]
    texts = [part.split("requires_grad")[0] for part in parameters.split("Parameter containing:")]
    tinymodel = TinyModel()
    for parameter, text in zip(tinymodel.parameters(), texts[1:], strict=True):
        parameter.data = shown(text, parameter.shape)
    assert listing(tinymodel) == LISTING


def test_the_listing_equals_torchs_for_values_loaded_from_torch():
    torch.manual_seed(1)
    theirs, ours = in_torch(TinyModel)(), TinyModel()
    ours.load_state_dict(theirs.state_dict())
    assert listing(ours) == listing(theirs)


def test_softmax_without_a_dimension_warns_as_in_torch():
    with pytest.warns(UserWarning, match="Implicit dimension"):
        in_torch(TinyModel)()(torch.zeros(1, 100))
    with pytest.warns(UserWarning, match="dim"):
        TinyModel()(jnp.zeros((1, 100)))


# --- the examples of single layers ------------------------------------------------------------


def test_linear_layer():
    lin = nn.Linear(3, 2)
    lin.weight.data = jnp.array([[-0.3340, -0.5598, -0.2524], [0.1284, 0.2488, 0.0233]])
    lin.bias.data = jnp.array([-0.3929, 0.4456])
    assert [str(param) for param in lin.parameters()] == [
        "Parameter containing:\n"
        "tensor([[-0.3340, -0.5598, -0.2524],\n"
        "        [ 0.1284,  0.2488,  0.0233]], requires_grad=True)",
        "Parameter containing:\ntensor([-0.3929,  0.4456], requires_grad=True)",
    ]
    x = jnp.array([[0.1148, 0.0039, 0.8192]])
    y = lin(x)
    np.testing.assert_allclose(y, [[-0.6402, 0.4803]], atol=1e-4)  # it shows four digits
    np.testing.assert_allclose(y, x @ lin.weight.data.T + lin.bias.data[None], rtol=1e-6)


def test_the_sizes_in_lenet_are_those_of_the_text():
    lenet, sizes = LeNet(), {}
    for name, module in lenet.named_children():
        module.register_forward_hook(
            lambda _module, _args, out, name=name: sizes.update({name: out.shape[1:]})
        )
    lenet(jnp.zeros((1, 1, 32, 32)))
    assert sizes["conv1"] == (6, 28, 28)
    assert sizes["conv2"] == (16, 12, 12)
    assert lenet.num_flat_features(jnp.zeros((1, 16, 6, 6))) == 576 == lenet.fc1.in_features


def test_tag_scores_are_log_probabilities():
    scores = LSTMTagger(6, 5, 9, 3)(jnp.array([0, 8, 4]))
    np.testing.assert_allclose(jnp.exp(scores).sum(1), 1.0, rtol=1e-5)


MAXPOOL_INPUT = """\
tensor([[[0.2019, 0.9660, 0.4187, 0.8468, 0.0514, 0.7734],
         [0.0616, 0.0197, 0.8667, 0.3454, 0.3000, 0.2259],
         [0.6501, 0.8441, 0.1297, 0.9405, 0.5386, 0.1517],
         [0.0974, 0.3017, 0.4590, 0.7319, 0.7147, 0.9102],
         [0.8154, 0.1260, 0.0786, 0.1171, 0.5415, 0.1521],
         [0.6094, 0.3702, 0.0618, 0.7496, 0.0569, 0.5986]]])"""
MAXPOOL_OUTPUT = """\
tensor([[[0.9660, 0.9405],
         [0.8154, 0.9102]]])"""


def test_max_pooling():
    my_tensor = jnp.asarray(numbers(MAXPOOL_INPUT))
    maxpool_layer = nn.MaxPool2d(3)
    out = maxpool_layer(my_tensor)
    np.testing.assert_array_equal(out, numbers(MAXPOOL_OUTPUT))
    assert str(nn.Buffer(my_tensor)) == MAXPOOL_INPUT
    assert str(nn.Buffer(out)) == MAXPOOL_OUTPUT


NORM_INPUT = """\
tensor([[[18.0676,  9.0095, 20.5636, 11.8680],
         [22.0258, 20.5619, 24.5362, 20.4627],
         [13.1134, 17.1015, 21.0625, 20.5271],
         [ 7.7037, 24.1349, 24.6258, 17.3446]]])"""
NORM_OUTPUT = """\
tensor([[[ 0.6881, -1.2655,  1.2264, -0.6490],
         [ 0.0785, -0.8115,  1.6048, -0.8718],
         [-1.5214, -0.2672,  0.9785,  0.8101],
         [-1.5713,  0.8307,  0.9025, -0.1619]]])"""


def test_batch_normalisation():
    my_tensor = jnp.asarray(numbers(NORM_INPUT))
    assert str(nn.Buffer(my_tensor)) == NORM_INPUT
    assert f"{my_tensor.mean():.4f}" == "18.2943"
    norm_layer = nn.BatchNorm1d(4)
    normed_tensor = norm_layer(my_tensor)
    np.testing.assert_allclose(normed_tensor, numbers(NORM_OUTPUT), atol=2e-4)
    assert abs(float(normed_tensor.mean())) < 1e-6
    theirs = torch.nn.BatchNorm1d(4)(torch.from_numpy(numbers(NORM_INPUT)))
    np.testing.assert_allclose(normed_tensor, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    # The pure face gives the same, and the running statistics as the new state.
    init, apply = fn.functionalize(nn.BatchNorm1d(4))
    pure, state = apply(*init(jax.random.key(0)), my_tensor, training=True)
    np.testing.assert_array_equal(pure, normed_tensor)
    np.testing.assert_array_equal(state["running_mean"], norm_layer.running_mean)


def test_dropout():
    my_tensor = jnp.asarray(np.random.default_rng(0).random((1, 4, 4), np.float32)) + 0.01
    dropout = nn.Dropout(p=0.4)
    first, second = dropout(my_tensor), dropout(my_tensor)
    for out in (first, second):
        assert out.shape == (1, 4, 4)
        kept = np.asarray(out != 0)
        assert 0 < kept.sum() < 16
        np.testing.assert_allclose(out[kept], my_tensor[kept] / 0.6, rtol=1e-6)
    assert (first != second).any()
    np.testing.assert_array_equal(dropout.eval()(my_tensor), my_tensor)
    ones = nn.Dropout(p=0.4)(jnp.ones(20_000))
    assert abs(float((ones == 0).mean()) - 0.4) < 0.02
    assert abs(float(ones.mean()) - 1.0) < 0.02


def test_dropout_in_the_pure_face():
    my_tensor = jnp.ones((1, 4, 4))
    _, apply = fn.functionalize(nn.Dropout(p=0.4))
    one, two = (apply({}, {}, my_tensor, rng=jax.random.key(i), training=True)[0] for i in (1, 2))
    again, _ = apply({}, {}, my_tensor, rng=jax.random.key(1), training=True)
    assert (one != two).any()
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(apply({}, {}, my_tensor, training=False)[0], my_tensor)
    assert nn.Dropout().p == 0.5  # the document's default
