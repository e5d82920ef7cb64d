"""Looking at models: pictures, views, summaries, what happens inside a call, what is compiled and why.

``draw`` makes a picture of a model, ``view`` the HTML that a notebook shows of it, ``summary`` the table of its
layers. ``capture`` and ``find_nan`` look into a call, ``explain_compiles`` into what ``fn.jit`` compiles. The
plots need matplotlib (``pip install 'funcnets[plot]'``); nothing else here needs more than funcnets itself.
"""

from typing import TYPE_CHECKING

from funcnets._later import later as _later

if TYPE_CHECKING:
    from funcnets.look.compiles import Compile, Compiles, explain_compiles
    from funcnets.look.flops import Cost
    from funcnets.look.page import View, view
    from funcnets.look.picture import Picture, draw
    from funcnets.look.plots import plot_attention, plot_confusion, plot_filters
    from funcnets.look.record import NonFinite, capture, find_nan
    from funcnets.look.table import Call, Row, Summary, Totals, summary

_HOMES = {
    "Call": "funcnets.look.table",
    "Compile": "funcnets.look.compiles",
    "Compiles": "funcnets.look.compiles",
    "Cost": "funcnets.look.flops",
    "NonFinite": "funcnets.look.record",
    "Picture": "funcnets.look.picture",
    "Row": "funcnets.look.table",
    "Summary": "funcnets.look.table",
    "Totals": "funcnets.look.table",
    "View": "funcnets.look.page",
    "capture": "funcnets.look.record",
    "draw": "funcnets.look.picture",
    "explain_compiles": "funcnets.look.compiles",
    "find_nan": "funcnets.look.record",
    "plot_attention": "funcnets.look.plots",
    "plot_confusion": "funcnets.look.plots",
    "plot_filters": "funcnets.look.plots",
    "summary": "funcnets.look.table",
    "view": "funcnets.look.page",
}

__getattr__, __dir__ = _later(__name__, _HOMES)

__all__ = [
    "Call",
    "Compile",
    "Compiles",
    "Cost",
    "NonFinite",
    "Picture",
    "Row",
    "Summary",
    "Totals",
    "View",
    "capture",
    "draw",
    "explain_compiles",
    "find_nan",
    "plot_attention",
    "plot_confusion",
    "plot_filters",
    "summary",
    "view",
]
