"""Transposed convolution layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax

from funcnets import functional as F
from funcnets._args import as_int, choice, describe, ntuple
from funcnets.errors import ArgumentError
from funcnets.nn.conv import ConvBase

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class _ConvTransposeNd(ConvBase):
    """A transposed convolution; subclasses say in how many dimensions."""

    transposed = True
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        choice("padding_mode", padding_mode, ("zeros",))
        ntuple("padding", padding, self._ndim, minimum=0)
        self._setup(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding,
            groups, bias, padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: jax.Array, output_size: Sequence[int] | None = None) -> jax.Array:
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        options = (self.stride, self.padding, extra, self.groups, self.dilation)
        return self._function(input, self.weight, self.bias, *options)

    def _extra(self, input: jax.Array, output_size: Sequence[int]) -> tuple[int, ...]:
        """The ``output_padding`` that gives an output of ``output_size``."""
        n = self._ndim
        lead = input.ndim - n
        if not isinstance(output_size, Sequence) or len(output_size) not in (n, n + lead):
            raise ArgumentError(
                f"output_size must hold {n} or, with all axes, {n + lead} integers for "
                f"{input.ndim}D input, but got {describe(output_size)}"
            )
        pads: Any = self.padding
        wanted = [as_int("output_size", size) for size in output_size[-n:]]
        least = [
            (size - 1) * s - 2 * p + d * (k - 1) + 1
            for size, s, p, d, k in zip(
                input.shape[lead:], self.stride, pads, self.dilation, self.kernel_size,
                strict=True,
            )
        ]  # fmt: skip
        extra = tuple(w - m for w, m in zip(wanted, least, strict=True))
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = [m + s - 1 for m, s in zip(least, self.stride, strict=True)]
            raise ArgumentError(
                f"output_size must be between {least} and {most} for input {describe(input)}, "
                f"but got {wanted}"
            )
        return extra


class ConvTranspose1d(_ConvTransposeNd):
    r"""Transposed convolution over one axis: the adjoint of :class:`Conv1d`.

    Every input element adds a scaled copy of the kernel to the output,

    .. math::
        y_{n,o,\, t \cdot \text{stride} - \text{padding} + k \cdot \text{dilation}}
        \mathrel{+}= w_{c,o,k} \; x_{n,c,t}

    and :math:`b_o` is added in the end. The output of a :class:`Conv1d` with the same options has
    the length of this layer's input.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        kernel_size: length of the kernel.
        stride: distance in the output between two neighbours of the input.
        padding: elements cut off both ends of the output.
        output_padding: elements added to the right end; less than ``stride`` or ``dilation``.
        groups: number of blocks of channels that do not see each other; divides both numbers of
            channels.
        bias: whether there is a :math:`b`.
        dilation: distance in the output between the elements of the kernel.
        padding_mode: ``'zeros'``, the only one.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input: :math:`(N, C_\text{in}, L)` or :math:`(C_\text{in}, L)`; ``output_size``, optional:
          the wanted length of the output, instead of ``output_padding``.
        - Output: :math:`(N, C_\text{out}, L')` or :math:`(C_\text{out}, L')` with
          :math:`L' = (L - 1) \, \text{stride} - 2 \, \text{padding} + \text{dilation} \,
          (\text{kernel\_size} - 1) + \text{output\_padding} + 1`.

    Attributes:
        weight: :math:`(C_\text{in}, C_\text{out} / \text{groups}, \text{kernel\_size})`, from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{C_\text{out} / \text{groups} \cdot
            \text{kernel\_size}}`.
        bias: :math:`(C_\text{out})`, from the same distribution, or None.

    Raises:
        ArgumentError: an option that cannot be; (on the call) too large an ``output_padding`` or an
            ``output_size`` out of reach.
        ShapeError: (on the call) a wrong rank or number of channels, or an empty output.
        DTypeError: (on the call) the input has another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> up = nn.ConvTranspose1d(4, 2, 3, stride=2, padding=1)
        >>> up(jnp.ones((1, 4, 5))).shape, up(jnp.ones((1, 4, 5)), output_size=[10]).shape
        ((1, 2, 9), (1, 2, 10))

    References:
        torch.nn.ConvTranspose1d
    """

    _ndim = 1
    _function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTransposeNd):
    r"""Transposed convolution over two axes. :class:`ConvTranspose1d` has the formula.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        kernel_size: height and width of the kernel, one integer or two, as are all sizes here.
        stride: distance in the output between two neighbours of the input.
        padding: elements cut off both ends of each axis of the output.
        output_padding: elements added to the right end of each axis.
        groups: number of blocks of channels that do not see each other.
        bias: whether a bias is added.
        dilation: distance in the output between the elements of the kernel.
        padding_mode: ``'zeros'``, the only one.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input: :math:`(N, C_\text{in}, H, W)` or :math:`(C_\text{in}, H, W)`; ``output_size``,
          optional: the wanted size of the output, instead of ``output_padding``.
        - Output: :math:`(N, C_\text{out}, H', W')` or :math:`(C_\text{out}, H', W')`, each size as
          in :class:`ConvTranspose1d`.

    Attributes:
        weight: :math:`(C_\text{in}, C_\text{out} / \text{groups}, K_H, K_W)`, initialised as in
            :class:`ConvTranspose1d`.
        bias: :math:`(C_\text{out})` or None.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`ConvTranspose1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ConvTranspose2d(16, 8, 2, stride=2)(jnp.ones((1, 16, 7, 7))).shape
        (1, 8, 14, 14)

    References:
        torch.nn.ConvTranspose2d
    """

    _ndim = 2
    _function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTransposeNd):
    r"""Transposed convolution over three axes. :class:`ConvTranspose1d` has the formula.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        kernel_size: depth, height and width of the kernel, one integer or three, as are all sizes
            here.
        stride: distance in the output between two neighbours of the input.
        padding: elements cut off both ends of each axis of the output.
        output_padding: elements added to the right end of each axis.
        groups: number of blocks of channels that do not see each other.
        bias: whether a bias is added.
        dilation: distance in the output between the elements of the kernel.
        padding_mode: ``'zeros'``, the only one.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.

    Shape:
        - Input: :math:`(N, C_\text{in}, D, H, W)` or :math:`(C_\text{in}, D, H, W)`;
          ``output_size``, optional: the wanted size of the output, instead of ``output_padding``.
        - Output: :math:`(N, C_\text{out}, D', H', W')` or :math:`(C_\text{out}, D', H', W')`, each
          size as in :class:`ConvTranspose1d`.

    Attributes:
        weight: :math:`(C_\text{in}, C_\text{out} / \text{groups}, K_D, K_H, K_W)`, initialised as
            in :class:`ConvTranspose1d`.
        bias: :math:`(C_\text{out})` or None.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`ConvTranspose1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ConvTranspose3d(2, 3, 2, stride=2, bias=False)(jnp.ones((2, 4, 4, 4))).shape
        (3, 8, 8, 8)

    References:
        torch.nn.ConvTranspose3d
    """

    _ndim = 3
    _function = staticmethod(F.conv_transpose3d)
