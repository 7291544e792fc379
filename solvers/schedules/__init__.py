"""Time grids on [0, 1] for fixed-step methods: formulas, densities, pilot runs; pure data."""

from solvers.schedules.bridges import BridgeEntropy, BridgeSpread
from solvers.schedules.closed_forms import (
    Beta,
    Cosine,
    LogitUniform,
    Points,
    Power,
    Sigmoid,
    Uniform,
)
from solvers.schedules.density import Density
from solvers.schedules.jumps import fewest_misses
from solvers.schedules.noise_levels import AlignYourSteps, Karras, Shift
from solvers.schedules.pilots import Quantiles, equidistributed, from_trajectory
from solvers.schedules.registry import SCHEDULES, from_json, get
from solvers.schedules.schedule import Grid as Grid
from solvers.schedules.schedule import Named, Reversed, Schedule

__all__ = [
    "SCHEDULES",
    "AlignYourSteps",
    "Beta",
    "BridgeEntropy",
    "BridgeSpread",
    "Cosine",
    "Density",
    "Karras",
    "LogitUniform",
    "Named",
    "Points",
    "Power",
    "Quantiles",
    "Reversed",
    "Schedule",
    "Shift",
    "Sigmoid",
    "Uniform",
    "equidistributed",
    "fewest_misses",
    "from_json",
    "from_trajectory",
    "get",
]
