"""How time advances: steppers, exact exponentials, step control, schedules. Tensors, no graphs."""

from solvers import schedules
from solvers.brownian import Brownian
from solvers.control import PI, PID, Control
from solvers.exact import Exact, propagate
from solvers.explicit import ExplicitRungeKutta, explicit
from solvers.failure import SolveFailed, SolveInterrupted
from solvers.schedules import Cosine, Points, Power, Uniform
from solvers.series import Series
from solvers.signal import Signal
from solvers.stabilised import RKL2
from solvers.stochastic import EulerMaruyama, StochasticHeun
from solvers.tableaus import TABLEAUS
from solvers.trajectory import Stats, Trajectory

__all__ = [
    "PI",
    "PID",
    "RKL2",
    "TABLEAUS",
    "Brownian",
    "Control",
    "Cosine",
    "EulerMaruyama",
    "Exact",
    "ExplicitRungeKutta",
    "Points",
    "Power",
    "Series",
    "Signal",
    "SolveFailed",
    "SolveInterrupted",
    "Stats",
    "StochasticHeun",
    "Trajectory",
    "Uniform",
    "explicit",
    "propagate",
    "schedules",
]
