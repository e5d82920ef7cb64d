"""Notebooks are pages as they lie in ``notebooks/``: links that hold there are made to hold here.

``docs/notebooks`` is a link to that folder. So ``../docs/design.md`` of a notebook is ``../design.md`` of a
page, and a link to a file that is no page (``../funcnets/...``) becomes its text.

A picture of a model becomes a part of its page, rather than an image: so it follows the page's light or dark theme.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sphinx.application import Sphinx


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname.startswith("notebooks/"):
        text = (
            source[0]
            .replace("](../docs/", "](../")
            .replace("](../CHANGELOG.md", "](../changelog.md")
        )
        pages = set(app.env.found_docs)

        def mend(link: re.Match[str]) -> str:
            target = link[2].split("#")[0].removesuffix(".md").removesuffix(".ipynb")
            # From the top of the documents: the link to the folder would be followed first.
            return f"[{link[1]}](/{link[2]})" if target in pages else link[1]

        text = re.sub(r"\[([^\]\n]*)\]\(\.\./([^)\n]*)\)", mend, text)
        # MyST follows the link to the folder and does not find the page there; Sphinx' own role does not.
        page = r"\[([^\]\n`]*)\]\((\d\d_\w+)\.ipynb\)"
        source[0] = with_pictures(re.sub(page, r"{doc}`\1 </notebooks/\2>`", text))


def with_pictures(text: str) -> str:
    """A notebook whose SVG is also HTML, which is what is shown of an output that has both."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for data in (output.get("data", {}) for output in cell.get("outputs", ())):
            if "image/svg+xml" in data:
                data["text/html"] = data["image/svg+xml"]
    return json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
