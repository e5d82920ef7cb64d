"""Colours and text of what is drawn: one palette, light and dark, and how wide a text is.

A picture or view is dark where its surroundings are: JupyterLab, VS Code and documentation themes mark the page,
and what is not on such a page follows ``prefers-color-scheme``. Every colour is a CSS variable whose name begins
with ``--fnl-``; SVG elements have it as a plain attribute, too, for programs that do not know CSS variables.
"""

from __future__ import annotations

import html
import unicodedata
from typing import Any

__all__ = ["FAMILIES", "LIGHT", "escape", "family_of", "fit", "palette", "width_of"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: (light, dark) by name.
COLOURS = {
    "paper": ("#ffffff", "#16191d"),
    "ink": ("#1f2933", "#e4e7eb"),
    "dim": ("#5f6c7b", "#9aa5b1"),
    "rule": ("#d3dae2", "#3b444f"),
    "wire": ("#8793a1", "#7b8794"),
    "soft": ("#f4f6f8", "#1f242a"),
    "linear": ("#2563c9", "#6ea8fe"),
    "conv": ("#0f766e", "#4fd1c5"),
    "norm": ("#7c3aed", "#b794f4"),
    "activation": ("#c2570c", "#f6ad55"),
    "pool": ("#3f7d20", "#8fce6a"),
    "sequence": ("#b83280", "#f687b3"),
    "other": ("#52606d", "#a3b1bf"),
}
LIGHT = {name: pair[0] for name, pair in COLOURS.items()}

#: Which colour a module has, by the file of its class in ``funcnets.nn``.
FAMILIES = {
    "linear": "linear",
    "embedding": "linear",
    "conv": "conv",
    "batchnorm": "norm",
    "norm": "norm",
    "activation": "activation",
    "dropout": "activation",
    "pool": "pool",
    "flatten": "pool",
    "padding": "pool",
    "vision": "pool",
    "interpolate": "pool",
    "recurrent": "sequence",
    "attention": "sequence",
    "transformer": "sequence",
}


def family_of(room: str) -> str:
    """The colour of a class or function, by the dotted name of its module."""
    package, _, name = room.rpartition(".")
    if package not in ("funcnets.nn", "funcnets.functional"):
        return "other"
    return FAMILIES.get(name) or FAMILIES.get(name.partition("_")[0], "other")


def palette(scope: str) -> str:
    """The CSS that gives the colours their values within elements of the class ``scope``."""
    light, dark = (
        "".join(f"--fnl-{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1)
    )
    on = {
        kind: ",".join(f"{mark} .{scope}" for mark in marks)
        for kind, marks in {
            "light": (
                '[data-jp-theme-light="true"]',
                '[data-theme="light"]',
                ".vscode-light",
            ),
            "dark": ('[data-jp-theme-light="false"]', '[data-theme="dark"]', ".vscode-dark"),
        }.items()
    }
    return (
        f".{scope}{{{light}color-scheme:light}}"
        f"@media (prefers-color-scheme:dark){{.{scope}{{{dark}color-scheme:dark}}}}"
        f"{on['light']}{{{light}color-scheme:light}}{on['dark']}{{{dark}color-scheme:dark}}"
    )


def escape(text: Any) -> str:
    """Text as it may stand in HTML, in XML and between the quotes of an attribute."""
    kept = "".join(
        c
        if c in "\n\t" or (ord(c) >= 32 and unicodedata.category(c) not in ("Cc", "Cs"))
        else "\ufffd"
        for c in str(text)
    )
    return html.escape(kept.replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd"), quote=True)


def width_of(text: str, size: float, bold: bool = False) -> float:
    """About how wide a text is, rather too wide than too narrow, whatever the font is."""
    total = 0.0
    for c in text:
        if c in "iljtfI.,:;'|!()[] ":
            total += 0.39
        elif c in "mwMW@%—…→×":
            total += 0.95
        elif unicodedata.east_asian_width(c) in "WF":
            total += 1.05
        else:
            total += 0.66 if c.isupper() or c.isdigit() or c in "_+-=" else 0.6
    return total * size * (1.08 if bold else 1.0)


def fit(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text, cut in its middle so that it is no wider than ``width``."""
    if width_of(text, size, bold) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        head, tail = (keep + 1) // 2, keep // 2
        short = text[:head] + "…" + text[len(text) - tail :]
        if width_of(short, size, bold) <= width:
            return short
    return "…"
