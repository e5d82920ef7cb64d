"""Looking at models: summaries, what happens inside a call, what is compiled and why."""

from typing import TYPE_CHECKING

from funcnets._later import later

if TYPE_CHECKING:
    from funcnets.look.compiles import Compile, Compiles, explain_compiles
    from funcnets.look.flops import Cost
    from funcnets.look.record import NonFinite, capture, find_nan
    from funcnets.look.table import Call, Row, Summary, Totals, summary

_HOMES = {
    "Call": "funcnets.look.table",
    "Compile": "funcnets.look.compiles",
    "Compiles": "funcnets.look.compiles",
    "Cost": "funcnets.look.flops",
    "NonFinite": "funcnets.look.record",
    "Row": "funcnets.look.table",
    "Summary": "funcnets.look.table",
    "Totals": "funcnets.look.table",
    "capture": "funcnets.look.record",
    "explain_compiles": "funcnets.look.compiles",
    "find_nan": "funcnets.look.record",
    "summary": "funcnets.look.table",
}

__getattr__, __dir__ = later(__name__, _HOMES)

__all__ = [
    "Call",
    "Compile",
    "Compiles",
    "Cost",
    "NonFinite",
    "Row",
    "Summary",
    "Totals",
    "capture",
    "explain_compiles",
    "find_nan",
    "summary",
]
