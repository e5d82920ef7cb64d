"""Layers for max pooling over windows at random places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax

from funcnets import functional as F
from funcnets._args import ntuple
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._window import flag
from funcnets.functional.pool_fractional import ratios

__all__ = ["FractionalMaxPool2d", "FractionalMaxPool3d"]


class _FractionalMaxPoolNd(Module):
    """Maximum over windows at random places; subclasses say in how many dimensions."""

    _ndim: ClassVar[int]
    _function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        output_size: int | Sequence[int] | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: jax.Array | None = None,
    ) -> None:
        super().__init__()
        n = self._ndim
        if (output_size is None) == (output_ratio is None):
            got = "neither" if output_size is None else "both"
            raise ArgumentError(
                f"{type(self).__name__} takes either output_size or output_ratio, but got {got}"
            )
        self.kernel_size = ntuple("kernel_size", kernel_size, n, minimum=1)
        self.return_indices = flag("return_indices", return_indices)
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None
        self.output_ratio = None
        if output_size is not None:
            self.output_size = ntuple("output_size", output_size, n, minimum=0)
        else:
            self.output_ratio = ratios("output_ratio", output_ratio, n)
            if max(self.output_ratio) >= 1:
                raise ArgumentError(
                    f"output_ratio must be between 0 and 1, but got {output_ratio!r}"
                )

    def forward(self, input: jax.Array) -> Any:
        samples = self._random_samples
        rng = self.make_rng() if samples is None else None
        sizes = (self.kernel_size, self.output_size, self.output_ratio)
        return self._function(input, *sizes, self.return_indices, samples, rng=rng)


class FractionalMaxPool2d(_FractionalMaxPoolNd):
    r"""Maximum over windows that begin at pseudo-random places of an image.

    Along an axis of :math:`n` elements, :math:`m` windows of :math:`k` elements begin at

    .. math::
        a_i = \lfloor (i + u) \, \alpha \rfloor - \lfloor u \, \alpha \rfloor, \quad
        \alpha = \frac{n - k}{m - 1}, \quad a_{m-1} = n - k

    with :math:`u` uniform in :math:`[0, 1)`, drawn anew in every call, in training and in
    evaluation, for each sample, channel and axis.

    Args:
        kernel_size: size of the windows, one integer or two.
        output_size: the size of the output, one integer or two.
        output_ratio: the size of the output as a part of that of the input, between 0 and 1, one
            number or two. Either this or ``output_size``.
        return_indices: whether to return the places of the maxima in the flattened
            :math:`(H, W)`, too, for :class:`MaxUnpool2d`.
        _random_samples: the numbers :math:`u` for every call, :math:`(N, C, 2)`.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point.
        - Output: :math:`(N, C, H', W')` or :math:`(C, H', W')`.

    Raises:
        ArgumentError: both or none of ``output_size`` and ``output_ratio``, or an option that
            cannot be.
        ShapeError: (on the call) a wrong rank or an empty axis, or windows that do not fit.
        RngError: (on the call, in a pure call) there is no ``rng``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.FractionalMaxPool2d(3, output_ratio=(0.5, 0.25))(jnp.ones((2, 3, 20, 16))).shape
        (2, 3, 10, 4)

    References:
        Graham, Fractional Max-Pooling, 2014. torch.nn.FractionalMaxPool2d
    """

    _ndim = 2
    _function = staticmethod(F.fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPoolNd):
    r"""Maximum over windows at random places of a volume; see :class:`FractionalMaxPool2d`.

    Args:
        kernel_size: size of the windows, one integer or three.
        output_size: the size of the output, one integer or three.
        output_ratio: the size of the output as a part of that of the input, between 0 and 1, one
            number or three. Either this or ``output_size``.
        return_indices: whether to return the places of the maxima in the flattened
            :math:`(D, H, W)`, too, for :class:`MaxUnpool3d`.
        _random_samples: the numbers :math:`u` for every call, :math:`(N, C, 3)`.

    Shape:
        - Input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`, floating point.
        - Output: :math:`(N, C, D', H', W')` or :math:`(C, D', H', W')`.

    Raises:
        ArgumentError, ShapeError, RngError: as :class:`FractionalMaxPool2d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.FractionalMaxPool3d(2, output_size=(3, 5, 5))(jnp.ones((2, 3, 6, 9, 9))).shape
        (2, 3, 3, 5, 5)

    References:
        torch.nn.FractionalMaxPool3d
    """

    _ndim = 3
    _function = staticmethod(F.fractional_max_pool3d)
