"""What compiled programs compare to know that nothing has changed, and what they hold while they run."""

from __future__ import annotations

import threading

__all__ = ["Version", "step_lock"]


class Version:
    """A number that changes whenever a description changes anywhere, and one for the arrays of cells.

    Compiled programs compare them (``core/jit.py``): the first with what they were traced for, the second
    with when they last looked who holds the arrays they are going to replace.
    """

    structure = 0
    lent = 0


#: Held while a program replaces values, so that no two threads use one key or array.
step_lock = threading.RLock()
