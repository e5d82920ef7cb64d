"""``state_dict`` and ``load_state_dict`` with PyTorch's keys, hooks, result object and error text.

Loading takes torch tensors as they are (torch itself is not imported) and NumPy or JAX arrays. It
first collects everything and changes the module only when all of it fits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from funcnets.core import frame as frames
from funcnets.core.cell import Cell
from funcnets.core.convert import as_array, refuse_tracer
from funcnets.core.hooks import RemovableHandle, add_hook
from funcnets.errors import DTypeError, StateDictError, StateLeakError

__all__ = ["IncompatibleKeys", "StateDict"]

_EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` left out on either side."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    __str__ = __repr__


class _Loading(OrderedDict[str, Any]):
    """A state_dict that is being loaded, with the assignments collected so far."""

    assignments: list[Callable[[], None]]
    extras: list[Callable[[], None]]
    _metadata: Any


class StateDict:
    """The part of ``Module`` that saves and loads."""

    _version: int = 1
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _state_dict_hooks: dict[int, Callable[..., Any]]
    _state_dict_pre_hooks: dict[int, Callable[..., Any]]
    _load_state_dict_pre_hooks: dict[int, Callable[..., Any]]
    _load_state_dict_post_hooks: dict[int, Callable[..., Any]]

    # --- hooks ---

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before ``state_dict`` collects this module."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` after this module was collected."""
        return add_hook(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)`` first."""
        return add_hook(self._load_state_dict_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` last; it may change the two lists in place."""
        return add_hook(self._load_state_dict_post_hooks, hook)

    # --- saving ---

    def get_extra_state(self) -> Any:
        """Override, with ``set_extra_state``, to save something that is not an array."""
        raise StateDictError("get_extra_state is not defined for this module")

    def set_extra_state(self, state: Any) -> None:
        """Override, with ``get_extra_state``, to load what that returned."""
        raise StateDictError("set_extra_state is not defined for this module")

    def _persistent_cells(self) -> dict[str, Cell]:
        cells = {
            **self._parameters,
            **{n: b for n, b in self._buffers.items() if b is not None and b.persistent},
        }
        return {name: cell for name, cell in cells.items() if cell is not None}

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for name, cell in self._persistent_cells().items():
            destination[prefix + name] = cell if keep_vars or not cell.settled else cell.data
        if type(self).get_extra_state is not StateDict.get_extra_state:
            destination[prefix + _EXTRA] = self.get_extra_state()

    def state_dict(
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers under their dotted names, tied ones under each name.

        Args:
            destination: a mapping to add to instead of a new one.
            prefix: put before every name.
            keep_vars: give the ``Parameter`` and ``Buffer`` objects instead of arrays.

        Returns:
            An ordered mapping of names to arrays.

        Examples:
            >>> from funcnets import nn
            >>> list(nn.Linear(2, 3).state_dict())
            ['weight', 'bias']

        References:
            torch.nn.Module.state_dict
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in self._state_dict_hooks.values():
            if hook(self, destination, prefix, metadata) is not None:
                raise StateDictError(
                    "a state_dict post-hook must return None: change the state_dict in place"
                )
        return destination

    # --- loading ---

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Take over the values of a state_dict: of this library's, of PyTorch's, or of plain arrays.

        Args:
            state_dict: names to JAX or NumPy arrays or torch tensors.
            strict: whether every name must be on both sides.
            assign: keep the dtype of the state_dict instead of converting to the module's.

        Returns:
            The ``missing_keys`` and ``unexpected_keys``.

        Raises:
            StateDictError: names are missing or unexpected (if ``strict``) or shapes differ; all of
                them are listed, and the module is unchanged.
            DTypeError: ``state_dict`` is not a mapping.

        Examples:
            >>> import numpy as np
            >>> from funcnets import nn
            >>> nn.Linear(2, 1).load_state_dict({"weight": np.ones((1, 2)), "bias": np.zeros(1)})
            <All keys matched successfully>

        References:
            torch.nn.Module.load_state_dict
        """
        if not isinstance(state_dict, Mapping):
            raise DTypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        if frames.current() is not None:
            raise StateLeakError("load_state_dict was called inside a call: load outside")
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None)
        loading = _Loading(state_dict)
        loading.assignments, loading.extras = [], []
        if metadata is not None:
            loading._metadata = metadata

        def load(module: Any, loading: _Loading, prefix: str) -> None:
            local = dict((metadata or {}).get(prefix[:-1], {}))
            if assign:
                local["assign_to_params_buffers"] = True
            # As in torch, the collecting is always strict and the verdict is not, so that the
            # result lists what strict=False skipped.
            module._load_from_state_dict(loading, prefix, local, True, missing, unexpected, errors)
            for name, child in module._modules.items():
                if child is not None:
                    below = f"{prefix}{name}."
                    own = _Loading((k, v) for k, v in loading.items() if k.startswith(below))
                    own.assignments, own.extras = loading.assignments, loading.extras
                    load(child, own, below)
            for hook in module._load_state_dict_post_hooks.values():
                if hook(module, IncompatibleKeys(missing, unexpected)) is not None:
                    raise StateDictError(
                        "a load_state_dict post-hook must return None: change the lists of keys in place"
                    )

        load(self, loading, "")
        if strict:
            for keys, word in ((unexpected, "Unexpected"), (missing, "Missing")):
                if keys:
                    listed = ", ".join(f'"{key}"' for key in keys)
                    errors.insert(0, f"{word} key(s) in state_dict: {listed}. ")
        if errors:
            listed = "\n\t".join(errors)
            raise StateDictError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{listed}"
            )
        # What may fail, a module's own set_extra_state, comes before anything has changed.
        for assignment in (*loading.extras, *loading.assignments):
            assignment()
        return IncompatibleKeys(missing, unexpected)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Collect what this module, without its children, takes from ``state_dict``."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(
                self,
                state_dict,
                prefix,
                local_metadata,
                strict,
                missing_keys,
                unexpected_keys,
                error_msgs,
            )
        cells = self._persistent_cells()
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, cell in cells.items():
            key = prefix + name
            if key in state_dict:
                self._collect(state_dict, key, cell, assign, error_msgs)
            elif strict:
                missing_keys.append(key)
        extra = prefix + _EXTRA
        if type(self).set_extra_state is not StateDict.set_extra_state:
            if extra in state_dict:
                value = state_dict[extra]
                state_dict.extras.append(lambda: self.set_extra_state(value))
            elif strict:
                missing_keys.append(extra)
        elif strict and extra in state_dict:
            unexpected_keys.append(extra)
        for key in state_dict if strict else ():
            if key.startswith(prefix) and key != extra:
                first, _, rest = key[len(prefix) :].partition(".")
                if first not in (self._modules if rest else cells):
                    unexpected_keys.append(key)

    def _collect(
        self, state_dict: Any, key: str, cell: Cell, assign: bool, errors: list[str]
    ) -> None:
        value = state_dict[key]
        if _unsettled(value):
            if cell.settled:
                errors.append(
                    f"{key} is uninitialized in checkpoint: a lazy module that saw no input yet was saved"
                )
            return
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            errors.append(
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object '
                f"from checkpoint but received {type(value)}"
            )
            return
        shape = tuple(value.shape)
        if cell.settled and cell.shape == () and shape == (1,):
            value, shape = value[0], ()
        if cell.settled and shape != cell.shape:
            errors.append(
                f"size mismatch for {key}: copying a param with shape torch.Size({list(shape)}) from checkpoint, "
                f"the shape in current model is torch.Size({list(cell.shape)})."
            )
            return
        array = as_array(value, None if assign else cell.dtype)
        try:
            cell.check_dtype(array.dtype)
        except DTypeError:
            errors.append(
                f'While copying the parameter named "{key}", whose dimensions in the model are '
                f"torch.Size({list(shape)}) and whose dimensions in the checkpoint are torch.Size({list(shape)}), "
                "an exception occurred : ('Only Tensors of floating point and complex dtype can require gradients',)."
            )
            return
        refuse_tracer(array, f'loading "{key}"')
        state_dict.assignments.append(lambda: store(cell, array))


def _unsettled(value: Any) -> bool:
    """Whether ``value`` is a parameter that waits for its shape, ours or torch's."""
    try:
        return value.shape is None
    except RuntimeError:  # what both raise
        return True
    except AttributeError:
        return False


def store(cell: Cell, array: jax.Array) -> None:
    """Put a loaded value into a cell; its initial value for ``init`` stays what it was."""
    cell._describe(array.shape, array.dtype)
    # A copy only if somebody else holds the memory, which a donated step would otherwise reuse;
    # the cell notes that, so nothing is copied here.
    array = jnp.asarray(array)
    before: Any = cell._value
    if before is not None and cell._placement is None and before.shape == array.shape:
        on_mesh = [isinstance(value.sharding, NamedSharding) for value in (before, array)]
        if on_mesh == [True, False]:  # where somebody has put the value, but not the cell
            array = jax.device_put(array, before.sharding)
    cell._set(array)
