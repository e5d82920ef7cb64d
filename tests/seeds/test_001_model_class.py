"""Document 001, "What does 'define model class' mean": a regression, a small CNN and an RNN."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
import torch

from funcnets import nn
from funcnets.errors import ShapeError
from tests.seeds.helpers import CHECK_IDS, CHECKS, Seed, in_torch, integers, normal, run


class LinearRegression(nn.Module):
    def __init__(self, input_dim, output_dim):
        super(LinearRegression, self).__init__()
        self.linear = nn.Linear(input_dim, output_dim)

    def forward(self, x):
        return self.linear(x)


class SimpleCNN(nn.Module):
    def __init__(self):
        super(SimpleCNN, self).__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.fc = nn.Linear(16 * 14 * 14, 10)  # assuming 28x28 input images

    def forward(self, x):
        x = self.pool(self.relu(self.conv1(x)))
        x = x.reshape(x.shape[0], -1)  # flatten the feature maps
        x = self.fc(x)
        return x


class SimpleRNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super(SimpleRNN, self).__init__()
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)
        self.fc = nn.Linear(hidden_size, output_size)

    def forward(self, x):
        out, _ = self.rnn(x)
        out = self.fc(out[:, -1, :])  # take the last hidden state
        return out


SEEDS = [
    Seed(
        "linear_regression",
        lambda _, LinearRegression: LinearRegression(input_dim=1, output_dim=1),
        normal(10, 1),
        normal(10, 1),
        (10, 1),
        LinearRegression,
        text="LinearRegression(\n  (linear): Linear(in_features=1, out_features=1, bias=True)\n)",
    ),
    Seed(
        "simple_cnn",
        lambda _, SimpleCNN: SimpleCNN(),
        normal(1, 3, 28, 28),
        integers(10, 1),
        (1, 10),
        SimpleCNN,
        loss="CrossEntropyLoss",
        lr=0.001,
    ),
    Seed(
        "simple_rnn",
        lambda _, SimpleRNN: SimpleRNN(input_size=10, hidden_size=20, output_size=5),
        normal(32, 20, 10),
        normal(32, 5),
        (32, 5),
        SimpleRNN,
    ),
]


@pytest.mark.parametrize("check", CHECKS, ids=CHECK_IDS)
@pytest.mark.parametrize("model", SEEDS, ids=str)
def test_model(model, check):
    run(check, model)


def test_torch_flatten_has_the_same_name_as_a_layer():
    """The document flattens with torch.flatten(x, 1); the layer of that name does the same."""
    assert nn.Flatten()(jnp.zeros((2, 16, 14, 14))).shape == (2, 16 * 14 * 14)


def test_an_image_of_another_size_is_refused_where_it_does_not_fit():
    """The CNN is made for images of 28x28, as its text says: another size reaches ``fc`` and fails."""
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        in_torch(SimpleCNN)()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ShapeError, match=r"3136.*4096") as caught:
        SimpleCNN()(jnp.zeros((1, 3, 32, 32)))
    assert isinstance(caught.value, RuntimeError)  # what code written for torch catches
    assert caught.value.__notes__ == [
        "In module 'fc' of SimpleCNN: Linear(in_features=3136, out_features=10, bias=True)\n"
        "which was called with: float32[1, 4096]"
    ]
