"""Parametrizations: parameters that are functions of other, unconstrained ones.

``register_parametrization(layer, "weight", Symmetric())`` makes ``layer.weight`` the result of a module,
computed from ``layer.parametrizations.weight.original`` each time it is read. The names, the state_dict
and the text are PyTorch's. Everything is described only: if the weight had no value yet, it has none
afterwards, and ``functionalize(layer).init`` gives it what the plain layer's weight would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.cell import Buffer, Cell, Parameter
from funcnets.core.convert import as_array
from funcnets.core.derived import Derivation, Leaf, run_apart
from funcnets.core.layer import call_abstractly
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, ShapeError, UnsupportedError
from funcnets.nn.container import ModuleDict, ModuleList
from funcnets.nn.utils._computed import Parametrized, cached, class_before, compute, stop_computing

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]


# --- the list of parametrizations -------------------------------------------------------------


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def _unpacked(new: Any) -> tuple[list[Any], bool]:
    """``(arrays, whether it was a single one)`` of what ``right_inverse`` returned."""
    if _is_array(new):
        return [new], True
    if not isinstance(new, Sequence) or isinstance(new, str):
        raise ArgumentError(
            f"'right_inverse' must return an array or a list or tuple of arrays, but got {describe(new)}"
        )
    for i, item in enumerate(new):
        if not _is_array(item):
            raise ArgumentError(
                f"'right_inverse' must return an array or a list or tuple of arrays, but element {i} is "
                f"{describe(item)}"
            )
    return list(new), False


def _unchanged(what: str, before: Any, after: Any, dtype_only: bool = False) -> None:
    """Refuse an array of another dtype or shape."""
    if not hasattr(after, "dtype"):
        raise ArgumentError(f"{what} must return an array, but got {describe(after)}")
    if before.dtype != after.dtype or (before.shape != after.shape and not dtype_only):
        kept = "dtype" if dtype_only else "shape and dtype, unless registered with unsafe=True"
        raise ArgumentError(
            f"{what} must keep {kept}: it was given {describe(before)} and gave {describe(after)}"
        )


class _Inverse:
    """The unconstrained arrays that belong to the present value of a cell."""

    def __init__(self, modules: Sequence[Module], cell: Cell) -> None:
        self.modules, self.cell = modules, cell
        self.single = True

    def __call__(self) -> list[Any]:
        new: Any = self.cell.data
        for module in reversed(self.modules):
            if hasattr(module, "right_inverse"):
                try:
                    new = module.right_inverse(new)
                except NotImplementedError:  # then it counts as the identity
                    continue
        arrays, self.single = _unpacked(new)
        return [jnp.asarray(array) for array in arrays]


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and its unconstrained original; see ``register_parametrization``.

    If the ``right_inverse`` of the parametrizations gives one array, or there is none, the cell that was
    parametrized lives on as ``original``; if it gives several, ``original0``, ``original1``, ... are new.

    Args:
        modules: the parametrizations, the first one to be applied first.
        original: the Parameter or Buffer; its value becomes that of the unconstrained tensor.
        unsafe: whether the parametrized tensor may have another shape or dtype.

    Raises:
        ArgumentError: no modules, a ``right_inverse`` that returns something else than arrays, or
            a result of another shape or dtype.

    References:
        torch.nn.utils.parametrize.ParametrizationList
    """

    def __init__(self, modules: Sequence[Module], original: Cell, unsafe: bool = False) -> None:
        if len(modules) == 0:
            raise ArgumentError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        if not isinstance(original, Cell):
            original = Buffer(original)
        self.unsafe = unsafe
        inverse = _Inverse(list(modules), original)
        derived = Derivation(inverse, [original])
        count = len(derived.shapes) - len(derived.written)
        self.is_tensor, self.ntensors = inverse.single, count
        if inverse.single:
            _unchanged("right_inverse", original, derived.shapes[0], dtype_only=True)
        if not unsafe:
            result = call_abstractly(self._through, derived.shapes[:count], {})
            _unchanged("a parametrization", original, result)
        depth = {cell: path.count(".") + 1 for path, cell in self._cells()}
        if not all(cell in depth for cell in derived.written):
            raise ArgumentError(
                "right_inverse wrote a buffer that does not belong to the parametrization: register it there"
            )
        for i in range(count):
            cell = original if inverse.single else derived.cell_like(original, i)
            register(self, "original" if inverse.single else f"original{i}", cell)
            derived.give(cell, i, 1, ())
        for i, cell in enumerate(derived.written, count):
            derived.give(cell, i, depth[cell], ())

    def _originals(self) -> list[Cell]:
        """The cells of the unconstrained tensors."""
        names = ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]
        cells = {**self._parameters, **self._buffers}
        return [cells[name] for name in names]  # pyright: ignore[reportReturnType]

    def _settle_at(self, name: str) -> None:
        """Start from the initial value of the tensor ``name``, two levels up, rather than from one here."""
        draw = self._originals()[0].initializer.draw  # pyright: ignore[reportAttributeAccessIssue]
        for _, cell in self._cells():
            leaf = cell.initializer
            if isinstance(leaf, Leaf) and leaf.draw is draw:
                cell.initializer = leaf.moved(leaf.levels_up + 2, (name,))

    def _through(self, *originals: Any) -> Any:
        first, *others = self
        x = first(*originals)
        for module in others:
            x = module(x)
        return x

    def forward(self) -> jax.Array:
        """The parametrized tensor."""
        return self._through(*(cell.data for cell in self._originals()))

    def right_inverse(self, value: Any) -> None:
        """Choose the originals such that the parametrized tensor is ``value``.

        Args:
            value: an array.

        Raises:
            UnsupportedError: a parametrization has no ``right_inverse``.
            ArgumentError: it returns something else than at first.
        """
        for module in reversed(list(self)):
            if not hasattr(module, "right_inverse"):
                raise UnsupportedError(
                    f"parametrization {type(module).__name__} does not implement right_inverse, so that no value "
                    "can be assigned to what it computes"
                )

        def invert(new: Any) -> tuple[list[Any], bool]:
            for module in reversed(list(self)):
                new = module.right_inverse(new)
            return _unpacked(new)

        (arrays, single), written = run_apart(invert, as_array(value, None))
        if single != self.is_tensor or len(arrays) != self.ntensors:
            wanted = "one array" if self.is_tensor else f"a sequence of {self.ntensors} arrays"
            raise ArgumentError(f"'right_inverse' must return {wanted}, but got {describe(arrays)}")
        cells = self._originals()
        for cell, array in zip(cells, arrays, strict=True):
            _unchanged("right_inverse", cell, array, dtype_only=True)
        for cell, array in (*zip(cells, arrays, strict=True), *written.items()):
            cell.data = array


