"""Figures: every function takes `ax=None`, returns the axes, and never shows.

Sizes are those of a paper: `COLUMN` (85 mm) and `PAGE` (170 mm). matplotlib is imported when a
figure is drawn.
"""

from analysis.plots.curves import curve, energy
from analysis.plots.influences import influence, jacobian, light_cone
from analysis.plots.maps import VIEWS, View, film, layout, state
from analysis.plots.report import summary
from analysis.plots.resistances import resistance, rewired
from analysis.plots.style import BLUE, COLUMN, CYCLE, GREEN, GREY, ORANGE, PAGE, STYLE

__all__ = [
    "BLUE",
    "COLUMN",
    "CYCLE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PAGE",
    "STYLE",
    "VIEWS",
    "View",
    "curve",
    "energy",
    "film",
    "influence",
    "jacobian",
    "layout",
    "light_cone",
    "resistance",
    "rewired",
    "state",
    "summary",
]
