"""Classification losses as layers, and the base of all losses.

A loss has no parameters; class and element weights are buffers, as in PyTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from funcnets import functional as F
from funcnets._args import as_int
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._loss import resolve_reduction
from funcnets.functional._numeric import number

__all__ = ["BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "NLLLoss", "NLLLoss2d"]


class Loss(Module):
    """Base of the losses, which differ in a function and in its options, kept as attributes."""

    _function: ClassVar[Callable[..., jax.Array]]
    _options: ClassVar[tuple[str, ...]] = ()
    _reductions: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.reduction = resolve_reduction(
            size_average, reduce, reduction, extra=self._reductions, stacklevel=4
        )

    def forward(self, input: jax.Array, target: jax.Array) -> jax.Array:
        return self.compute(input, target)

    def compute(self, *arrays: Any) -> jax.Array:
        """The function of ``arrays``, the options and the reduction."""
        options = {name: getattr(self, name) for name in self._options}
        return self._function(*arrays, **options, reduction=self.reduction)


class WeightedLoss(Loss):
    """Base of the losses with one factor for each class or element, which is a buffer."""

    _options = ("weight",)

    def __init__(
        self,
        weight: jax.Array | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(WeightedLoss):
    r"""Cross entropy between logits and classes, given as indices or as probabilities.

    .. math::
        \ell = -\sum_c w_c \, q_c \log \frac{e^{x_c}}{\sum_k e^{x_k}}, \quad
        q_c = (1 - \epsilon) \, y_c + \frac{\epsilon}{C}

    where :math:`y` is the target, one-hot for an index, and :math:`\epsilon` the label smoothing.
    The mean over indices divides by the summed weights of the targets that are not ignored; the
    mean over probabilities divides by their number of positions. Half precision is summed in
    float32.

    Args:
        weight: one weight a class, :math:`(C)`.
        size_average: deprecated, see ``reduction``.
        ignore_index: the index that does not contribute. For indices only.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        label_smoothing: the share of the uniform distribution in the target, in [0, 1].

    Shape:
        - input: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, \ldots, d_K)`, floating point.
        - target: integers of the shape of the input without its class axis, in :math:`[0, C)`; or
          floating point of the shape of the input. An index outside the range that is not
          ``ignore_index`` gives NaN.
        - output: a number; with ``reduction='none'`` the shape of the input without its class axis.

    Attributes:
        weight: a buffer, or None.

    Raises:
        ArgumentError: ``reduction`` or ``label_smoothing`` is not valid.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> criterion = nn.CrossEntropyLoss()
        >>> round(float(criterion(jnp.zeros((3, 4)), jnp.array([0, 1, 3]))), 4)
        1.3863

    References:
        torch.nn.CrossEntropyLoss
    """

    _function = staticmethod(F.cross_entropy)
    _options = ("weight", "ignore_index", "label_smoothing")

    def __init__(
        self,
        weight: jax.Array | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = as_int("ignore_index", ignore_index)
        self.label_smoothing = number("label_smoothing", label_smoothing)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ArgumentError(
                f"label_smoothing must be between 0 and 1, but got {label_smoothing}"
            )


class NLLLoss(WeightedLoss):
    r"""Negative log likelihood: picks the log-probability of each target class.

    .. math:: \ell = -w_{y} \, x_{y}

    The mean divides by the summed weights of the targets that are not ignored.

    Args:
        weight: one weight a class, :math:`(C)`.
        size_average: deprecated, see ``reduction``.
        ignore_index: the index that does not contribute.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: log-probabilities, :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, \ldots, d_K)`.
        - target: integers of the shape of the input without its class axis, in :math:`[0, C)`. An
          index outside the range that is not ``ignore_index`` gives NaN.
        - output: a number; with ``reduction='none'`` the shape of the target.

    Attributes:
        weight: a buffer, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> log_prob = nn.LogSoftmax(dim=1)(jnp.zeros((2, 4)))
        >>> round(float(nn.NLLLoss()(log_prob, jnp.array([0, 3]))), 4)
        1.3863

    References:
        torch.nn.NLLLoss
    """

    _function = staticmethod(F.nll_loss)
    _options = ("weight", "ignore_index")

    def __init__(
        self,
        weight: jax.Array | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = as_int("ignore_index", ignore_index)


class NLLLoss2d(NLLLoss):
    """:class:`NLLLoss` under a deprecated name: it warns, and takes the same shapes and arguments.

    References:
        torch.nn.NLLLoss2d
    """

    def __init__(
        self,
        weight: jax.Array | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        warnings.warn("NLLLoss2d is deprecated: write NLLLoss", FutureWarning, stacklevel=2)
        super().__init__(weight, size_average, ignore_index, reduce, reduction)


class BCELoss(WeightedLoss):
    r"""Cross entropy between probabilities of two outcomes.

    .. math:: \ell = -w \, (y \log x + (1 - y) \log(1 - x))

    Both logarithms are at least -100. :class:`BCEWithLogitsLoss` is more accurate.

    Args:
        weight: a factor for each element, which broadcasts to the input.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: any, probabilities. One outside [0, 1] gives NaN.
        - target: as the input, in its dtype.
        - output: a number; with ``reduction='none'`` as the input.

    Attributes:
        weight: a buffer, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.BCELoss()(jnp.array([0.0]), jnp.array([1.0])).item()
        100.0

    References:
        torch.nn.BCELoss
    """

    _function = staticmethod(F.binary_cross_entropy)


class BCEWithLogitsLoss(WeightedLoss):
    r"""Sigmoid and binary cross entropy in one, which neither overflows nor saturates.

    .. math:: \ell = -w \, (p \, y \log \sigma(x) + (1 - y) \log(1 - \sigma(x)))

    Args:
        weight: a factor for each element, which broadcasts to the input.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        pos_weight: the factor :math:`p` of the positive part, which broadcasts likewise.

    Shape:
        - input: any, logits.
        - target: as the input, floating point, in [0, 1].
        - output: a number; with ``reduction='none'`` as the input.

    Attributes:
        weight: a buffer, or None.
        pos_weight: a buffer, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> x, y = jnp.array([-1000.0, 1000.0]), jnp.array([1.0, 1.0])
        >>> nn.BCEWithLogitsLoss()(x, y).item()
        500.0

    References:
        torch.nn.BCEWithLogitsLoss
    """

    _function = staticmethod(F.binary_cross_entropy_with_logits)
    _options = ("weight", "pos_weight")

    def __init__(
        self,
        weight: jax.Array | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: jax.Array | None = None,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.register_buffer("pos_weight", pos_weight)
