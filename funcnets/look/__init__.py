"""Looking at models: pictures, views for notebooks, and plots.

``draw`` makes a picture of a model, ``view`` the HTML that a notebook shows of it. The plots need matplotlib
(``pip install 'funcnets[plot]'``); nothing else here needs more than funcnets itself.
"""

from typing import TYPE_CHECKING

from funcnets._later import later as _later

if TYPE_CHECKING:
    from funcnets.look.page import View, view
    from funcnets.look.picture import Picture, draw
    from funcnets.look.plots import plot_attention, plot_confusion, plot_filters

_HOMES = {
    "Picture": "funcnets.look.picture",
    "View": "funcnets.look.page",
    "draw": "funcnets.look.picture",
    "plot_attention": "funcnets.look.plots",
    "plot_confusion": "funcnets.look.plots",
    "plot_filters": "funcnets.look.plots",
    "view": "funcnets.look.page",
}

__getattr__, __dir__ = _later(__name__, _HOMES)

__all__ = [
    "Picture",
    "View",
    "draw",
    "plot_attention",
    "plot_confusion",
    "plot_filters",
    "view",
]
