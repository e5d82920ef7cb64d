"""Formulas as MathML, which browsers render by themselves: no script, no network.

Sphinx's own renderers need MathJax from a server or a LaTeX installation. ``latex2mathml`` converts while the
site is built; what it lacks or gets wrong for us is mended in ``converted``. The font is STIX Two
Math, of which a part is put beside the pages: without a font made for mathematics formulas look poor.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import ziamath
from docutils import nodes
from fontTools import subset, ttLib
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.math import get_node_equation_number

#: Letters, Greek, arrows, operators, mathematical alphabets.
CHARACTERS = [
    *range(0x20, 0x250),
    *range(0x370, 0x400),
    *range(0x2000, 0x2070),
    *range(0x20D0, 0x2600),
    *range(0x27C0, 0x2B00),
    *range(0x1D400, 0x1D800),
]


def converted(latex: str, display: str) -> str:
    """A formula as a ``<math>`` element."""
    latex = latex.strip()
    latex = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{align*}", latex)
    if r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{align*}}{latex}\end{{align*}}"
    # Sphinx: formulas that a blank line parts are lines of their own.
    latex = re.sub(r"\n\s*\n", r"\\\\", latex) if r"\begin" not in latex else latex
    try:
        text = convert(latex, display=display)
    except Exception as error:
        raise ExtensionError(f"latex2mathml cannot convert {latex!r}: {error}") from error
    text = re.sub(
        r"<mtext>(.*?)</mtext>", lambda m: f"<mtext>{m[1].replace(chr(92), '')}</mtext>", text
    )
    # Floors, ceilings and norms are delimiters, whose size a formula may change.
    text = re.sub(r"<mi>(&#x0230[89AB];|&#x02016;)</mi>", r'<mo stretchy="false">\1</mo>', text)
    # Names of functions are names, not operators; TeX parts them from what follows without brackets.
    text = re.sub(r"<mo>([A-Za-z]{2,})</mo>", r"<mi>\1</mi>", text)
    text = re.sub(
        r"(<mi>(?:log|exp|tanh|coth|cos|sin|max|min)</mi>)(?!<mo|</|<mi>&#x02061)",
        r'\1<mspace width="0.17em"></mspace>',
        text,
    )
    if left := re.findall(r"\\[a-zA-Z]+", text):
        raise ExtensionError(f"latex2mathml does not know {left} in {latex!r}")
    return text


def inline(self: Any, node: nodes.math) -> None:
    # A long one gets a box that can scroll on a phone; within a line that would spoil the baseline.
    kind = "math long" if len(node.astext()) > 50 else "math"
    self.body.append(f'<span class="{kind}">{converted(node.astext(), "inline")}</span>')
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node.get("number"):
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})</span>')
    lines = [node.astext()]
    if r"\begin" not in lines[0]:
        lines = re.split(r"\n\s*\n", lines[0])
    self.body.extend(converted(line, "block") for line in lines if line.strip())
    self.body.append("</div>\n")
    raise nodes.SkipNode


def font(app: Sphinx, error: Exception | None) -> None:
    """Put the part of the font that formulas use beside the pages."""
    if error or app.builder.format != "html":
        return
    target = pathlib.Path(app.outdir, "_static", "math.woff")
    if target.exists():
        return
    source = next(pathlib.Path(ziamath.__file__).parent.rglob("STIXTwoMath-Regular.ttf"))
    whole = ttLib.TTFont(source)
    part = subset.Subsetter(subset.Options(layout_features=["*"], notdef_outline=True))
    part.populate(unicodes=CHARACTERS)
    part.subset(whole)
    whole.flavor = "woff"
    whole.save(target)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("build-finished", font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
