"""Which names the pages of the reference show: their ``{api}`` blocks. No Sphinx here: the tests read it."""

from __future__ import annotations

import re

BLOCK = re.compile(r"^```\{api\} ([\w.]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def listed(text: str) -> list[tuple[str, str]]:
    """The (module, name) of all ``{api}`` blocks of a page."""
    return [(module, name) for module, names in BLOCK.findall(text) for name in names.split()]
