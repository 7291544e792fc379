"""Real graphs: two that come with the package; benchmark sets and traffic from files in reach."""

from neuralpde.data.benchmarks import Benchmark, load
from neuralpde.data.embedded import karate, minnesota
from neuralpde.data.standard import Standard
from neuralpde.data.traffic import Traffic, load_traffic

__all__ = ["Benchmark", "Standard", "Traffic", "karate", "load", "load_traffic", "minnesota"]
