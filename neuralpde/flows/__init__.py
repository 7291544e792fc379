"""Flows between probability laws: paths, couplings, losses, samplers, entropic schedules."""

from neuralpde.flows.bridge_fields import BridgeFlow, BridgeProcess
from neuralpde.flows.carre_du_champ import CarreDuChamp, LocalCovariance, local_covariance
from neuralpde.flows.clouds import (
    checkerboard_points,
    circle_points,
    moon_points,
    swiss_roll_points,
)
from neuralpde.flows.conversions import score_from_velocity, velocity_from_score
from neuralpde.flows.couplings import (
    Coupling,
    EntropicTransport,
    Independent,
    OptimalTransport,
    sinkhorn,
    square_distances,
)
from neuralpde.flows.divergences import Divergence, Hutchinson, Trace
from neuralpde.flows.empirical import Empirical, principal_modes
from neuralpde.flows.entropic import Entropic
from neuralpde.flows.estimators import Estimate, Pilot
from neuralpde.flows.gaussian_flow import GaussianFlow, schroedinger_covariance
from neuralpde.flows.gaussian_paths import CosinePath, Diffusing, VariancePreserving
from neuralpde.flows.graph_sampling import carry
from neuralpde.flows.laplacian_bridge import LaplacianBridge
from neuralpde.flows.likelihood import log_prob
from neuralpde.flows.linear import Linear
from neuralpde.flows.losses import EndWeight, bridge_loss, draw_times, flow_loss, score_loss
from neuralpde.flows.mixture_flow import MixtureFlow
from neuralpde.flows.mixtures import Mixture, checkerboard, eight_gaussians, moons, normal
from neuralpde.flows.modal_network import ModalNetwork
from neuralpde.flows.models import Drifts, FromScore, FromVelocity, Heads, Learned, Model, Pair
from neuralpde.flows.networks import MLP, GraphNetwork
from neuralpde.flows.paths import BrownianBridge, Coefficients, Isotropic, Path, Sample
from neuralpde.flows.rates import BridgeRates
from neuralpde.flows.samplers import ProbabilityFlow, StochasticSampler
from neuralpde.flows.spectral import TraceEstimate
from neuralpde.flows.training import train_bridge, train_on_graph
from neuralpde.flows.walk import Walk

__all__ = [
    "MLP",
    "BridgeFlow",
    "BridgeProcess",
    "BridgeRates",
    "BrownianBridge",
    "CarreDuChamp",
    "Coefficients",
    "CosinePath",
    "Coupling",
    "Diffusing",
    "Divergence",
    "Drifts",
    "Empirical",
    "EndWeight",
    "Entropic",
    "EntropicTransport",
    "Estimate",
    "FromScore",
    "FromVelocity",
    "GaussianFlow",
    "GraphNetwork",
    "Heads",
    "Hutchinson",
    "Independent",
    "Isotropic",
    "LaplacianBridge",
    "Learned",
    "Linear",
    "LocalCovariance",
    "Mixture",
    "MixtureFlow",
    "ModalNetwork",
    "Model",
    "OptimalTransport",
    "Pair",
    "Path",
    "Pilot",
    "ProbabilityFlow",
    "Sample",
    "StochasticSampler",
    "Trace",
    "TraceEstimate",
    "VariancePreserving",
    "Walk",
    "bridge_loss",
    "carry",
    "checkerboard",
    "checkerboard_points",
    "circle_points",
    "draw_times",
    "eight_gaussians",
    "flow_loss",
    "local_covariance",
    "log_prob",
    "moon_points",
    "moons",
    "normal",
    "principal_modes",
    "schroedinger_covariance",
    "score_from_velocity",
    "score_loss",
    "sinkhorn",
    "square_distances",
    "swiss_roll_points",
    "train_bridge",
    "train_on_graph",
    "velocity_from_score",
]
