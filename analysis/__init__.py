"""What one reads off a trajectory: measures, and the figures that show them."""

from analysis import plots
from analysis.bands import BandEnergy
from analysis.bounds import sensitivity_bound
from analysis.cadence import Every
from analysis.candidates import candidate
from analysis.comparison import compare
from analysis.curvature import balanced_forman, forman
from analysis.decay import Decay, fit_decay
from analysis.decurve import decurve_flow, propagation_curvature
from analysis.density import density_of_states
from analysis.directed import DirectedDirichlet
from analysis.distances import median_bandwidths, mmd2, wasserstein
from analysis.dominance import dominance, tendency
from analysis.ends import extremes
from analysis.energies import Dirichlet, Norm, Rayleigh
from analysis.flow_problems import FlowProblem
from analysis.forms import FormEnergy
from analysis.gap import cheeger_sweep, fiedler_vector, spectral_gap
from analysis.held_out import held_out
from analysis.influences import arrival_times, influence, influence_profile, receptive_field
from analysis.invariants import Lyapunov, Mass
from analysis.loops import loop_of_map, loop_of_states
from analysis.measures import Measure
from analysis.network_sensitivities import network_sensitivity
from analysis.orbits import loop_of_flow
from analysis.problems import FieldProblem
from analysis.propagation import propagate
from analysis.ranks import EffectiveRank, NumericalRank
from analysis.recovery import recover_weights
from analysis.resistance import Resistances, commute_time, effective_resistance, kirchhoff_index
from analysis.ricci import lin_lu_yau, ollivier
from analysis.sensitivities import Sensitivity, sensitivity
from analysis.similarity import MAD, ConsensusDistance
from analysis.sketches import SampledDirichlet, SketchedDirichlet
from analysis.spacetime import space_time_sensitivity
from analysis.spectra import Spectrum, spectrum
from analysis.step_sizes import StepSize
from analysis.study import Study
from analysis.tracing import trace
from analysis.tracks import Track, track
from analysis.transfer import transfer_error
from analysis.verdicts import Verdict, verdict
from analysis.waves import joint_spectrum
from neuralpde.energies import dirichlet_energy

__all__ = [
    "MAD",
    "BandEnergy",
    "ConsensusDistance",
    "Decay",
    "DirectedDirichlet",
    "Dirichlet",
    "EffectiveRank",
    "Every",
    "FieldProblem",
    "FlowProblem",
    "FormEnergy",
    "Lyapunov",
    "Mass",
    "Measure",
    "Norm",
    "NumericalRank",
    "Rayleigh",
    "Resistances",
    "SampledDirichlet",
    "Sensitivity",
    "SketchedDirichlet",
    "Spectrum",
    "StepSize",
    "Study",
    "Track",
    "Verdict",
    "arrival_times",
    "balanced_forman",
    "candidate",
    "cheeger_sweep",
    "commute_time",
    "compare",
    "decurve_flow",
    "density_of_states",
    "dirichlet_energy",
    "dominance",
    "effective_resistance",
    "extremes",
    "fiedler_vector",
    "fit_decay",
    "forman",
    "held_out",
    "influence",
    "influence_profile",
    "joint_spectrum",
    "kirchhoff_index",
    "lin_lu_yau",
    "loop_of_flow",
    "loop_of_map",
    "loop_of_states",
    "median_bandwidths",
    "mmd2",
    "network_sensitivity",
    "ollivier",
    "plots",
    "propagate",
    "propagation_curvature",
    "receptive_field",
    "recover_weights",
    "sensitivity",
    "sensitivity_bound",
    "space_time_sensitivity",
    "spectral_gap",
    "spectrum",
    "tendency",
    "trace",
    "track",
    "transfer_error",
    "verdict",
    "wasserstein",
]
