"""Flows between probability laws: paths, couplings, losses, samplers, entropic schedules."""

from neuralpde.flows.entropic import Entropic
from neuralpde.flows.estimators import Estimate, Pilot
from neuralpde.flows.paths import BrownianBridge, Coefficients, Isotropic, Path, Sample
from neuralpde.flows.rates import BridgeRates

__all__ = [
    "BridgeRates",
    "BrownianBridge",
    "Coefficients",
    "Entropic",
    "Estimate",
    "Isotropic",
    "Path",
    "Pilot",
    "Sample",
]
