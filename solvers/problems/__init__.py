"""Initial value problems with known answers, for tests of one's own methods."""

from solvers.problems.detest import DETEST
from solvers.problems.ode import ODE
from solvers.problems.oscillators import DAMPED, DRIVEN, DUFFING, HARMONIC, Oscillator
from solvers.problems.smooth import (
    BRUSSELATOR,
    DECAY,
    LINE,
    LOTKA_VOLTERRA,
    ROTATION,
    SEASON,
    SINE,
)
from solvers.problems.stiff import HIRES, OREGO, ROBER, ROBER_SHORT, VDP, VDPOL

__all__ = [
    "BRUSSELATOR",
    "DAMPED",
    "DECAY",
    "DETEST",
    "DRIVEN",
    "DUFFING",
    "HARMONIC",
    "HIRES",
    "LINE",
    "LOTKA_VOLTERRA",
    "ODE",
    "OREGO",
    "ROBER",
    "ROBER_SHORT",
    "ROTATION",
    "SEASON",
    "SINE",
    "VDP",
    "VDPOL",
    "Oscillator",
]
