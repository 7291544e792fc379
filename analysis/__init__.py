"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.measures import Dirichlet, Measure, Norm, Rayleigh
from neuralpde.energies import dirichlet_energy

__all__ = ["Dirichlet", "Measure", "Norm", "Rayleigh", "dirichlet_energy", "plots"]
