"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.decay import Decay, Law, fit_decay
from analysis.measures import Dirichlet, Measure, Norm, Rayleigh
from analysis.verdicts import Verdict, verdict
from neuralpde.energies import dirichlet_energy

__all__ = [
    "Decay",
    "Dirichlet",
    "Law",
    "Measure",
    "Norm",
    "Rayleigh",
    "Verdict",
    "dirichlet_energy",
    "fit_decay",
    "plots",
    "verdict",
]
