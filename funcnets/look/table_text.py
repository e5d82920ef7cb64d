"""A :class:`~funcnets.look.table.Summary` as plain text, as a table of rich, and as HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax

from funcnets._args import optional

if TYPE_CHECKING:
    from funcnets.look.flops import Cost
    from funcnets.look.table import Row, Summary

__all__ = ["COLUMNS", "amount", "as_html", "as_rich", "as_text", "size"]


# --- numbers and shapes -----------------------------------------------------------------------


def amount(number: float, unit: str = "") -> str:
    """A number with three digits and a prefix: ``4.09 G``; ``1.02 kB`` with a unit."""
    value, prefixes = float(number), ["", "k", "M", "G", "T", "P", "E"]
    while abs(value) >= 999.995 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    whole = prefixes[0] == "" and value == int(value)
    text = f"{value:.0f}" if whole else f"{value:.2f}"
    return f"{text} {prefixes[0]}{unit}".rstrip()


def size(number: float) -> str:
    """A number of bytes."""
    return amount(number, "B")


def shapes(tree: Any) -> str:
    """``[5, 3]`` for an array, ``[5, 3], ([1, 3], [1, 3])`` for a tuple of arrays."""
    if isinstance(tree, jax.ShapeDtypeStruct):
        return "[" + ", ".join(map(str, tree.shape)) + "]"
    if isinstance(tree, dict):
        inner = ", ".join(f"{name}: {shapes(item)}" for name, item in tree.items())
        return "{" + inner + "}"
    if isinstance(tree, (tuple, list)):
        return "(" + ", ".join(map(shapes, tree)) + ")"
    leaves = jax.tree.leaves(tree)
    if len(leaves) == 1 and leaves[0] is tree:
        return str(tree) if isinstance(tree, (bool, int, float, str)) else type(tree).__name__
    return "--" if not leaves else "(" + ", ".join(map(shapes, leaves)) + ")"


def _inputs(row: Row) -> str:
    if not row.calls:
        return "--"
    call = row.calls[0]
    parts = [shapes(a) for a in call.args if _has_arrays(a)]
    parts += [f"{k}={shapes(v)}" for k, v in call.kwargs.items() if _has_arrays(v)]
    return ", ".join(parts) or "--"


def _has_arrays(tree: Any) -> bool:
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))


def _output(row: Row) -> str:
    if not row.calls:
        return "--"
    out = row.calls[0].output
    text = shapes(out)
    if not _has_arrays(out):
        return "--"
    return text[1:-1] if isinstance(out, (tuple, list)) else text


def _shown(row: Row, summary: Summary) -> bool:
    """Whether the rows of the modules below are in the table, too."""
    return not row.leaf and (summary.depth is None or row.depth < summary.depth)


def _params(row: Row, summary: Summary) -> str:
    if row.recursive:
        return "(recursive)"
    number = row.own_parameters if _shown(row, summary) else row.parameters
    return f"{number:,}" if number else "--"


def _percent(row: Row, summary: Summary) -> str:
    number = row.own_parameters if _shown(row, summary) else row.parameters
    every = summary.totals.parameters
    return f"{100 * number / every:.2f} %" if number and every else "--"


def _trainable(row: Row, summary: Summary) -> str:
    if not row.parameters:
        return "--"
    partly = "partly" if row.trainable else "no"
    return "yes" if row.trainable == row.parameters else partly


def _mult_adds(row: Row, summary: Summary) -> str:
    number = _cost(row, summary).mult_adds
    return amount(number) if number else "--"


def _flops(row: Row, summary: Summary) -> str:
    number = _cost(row, summary).flops
    return amount(number) if number else "--"


def _cost(row: Row, summary: Summary) -> Cost:
    return row.own_cost if _shown(row, summary) else row.cost


def _bytes(row: Row, summary: Summary) -> str:
    number = row.own_bytes if _shown(row, summary) else row.bytes
    return size(number) if number else "--"


def _times(row: Row, summary: Summary) -> str:
    return "(recursive)" if row.recursive and not row.calls else str(len(row.calls) or "--")


#: Of a column its title, whether it is one of numbers, and the text of a row.
COLUMNS: dict[str, tuple[str, bool, Callable[[Row, Summary], str]]] = {
    "input_size": ("Input shape", False, lambda row, _: _inputs(row)),
    "output_size": ("Output shape", False, lambda row, _: _output(row)),
    "num_params": ("Param #", True, _params),
    "params_percent": ("Param %", True, _percent),
    "trainable": ("Trainable", False, _trainable),
    "mult_adds": ("Mult-adds", True, _mult_adds),
    "flops": ("FLOPs", True, _flops),
    "bytes": ("Size", True, _bytes),
    "calls": ("Calls", True, _times),
    "mode": ("Mode", False, lambda row, _: "train" if row.training else "eval"),
    "path": ("Path", False, lambda row, _: row.path),
}


# --- the table --------------------------------------------------------------------------------


def _visible(summary: Summary) -> list[Row]:
    deepest = summary.depth
    return [row for row in summary.rows if deepest is None or row.depth <= deepest]


def _tree(rows: list[Row]) -> Iterator[tuple[str, str]]:
    """The lines of the tree before each row, and what stands behind them."""
    for i, row in enumerate(rows):
        open_at = set()
        seen = row.depth
        for below in rows[i + 1 :]:
            if below.depth <= seen:
                open_at.add(below.depth)
                seen = below.depth - 1
            if seen <= 0:
                break
        lines = "".join("│    " if d in open_at else "     " for d in range(1, row.depth))
        knot = ("├─" if row.depth in open_at else "└─") if row.depth else ""
        number = f": {row.depth}-{row.number}" if row.depth else ""
        times = f" x{len(row.calls)}" if len(row.calls) > 1 else ""
        name = f" ({row.name})" if row.depth else ""
        yield lines + knot, f"{row.type}{number}{name}{times}"


def _cells(summary: Summary) -> list[list[str]]:
    rows = _visible(summary)
    return [
        [lines + label, *(COLUMNS[c][2](row, summary) for c in summary.columns)]
        for row, (lines, label) in zip(rows, _tree(rows), strict=True)
    ]


def _titles(summary: Summary) -> list[str]:
    return ["Layer (type)", *(COLUMNS[c][0] for c in summary.columns)]


def _sums(summary: Summary) -> list[list[tuple[str, str]]]:
    totals = summary.totals
    counts = [
        ("Total params", f"{totals.parameters:,}"),
        ("Trainable params", f"{totals.trainable:,}"),
        ("Non-trainable params", f"{totals.non_trainable:,}"),
        ("Buffers", f"{totals.buffers:,}"),
    ]
    if totals.unsettled:
        counts.append(("Parameters and buffers of unknown shape", f"{totals.unsettled}"))
    if not summary.rows[0].calls:
        return [counts, [("Params size", size(totals.param_bytes))]]
    counts += [
        ("Multiply-adds", amount(totals.cost.mult_adds)),
        ("FLOPs", amount(totals.cost.flops)),
    ]
    sizes = [
        ("Input size", size(totals.input_bytes)),
        ("Forward pass size", size(totals.forward_bytes)),
        ("Params size", size(totals.param_bytes)),
        ("Estimated total size", size(totals.total_bytes)),
    ]
    return [counts, sizes]


def as_text(summary: Summary) -> str:
    """The table as plain text."""
    table = [_titles(summary), *_cells(summary)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    right = [False, *(COLUMNS[c][1] for c in summary.columns)]
    lines = [
        "  ".join(
            text.rjust(width) if side else text.ljust(width)
            for text, width, side in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in table
    ]
    rule = "=" * max(map(len, lines))
    sums = [[f"{name}: {value}" for name, value in block] for block in _sums(summary)]
    parts = [[lines[0]], lines[1:], *sums]
    return "\n".join([rule, *(line for part in parts for line in (*part, rule))])


def as_rich(summary: Summary) -> Any:
    """The table for a terminal."""
    rich = optional("rich.table", "train", "a table in colour")
    group = optional("rich.console", "train", "a table in colour").Group
    text = optional("rich.text", "train", "a table in colour").Text
    table = rich.Table(box=optional("rich.box", "train", "a table in colour").SIMPLE_HEAD)
    for i, title in enumerate(_titles(summary)):
        numbers = i > 0 and COLUMNS[summary.columns[i - 1]][1]
        table.add_column(title, justify="right" if numbers else "left", no_wrap=i == 0 or numbers)
    for row, cells in zip(_visible(summary), _cells(summary), strict=True):
        style = "dim" if row.recursive or (summary.rows[0].calls and not row.calls) else ""
        table.add_row(*map(text, cells), style=style)
    sums = [text(f"{name}: {value}") for block in _sums(summary) for name, value in block]
    return group(table, *sums)


# Twice the class where notebooks and documentation themes have rules of their own, for tables.
_STYLE = """
.fn-summary { --line: #d0d7de; --soft: #656d76; font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace;
  color: inherit; overflow-x: auto; }
