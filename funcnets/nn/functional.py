"""``torch.nn.functional``'s names: the functions of ``funcnets.functional``, with keys provided.

The only difference is in functions that draw random numbers (dropout and its like). There ``rng=`` may
be left out: the key then comes from the running call, or from ``manual_seed``'s stream outside of one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from funcnets import functional as _pure
from funcnets.core import frame as _frames
from funcnets.core.module import rooted_frame as _rooted_frame
from funcnets.errors import RngError as _RngError
from funcnets.functional import *  # noqa: F403  (so that readers and type checkers see the names)


def _with_key(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, given a key if it asks for one."""

    @functools.wraps(function)
    def wrapped(*args: Any, rng: Any = None, **kwargs: Any) -> Any:
        if rng is not None:
            return function(*args, rng=rng, **kwargs)
        try:
            return function(*args, **kwargs)
        except _RngError:
            # Whether a key is needed depends on training, on p and so on: the function knows.
            frame = _frames.current()
        if frame is not None:
            return function(*args, rng=frame.next_key(None, function.__name__), **kwargs)
        with _rooted_frame() as frame:
            return function(*args, rng=frame.next_key(None, function.__name__), **kwargs)

    return wrapped


__all__: list[str] = []
__all__ += _pure.__all__

for _name in __all__:
    _function = getattr(_pure, _name)
    if callable(_function) and "rng" in inspect.signature(_function).parameters:
        globals()[_name] = _with_key(_function)
        globals()[_name].__module__ = __name__  # where pickle finds it
