"""Normalisation over a batch, or over each channel of a sample, with running averages as buffers."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from funcnets import functional as F
from funcnets._args import channel_axis_check, positive, require_ndim
from funcnets.core.cell import Buffer, Parameter
from funcnets.core.lazy import is_lazy
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._numeric import real
from funcnets.functional.batchnorm import normalise_batch
from funcnets.nn import init

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "SyncBatchNorm",
]


class _NormBase(Module):
    """The parameters and buffers of batch and instance normalisation."""

    _version = 2
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any
    #: The ranks of the inputs that the class takes.
    _ranks: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = positive("num_features", num_features, minimum=0)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        where = {"device": device, "dtype": dtype}
        for name, present in (("weight", affine), ("bias", affine and bias)):
            cell = Parameter((num_features,), **where) if present else None
            self.register_parameter(name, cell)
        for name in ("running_mean", "running_var"):
            self.register_buffer(
                name, Buffer((num_features,), **where) if track_running_stats else None
            )
        counter = jax.dtypes.canonicalize_dtype("int64")
        self.register_buffer(
            "num_batches_tracked",
            Buffer((), dtype=counter, device=device) if track_running_stats else None,
        )
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the running variance to 1 and the counter to 0."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Set the running statistics back, the weight to 1 and the bias to 0."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def _check_input_dim(self, input: jax.Array) -> None:
        require_ndim("input", input, self._ranks, f"for {type(self).__name__}")

    def _track(self, mean: jax.Array, var: jax.Array, count: Any, momentum: Any) -> None:
        running = self.running_mean, self.running_var
        moved = F.running_average(*running, mean, var, count, momentum)
        self.running_mean, self.running_var = moved

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        # Checkpoints of PyTorch before version 2 of this layer have no counter.
        key, counter = prefix + "num_batches_tracked", self._buffers["num_batches_tracked"]
        old = (local_metadata.get("version") or 1) < 2
        if old and counter is not None and key not in state_dict:
            state_dict[key] = counter.data
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


class _BatchNorm(_NormBase):
    """The computation that the batch normalisations share."""

    def forward(self, input: jax.Array) -> jax.Array:
        input = real("input", input)
        self._check_input_dim(input)
        if self.weight is not None or self.running_mean is not None:
            channel_axis_check("input", input, 1, self.num_features, "num_features")
        if self.running_mean is not None and not self.training:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(input, mean, var, self.weight, self.bias, eps=self.eps)
        if self.eps <= 0:
            raise ArgumentError(f"eps must be positive in training, but got {self.eps}")
        axis_name = self._axis_name()
        if axis_name is None:
            out, mean, var, count = normalise_batch(input, self.weight, self.bias, self.eps)
        else:
            mean, var, count = F.batch_norm_stats(input, axis_name)
            out = F.batch_norm(input, mean, var, self.weight, self.bias, eps=self.eps)
        if self.running_mean is not None and self.track_running_stats:
            self._track(mean, var, count, self._next_momentum())
        return out

    def _next_momentum(self) -> Any:
        """Count the batch; without a momentum the k-th batch weighs 1 / k."""
        if self.num_batches_tracked is None:
            return self.momentum or 0.0
        self.num_batches_tracked = self.num_batches_tracked + 1
        if self.momentum is None:
            return 1 / self.num_batches_tracked.astype(jnp.float32)
        return self.momentum

    def _axis_name(self) -> str | tuple[str, ...] | None:
        """The mapped axes whose members hold parts of the batch."""
        return None


_BATCH_DOC = r"""Normalise each channel over a batch of %(what)s.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    In training :math:`\mu` and :math:`\sigma^2` are the mean and the biased variance of the batch, and
    running averages of the mean and of the unbiased variance are kept. In evaluation the running
    averages take their place.

    Args:
        num_features: number of channels :math:`C`.
        eps: :math:`\epsilon`, positive in training.
        momentum: :math:`m` in :math:`\hat\mu \leftarrow (1 - m)\,\hat\mu + m\,\mu`; None keeps the plain
            average of all batches.
        affine: whether there are a :math:`\gamma` and a :math:`\beta`.
        track_running_stats: whether running averages are kept; without them the statistics are
            those of the batch in evaluation, too.
        device: where parameters and buffers are placed.
        dtype: their dtype, float32 by default.
        bias: whether there is a :math:`\beta`, if ``affine``.

    Shape:
        - Input: %(shape)s.
        - Output: the same.

    Attributes:
        weight: :math:`\gamma`, :math:`(C)`, ones, or None.
        bias: :math:`\beta`, :math:`(C)`, zeros, or None.
        running_mean: :math:`(C)`, a buffer that starts at 0, or None.
        running_var: :math:`(C)`, a buffer that starts at 1, or None.
        num_batches_tracked: a buffer that counts the batches, or None.

    Raises:
        ArgumentError: ``num_features`` is not a non-negative integer.
        ShapeError: (on the call) an input of another rank or number of channels; in training, a
            single value per channel.
        ModeError: (on a pure call) neither training nor evaluation was asked for.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> norm = nn.%(name)s(3)
        >>> norm(jnp.ones(%(example)s)).shape
        %(example)s
        >>> norm.num_batches_tracked.item()
        1

    References:
        Ioffe and Szegedy, 2015; torch.nn.%(name)s
    """


class BatchNorm1d(_BatchNorm):
    __doc__ = _BATCH_DOC % {
        "what": "vectors or sequences",
        "shape": ":math:`(N, C)` or :math:`(N, C, L)`",
        "name": "BatchNorm1d",
        "example": "(8, 3, 5)",
    }
    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BATCH_DOC % {
        "what": "images",
        "shape": ":math:`(N, C, H, W)`",
        "name": "BatchNorm2d",
        "example": "(8, 3, 5, 5)",
    }
    _ranks = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = _BATCH_DOC % {
        "what": "volumes",
        "shape": ":math:`(N, C, D, H, W)`",
        "name": "BatchNorm3d",
        "example": "(8, 3, 2, 5, 5)",
    }
    _ranks = (5,)


class SyncBatchNorm(_BatchNorm):
    r"""Batch normalisation whose batch is spread over devices.

    Under ``jit`` with sharded arrays an array is whole, so that plain batch normalisation already is
    synchronised, and this layer is the same. It differs in code that is mapped over devices, as
    under ``jax.shard_map`` or ``jax.pmap``, and that sees its own part of the batch only: there
    ``process_group`` names the mapped axes over which the statistics are taken.

    Args:
        num_features: number of channels :math:`C`.
        eps: see :class:`BatchNorm1d`.
        momentum: see :class:`BatchNorm1d`.
        affine: see :class:`BatchNorm1d`.
        track_running_stats: see :class:`BatchNorm1d`.
        process_group: name, or tuple of names, of mapped axes whose members hold equal parts of the
            batch; None for the batch that the layer sees. Used in training only.
        device: where parameters and buffers are placed.
        dtype: their dtype, float32 by default.
        bias: whether there is a :math:`\beta`, if ``affine``.

    Shape:
        - Input: :math:`(N, C, *)`, with :math:`C > 0`.
        - Output: the same.

    Raises:
        ShapeError: (on the call) an input of another rank or number of channels.
        ArgumentError: (on the call) ``process_group`` names an axis that is not mapped there.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> norm = nn.SyncBatchNorm(3, momentum=0.5, process_group="data")
        >>> init, apply = fn.functionalize(norm)
        >>> params, state = init(jax.random.key(0))
        >>> parts = jnp.arange(24.0).reshape(2, 4, 3)  # the two halves of a batch of eight
        >>> call = lambda x: apply(params, state, x, training=True)
        >>> y, new_state = jax.vmap(call, axis_name="data", out_axes=(0, None))(parts)
        >>> new_state["running_mean"].tolist()
        [5.25, 5.75, 6.25]

    References:
        torch.nn.SyncBatchNorm
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: str | tuple[str, ...] | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        options = (eps, momentum, affine, track_running_stats, device, dtype)
        super().__init__(num_features, *options, bias=bias)
        names = process_group if isinstance(process_group, tuple) else (process_group,)
        if process_group is not None and not all(isinstance(name, str) for name in names):
            raise ArgumentError(
                "process_group must be the name or a tuple of names of mapped axes, or None, "
                f"but got {process_group!r}"
            )
        self.process_group = process_group

    def _check_input_dim(self, input: jax.Array) -> None:
        if input.ndim < 2:
            raise ShapeError(f"expected input of at least 2D, (N, C, *), but got {input.ndim}D")
        if input.shape[1] == 0:
            raise ShapeError("expected input with at least one channel, but got none")

    def _axis_name(self) -> str | tuple[str, ...] | None:
        if self.process_group is None:
            return None
        return self.process_group if self.training else None

    @classmethod
    def convert_sync_batchnorm(
        cls, module: Module, process_group: str | tuple[str, ...] | None = None
    ) -> Module:
        """Put a SyncBatchNorm in the place of every batch normalisation of a model.

        Args:
            module: changed in place, unless it is a batch normalisation itself.
            process_group: for the new layers, see the class.

        Returns:
            ``module``, or its replacement. Parameters and buffers are the very ones there were.

        Examples:
            >>> from funcnets import nn
            >>> model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
            >>> type(nn.SyncBatchNorm.convert_sync_batchnorm(model)[1]).__name__
            'SyncBatchNorm'

        Raises:
            ArgumentError: a lazy batch normalisation whose shapes are not known yet.
        """
        converted: dict[Module, Module] = {}

        def convert(old: Module) -> Module:
            if old in converted:
                return converted[old]
            new = converted[old] = cls._from(old, process_group)
            for name, child in old._modules.items():
                if child is not None:
                    new.add_module(name, convert(child))
            return new

        return convert(module)

    @classmethod
    def _from(cls, old: Module, process_group: str | tuple[str, ...] | None) -> Module:
        if not isinstance(old, _BatchNorm):
            return old
        if any(map(is_lazy, [*old._parameters.values(), *old._buffers.values()])):
            raise ArgumentError(
                f"{old} is not settled yet: convert a lazy batch normalisation after its first call"
            )
        options = (old.eps, old.momentum, old.affine, old.track_running_stats, process_group)
        new = cls(old.num_features, *options, bias=old.bias is not None)
        for home in (old._parameters, old._buffers):
            for name, cell in home.items():
                setattr(new, name, cell)
        new.training = old.training
        return new


