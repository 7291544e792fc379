"""Figures: every function takes `ax=None`, returns the axes, and never shows.

Sizes are those of a paper: `COLUMN` (85 mm) and `PAGE` (170 mm). matplotlib is imported when a
figure is drawn.
"""

from analysis.plots.curves import curve, energy
from analysis.plots.depths import depths
from analysis.plots.drift import curvature_flow
from analysis.plots.gallery import clouds, gallery
from analysis.plots.histograms import curvatures
from analysis.plots.influences import influence, jacobian, light_cone
from analysis.plots.maps import VIEWS, View, film, layout, state
from analysis.plots.pace import pace, step_errors, step_sizes
from analysis.plots.panels import PANELS, USUAL, course, panels
from analysis.plots.report import summary
from analysis.plots.resistances import resistance, rewired
from analysis.plots.roads import edges
from analysis.plots.spectrogram import dispersion, profile, spectrogram
from analysis.plots.studies import against_evaluations, grids, rates
from analysis.plots.style import BLUE, COLUMN, CYCLE, GREEN, GREY, ORANGE, PAGE, STYLE

__all__ = [
    "BLUE",
    "COLUMN",
    "CYCLE",
    "GREEN",
    "GREY",
    "ORANGE",
    "PAGE",
    "PANELS",
    "STYLE",
    "USUAL",
    "VIEWS",
    "View",
    "against_evaluations",
    "clouds",
    "course",
    "curvature_flow",
    "curvatures",
    "curve",
    "depths",
    "dispersion",
    "edges",
    "energy",
    "film",
    "gallery",
    "grids",
    "influence",
    "jacobian",
    "layout",
    "light_cone",
    "pace",
    "panels",
    "profile",
    "rates",
    "resistance",
    "rewired",
    "spectrogram",
    "state",
    "step_errors",
    "step_sizes",
    "summary",
]
