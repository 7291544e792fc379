"""Differential equations on graphs: write a vector field, solve it, read its Dirichlet energy."""

from neuralpde import catalogue, data, fields, flows, operators, stopping
from neuralpde.energies import dirichlet_energy
from neuralpde.graph import Graph
from neuralpde.odeint import odeint, odeint_adjoint, odeint_event
from neuralpde.solve import solve
from neuralpde.steady import steady_state
from solvers.failure import SolveFailed, SolveInterrupted
from solvers.series import Series
from solvers.trajectory import Trajectory

__version__ = "0.1.0"

__all__ = [
    "Graph",
    "Series",
    "SolveFailed",
    "SolveInterrupted",
    "Trajectory",
    "catalogue",
    "data",
    "dirichlet_energy",
    "fields",
    "flows",
    "odeint",
    "odeint_adjoint",
    "odeint_event",
    "operators",
    "solve",
    "steady_state",
    "stopping",
]
