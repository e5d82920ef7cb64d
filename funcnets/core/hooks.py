"""Hooks: functions that see, and may change, what goes into and comes out of a module.

Forward hooks run inside the call, so under ``fn.jit`` they run while tracing and see tracers. There
are no hooks on the backward pass, which does not exist in JAX; ``core/module.py`` refuses them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from funcnets._args import describe
from funcnets.core.cell import Version
from funcnets.errors import DTypeError

__all__ = ["Hooks", "RemovableHandle"]

_numbers = itertools.count()


class RemovableHandle:
    """Returned by every ``register_*_hook``; ``remove()``, or leaving a ``with`` block, removes the hook."""

    def __init__(self, hooks: dict[int, Any]) -> None:
        self.id = next(_numbers)
        self._hooks = hooks

    def remove(self) -> None:
        """Remove the hook; harmless the second time."""
        if self._hooks.pop(self.id, None) is not None:
            Version.structure += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.remove()


def add_hook(hooks: dict[int, Any], entry: Any, *, prepend: bool = False) -> RemovableHandle:
    """Put ``entry`` into ``hooks`` and give the handle that takes it out again."""
    handle = RemovableHandle(hooks)
    if prepend:
        others = dict(hooks)
        hooks.clear()
        hooks[handle.id] = entry
        hooks.update(others)
    else:
        hooks[handle.id] = entry
    Version.structure += 1
    return handle


class Hooks:
    """The part of ``Module`` that registers forward hooks and runs them."""

    _forward_pre_hooks: dict[int, tuple[Callable[..., Any], bool]]
    _forward_hooks: dict[int, tuple[Callable[..., Any], bool, bool]]
    forward: Callable[..., Any]

    def _init_hooks(self) -> None:
        for name in ("_forward_pre_hooks", "_forward_hooks", *STATE_DICT_HOOKS):
            object.__setattr__(self, name, {})

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Run ``hook(module, args)`` before ``forward``; what it returns replaces the arguments.

        Args:
            hook: returns None, or new positional arguments; with ``with_kwargs`` it is called as
                ``hook(module, args, kwargs)`` and returns None or ``(args, kwargs)``.
            prepend: run it before the hooks that are there already.
            with_kwargs: pass keyword arguments, too.

        Returns:
            A handle whose ``remove()`` takes the hook out.
        """
        return add_hook(self._forward_pre_hooks, (hook, with_kwargs), prepend=prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Run ``hook(module, args, output)`` after ``forward``; what it returns replaces the output.

        Args:
            hook: returns None, or a new output; with ``with_kwargs`` it is called as
                ``hook(module, args, kwargs, output)``.
            prepend: run it before the hooks that are there already.
            with_kwargs: pass keyword arguments, too.
            always_call: run it with the output None even if ``forward`` raises.

        Returns:
            A handle whose ``remove()`` takes the hook out.
        """
        return add_hook(self._forward_hooks, (hook, with_kwargs, always_call), prepend=prepend)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, with_kwargs in list(self._forward_pre_hooks.values()):
            if with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is None:
                    continue
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise DTypeError(
                        "a forward pre-hook with_kwargs must return None or a tuple of (new_args, new_kwargs), "
                        f"but got {describe(changed)}"
                    )
                args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        output, called = None, set()
        try:
            output = self.forward(*args, **kwargs)
            for number, (hook, with_kwargs, _) in list(self._forward_hooks.items()):
                called.add(number)
                changed = (
                    hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
                )
                if changed is not None:
                    output = changed
        except Exception:
            for number, (hook, with_kwargs, always) in list(self._forward_hooks.items()):
                if always and number not in called:
                    hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
            raise
        return output


STATE_DICT_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
