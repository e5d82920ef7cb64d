"""Convolution layers; the transposed ones are in conv_transpose.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax

from funcnets import functional as F
from funcnets._args import choice, ntuple, positive
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional.conv import explicit_padding
from funcnets.nn import init

__all__ = ["Conv1d", "Conv2d", "Conv3d"]


class ConvBase(Module):
    """Hyper-parameters, parameters and printing of convolutions in any number of dimensions."""

    transposed: ClassVar[bool] = False
    _ndim: ClassVar[int]

    def _setup(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        n = self._ndim
        self.in_channels = positive("in_channels", in_channels, minimum=0)
        self.out_channels = positive("out_channels", out_channels, minimum=0)
        self.kernel_size = ntuple("kernel_size", kernel_size, n, minimum=1)
        self.stride = ntuple("stride", stride, n, minimum=1)
        self.dilation = ntuple("dilation", dilation, n, minimum=1)
        self.groups = positive("groups", groups)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ArgumentError(
                    f"{name} must be divisible by groups, but got {name}={channels} and "
                    f"groups={groups}"
                )
        modes = ("zeros", "reflect", "replicate", "circular")
        self.padding_mode = choice("padding_mode", padding_mode, modes)
        pairs = explicit_padding(padding, self.kernel_size, self.stride, self.dilation)
        self.padding = padding if isinstance(padding, str) else tuple(lo for lo, _ in pairs)
        # As `F.pad` takes it: the last axis first.
        self._borders = tuple(width for pair in reversed(pairs) for width in pair)
        self.output_padding = ntuple("output_padding", output_padding, n, minimum=0)
        ends = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (ends[0], ends[1] // groups, *self.kernel_size)
        self.weight = Parameter(shape, device=device, dtype=dtype)
        if bias:
            self.bias = Parameter((out_channels,), device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as PyTorch does."""
        fan_in = math.prod(self.weight.shape[1:])
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        n = self._ndim
        parts = [f"{self.in_channels}, {self.out_channels}"]
        parts += [f"kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != (0,) * n:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * n:
            parts.append(f"dilation={self.dilation}")
        if self.output_padding != (0,) * n:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _ConvNd(ConvBase):
    """A convolution; subclasses say in how many dimensions."""

    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._setup(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: jax.Array) -> jax.Array:
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._borders, self.padding_mode), 0
        options = (self.stride, padding, self.dilation, self.groups)
        return self._function(input, self.weight, self.bias, *options)


class Conv1d(_ConvNd):
    r"""Convolution over one axis: sequences.

    .. math::
        y_{n,o,t} = b_o + \sum_{c,k} w_{o,c,k} \; x_{n,c,\, t \cdot \text{stride} - \text{padding}
        + k \cdot \text{dilation}}

    (a cross-correlation: the kernel is not mirrored). With ``groups``, output channel ``o`` sees
    only the input channels of its own group; ``groups=in_channels`` is a depthwise convolution.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        kernel_size: length of the kernel.
        stride: step of the kernel.
        padding: elements added on both sides; ``'valid'`` is none, ``'same'`` as many as keep the
            length, the odd one on the right (stride 1 only).
        dilation: distance between the elements that the kernel meets.
        groups: number of blocks of channels that do not see each other; divides both numbers of
            channels.
        bias: whether there is a :math:`b`.
        padding_mode: what is added: ``'zeros'``, ``'reflect'``, ``'replicate'`` or ``'circular'``
            (see ``nn.functional.pad``).
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input: :math:`(N, C_\text{in}, L)` or :math:`(C_\text{in}, L)`.
        - Output: :math:`(N, C_\text{out}, L')` or :math:`(C_\text{out}, L')` with
          :math:`L' = \lfloor (L + 2 \, \text{padding} - \text{dilation} \, (\text{kernel\_size} - 1)
          - 1) / \text{stride} \rfloor + 1`.

    Attributes:
        weight: :math:`(C_\text{out}, C_\text{in} / \text{groups}, \text{kernel\_size})`, from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{fan\_in}}`, where
            :math:`\text{fan\_in}` is the number of weights of one output channel.
        bias: :math:`(C_\text{out})`, from the same distribution, or None.

    Raises:
        ArgumentError: an option that cannot be: channels that ``groups`` does not divide,
            ``'same'`` with a stride, an unknown padding mode, ...
        ShapeError: (on the call) a wrong rank or number of channels, or an input too small.
        DTypeError: (on the call) the input has another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Conv1d(16, 33, 3, stride=2)(jnp.ones((20, 16, 50))).shape
        (20, 33, 24)

    References:
        torch.nn.Conv1d
    """

    _ndim = 1
    _function = staticmethod(F.conv1d)


class Conv2d(_ConvNd):
    r"""Convolution over two axes: images. :class:`Conv1d` has the formula.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        kernel_size: height and width of the kernel, one integer or two, as are all sizes here.
        stride: step of the kernel.
        padding: elements added on both sides of each axis, or ``'valid'`` or ``'same'``.
        dilation: distance between the elements that the kernel meets.
        groups: number of blocks of channels that do not see each other.
        bias: whether a bias is added.
        padding_mode: ``'zeros'``, ``'reflect'``, ``'replicate'`` or ``'circular'``.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input: :math:`(N, C_\text{in}, H, W)` or :math:`(C_\text{in}, H, W)`.
        - Output: :math:`(N, C_\text{out}, H', W')` or :math:`(C_\text{out}, H', W')`, each size as
          in :class:`Conv1d`.

    Attributes:
        weight: :math:`(C_\text{out}, C_\text{in} / \text{groups}, K_H, K_W)`, initialised as in
            :class:`Conv1d`.
        bias: :math:`(C_\text{out})` or None.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`Conv1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Conv2d(16, 33, (3, 5), stride=(2, 1), padding="valid")
        Conv2d(16, 33, kernel_size=(3, 5), stride=(2, 1), padding=valid)
        >>> nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")(jnp.ones((1, 3, 9, 9))).shape
        (1, 8, 9, 9)

    References:
        torch.nn.Conv2d
    """

    _ndim = 2
    _function = staticmethod(F.conv2d)


class Conv3d(_ConvNd):
    r"""Convolution over three axes: volumes, videos. :class:`Conv1d` has the formula.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        kernel_size: depth, height and width of the kernel, one integer or three, as are all sizes
            here.
        stride: step of the kernel.
        padding: elements added on both sides of each axis, or ``'valid'`` or ``'same'``.
        dilation: distance between the elements that the kernel meets.
        groups: number of blocks of channels that do not see each other.
        bias: whether a bias is added.
        padding_mode: ``'zeros'``, ``'reflect'``, ``'replicate'`` or ``'circular'``.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input: :math:`(N, C_\text{in}, D, H, W)` or :math:`(C_\text{in}, D, H, W)`.
        - Output: :math:`(N, C_\text{out}, D', H', W')` or :math:`(C_\text{out}, D', H', W')`, each
          size as in :class:`Conv1d`.

    Attributes:
        weight: :math:`(C_\text{out}, C_\text{in} / \text{groups}, K_D, K_H, K_W)`, initialised as
            in :class:`Conv1d`.
        bias: :math:`(C_\text{out})` or None.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`Conv1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Conv3d(2, 4, (1, 3, 3), padding=(0, 1, 1))(jnp.ones((1, 2, 5, 8, 8))).shape
        (1, 4, 5, 8, 8)

    References:
        torch.nn.Conv3d
    """

    _ndim = 3
    _function = staticmethod(F.conv3d)
