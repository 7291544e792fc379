"""Flows between probability laws: paths, couplings, losses, samplers, entropic schedules."""

from neuralpde.flows.paths import BrownianBridge, Coefficients, Isotropic, Path, Sample

__all__ = ["BrownianBridge", "Coefficients", "Isotropic", "Path", "Sample"]
