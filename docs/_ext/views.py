"""``{view} name`` blocks: what a notebook would show for that variable of the page.

The page's code is run up to there while the site is built, so a picture is never older than the code.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from typing import Any

from sphinx.application import Sphinx

BLOCK = re.compile(r"^```(?:python|\{view\} (\w+))\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    if "\n```{view} " not in source[0]:
        return
    names: dict[str, Any] = {"__name__": docname}

    def shown(block: re.Match[str]) -> str:
        if not block[1]:
            exec(block[2], names)
            return block[0]
        html = names[block[1]]._repr_html_()
        return f'::::{{raw}} html\n<div class="view">\n{html}\n</div>\n::::'

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        source[0] = BLOCK.sub(shown, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
