"""Flows between probability laws: paths, couplings, losses, samplers, entropic schedules."""

from neuralpde.flows.bridge_fields import BridgeFlow, BridgeProcess
from neuralpde.flows.carre_du_champ import CarreDuChamp, LocalCovariance, local_covariance
from neuralpde.flows.entropic import Entropic
from neuralpde.flows.estimators import Estimate, Pilot
from neuralpde.flows.laplacian_bridge import LaplacianBridge
from neuralpde.flows.paths import BrownianBridge, Coefficients, Isotropic, Path, Sample
from neuralpde.flows.rates import BridgeRates
from neuralpde.flows.spectral import TraceEstimate

__all__ = [
    "BridgeFlow",
    "BridgeProcess",
    "BridgeRates",
    "BrownianBridge",
    "CarreDuChamp",
    "Coefficients",
    "Entropic",
    "Estimate",
    "Isotropic",
    "LaplacianBridge",
    "LocalCovariance",
    "Path",
    "Pilot",
    "Sample",
    "TraceEstimate",
    "local_covariance",
]
