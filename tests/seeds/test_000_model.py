"""Document 000, "Model": a linear layer, stacks of them, and classes that hold stacks."""

from __future__ import annotations

import pytest

from funcnets import nn
from tests.seeds.helpers import CHECK_IDS, CHECKS, Seed, normal, run, uniform


class MyModel(nn.Module):
    def __init__(self):
        super().__init__()

        self.layers = nn.Sequential(
            nn.Linear(8, 16),
            nn.Linear(16, 32),
            nn.Linear(32, 4),
        )

    def forward(self, x):
        x = self.layers(x)
        return x


class MyModel2(nn.Module):
    def __init__(self):
        super().__init__()

        self.layers_1 = nn.Sequential(
            nn.Linear(8, 16),
            nn.Linear(16, 32),
        )

        self.layers_2 = nn.Sequential(
            nn.Linear(32, 16),
            nn.Linear(16, 4),
        )

    def forward(self, x):
        x = self.layers_1(x)
        x = self.layers_2(x)
        return x


MY_MODEL = """\
MyModel(
  (layers): Sequential(
    (0): Linear(in_features=8, out_features=16, bias=True)
    (1): Linear(in_features=16, out_features=32, bias=True)
    (2): Linear(in_features=32, out_features=4, bias=True)
  )
)"""

MY_MODEL_2 = """\
MyModel2(
  (layers_1): Sequential(
    (0): Linear(in_features=8, out_features=16, bias=True)
    (1): Linear(in_features=16, out_features=32, bias=True)
  )
  (layers_2): Sequential(
    (0): Linear(in_features=32, out_features=16, bias=True)
    (1): Linear(in_features=16, out_features=4, bias=True)
  )
)"""


def seed(name, build, **more) -> Seed:
    return Seed(name, build, uniform(3, 8), normal(3, 4), (3, 4), **more)


SEEDS = [
    seed("linear", lambda nn, _: nn.Linear(8, 4)),
    seed("model_2", lambda nn, _: nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))),
    seed(
        "model_3",
        lambda nn, _: nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 32), nn.Linear(32, 4)),
    ),
    seed("my_model", lambda _, MyModel: MyModel(), definition=MyModel, text=MY_MODEL),
    seed("my_model_2", lambda _, MyModel2: MyModel2(), definition=MyModel2, text=MY_MODEL_2),
]


@pytest.mark.parametrize("check", CHECKS, ids=CHECK_IDS)
@pytest.mark.parametrize("model", SEEDS, ids=str)
def test_model(model, check):
    run(check, model)


def test_hidden_layers_have_the_sizes_of_the_text():
    """One hidden layer of 16 neurons in model_2, two of 16 and 32 in model_3."""
    assert [m.out_features for m in SEEDS[1].ours()] == [16, 4]
    assert [m.out_features for m in SEEDS[2].ours()] == [16, 32, 4]