# --- registering and removing -----------------------------------------------------------------


def register(module: Module, name: str, cell: Cell) -> None:
    """Put a cell under a name into the dict of its kind."""
    if isinstance(cell, Parameter):
        module.register_parameter(name, cell)
    else:
        module.register_buffer(name, cell, cell.persistent)


def find_cell(module: Module, name: str) -> Cell:
    """The Parameter or Buffer of that name, of this module itself.

    Raises:
        ArgumentError: there is none.
        ShapeError: its shape is not known yet.
    """
    cell = module._parameters.get(name)
    cell = module._buffers.get(name) if cell is None else cell
    if cell is None:
        raise ArgumentError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name '{name}'"
        )
    if not cell.settled:
        raise ShapeError(
            f"the shape of '{name}' is not known yet: call the module, or fn.eval_shape(model, example), before "
            "its parameters are normalised or parametrized"
        )
    return cell


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    r"""Make a parameter or buffer a function of an unconstrained one.

    Reading ``module.weight`` (say) then gives ``parametrization(original)``, where ``original`` is
    trained in its place: the Parameter ``module.parametrizations.weight.original``. Several
    parametrizations of one tensor are applied in the order in which they were registered. Outside of a
    call ``module.weight`` is an array, not a Parameter.

    A parametrization is a Module. If it has a method ``right_inverse(weight)``, this gives the original
    that belongs to the present weight, or a tuple of several, which ``forward`` then takes as
    ``original0``, ``original1``, ... (these are new parameters: make the optimizer afterwards). If all
    parametrizations of a tensor have it, ``module.weight = array`` is possible outside of calls.
    ``right_inverse`` runs without values, so it must be traceable, as ``forward`` must.

    Args:
        module: the module whose tensor it is. Its class becomes ``Parametrized...``.
        tensor_name: the name of a parameter or buffer.
        parametrization: the function.
        unsafe: whether it may change shape or dtype; nothing is checked then.

    Returns:
        ``module``.

    Raises:
        ArgumentError: there is no such tensor; or the parametrization changes its shape or dtype.
        ShapeError: the shape of the tensor is not known yet.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> from funcnets.nn.utils import parametrize
        >>> class Symmetric(nn.Module):
        ...     def forward(self, x):
        ...         return jnp.triu(x) + jnp.triu(x, 1).T
        ...
        ...     def right_inverse(self, a):
        ...         return jnp.triu(a)
        >>> layer = parametrize.register_parametrization(nn.Linear(4, 4), "weight", Symmetric())
        >>> bool((layer.weight == layer.weight.T).all())
        True
        >>> list(layer.state_dict())
        ['bias', 'parametrizations.weight.original']
        >>> layer.weight = jnp.eye(4)
        >>> float(layer.weight.sum())
        4.0

    References:
        torch.nn.utils.parametrize.register_parametrization
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            call_abstractly(_check_another, (module, tensor_name, parametrization), {})
        module.parametrizations[tensor_name].append(parametrization)
        module.parametrizations[tensor_name].unsafe |= unsafe
        return module
    original = find_cell(module, tensor_name)
    parametrizations = ParametrizationList([parametrization], original, unsafe=unsafe)
    parametrizations._settle_at(tensor_name)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    compute(module, tensor_name, Parametrized(tensor_name))
    module.parametrizations[tensor_name] = parametrizations
    return module


def _check_another(module: Module, tensor_name: str, parametrization: Any) -> None:
    """Refuse a further parametrization of a tensor that is none of its space."""
    before = getattr(module, tensor_name)
    after = parametrization(before)
    _unchanged("a parametrization", before, after)
    if hasattr(parametrization, "right_inverse"):
        try:
            back = parametrization.right_inverse(after)
        except NotImplementedError:
            return
        _unchanged("right_inverse of a second parametrization", before, back)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has a parametrization.

    Args:
        module: any Module.
        tensor_name: of this tensor; None for any.

    Returns:
        True or False.

    Examples:
        >>> from funcnets import nn
        >>> from funcnets.nn.utils import parametrizations, parametrize
        >>> parametrize.is_parametrized(parametrizations.weight_norm(nn.Linear(3, 2)), "weight")
        True

    References:
        torch.nn.utils.parametrize.is_parametrized
    """
    parametrizations = module._modules.get("parametrizations")
    if not isinstance(parametrizations, ModuleDict):
        return False
    return len(parametrizations) > 0 if tensor_name is None else tensor_name in parametrizations


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Make a parametrized tensor an ordinary parameter or buffer again.

    Args:
        module: the module.
        tensor_name: the name of the tensor.
        leave_parametrized: whether it keeps its present value; with False it takes that of
            ``original``.

    Returns:
        ``module``.

    Raises:
        ArgumentError: the tensor is not parametrized; or ``leave_parametrized=False`` and there are
            several originals.

    Examples:
        >>> from funcnets import nn
        >>> from funcnets.nn.utils import parametrizations, parametrize
        >>> layer = parametrizations.weight_norm(nn.Linear(3, 2))
        >>> parametrize.remove_parametrizations(layer, "weight")
        Linear(in_features=3, out_features=2, bias=True)

    References:
        torch.nn.utils.parametrize.remove_parametrizations
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(f"Module {module} does not have a parametrization on {tensor_name}")
    parametrizations = module.parametrizations[tensor_name]
    originals = parametrizations._originals()
    cell = originals[0]
    if leave_parametrized:
        value = getattr(module, tensor_name)
        if not parametrizations.is_tensor:
            trained = any(c.requires_grad for c in originals)
            cell = Parameter(value) if trained else Buffer(value)
        cell.data = value
    elif not parametrizations.is_tensor:
        raise ArgumentError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    elif isinstance(cell.initializer, Leaf):
        cell.initializer = cell.initializer.moved(0, ())
    stop_computing(module, tensor_name)
    del module.parametrizations[tensor_name]
    register(module, tensor_name, cell)
    if not is_parametrized(module):
        del module.parametrizations
    return module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class that a module had before its tensors were parametrized, or its class.

    Args:
        module: any Module.

    Returns:
        The class.

    Examples:
        >>> from funcnets import nn
        >>> from funcnets.nn.utils import parametrizations, parametrize
        >>> layer = parametrizations.weight_norm(nn.Linear(3, 2))
        >>> parametrize.type_before_parametrizations(layer) is nn.Linear
        True

    References:
        torch.nn.utils.parametrize.type_before_parametrizations
    """
    return class_before(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Parametrize tensors of one module as those of another are, and share the originals.

    Args:
        from_module: has the parametrizations; nothing happens if it has none.
        to_module: gets them; a tensor that it does not have is made.
        tensor_name: of this tensor; None for all.

    Returns:
        ``to_module``.

    Examples:
        >>> from funcnets import nn
        >>> from funcnets.nn.utils import parametrizations, parametrize
        >>> source, target = parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(3, 2)
        >>> target = parametrize.transfer_parametrizations_and_params(source, target)
        >>> bool((source.weight == target.weight).all())
        True

    References:
        torch.nn.utils.parametrize.transfer_parametrizations_and_params
    """
    if not is_parametrized(from_module):
        return to_module
    names = list(from_module.parametrizations) if tensor_name is None else [tensor_name]
    for name in names:
        source = from_module.parametrizations[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name)))
        for parametrization in source:
            register_parametrization(to_module, name, parametrization)
        target = to_module.parametrizations[name]
        for original, cell in {**source._parameters, **source._buffers}.items():
            setattr(target, original, cell)
    return to_module
