"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.curvature import balanced_forman, forman
from analysis.decay import Decay, Law, fit_decay
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.invariants import Lyapunov, Mass
from analysis.measures import Measure
from analysis.ranks import EffectiveRank, NumericalRank
from analysis.ricci import lin_lu_yau, ollivier
from analysis.similarity import MAD, ConsensusDistance
from analysis.tracing import trace
from analysis.verdicts import Verdict, verdict
from neuralpde.energies import dirichlet_energy

__all__ = [
    "MAD",
    "ConsensusDistance",
    "Decay",
    "Dirichlet",
    "EffectiveRank",
    "Law",
    "Lyapunov",
    "Mass",
    "Measure",
    "Norm",
    "NumericalRank",
    "Rayleigh",
    "Verdict",
    "balanced_forman",
    "dirichlet_energy",
    "fit_decay",
    "forman",
    "lin_lu_yau",
    "ollivier",
    "plots",
    "trace",
    "verdict",
]