class _InstanceNorm(_NormBase):
    """The computation that the instance normalisations share."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        options = (eps, momentum, affine, track_running_stats, device, dtype)
        super().__init__(num_features, *options, bias=bias)

    def forward(self, input: jax.Array) -> jax.Array:
        input = real("input", input)
        self._check_input_dim(input)
        self._check_channels(input)
        batched = input if input.ndim == self._ranks[1] else input[None]
        output = self._normalise(batched)
        return output if batched is input else output[0]

    def _normalise(self, input: jax.Array) -> jax.Array:
        mean, var, affine = self.running_mean, self.running_var, (self.weight, self.bias)
        if mean is not None and self.track_running_stats and not self.training:
            return F.instance_norm(input, mean, var, *affine, use_input_stats=False, eps=self.eps)
        if mean is not None:
            stats = F.instance_norm_stats(input)
            self._track(stats[0], stats[1], stats[2], self.momentum or 0.0)
        return F.instance_norm(input, None, None, *affine, eps=self.eps)

    def _check_channels(self, input: jax.Array) -> None:
        axis = input.ndim - self._ranks[0]
        if self.weight is not None or self.running_mean is not None:
            channel_axis_check("input", input, axis, self.num_features, "num_features")
        elif input.shape[axis] != self.num_features:
            warnings.warn(
                f"the input has {input.shape[axis]} channels and num_features={self.num_features}; "
                "without affine parameters and running statistics num_features is not used",
                stacklevel=4,
            )


_INSTANCE_DOC = r"""Normalise each channel of each sample of %(what)s.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    :math:`\mu` and :math:`\sigma^2` are the mean and the biased variance of one channel of one sample, in
    training and in evaluation, unless running averages are kept, which then serve in evaluation.

    Args:
        num_features: number of channels :math:`C`.
        eps: :math:`\epsilon`.
        momentum: weight of the newest batch in the running averages; None leaves them as they are.
        affine: whether there are a :math:`\gamma` and a :math:`\beta`.
        track_running_stats: whether running averages are kept.
        device: where parameters and buffers are placed.
        dtype: their dtype, float32 by default.
        bias: whether there is a :math:`\beta`, if ``affine``.

    Shape:
        - Input: %(shape)s.
        - Output: the same.

    Attributes:
        weight: :math:`\gamma`, :math:`(C)`, ones, or None.
        bias: :math:`\beta`, :math:`(C)`, zeros, or None.
        running_mean: :math:`(C)`, a buffer that starts at 0, or None.
        running_var: :math:`(C)`, a buffer that starts at 1, or None.
        num_batches_tracked: a buffer that stays 0, as in PyTorch, or None.

    Raises:
        ArgumentError: ``num_features`` is not a non-negative integer.
        ShapeError: (on the call) an input of another rank or number of channels, or a single value
            per channel and sample.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.%(name)s(3)(jnp.ones(%(example)s)).shape
        %(example)s

    References:
        Ulyanov et al., 2016; torch.nn.%(name)s
    """


class InstanceNorm1d(_InstanceNorm):
    __doc__ = _INSTANCE_DOC % {
        "what": "sequences",
        "shape": ":math:`(N, C, L)` or :math:`(C, L)`",
        "name": "InstanceNorm1d",
        "example": "(8, 3, 5)",
    }
    _ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = _INSTANCE_DOC % {
        "what": "images",
        "shape": ":math:`(N, C, H, W)` or :math:`(C, H, W)`",
        "name": "InstanceNorm2d",
        "example": "(8, 3, 5, 5)",
    }
    _ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = _INSTANCE_DOC % {
        "what": "volumes",
        "shape": ":math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`",
        "name": "InstanceNorm3d",
        "example": "(8, 3, 2, 5, 5)",
    }
    _ranks = (4, 5)
