"""Figures: every function takes `ax=None`, returns the axes, and never shows.

Sizes are those of a paper: `COLUMN` (85 mm) and `PAGE` (170 mm). matplotlib is imported when a
figure is drawn.
"""

from analysis.plots.curves import curve, energy
from analysis.plots.maps import VIEWS, View, film, layout, state
from analysis.plots.report import summary
from analysis.plots.spectrogram import dispersion, profile, spectrogram
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
    "dispersion",
    "energy",
    "film",
    "layout",
    "profile",
    "spectrogram",
    "state",
    "summary",
]
