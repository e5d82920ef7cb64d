"""RNN, LSTM, GRU and their cells."""

from __future__ import annotations

from tests.cases.case import Case, Normal

X = Normal(4, 2, 3)
EVERYTHING = {"num_layers": 2, "bidirectional": True, "batch_first": True}


def stack(name: str) -> list[Case]:
    """What the three kinds have in common."""

    def states(*shape: int):
        return (Normal(*shape), Normal(*shape)) if name == "LSTM" else Normal(*shape)

    return [
        Case(name, (3, 5), inputs=(X,), second=name == "GRU"),
        Case(name, (3, 5), inputs=(X, states(1, 2, 5)), id="hx"),
        Case(name, (3, 5), EVERYTHING, (Normal(2, 4, 3), states(4, 2, 5))),
        Case(name, (3, 5), {"bias": False, "bidirectional": True}, (X,), half=False),
        Case(name, (3, 5), EVERYTHING, (Normal(4, 3), states(4, 5)), half=False, id="unbatched"),
        Case(name, (3, 5, 2), {"dropout": 0.5}, (X,), train=False, half=False),
        Case(name, (3, 5), {"dropout": 0.5}, (X,), half=False, id="dropout_of_one_layer"),
    ]


def cell(name: str) -> list[Case]:
    """What the three cells have in common."""

    def states(*shape: int):
        return (Normal(*shape), Normal(*shape)) if name == "LSTMCell" else Normal(*shape)

    return [
        Case(name, (3, 5), inputs=(Normal(2, 3),), second=True),
        Case(name, (3, 5), inputs=(Normal(2, 3), states(2, 5)), id="hx"),
        Case(name, (3, 5), {"bias": False}, (Normal(3), states(5)), id="unbatched"),
        Case(name, (3, 5), inputs=(Normal(3),), id="unbatched"),
    ]


CASES = [
    *stack("RNN"),
    *stack("LSTM"),
    *stack("GRU"),
    Case("RNN", (3, 5), {"nonlinearity": "relu", "num_layers": 2}, (X,)),
    Case("RNN", (3, 5, 1, "relu", False), inputs=(X,)),
    Case("LSTM", (3, 5), {"proj_size": 2}, (X, (Normal(1, 2, 2), Normal(1, 2, 5)))),
    Case("LSTM", (3, 5), {"proj_size": 2, "bias": False, **EVERYTHING}, (Normal(2, 4, 3),)),
    Case("LSTM", (1, 1), inputs=(Normal(1, 1, 1),), half=False),
    Case("GRU", (3, 5), {"batch_first": True}, (Normal(4, 3),), half=False, id="unbatched"),
    *cell("RNNCell"),
    *cell("LSTMCell"),
    *cell("GRUCell"),
    Case("RNNCell", (3, 5), {"nonlinearity": "relu"}, (Normal(2, 3), Normal(2, 5))),
]
