"""Fine-tune: learn to read digits, then to tell odd from even: ``python -m funcnets.examples.finetune``.

A small network learns the ten digits, and the state_dict of its trunk is saved. A second network takes
the trunk over from that file, freezes it, and trains a head for another question, is the digit odd, on
100 images only. For comparison the same is done on a trunk with its first, random values. What is
frozen gets no gradient and no optimizer memory, and stays as it was, bit for bit.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

import funcnets as fn
from funcnets import nn, optim, train
from funcnets.examples import digits


class Classifier(nn.Module):
    """A convolutional trunk that makes 128 features of an image, and a linear head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (batch, 16, 4, 4)
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (batch, 32, 2, 2)
            nn.Flatten(),
        )
        self.head = nn.Linear(32 * 2 * 2, classes)

    def forward(self, x: jax.Array) -> jax.Array:
        return self.head(self.trunk(x))


def odd(data: digits.Split, count: int | None = None) -> digits.Split:
    """The first ``count`` images with another question: is the digit odd?"""
    return digits.Split(data.images[:count], data.labels[:count] % 2)


def learn(
    model: Classifier,
    data: digits.Split,
    test: digits.Split,
    lr: float,
    epochs: int,
    progress: bool,
) -> float:
    """Train what is not frozen, and return the accuracy on the test images."""
    history = train.fit(
        model,
        optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr),
        nn.CrossEntropyLoss(),
        train.ArrayLoader(tuple(data), batch_size=50, shuffle=True, drop_last=True),
        val_data=[test],
        epochs=epochs,
        metrics={"accuracy": train.Accuracy()},
        progress=progress,
    )
    return history["val_accuracy"][-1]


def arrays(module: nn.Module) -> dict[str, Any]:
    """Copies of all parameters and buffers."""
    return {name: np.array(value) for name, value in module.state_dict().items()}


def run(epochs: int = 20, seed: int = 0, progress: bool = True) -> dict[str, Any]:
    """Pretrain, save, take over, freeze, and train a head.

    Args:
        epochs: passes over the data of the first training; the heads get twice as many.
        seed: of the split, the orders and the initial values.
        progress: show a progress bar, or lines where there is no terminal.

    Returns:
        The accuracies on the test images; and the trunk's arrays in the file, before and after.
    """
    fn.manual_seed(seed)
    data, _, test = digits.load(seed)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trunk.safetensors"
        first = Classifier(10)
        figures["pretrained"] = learn(first, data, test, 3e-3, epochs, progress)
        fn.save(first.trunk.state_dict(), path)
        figures["file"] = fn.load(path)

    for name, values in (("random", None), ("transferred", figures["file"])):
        model = Classifier(2)
        if values is not None:
            model.trunk.load_state_dict(values)
        # Frozen: no gradients, and a BatchNorm that normalises with the statistics that it has.
        model.trunk.requires_grad_(False).eval()
        figures["before"] = arrays(model.trunk)
        figures[name] = learn(model, odd(data, 100), odd(test), 1e-2, 2 * epochs, progress)
        figures["after"] = arrays(model.trunk)
    return figures


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a head on a frozen, pretrained trunk.")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    figures = run(options.epochs, options.seed)
    unchanged = sum(
        before.tobytes() == after.tobytes()
        for before, after in zip(figures["before"].values(), figures["after"].values(), strict=True)
    )
    print(f"\nten digits, all training images:        {100 * figures['pretrained']:.1f} % right")
    print(f"odd or even, 100 images, frozen trunk:  {100 * figures['transferred']:.1f} %")
    print(f"the same on a random trunk:             {100 * figures['random']:.1f} %")
    print(f"{unchanged} of {len(figures['after'])} arrays of the trunk are the same, bit for bit")


if __name__ == "__main__":
    main()
