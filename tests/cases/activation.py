"""Activations, as layers and as functions."""

from __future__ import annotations

import numpy as np

from tests.cases.case import Case, Ints, Normal

X = Normal(2, 3, 4, scale=2.0)
#: Where the straight pieces meet, and far out.
CORNERS = np.array([-30, -6, -3, -1, -0.5, 0, 0.5, 1, 3, 6, 30], np.float32)


NUMBER = np.array(-0.7, np.float32)
#: PyTorch's in-place operations refuse leaves that require a gradient.
PLAIN = {"grad": False}
INTEGERS = {"inputs": (Ints(2, 3, low=-5, high=5),), "grad": False, "id": "integers"}


def layer(name, *args, inputs=(X,), id="", grad=True, train=True, **kwargs) -> Case:
    return Case(name, args, kwargs, inputs, id=id, grad=grad, train=train)


def corners(name, *args, id="corners", **kwargs) -> Case:
    return layer(name, *args, inputs=(CORNERS,), id=id, **kwargs)


def smooth(name, *args, **kwargs) -> Case:
    return Case(name, args, kwargs, (X,), second=True, id="smooth")


def function(name, *args, inputs=(X,), id="", grad=True, **kwargs) -> Case:
    return Case(name, args, kwargs, inputs, fn=True, id=id, grad=grad)


CASES = [
    layer("ReLU"),
    layer("ReLU", True, **PLAIN),
    corners("ReLU"),
    layer("ReLU", **INTEGERS),
    layer("ReLU", inputs=(Normal(0, 3),), id="empty"),
    layer("ReLU", inputs=(NUMBER,), id="no-axes"),
    corners("ReLU6"),
    layer("ReLU6", inplace=True, **PLAIN),
    corners("Hardtanh"),
    corners("Hardtanh", -2, 0.5, True, **PLAIN),
    corners("LeakyReLU"),
    layer("LeakyReLU", 0.3, True, **PLAIN),
    corners("PReLU"),
    layer("PReLU", 3, 0.1),
    layer("PReLU", inputs=(Normal(4, 5),), id="matrix"),
    layer("PReLU", inputs=(NUMBER,), id="no-axes"),
    corners("RReLU", train=False),
    layer("RReLU", 0.25, 0.5, True, train=False, **PLAIN),
    layer("RReLU", 0.25, 0.25, id="certain"),
    corners("Threshold", 0.5, 20.0),
    corners("Threshold", -1.0, 0.1, True, **PLAIN),
    layer("Threshold", 1, 7, **INTEGERS),
    corners("Hardsigmoid"),
    layer("Hardsigmoid", True, **PLAIN),
    corners("Hardswish"),
    layer("Hardswish", True, **PLAIN),
    corners("Hardshrink"),
    corners("Hardshrink", 1.0),
    corners("Softshrink"),
    corners("Softshrink", 0),
    smooth("Sigmoid"),
    corners("Sigmoid"),
    layer("Sigmoid", **INTEGERS),
    smooth("Tanh"),
    layer("Tanh", **INTEGERS),
    smooth("GELU"),
    smooth("GELU", "tanh"),
    corners("GELU"),
    corners("GELU", approximate="tanh"),
    smooth("SiLU"),
    layer("SiLU", True, **PLAIN),
    corners("SiLU"),
    smooth("Mish"),
    layer("Mish", inplace=True, **PLAIN),
    corners("Mish"),
    smooth("ELU"),
    corners("ELU", 0.5, True, **PLAIN),
    smooth("SELU"),
    corners("SELU", inplace=True, **PLAIN),
    smooth("CELU"),
    corners("CELU", 0.5, True, **PLAIN),
    layer("CELU", -1.0),
    smooth("Softplus"),
    smooth("Softplus", 2, 3.5),
    corners("Softplus", beta=1.5, threshold=4),
    smooth("LogSigmoid"),
    corners("LogSigmoid"),
    smooth("Softsign"),
    corners("Softsign"),
    smooth("Tanhshrink"),
    corners("Tanhshrink"),
    layer("GLU", inputs=(Normal(2, 3, 6),)),
    Case("GLU", (0,), inputs=(Normal(2, 3),), second=True),
    layer("GLU", dim=1, inputs=(Normal(2, 4, 3),)),
    smooth("Softmax", 1),
    layer("Softmax", dim=-1),
    layer("Softmax", 0, inputs=(NUMBER,), id="no-axes"),
    layer("Softmax", 1, inputs=(Normal(2, 0),), id="empty"),
    layer("Softmax", 0, inputs=(np.array([1e4, 0, -1e4, -np.inf], np.float32),), id="far"),
    layer("Softmax", inputs=(Normal(3),), id="1d"),
    layer("Softmax", inputs=(Normal(3, 4),), id="2d"),
    layer("Softmax", inputs=(Normal(3, 4, 2),), id="3d"),
    layer("Softmax", inputs=(Normal(3, 4, 2, 2),), id="4d"),
    smooth("Softmin", 0),
    layer("Softmin", inputs=(Normal(3, 4),), id="2d"),
    smooth("LogSoftmax", -1),
    layer("LogSoftmax", inputs=(Normal(3, 4, 2),), id="3d"),
    layer("LogSoftmax", 0, inputs=(np.array([1e4, 0, -1e4], np.float32),), id="far"),
    layer("Softmax2d", inputs=(Normal(2, 3, 2, 2),)),
    layer("Softmax2d", inputs=(Normal(3, 2, 2),), id="unbatched"),
    function("relu_", **PLAIN),
    function("elu_", 0.5, **PLAIN),
    function("selu_", **PLAIN),
    function("celu_", alpha=0.5, **PLAIN),
    function("hardtanh_", -0.5, 0.5, **PLAIN),
    function("leaky_relu_", 0.2, **PLAIN),
    function("threshold_", 0.1, 2.0, **PLAIN),
    function("rrelu_", 0.1, 0.3, **PLAIN),
    function("softmax", 1, dtype=None),
    function("softmin", -1),
    function("softmin", dim=0, inputs=(CORNERS,), id="corners"),
    function("softmin", 0, inputs=(NUMBER,), id="no-axes"),
    function("softmin", 1, inputs=(Normal(2, 0),), id="empty"),
    function("softmin", inputs=(Normal(3, 4),), id="2d"),
    function("softmin", inputs=(Normal(3, 4, 2),), id="3d"),
    function("hardtanh", 1.0, 1.0),
    function("hardtanh", -3, 2, **INTEGERS),
    function("hardshrink", -1.0),
    function("softplus", -1.0),
    Case("prelu", inputs=(X, Normal(3)), fn=True),
    Case("prelu", inputs=(X, Normal(1)), fn=True, id="one"),
    Case("prelu", inputs=(X, NUMBER), fn=True, id="number"),
]
