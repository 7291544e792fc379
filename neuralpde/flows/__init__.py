"""Flows between probability laws: paths, couplings, losses, samplers, entropic schedules."""

from neuralpde.flows.bridge_fields import BridgeFlow, BridgeProcess
from neuralpde.flows.carre_du_champ import CarreDuChamp, LocalCovariance, local_covariance
from neuralpde.flows.laplacian_bridge import LaplacianBridge
from neuralpde.flows.paths import BrownianBridge, Coefficients, Isotropic, Path, Sample
from neuralpde.flows.spectral import Estimate

__all__ = [
    "BridgeFlow",
    "BridgeProcess",
    "BrownianBridge",
    "CarreDuChamp",
    "Coefficients",
    "Estimate",
    "Isotropic",
    "LaplacianBridge",
    "LocalCovariance",
    "Path",
    "Sample",
    "local_covariance",
]
