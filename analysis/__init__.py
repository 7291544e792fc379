"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.bands import BandEnergy
from analysis.curvature import balanced_forman, forman
from analysis.decay import Decay, Law, fit_decay
from analysis.density import Density, density_of_states
from analysis.dominance import Dominance, Tendency, dominance, tendency
from analysis.ends import Extremes, extremes
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.gap import Cut, cheeger_sweep, fiedler_vector, spectral_gap
from analysis.invariants import Lyapunov, Mass
from analysis.measures import Measure
from analysis.ranks import EffectiveRank, NumericalRank
from analysis.resistance import (
    Resistances,
    commute_time,
    effective_resistance,
    kirchhoff_index,
)
from analysis.ricci import lin_lu_yau, ollivier
from analysis.similarity import MAD, ConsensusDistance
from analysis.spectra import Spectrum, spectrum
from analysis.tracing import trace
from analysis.transfer import scaled, transfer_error
from analysis.verdicts import Verdict, verdict
from analysis.waves import JointSpectrum, joint_spectrum
from neuralpde.energies import dirichlet_energy

__all__ = [
    "MAD",
    "BandEnergy",
    "ConsensusDistance",
    "Cut",
    "Decay",
    "Density",
    "Dirichlet",
    "Dominance",
    "EffectiveRank",
    "Extremes",
    "JointSpectrum",
    "Law",
    "Lyapunov",
    "Mass",
    "Measure",
    "Norm",
    "NumericalRank",
    "Rayleigh",
    "Resistances",
    "Spectrum",
    "Tendency",
    "Verdict",
    "balanced_forman",
    "cheeger_sweep",
    "commute_time",
    "density_of_states",
    "dirichlet_energy",
    "dominance",
    "effective_resistance",
    "extremes",
    "fiedler_vector",
    "fit_decay",
    "forman",
    "joint_spectrum",
    "kirchhoff_index",
    "lin_lu_yau",
    "ollivier",
    "plots",
    "scaled",
    "spectral_gap",
    "spectrum",
    "tendency",
    "trace",
    "transfer_error",
    "verdict",
]
