"""The style sheet of the views. Every class begins with ``fnl-`` and stands within ``fnl-view``."""

from __future__ import annotations

from funcnets.look.theme import FAMILIES, FONT, palette

__all__ = ["STYLE"]

_RULES = {
    "": "font:13px/1.5 " + FONT + ";color:var(--jp-content-font-color1,var(--fnl-ink));"
    "background:var(--jp-layout-color0,var(--fnl-paper));border:1px solid var(--fnl-rule);border-radius:8px;"
    "padding:8px 12px;max-width:100%;overflow-x:auto;box-sizing:border-box;text-align:left",
    " .fnl-line": "display:flex;flex-wrap:wrap;align-items:baseline;column-gap:8px;padding:1px 4px;border-radius:4px",
    " summary.fnl-line": "cursor:pointer;list-style:none",
    " summary.fnl-line::-webkit-details-marker": "display:none",
    " summary.fnl-line::before": "content:'▸';color:var(--fnl-dim);width:10px;flex:none",
    " details[open]>summary.fnl-line::before": "content:'▾'",
    " summary.fnl-line:hover": "background:var(--fnl-soft)",
    " summary.fnl-line:focus-visible": "outline:2px solid var(--fnl-linear)",
    " div.fnl-line": "padding-left:22px",
    " .fnl-inside": "margin-left:9px;padding-left:10px;border-left:1px solid var(--fnl-rule)",
    " .fnl-name": "font-weight:600",
    " .fnl-cell .fnl-name": "font-weight:400",
    " .fnl-type": "font-weight:600",
    " .fnl-times": "color:var(--fnl-dim);font-weight:600",
    " .fnl-hyper": "color:var(--fnl-dim);overflow-wrap:anywhere",
    " .fnl-shape": "font-variant-numeric:tabular-nums;white-space:nowrap",
    " .fnl-dim": "color:var(--fnl-dim)",
    " .fnl-stat": "color:var(--fnl-dim);font-variant-numeric:tabular-nums",
    " .fnl-sum": "color:var(--fnl-dim);margin-left:auto;white-space:nowrap;font-variant-numeric:tabular-nums",
    " .fnl-mark": "font-size:11px;line-height:16px;padding:0 6px;border:1px solid var(--fnl-rule);border-radius:9px;"
    "color:var(--fnl-dim);white-space:nowrap",
    " .fnl-frozen": "color:var(--fnl-linear);border-color:var(--fnl-linear)",
    " .fnl-bars": "align-self:center;flex:none;fill:var(--fnl-linear);opacity:.75",
    # Twice the class: notebooks and documentation themes have rules of their own for tables.
    ".fnl-view table": "border-collapse:collapse;margin:2px 0 4px;font-size:12px;color:inherit",
    ".fnl-view th": "text-align:left;font-weight:400;color:var(--fnl-dim);padding:0 14px 0 0;border:0;background:none",
    ".fnl-view td": "text-align:left;padding:0 8px 0 0;border:0;background:none;font-variant-numeric:tabular-nums",
    ".fnl-view .fnl-rows th": "text-align:right;padding:1px 0 1px 14px",
    ".fnl-view .fnl-rows td": "text-align:right;padding:1px 0 1px 14px",
    ".fnl-view tr:nth-child(n)": "background:none",
    " .fnl-wide": "overflow-x:auto",
}

STYLE = (
    palette("fnl-view")
    + "".join(f".fnl-view{where}{{{rule}}}" for where, rule in _RULES.items())
    + "".join(
        f".fnl-view .fnl-c-{name}{{color:var(--fnl-{name})}}"
        for name in dict.fromkeys([*FAMILIES.values(), "other"])
    )
)
