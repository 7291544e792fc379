"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.curvature import balanced_forman, forman
from analysis.decay import Decay, Law, fit_decay
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.gap import Cut, cheeger_sweep, fiedler_vector, spectral_gap
from analysis.influence import (
    Profile,
    hop_distances,
    influence,
    influence_profile,
    receptive_field,
)
from analysis.invariants import Lyapunov, Mass
from analysis.measures import Measure
from analysis.networks import network_sensitivity
from analysis.ranks import EffectiveRank, NumericalRank
from analysis.resistance import (
    Resistances,
    commute_time,
    effective_resistance,
    kirchhoff_index,
)
from analysis.ricci import lin_lu_yau, ollivier
from analysis.sensitivity import Sensitivity, sensitivity
from analysis.similarity import MAD, ConsensusDistance
from analysis.tracing import trace
from analysis.verdicts import Verdict, verdict
from neuralpde.energies import dirichlet_energy

__all__ = [
    "MAD",
    "ConsensusDistance",
    "Cut",
    "Decay",
    "Dirichlet",
    "EffectiveRank",
    "Law",
    "Lyapunov",
    "Mass",
    "Measure",
    "Norm",
    "NumericalRank",
    "Profile",
    "Rayleigh",
    "Resistances",
    "Sensitivity",
    "Verdict",
    "balanced_forman",
    "cheeger_sweep",
    "commute_time",
    "dirichlet_energy",
    "effective_resistance",
    "fiedler_vector",
    "fit_decay",
    "forman",
    "hop_distances",
    "influence",
    "influence_profile",
    "kirchhoff_index",
    "lin_lu_yau",
    "network_sensitivity",
    "ollivier",
    "plots",
    "receptive_field",
    "sensitivity",
    "spectral_gap",
    "trace",
    "verdict",
]
