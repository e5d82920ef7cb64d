"""Visit every page of the built site in headless Chromium: no console error, nothing wider than the screen.

    python docs/_ext/visit.py build/docs/html [PICTURES]

Needs Chromium and its driver (Debian: ``chromium``, ``chromium-driver``), and no Python package. With a folder for
PICTURES it leaves screenshots of some pages there, in light and dark, wide and as on a phone. The pages are served on this machine's own address, as a reader's browser gets them, without any network.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

from webdriver import Browser, chromium, missing

SIZES = {"wide": (1280, 900), "phone": (390, 844)}
PICTURED = (
    "index",
    "idea",
    "guides/training",
    "api/norm",
    "torch-table",
    "notebooks/05_layers_of_my_model",
)
# What stands out of the page, or of the theme's box around all of the text, which would scroll by itself.
TOO_WIDE = """
const boxes = [document.documentElement, ...document.querySelectorAll(".content")];
return Math.max(...boxes.map(box => box.scrollWidth - box.clientWidth));
"""
THEME = "document.body.dataset.theme = arguments[0]; localStorage.setItem('theme', arguments[0])"
#: What a reader may type into the search box, and a page that then must be among the results.
QUERIES = {"LayerNorm": "api/norm.html", "frozen parameters": "guides/freezing.html"}
ENTER = "\ue007"
FOUND = """
const links = [...document.querySelectorAll("#search-results li a")];
return links.some(link => link.href.includes(arguments[0]));
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def search(view: Browser, address: str) -> list[str]:
    """What is wrong with the search: words typed on the first page, and where the results lead."""
    found = []
    for query, wanted in QUERIES.items():
        view.open(f"{address}/index.html")
        box = view.send("POST", "/element", {"using": "css selector", "value": ".sidebar-search"})
        view.send("POST", f"/element/{next(iter(box.values()))}/value", {"text": query + ENTER})
        try:
            view.wait(FOUND, f"/{wanted}")
        except TimeoutError:
            found.append(f"search for {query!r}: {wanted} is not among the results")
        found += [f"search for {query!r}: {message}" for message in view.errors()]
    return found


def visit(site: pathlib.Path, pictures: pathlib.Path | None) -> tuple[int, list[str]]:
    """How many pages were visited, and a line for everything that is wrong."""
    pages = [str(p.relative_to(site)) for p in sorted(site.rglob("*.html"))]
    pages = [p for p in pages if not p.startswith("_static")]
    found: list[str] = []
    with served(site) as address, chromium() as view:
        for name, size in SIZES.items():
            view.size(*size)
            for page in pages:
                view.open(f"{address}/{page}")
                found += [f"{page} ({name}): {message}" for message in view.errors()]
                if (wide := view.run(TOO_WIDE)) > 0:
                    found.append(f"{page} ({name}): {wide} pixels too wide")
                if pictures and page.removesuffix(".html") in PICTURED:
                    for theme in ("light", "dark"):
                        view.run(THEME, theme)
                        title = page.removesuffix(".html").replace("/", "-")
                        view.picture(pictures / f"{title}-{name}-{theme}.png")
        view.size(*SIZES["wide"])
        found += search(view, address)
    return len(pages), found


def main(arguments: list[str]) -> int:
    if words := missing():
        sys.exit(words)
    os.environ.pop("DISPLAY", None)
    pictures = pathlib.Path(arguments[1]) if len(arguments) > 1 else None
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    count, found = visit(pathlib.Path(arguments[0]).resolve(), pictures)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{count} pages visited twice, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
