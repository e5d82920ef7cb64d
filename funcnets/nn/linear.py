"""Layers that are linear in the last axis, and the layer that does nothing."""

from __future__ import annotations

import math
from typing import Any

import jax

from funcnets import functional as F
from funcnets._args import positive
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.nn import init

__all__ = ["Bilinear", "Identity", "Linear", "NonDynamicallyQuantizableLinear"]


class Identity(Module):
    """Return the input: a place holder.

    Args:
        *args: anything; nothing is made of it, so that the class can stand for any other.
        **kwargs: likewise.

    Shape:
        - Input: any.
        - Output: the input.

    Examples:
        >>> from funcnets import nn
        >>> nn.Identity(54, unused=0.1)(3)
        3

    References:
        torch.nn.Identity
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    r"""Multiply the last axis by a matrix and add a vector.

    .. math::
        y = x W^\top + b

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: whether there is a :math:`b`.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input: :math:`(*, \text{in\_features})`.
        - Output: :math:`(*, \text{out\_features})`.

    Attributes:
        weight: :math:`(\text{out\_features}, \text{in\_features})`, from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{in\_features}}`.
        bias: :math:`(\text{out\_features})`, from the same distribution, or None.

    Raises:
        ArgumentError: a size is not a non-negative integer.
        ShapeError: (on the call) the input has another last axis.
        DTypeError: (on the call) the input has another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Linear(20, 30)(jnp.ones((128, 20))).shape
        (128, 30)

    References:
        torch.nn.Linear
    """

    weight: Any
    bias: Any

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features = positive("in_features", in_features, minimum=0)
        self.out_features = positive("out_features", out_features, minimum=0)
        self.weight = Parameter((out_features, in_features), device=device, dtype=dtype)
        if bias:
            self.bias = Parameter((out_features,), device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class NonDynamicallyQuantizableLinear(Linear):
    """:class:`Linear` under the name by which PyTorch's attention prints its output projection.

    References:
        torch.nn.modules.linear.NonDynamicallyQuantizableLinear
    """


class Bilinear(Module):
    r"""A form that is linear in the last axis of each of two inputs.

    .. math::
        y_k = x_1^\top W_k\, x_2 + b_k

    Args:
        in1_features: size of the last axis of the first input, at least 1.
        in2_features: size of the last axis of the second input.
        out_features: size of the last axis of the output.
        bias: whether there is a :math:`b`.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input1: :math:`(*, \text{in1\_features})`.
        - Input2: :math:`(*, \text{in2\_features})`, with the same leading axes.
        - Output: :math:`(*, \text{out\_features})`.

    Attributes:
        weight: :math:`(\text{out\_features}, \text{in1\_features}, \text{in2\_features})`, from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{in1\_features}}`.
        bias: :math:`(\text{out\_features})`, from the same distribution, or None.

    Raises:
        ArgumentError: a size is not an integer, or too small.
        ShapeError: (on the call) inputs of other sizes.
        DTypeError: (on the call) inputs of another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Bilinear(20, 30, 40)(jnp.ones((128, 20)), jnp.ones((128, 30))).shape
        (128, 40)

    References:
        torch.nn.Bilinear
    """

    weight: Any
    bias: Any

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in1_features = positive("in1_features", in1_features)
        self.in2_features = positive("in2_features", in2_features, minimum=0)
        self.out_features = positive("out_features", out_features, minimum=0)
        shape = (out_features, in1_features, in2_features)
        self.weight = Parameter(shape, device=device, dtype=dtype)
        if bias:
            self.bias = Parameter((out_features,), device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.in1_features)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, input1: jax.Array, input2: jax.Array) -> jax.Array:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
