"""Layers that learn the number of input channels from their first input (``core/lazy.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax

from funcnets._args import require_ndim
from funcnets.core.lazy import (
    LazyModuleMixin,
    UninitializedBuffer,
    UninitializedParameter,
    is_lazy,
)
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, ShapeError
from funcnets.nn.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from funcnets.nn.conv import Conv1d, Conv2d, Conv3d
from funcnets.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from funcnets.nn.linear import Linear

__all__ = [
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
]

#: The cells of the classes here whose shapes are known without an input.
_KNOWN = ("num_batches_tracked",)

_DOC = """A :class:`%(becomes)s` that learns ``%(channels)s`` from its first input.

    Until then its cells have no shape (``nn.UninitializedParameter``, ``nn.UninitializedBuffer``).
    The first call, also one under ``fn.jit``, ``fn.eval_shape`` or a gradient, settles the shapes and
    makes the layer a :class:`%(becomes)s`; the values are drawn when they are first read. In the pure
    face an example does it: ``functionalize(model).init(key, example)``. A state_dict settles the
    shapes, too.

    Args:
        %(args)s

    Shape:
        - Input and output: as :class:`%(becomes)s`.

    Raises:
        ArgumentError: an option that cannot be.
        ShapeError: (on reading a cell) its shape is not known yet; (on the first call) an input of
            another rank, or one that does not fit what was loaded.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> layer = nn.Lazy%(becomes)s(%(make)s)
        >>> layer.weight
        <UninitializedParameter>
        >>> layer(jnp.ones(%(example)s)).shape
        %(output)s
        >>> type(layer).__name__, layer.%(channels)s
        ('%(becomes)s', 3)

    References:
        torch.nn.Lazy%(becomes)s
    """


class _Lazy(LazyModuleMixin):
    """What the layers here share: one number is unknown, and every cell depends on it."""

    #: The name of the unknown number.
    _unknown: ClassVar[str]

    def _unsettle(self, device: Any, dtype: Any) -> None:
        """Take the shapes of the cells away."""
        where = {"device": device, "dtype": dtype}
        for name, cell in self._parameters.items():
            if cell is not None:
                self._parameters[name] = UninitializedParameter(**where)
        for name, cell in self._buffers.items():
            if cell is not None and name not in _KNOWN:
                self._buffers[name] = UninitializedBuffer(**where)

    def _size(self, input: jax.Array) -> int:
        """The unknown number, from the first input."""
        raise NotImplementedError

    def _shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the cells, from the unknown number."""
        raise NotImplementedError

    def initialize_parameters(self, input: jax.Array, *args: Any, **kwargs: Any) -> None:
        """Settle the shapes; cells that a state_dict settled keep their values, and must fit."""
        size = self._size(input)
        cells = {name: (getattr(self, name), shape) for name, shape in self._shapes(size).items()}
        cells = {name: pair for name, pair in cells.items() if pair[0] is not None}
        loaded = {name: cell for name, (cell, _) in cells.items() if not is_lazy(cell)}
        for name, cell in loaded.items():
            if cell.shape != cells[name][1]:
                raise ShapeError(
                    f"the input has {size} channels, for which {name} must have shape {cells[name][1]}, but the one "
                    f"that was loaded has shape {cell.shape}"
                )
        setattr(self, self._unknown, size)
        for cell, shape in cells.values():
            if is_lazy(cell):
                cell.materialize(shape)
        if len(loaded) < len(cells):
            values = {name: cell.data for name, cell in loaded.items()}
            self.reset_parameters()
            self.load_state_dict(values, strict=False)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, once their shapes are known."""
        if not self.has_uninitialized_params() and getattr(self, self._unknown) != 0:
            super().reset_parameters()  # pyright: ignore[reportAttributeAccessIssue]


class LazyLinear(_Lazy, Linear):
    __doc__ = _DOC % {
        "becomes": "Linear",
        "channels": "in_features",
        "args": """out_features: size of the last axis of the output.
        bias: whether there is a bias.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default.""",
        "make": "4",
        "example": "(2, 3)",
        "output": "(2, 4)",
    }
    cls_to_become = Linear
    _unknown = "in_features"

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(0, out_features, bias, device, dtype)
        self._unsettle(device, dtype)

    def _size(self, input: jax.Array) -> int:
        return input.shape[-1]

    def _shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.out_features, size), "bias": (self.out_features,)}


# --- convolutions -----------------------------------------------------------------------------

_CONV_ARGS = """out_channels: number of channels of the output.
        kernel_size: as :class:`%(becomes)s`, and so the other arguments.
        stride: step of the kernel.
        padding: elements added on both sides.%(before)s
        groups: number of blocks of channels that do not see each other.
        bias: whether there is a bias.%(after)s
        padding_mode: what is added at the borders.
        device: where the parameters are placed.
        dtype: dtype of the parameters, float32 by default."""
_DILATION = "\n        dilation: distance between the elements of the kernel."
_OUTPUT_PADDING = "\n        output_padding: elements added to the end of the output."


def _conv_doc(n: int, transposed: bool = False) -> str:
    becomes = f"Conv{'Transpose' * transposed}{n}d"
    before, after = (_OUTPUT_PADDING, _DILATION) if transposed else (_DILATION, "")
    size = 7 if transposed else 3
    return _DOC % {
        "becomes": becomes,
        "channels": "in_channels",
        "args": _CONV_ARGS % {"becomes": becomes, "before": before, "after": after},
        "make": "4, 3",
        "example": str((2, 3) + (5,) * n),
        "output": str((2, 4) + (size,) * n),
    }


class _LazyConvBase(_Lazy):
    """A convolution of either kind."""

    _unknown = "in_channels"
    _ndim: ClassVar[int]
    transposed: ClassVar[bool]
    out_channels: int
    kernel_size: tuple[int, ...]
    groups: int

    def _size(self, input: jax.Array) -> int:
        n = self._ndim
        require_ndim("input", input, (n + 1, n + 2), f"for {type(self).__name__}")
        channels = input.shape[-n - 1]
        if channels % self.groups:
            raise ArgumentError(
                f"in_channels must be divisible by groups, but the input has {channels} channels and "
                f"groups={self.groups}"
            )
        return channels

    def _shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        ends = (size, self.out_channels) if self.transposed else (self.out_channels, size)
        weight = (ends[0], ends[1] // self.groups, *self.kernel_size)
        return {"weight": weight, "bias": (self.out_channels,)}


class _LazyConvNd(_LazyConvBase):
    def __init__(
        self,
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
        super().__init__(
            0, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip
        self._unsettle(device, dtype)


class LazyConv1d(_LazyConvNd, Conv1d):
    __doc__ = _conv_doc(1)
    cls_to_become = Conv1d


class LazyConv2d(_LazyConvNd, Conv2d):
    __doc__ = _conv_doc(2)
    cls_to_become = Conv2d


class LazyConv3d(_LazyConvNd, Conv3d):
    __doc__ = _conv_doc(3)
    cls_to_become = Conv3d


class _LazyConvTransposeNd(_LazyConvBase):
    def __init__(
        self,
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
        super().__init__(
            0, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation,
            padding_mode, device, dtype,
        )  # fmt: skip
        self._unsettle(device, dtype)


class LazyConvTranspose1d(_LazyConvTransposeNd, ConvTranspose1d):
    __doc__ = _conv_doc(1, True)
    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConvTransposeNd, ConvTranspose2d):
    __doc__ = _conv_doc(2, True)
    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyConvTransposeNd, ConvTranspose3d):
    __doc__ = _conv_doc(3, True)
    cls_to_become = ConvTranspose3d


# --- batch and instance normalisation ---------------------------------------------------------


def _norm_doc(becomes: type[Module], rank: int) -> str:
    shape = str((2, 3) + (5,) * (rank - 2))
    return _DOC % {
        "becomes": becomes.__name__,
        "channels": "num_features",
        "args": f"""eps: as :class:`{becomes.__name__}`, and so the other arguments, except that here both of
            ``affine`` and ``track_running_stats`` are True by default.
        momentum: weight of the newest batch in the running averages.
        affine: whether there are a weight and a bias.
        track_running_stats: whether running averages are kept.
        device: where parameters and buffers are placed.
        dtype: their dtype, float32 by default.
        bias: whether there is a bias, if ``affine``.""",
        "make": "",
        "example": shape,
        "output": shape,
    }


class _LazyNorm(_Lazy):
    _unknown = "num_features"
    _ranks: tuple[int, ...]
    _check_input_dim: Any

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        options = (eps, momentum, affine, track_running_stats, device, dtype)
        super().__init__(0, *options, bias=bias)
        self._unsettle(device, dtype)

    def _size(self, input: jax.Array) -> int:
        self._check_input_dim(input)
        return input.shape[self._channel_axis(input)]

    def _channel_axis(self, input: jax.Array) -> int:
        return 1

    def _shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (size,))


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    __doc__ = _norm_doc(BatchNorm1d, 3)
    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    __doc__ = _norm_doc(BatchNorm2d, 4)
    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    __doc__ = _norm_doc(BatchNorm3d, 5)
    cls_to_become = BatchNorm3d


class _LazyInstanceNorm(_LazyNorm):
    def _channel_axis(self, input: jax.Array) -> int:
        return input.ndim - self._ranks[0]


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):
    __doc__ = _norm_doc(InstanceNorm1d, 3)
    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):
    __doc__ = _norm_doc(InstanceNorm2d, 4)
    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):
    __doc__ = _norm_doc(InstanceNorm3d, 5)
    cls_to_become = InstanceNorm3d
