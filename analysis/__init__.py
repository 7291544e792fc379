"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.bounds import sensitivity_bound
from analysis.curvature import balanced_forman, forman
from analysis.decay import Decay, Law, fit_decay
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.gap import Cut, cheeger_sweep, fiedler_vector, spectral_gap
from analysis.influences import (
    Profile,
    arrival_times,
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
from analysis.sensitivities import Sensitivity, sensitivity
from analysis.similarity import MAD, ConsensusDistance
from analysis.spacetime import (
    Powers,
    SpaceTime,
    delay_line,
    space_time_sensitivity,
    split_flow,
    split_layers,
)
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
    "Powers",
    "Profile",
    "Rayleigh",
    "Resistances",
    "Sensitivity",
    "SpaceTime",
    "Verdict",
    "arrival_times",
    "balanced_forman",
    "cheeger_sweep",
    "commute_time",
    "delay_line",
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
    "sensitivity_bound",
    "space_time_sensitivity",
    "spectral_gap",
    "split_flow",
    "split_layers",
    "trace",
    "verdict",
]
