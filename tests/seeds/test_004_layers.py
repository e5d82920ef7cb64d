"""Document 004, "What are the layers in my PyTorch model?": an MLP, a CNN and an LSTM."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ShapeError
from tests.seeds.helpers import CHECK_IDS, CHECKS, Seed, in_torch, integers, normal, run


class SimpleLinearModel(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super(SimpleLinearModel, self).__init__()
        self.linear1 = nn.Linear(input_size, hidden_size)
        self.relu = nn.ReLU()
        self.linear2 = nn.Linear(hidden_size, output_size)

    def forward(self, x):
        x = self.linear1(x)
        x = self.relu(x)
        x = self.linear2(x)
        return x


class SimpleCNN(nn.Module):
    def __init__(self, num_channels, num_classes):
        super(SimpleCNN, self).__init__()
        self.conv1 = nn.Conv2d(num_channels, 16, kernel_size=3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.fc = nn.Linear(32 * 7 * 7, num_classes)  # assuming input size of 28x28

    def forward(self, x):
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = x.reshape(x.shape[0], -1)  # flatten the feature map
        x = self.fc(x)
        return x


class SequenceModel(nn.Module):
    def __init__(self, input_size, hidden_size, output_size, num_layers):
        super(SequenceModel, self).__init__()
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, num_layers=num_layers, batch_first=True)
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(self, x):
        x = self.embedding(x)
        _, (hidden, _) = self.lstm(x)
        x = hidden[-1, :, :]  # taking the hidden state of the last layer
        x = self.fc(x)
        return x


SEEDS = [
    Seed(
        "simple_linear_model",
        lambda _, SimpleLinearModel: SimpleLinearModel(10, 20, 5),
        normal(1, 10),
        normal(1, 5),
        (1, 5),
        SimpleLinearModel,
    ),
    Seed(
        "simple_cnn",
        lambda _, SimpleCNN: SimpleCNN(3, 10),
        normal(1, 3, 28, 28),
        integers(10, 1),
        (1, 10),
        SimpleCNN,
        loss="CrossEntropyLoss",
        lr=0.005,
    ),
    Seed(
        "sequence_model",
        lambda _, SequenceModel: SequenceModel(100, 50, 20, 2),
        integers(100, 4, 20),
        integers(20, 4),
        (4, 20),
        SequenceModel,
        loss="CrossEntropyLoss",
    ),
]


@pytest.mark.parametrize("check", CHECKS, ids=CHECK_IDS)
@pytest.mark.parametrize("model", SEEDS, ids=str)
def test_model(model, check):
    run(check, model)


def test_the_layers_are_the_modules_of_the_model():
    model = SimpleCNN(3, 10)
    assert [(name, type(m).__name__) for name, m in model.named_children()] == [
        ("conv1", "Conv2d"),
        ("relu", "ReLU"),
        ("pool", "MaxPool2d"),
        ("conv2", "Conv2d"),
        ("fc", "Linear"),
    ]


def test_another_image_size_needs_another_linear_layer():
    """32 * 7 * 7 stands for 28x28 and, as the text says, has to be modified for other sizes."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        in_torch(SimpleCNN)(3, 10)(torch.zeros(1, 3, 32, 32))
    model = SimpleCNN(3, 10)
    with pytest.raises(ShapeError, match=r"1568.*2048") as caught:
        model(jnp.zeros((1, 3, 32, 32)))
    assert "In module 'fc' of SimpleCNN" in caught.value.__notes__[0]
    model.fc = nn.Linear(32 * 8 * 8, 10)
    assert model(jnp.zeros((1, 3, 32, 32))).shape == (1, 10)


def test_the_pure_face_names_the_module_as_well():
    model = SimpleCNN(3, 10)
    init, apply = fn.functionalize(model)
    with pytest.raises(ShapeError) as caught:
        jax.jit(apply)(*init(jax.random.key(0)), jnp.zeros((1, 3, 32, 32)))
    assert "In module 'fc' of SimpleCNN" in caught.value.__notes__[0]


def test_a_word_outside_of_the_vocabulary_shows():
    """torch raises; a compiled lookup cannot, so it gives NaN and not some other word's answer."""
    with pytest.raises(IndexError):
        in_torch(SequenceModel)(100, 50, 20, 2)(torch.full((1, 2), 100))
    out = SequenceModel(100, 50, 20, 2)(jnp.array([[0, 99], [0, 100]]))
    assert jnp.isfinite(out[0]).all()
    assert jnp.isnan(out[1]).all()
