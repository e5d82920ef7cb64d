"""Every link within the built site leads somewhere, and nothing is loaded from elsewhere.

    python docs/_ext/links.py build/docs/html

Sphinx checks the links of the pages' sources; this looks at what came out of it, with the theme's own links.
"""

from __future__ import annotations

import pathlib
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

#: Attributes with which a page loads something, rather than naming it.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """The names and the links of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names |= {given[name] or "" for name in ("id", "name") if name in given}
        for name in ("href", "src"):
            if target := given.get(name):
                self.links.append(target)
                if (tag, name) in LOADED:
                    self.loads.append(target)


def broken(site: pathlib.Path) -> list[str]:
    """A line for every link that leads nowhere and everything that comes from another place."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        here = path.relative_to(site)
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    found.append(f"{here}: loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                found.append(f"{here}: no file {link}")
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].names
            ):
                found.append(f"{here}: no place {link}")
    return list(dict.fromkeys(found))


def main(folder: str) -> int:
    site = pathlib.Path(folder).resolve()
    found = broken(site)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(list(site.rglob('*.html')))} pages, {len(found)} broken links")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
