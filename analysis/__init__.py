"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.comparison import Problem, Run, compare
from analysis.curvature import balanced_forman, forman
from analysis.decay import Decay, Law, fit_decay
from analysis.distances import median_bandwidths, mmd2, wasserstein
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.gap import Cut, cheeger_sweep, fiedler_vector, spectral_gap
from analysis.invariants import Lyapunov, Mass
from analysis.measures import Measure
from analysis.problems import FieldProblem
from analysis.ranks import EffectiveRank, NumericalRank
from analysis.resistance import (
    Resistances,
    commute_time,
    effective_resistance,
    kirchhoff_index,
)
from analysis.ricci import lin_lu_yau, ollivier
from analysis.significance import Paired, compare_pairs, holm
from analysis.similarity import MAD, ConsensusDistance
from analysis.study import Study
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
    "FieldProblem",
    "Law",
    "Lyapunov",
    "Mass",
    "Measure",
    "Norm",
    "NumericalRank",
    "Paired",
    "Problem",
    "Rayleigh",
    "Resistances",
    "Run",
    "Study",
    "Verdict",
    "balanced_forman",
    "cheeger_sweep",
    "commute_time",
    "compare",
    "compare_pairs",
    "dirichlet_energy",
    "effective_resistance",
    "fiedler_vector",
    "fit_decay",
    "forman",
    "holm",
    "kirchhoff_index",
    "lin_lu_yau",
    "median_bandwidths",
    "mmd2",
    "ollivier",
    "plots",
    "spectral_gap",
    "trace",
    "verdict",
    "wasserstein",
]
