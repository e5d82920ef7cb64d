r"""Recurrent networks over sequences: stacks of layers, run by ``jax.lax.scan``.

The names and arguments are those of ``torch.lstm`` and so on. How a direction of a layer is run and
differentiated is in ``_lower_recurrent.py``. The flat list of weights is PyTorch's: for each layer, and in it for the forward
and then for the reverse direction::

    w_ih (gates * hidden, input), w_hh (gates * hidden, output)[, b_ih, b_hh][, w_hr (output, hidden)]
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_low
from funcnets.functional._lower_recurrent import scan_cell
from funcnets.functional._numeric import as_array
from funcnets.functional.dropout import dropout as drop
from funcnets.functional.recurrent_cell import (
    GRU,
    LSTM,
    RELU,
    TANH,
    Kind,
    State,
    Weights,
    check_input,
    check_state,
    pair,
)

__all__ = ["gru", "lstm", "rnn_relu", "rnn_tanh"]

_DOC = """Run layers of {cells} over a sequence.

    Args:
        input: ``(T, N, input_size)``, ``(N, T, input_size)`` with ``batch_first``, or
            ``(T, input_size)`` for a single sequence.
        hx: the initial hidden state, ``(num_layers * directions, N, hidden_size)``, without ``N`` for
            a single sequence{hx}; None for zeros.
        params: the weights of every layer and direction in one flat list.
        has_biases: whether ``params`` has biases.
        num_layers: how many layers are stacked, each on the output of the one before.
        dropout: probability of dropping an element of the output of a layer but the last.
        train: whether to drop at all.
        bidirectional: a second network in each layer runs from the end to the beginning; the
            outputs are concatenated.
        batch_first: whether the batch comes first in ``input`` and in the output.
        mask: ``(T, N)`` booleans, or None. Where it is False a sequence has no step: its state stays
            as it is, and is also what the output has there.
        rng: key for the dropout; needed if some is applied.

    Returns:
        ``{returns}``: the hidden states of the last layer, ``(T, N, directions * hidden_size)``,
        laid out as ``input``, and the final state of every layer and direction, laid out as ``hx``.

    Raises:
        ShapeError: shapes that do not fit together, or a sequence without steps.
        DTypeError: arrays of different dtypes.
        ArgumentError: ``params`` does not have as many arrays as the options say.
        RngError: dropout is applied without a key.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> weights = [jnp.ones(({gates} * 4, 3)), jnp.ones(({gates} * 4, 4))]
        >>> output, *_ = F.{name}(jnp.ones((5, 2, 3)), None, weights, has_biases=False)
        >>> output.shape
        (5, 2, 4)

    References:
        torch.nn.{reference}
    """


def _stack(name: str, kind: Kind, cells: str, reference: str):
    """The function that runs a stack of one kind of cell with a single state."""

    def run(
        input: jax.Array,
        hx: jax.Array | None,
        params: Sequence[jax.Array],
        has_biases: bool = True,
        num_layers: int = 1,
        dropout: float = 0.0,
        train: bool = False,
        bidirectional: bool = False,
        batch_first: bool = False,
        *,
        mask: jax.Array | None = None,
        rng: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        state = None if hx is None else (hx,)
        options = (has_biases, num_layers, dropout, train, bidirectional, batch_first)
        output, (state,) = run_stack(kind, input, state, params, *options, mask=mask, rng=rng)
        return output, state

    run.__name__ = run.__qualname__ = name
    run.__doc__ = _DOC.format(
        cells=cells,
        hx="",
        returns="(output, h_n)",
        gates=kind.gates,
        name=name,
        reference=reference,
    )
    return run


rnn_tanh = _stack("rnn_tanh", TANH, "Elman networks", "RNN")
rnn_relu = _stack("rnn_relu", RELU, "Elman networks with rectifiers", "RNN")
gru = _stack("gru", GRU, "gated recurrent units", "GRU")


def lstm(
    input: jax.Array,
    hx: tuple[jax.Array, jax.Array] | None,
    params: Sequence[jax.Array],
    has_biases: bool = True,
    num_layers: int = 1,
    dropout: float = 0.0,
    train: bool = False,
    bidirectional: bool = False,
    batch_first: bool = False,
    *,
    mask: jax.Array | None = None,
    rng: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    state = None if hx is None else pair(hx)
    options = (has_biases, num_layers, dropout, train, bidirectional, batch_first)
    output, (hidden, cell) = run_stack(LSTM, input, state, params, *options, mask=mask, rng=rng)
    return output, hidden, cell


lstm.__doc__ = _DOC.format(
    cells="long short-term memories",
    hx=", and the cell state in a pair with it",
    returns="(output, h_n, c_n)",
    gates=LSTM.gates,
    name="lstm",
    reference="LSTM",
)


def run_direction(
    kind: Kind,
    input: jax.Array,
    state: State,
    weights: Weights,
    *,
    reverse: bool = False,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, State]:
    """Run a cell over time.

    Args:
        kind: of cell.
        input: ``(T, N, input_size)``.
        state: ``(N, size)`` each.
        weights: of one direction of one layer.
        reverse: whether to begin at the end; the output stays in the order of the input.
        mask: ``(T, N)``, see :func:`lstm`.

    Returns:
        The outputs ``(T, N, size)`` and the final state.
    """

    return scan_cell(kind, reverse, input, state, weights, mask)


def run_stack(
    kind: Kind,
    input: jax.Array,
    state: State | None,
    params: Sequence[jax.Array],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    *,
    mask: jax.Array | None = None,
    rng: jax.Array | None = None,
) -> tuple[jax.Array, State]:
    """Run layers of any kind of cell; ``state`` is ``hx`` as a tuple, the rest is as for ``lstm``."""
    input, state, params = in_low(input, state, list(params))
    input = as_array("input", input)
    if input.ndim not in (2, 3):
        raise ShapeError(
            f"expected 2D (unbatched) or 3D (batched) input, but got {describe(input)}"
        )
    directions = 2 if bidirectional else 1
    weights = _unflatten(kind, params, has_biases, num_layers * directions)
    batched = input.ndim == 3
    time_axis = 1 if batched and batch_first else 0
    check_input(input, weights[0])
    if input.shape[time_axis] == 0:
        raise ShapeError(
            f"expected a sequence of at least one step, but got input {describe(input)}"
        )
    batch = (input.shape[1 - time_axis],) if batched else ()
    shapes = [(len(weights), *batch, size) for size in kind.state_sizes(weights[0])]
    state = check_state(state, shapes, input.dtype)

    x = jnp.moveaxis(input, time_axis, 0) if batched else input[:, None]  # (T, N, input_size)
    if not batched:
        state = tuple(part[:, None] for part in state)
    if mask is not None and mask.shape != x.shape[:2]:
        raise ShapeError(f"expected mask of shape (T, N) = {x.shape[:2]}, but got {describe(mask)}")
    finals = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            first = tuple(part[index] for part in state)
            output, final = run_direction(
                kind, x, first, weights[index], reverse=direction == 1, mask=mask
            )
            outputs.append(output)
            finals.append(final)
        x = jnp.concatenate(outputs, axis=-1) if bidirectional else outputs[0]
        if layer < num_layers - 1 and train and dropout > 0:
            x = drop(x, dropout, rng=None if rng is None else jax.random.fold_in(rng, layer))
    state = tuple(jnp.stack(parts) for parts in zip(*finals, strict=True))
    if not batched:
        return x[:, 0], tuple(part[:, 0] for part in state)
    return jnp.moveaxis(x, 0, time_axis), state


def _unflatten(
    kind: Kind, params: Sequence[jax.Array], has_biases: bool, cells: int
) -> list[Weights]:
    size, rest = divmod(len(params), cells)
    least = 4 if has_biases else 2
    if rest or size not in ((least, least + 1) if kind is LSTM else (least,)):
        raise ArgumentError(
            f"expected params with {least} arrays for each of the {cells} layers and directions "
            f"(has_biases={has_biases}), one more for an LSTM with projections, but got {len(params)}"
        )
    weights = []
    for start in range(0, len(params), size):
        ih, hh, *others = (as_array("params", p) for p in params[start : start + size])
        b_ih, b_hh = others[:2] if has_biases else (None, None)
        weights.append(Weights(ih, hh, b_ih, b_hh, others[-1] if size > least else None))
    return weights
