"""Writing SVG: rectangles, lines, circles and text in the theme's colours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from funcnets.look.theme import FONT, LIGHT, escape, palette

__all__ = ["SCOPE", "Canvas"]

SCOPE = "fnl-pic"

_STYLE = (
    palette(SCOPE)
    + f"[data-jp-theme-light] .{SCOPE}{{--fnl-paper:var(--jp-layout-color0)}}"  # as the views
    + f".{SCOPE}{{max-width:100%;height:auto}}"
    + "".join(
        f".{SCOPE} .fnl-f-{name}{{fill:var(--fnl-{name})}}"
        f".{SCOPE} .fnl-s-{name}{{stroke:var(--fnl-{name})}}"
        for name in LIGHT
    )
    + f".{SCOPE} text{{font-family:{FONT}}}"
)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class Canvas:
    """A picture that is being drawn.

    Args:
        width: of the whole.
        height: of the whole.
        x: what is added to every horizontal position.
        y: what is added to every vertical position.
    """

    def __init__(self, width: float, height: float, x: float = 0.0, y: float = 0.0) -> None:
        self.width, self.height, self.x, self.y = width, height, x, y
        self.parts: list[str] = []
        self.lowest = 0.0  # what is drawn ends there

    def trim(self, margin: float) -> None:
        """End the picture that far below what is drawn."""
        self.height = self.lowest + margin

    def rect(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        kind: str,
        colour: str = "wire",
        radius: float = 6,
    ) -> None:
        """A rectangle: a ``box`` or ``pill`` of a colour, the ``frame`` of a group, an ``end``."""
        self.lowest = max(self.lowest, y + h + self.y)
        place = (
            f'x="{_number(x + self.x)}" y="{_number(y + self.y)}" width="{_number(w)}" height="{_number(h)}" '
            f'rx="{_number(min(radius, h / 2))}"'
        )
        look = {
            "box": (1.4, "", 0.13),
            "pill": (1.1, "", 0.07),
            "end": (1.1, "", 0.0),
            "frame": (1.0, ' stroke-dasharray="4 3"', 0.05),
        }
        wide, dash, tint = look[kind]
        # Opaque below the tint: lines behind a box do not show through.
        if kind != "frame":
            self.parts.append(f'<rect {place} fill="{LIGHT["paper"]}" class="fnl-f-paper"/>')
        self.parts.append(
            f'<rect {place} fill="{LIGHT[colour]}" fill-opacity="{tint}" stroke="{LIGHT[colour]}" '
            f'stroke-width="{wide}"{dash} class="fnl-f-{colour} fnl-s-{colour}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = "ink",
        *,
        size: float = 12,
        bold: bool = False,
        italic: bool = False,
        anchor: str = "middle",
    ) -> None:
        """A line of text, whose baseline is at ``y``."""
        self.lowest = max(self.lowest, y + size / 4 + self.y)
        style = ' font-weight="600"' * bold + ' font-style="italic"' * italic
        self.parts.append(
            f'<text x="{_number(x + self.x)}" y="{_number(y + self.y)}" font-size="{size}" text-anchor="{anchor}"{style} '
            f'fill="{LIGHT[colour]}" class="fnl-f-{colour}">{escape(text)}</text>'
        )

    def path(self, points: Sequence[tuple[float, float]], arrow: bool = False) -> None:
        """Straight lines with rounded corners from point to point, horizontal or vertical each."""
        moved = [(x + self.x, y + self.y) for x, y in points]
        self.lowest = max(self.lowest, *(y for _, y in moved))
        words = [f"M{_number(moved[0][0])} {_number(moved[0][1])}"]
        for (x0, y0), (x1, y1), (x2, y2) in zip(moved, moved[1:], moved[2:]):
            r = min(6.0, (abs(x1 - x0) + abs(y1 - y0)) / 2, (abs(x2 - x1) + abs(y2 - y1)) / 2)
            for (x, y), word in (((x0, y0), "L"), ((x2, y2), f"Q{_number(x1)} {_number(y1)} ")):
                size = max(abs(x - x1), abs(y - y1)) or 1.0
                words.append(
                    f"{word}{_number(x1 + (x - x1) * r / size)} {_number(y1 + (y - y1) * r / size)}"
                )
        words.append(f"L{_number(moved[-1][0])} {_number(moved[-1][1])}")
        self.parts.append(
            f'<path d="{"".join(words)}" fill="none" stroke="{LIGHT["wire"]}" stroke-width="1.3" class="fnl-s-wire"/>'
        )
        if arrow:
            (x, y), (u, v) = moved[-1], moved[-2]
            dx, dy = (x > u) - (x < u), (y > v) - (y < v)
            a = (x - 6 * dx - 3.5 * dy, y - 6 * dy - 3.5 * dx)
            b = (x - 6 * dx + 3.5 * dy, y - 6 * dy + 3.5 * dx)
            corners = " ".join(f"{_number(p)},{_number(q)}" for p, q in ((x, y), a, b))
            self.parts.append(
                f'<polygon points="{corners}" fill="{LIGHT["wire"]}" class="fnl-f-wire"/>'
            )

    def lines(self, pairs: Sequence[tuple[float, float, float, float]]) -> None:
        """Many thin straight lines."""
        words = "".join(
            f"M{_number(a + self.x)} {_number(b + self.y)}L{_number(c + self.x)} {_number(d + self.y)}"
            for a, b, c, d in pairs
        )
        self.parts.append(
            f'<path d="{words}" fill="none" stroke="{LIGHT["wire"]}" stroke-width="0.8" stroke-opacity="0.5" '
            'class="fnl-s-wire"/>'
        )

    def circle(self, x: float, y: float, r: float, colour: str, *, dot: bool = False) -> None:
        """A neuron, or one of the dots that stand for many."""
        self.lowest = max(self.lowest, y + r + self.y)
        place = f'cx="{_number(x + self.x)}" cy="{_number(y + self.y)}" r="{_number(r)}"'
        if dot:
            self.parts.append(f'<circle {place} fill="{LIGHT[colour]}" class="fnl-f-{colour}"/>')
            return
        self.parts.append(
            f'<circle {place} fill="{LIGHT["paper"]}" class="fnl-f-paper"/><circle {place} fill="{LIGHT[colour]}" '
            f'fill-opacity="0.25" stroke="{LIGHT[colour]}" stroke-width="1.5" class="fnl-f-{colour} fnl-s-{colour}"/>'
        )

    @contextlib.contextmanager
    def group(self, title: str) -> Iterator[None]:
        """What is drawn within has a title, which browsers show under the pointer."""
        self.parts.append(f"<g><title>{escape(title)}</title>")
        yield
        self.parts.append("</g>")

    def document(self, title: str) -> str:
        """The whole as SVG."""
        w, h = _number(self.width), _number(self.height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{SCOPE}" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
            f'role="img" aria-label="{escape(title)}"><title>{escape(title)}</title><style>{_STYLE}</style>'
            f'<rect width="{w}" height="{h}" rx="8" fill="{LIGHT["paper"]}" class="fnl-f-paper"/>'
            + "".join(self.parts)
            + "</svg>"
        )
