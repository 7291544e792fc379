"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.bands import BandEnergy
from analysis.cadence import Every
from analysis.candidates import Candidate, candidate
from analysis.comparison import Problem, Run, compare
from analysis.curvature import balanced_forman, forman
from analysis.decay import Decay, Law, fit_decay
from analysis.decurve import DecurveFlow, decurve_flow, propagation_curvature
from analysis.density import Density, density_of_states
from analysis.directed import DirectedDirichlet
from analysis.distances import median_bandwidths, mmd2, wasserstein
from analysis.dominance import Dominance, Tendency, dominance, tendency
from analysis.ends import Extremes, extremes
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.forms import FormEnergy
from analysis.gap import Cut, cheeger_sweep, fiedler_vector, spectral_gap
from analysis.invariants import Lyapunov, Mass
from analysis.loops import Loop, loop_of_map, loop_of_states
from analysis.measures import Measure
from analysis.orbits import loop_of_flow
from analysis.problems import FieldProblem
from analysis.propagation import propagate
from analysis.ranks import EffectiveRank, NumericalRank
from analysis.recovery import Recovery, recover_weights
from analysis.resistance import Resistances, commute_time, effective_resistance, kirchhoff_index
from analysis.ricci import lin_lu_yau, ollivier
from analysis.significance import Paired, compare_pairs, holm
from analysis.similarity import MAD, ConsensusDistance
from analysis.sketches import SampledDirichlet, SketchedDirichlet
from analysis.spectra import Spectrum, spectrum
from analysis.step_sizes import StepSize
from analysis.study import Study
from analysis.tracing import trace
from analysis.tracks import Track, track
from analysis.transfer import scaled, transfer_error
from analysis.verdicts import Verdict, verdict
from analysis.waves import JointSpectrum, joint_spectrum
from neuralpde.energies import dirichlet_energy

__all__ = [
    "MAD",
    "BandEnergy",
    "Candidate",
    "ConsensusDistance",
    "Cut",
    "Decay",
    "DecurveFlow",
    "Density",
    "DirectedDirichlet",
    "Dirichlet",
    "Dominance",
    "EffectiveRank",
    "Every",
    "Extremes",
    "FieldProblem",
    "FormEnergy",
    "JointSpectrum",
    "Law",
    "Loop",
    "Lyapunov",
    "Mass",
    "Measure",
    "Norm",
    "NumericalRank",
    "Paired",
    "Problem",
    "Rayleigh",
    "Recovery",
    "Resistances",
    "Run",
    "SampledDirichlet",
    "SketchedDirichlet",
    "Spectrum",
    "StepSize",
    "Study",
    "Tendency",
    "Track",
    "Verdict",
    "balanced_forman",
    "candidate",
    "cheeger_sweep",
    "commute_time",
    "compare",
    "compare_pairs",
    "decurve_flow",
    "density_of_states",
    "dirichlet_energy",
    "dominance",
    "effective_resistance",
    "extremes",
    "fiedler_vector",
    "fit_decay",
    "forman",
    "holm",
    "joint_spectrum",
    "kirchhoff_index",
    "lin_lu_yau",
    "loop_of_flow",
    "loop_of_map",
    "loop_of_states",
    "median_bandwidths",
    "mmd2",
    "ollivier",
    "plots",
    "propagate",
    "propagation_curvature",
    "recover_weights",
    "scaled",
    "spectral_gap",
    "spectrum",
    "tendency",
    "trace",
    "track",
    "transfer_error",
    "verdict",
    "wasserstein",
]