.fn-summary.fn-summary table { border-collapse: collapse; margin: 0; font: inherit; color: inherit; }
.fn-summary.fn-summary th, .fn-summary.fn-summary td { padding: 2px 12px 2px 0; text-align: left; white-space: pre;
  background: none; border: 0; color: inherit; font-variant-numeric: tabular-nums; }
.fn-summary.fn-summary thead th { border-bottom: 1px solid var(--line); font-weight: 600; }
.fn-summary.fn-summary .n { text-align: right; }
.fn-summary.fn-summary tr:nth-child(n) { background: none; }
.fn-summary .soft, .fn-summary .t { color: var(--soft); }
.fn-summary.fn-summary dl { display: grid; grid-template-columns: max-content max-content; gap: 1px 16px;
  margin: 8px 0 0; padding: 8px 0 0; border-top: 1px solid var(--line); width: max-content; }
.fn-summary.fn-summary dt, .fn-summary.fn-summary dd { float: none; width: auto; margin: 0; padding: 0; white-space: nowrap; }
.fn-summary.fn-summary dt { color: var(--soft); font-weight: normal; }
.fn-summary.fn-summary dd { text-align: right; font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) { .fn-summary { --line: #3d444d; --soft: #9198a1; } }
[data-jp-theme-light="true"] .fn-summary, [data-theme="light"] .fn-summary { --line: #d0d7de; --soft: #656d76; }
[data-jp-theme-light="false"] .fn-summary, [data-theme="dark"] .fn-summary { --line: #3d444d; --soft: #9198a1; }
"""


def as_html(summary: Summary) -> str:
    """The table as HTML that needs nothing else: one style sheet, no script, all text escaped."""
    rows = _visible(summary)
    numbers = [COLUMNS[c][1] for c in summary.columns]

    def cell(tag: str, text: str, is_number: bool) -> str:
        kind = ' class="n"' if is_number else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    head = "".join(
        cell("th", t, n) for t, n in zip(_titles(summary), [False, *numbers], strict=True)
    )
    body = []
    for row, (lines, label), texts in zip(rows, _tree(rows), _cells(summary), strict=True):
        soft = row.recursive or (summary.rows[0].calls and not row.calls)
        first = f'<td><span class="t">{lines}</span>{html.escape(label)}</td>'
        others = "".join(cell("td", t, n) for t, n in zip(texts[1:], numbers, strict=True))
        body.append(f"<tr{' class=soft' if soft else ''}>{first}{others}</tr>")
    sums = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for block in _sums(summary)
        for name, value in block
    )
    return (
        f'<div class="fn-summary"><style>{_STYLE}</style><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table><dl>{sums}</dl></div>"
    )
