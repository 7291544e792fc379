"""Flows between probability laws: paths, couplings, losses, samplers, entropic schedules."""

from neuralpde.flows.bridge_fields import BridgeFlow, BridgeProcess
from neuralpde.flows.laplacian_bridge import LaplacianBridge
from neuralpde.flows.paths import BrownianBridge, Coefficients, Isotropic, Path, Sample
from neuralpde.flows.spectral import Estimate

__all__ = [
    "BridgeFlow",
    "BridgeProcess",
    "BrownianBridge",
    "Coefficients",
    "Estimate",
    "Isotropic",
    "LaplacianBridge",
    "Path",
    "Sample",
]
