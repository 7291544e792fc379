"""Real graphs: two that come with the package, and the benchmark sets from files in reach."""

from neuralpde.data.benchmarks import Benchmark, load
from neuralpde.data.embedded import karate, minnesota

__all__ = ["Benchmark", "karate", "load", "minnesota"]
