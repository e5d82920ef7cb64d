"""Recurrent cells: one step of a recurrent layer, for a loop of one's own."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from funcnets import functional as F
from funcnets._args import choice, describe, positive
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.errors import ShapeError
from funcnets.functional._numeric import as_array
from funcnets.nn import init

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


class RNNCellBase(Module):
    """The parameters of the cells :class:`RNNCell`, :class:`LSTMCell` and :class:`GRUCell`.

    Args:
        input_size: number of features of the input.
        hidden_size: number of features of the hidden state.
        bias: whether there are biases.
        num_chunks: the number of gates.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    References:
        torch.nn.RNNCellBase
    """

    weight_ih: Any
    weight_hh: Any
    bias_ih: Any
    bias_hh: Any

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = positive("input_size", input_size, minimum=0)
        self.hidden_size = positive("hidden_size", hidden_size, minimum=0)
        self.bias = bias
        gates = num_chunks * hidden_size
        shapes = {"weight_ih": (gates, input_size), "weight_hh": (gates, hidden_size)}
        for name, shape in (shapes | {"bias_ih": (gates,), "bias_hh": (gates,)}).items():
            present = bias or name in shapes
            cell = Parameter(shape, device=device, dtype=dtype) if present else None
            self.register_parameter(name, cell)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size else 0.0
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _step(self, function: Any, input: jax.Array, hx: Any, states: int = 1) -> Any:
        """``function`` on the input, the state or zeros, and the parameters."""
        input = as_array("input", input)
        if input.ndim not in (1, 2):
            raise ShapeError(
                f"{type(self).__name__} expects 1D (unbatched) or 2D (batched) input, "
                f"but got {describe(input)}"
            )
        if hx is None:
            zeros = jnp.zeros((*input.shape[:-1], self.hidden_size), input.dtype)
            hx = zeros if states == 1 else (zeros,) * states
        return function(input, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias is True else f"{text}, bias={self.bias}"


class RNNCell(RNNCellBase):
    r"""One step of an Elman network.

    .. math::
        h' = \tanh(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})

    Args:
        input_size: number of features of the input.
        hidden_size: number of features of the hidden state.
        bias: whether there are a :math:`b_{ih}` and a :math:`b_{hh}`.
        nonlinearity: ``'tanh'``, or ``'relu'`` in its place.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    Shape:
        - input: :math:`(N, \text{input\_size})` or :math:`(\text{input\_size})`.
        - hx: :math:`(N, \text{hidden\_size})` or :math:`(\text{hidden\_size})`; zeros if left out.
        - output: the next state, as hx.

    Attributes:
        weight_ih: :math:`(\text{hidden\_size}, \text{input\_size})`.
        weight_hh: :math:`(\text{hidden\_size}, \text{hidden\_size})`.
        bias_ih, bias_hh: :math:`(\text{hidden\_size})`, or None. All are from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ArgumentError: a size that is not a non-negative integer, or another ``nonlinearity``.
        ShapeError: (on the call) shapes that do not fit.
        DTypeError: (on the call) an input of another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> cell, h = nn.RNNCell(10, 20), jnp.zeros((3, 20))
        >>> for x in jnp.ones((6, 3, 10)):
        ...     h = cell(x, h)
        >>> h.shape
        (3, 20)

    References:
        torch.nn.RNNCell
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: jax.Array, hx: jax.Array | None = None) -> jax.Array:
        function = F.rnn_tanh_cell if self.nonlinearity == "tanh" else F.rnn_relu_cell
        return self._step(function, input, hx)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"


class LSTMCell(RNNCellBase):
    r"""One step of a long short-term memory.

    .. math::
        \begin{aligned}
        (i, f, g, o) &= W_{ih} x + b_{ih} + W_{hh} h + b_{hh} \\
        c' &= \sigma(f) \odot c + \sigma(i) \odot \tanh(g) \\
        h' &= \sigma(o) \odot \tanh(c')
        \end{aligned}

    Args:
        input_size: number of features of the input.
        hidden_size: number of features of the hidden and the cell state.
        bias: whether there are a :math:`b_{ih}` and a :math:`b_{hh}`.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    Shape:
        - input: :math:`(N, \text{input\_size})` or :math:`(\text{input\_size})`.
        - hx: a pair of the hidden and the cell state, :math:`(N, \text{hidden\_size})` or
          :math:`(\text{hidden\_size})` each; zeros if left out.
        - output: the next hidden and cell state.

    Attributes:
        weight_ih: :math:`(4 \cdot \text{hidden\_size}, \text{input\_size})`, the gates i, f, g, o.
        weight_hh: :math:`(4 \cdot \text{hidden\_size}, \text{hidden\_size})`.
        bias_ih, bias_hh: :math:`(4 \cdot \text{hidden\_size})`, or None. All are from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ArgumentError: a size that is not a non-negative integer, or (on the call) ``hx`` is not a pair.
        ShapeError: (on the call) shapes that do not fit.
        DTypeError: (on the call) an input of another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> h, c = nn.LSTMCell(10, 20)(jnp.ones((3, 10)))
        >>> h.shape, c.shape
        ((3, 20), (3, 20))

    References:
        Hochreiter and Schmidhuber, 1997; torch.nn.LSTMCell
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(
        self, input: jax.Array, hx: tuple[jax.Array, jax.Array] | None = None
    ) -> tuple[jax.Array, jax.Array]:
        return self._step(F.lstm_cell, input, hx, states=2)


class GRUCell(RNNCellBase):
    r"""One step of a gated recurrent unit.

    .. math::
        \begin{aligned}
        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + r \odot (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) \odot n + z \odot h
        \end{aligned}

    Args:
        input_size: number of features of the input.
        hidden_size: number of features of the hidden state.
        bias: whether there are biases.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    Shape:
        As for :class:`RNNCell`.

    Attributes:
        weight_ih: :math:`(3 \cdot \text{hidden\_size}, \text{input\_size})`, the gates r, z, n.
        weight_hh: :math:`(3 \cdot \text{hidden\_size}, \text{hidden\_size})`.
        bias_ih, bias_hh: :math:`(3 \cdot \text{hidden\_size})`, or None. All are from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ArgumentError: a size that is not a non-negative integer.
        ShapeError: (on the call) shapes that do not fit.
        DTypeError: (on the call) an input of another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.GRUCell(10, 20)(jnp.ones((3, 10)), jnp.zeros((3, 20))).shape
        (3, 20)

    References:
        Cho et al., 2014; torch.nn.GRUCell
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: jax.Array, hx: jax.Array | None = None) -> jax.Array:
        return self._step(F.gru_cell, input, hx)
