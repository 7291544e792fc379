"""Stochastic fields with known solutions, for the tests of noise."""

import numpy as np
import torch
from torch import Tensor, nn

from neuralpde import Graph
from neuralpde.fields import Field, Noise, Reaction
from solvers.stochastic import EulerMaruyama, StochasticHeun

STEPPERS = {"euler_maruyama": EulerMaruyama, "stochastic_heun": StochasticHeun}
NODES = 9
EDGES = torch.tensor([[0, 1, 2, 3, 1, 3, 4, 6], [1, 2, 3, 0, 3, 4, 5, 7]])
# A cycle with a chord and a tail, a pair, and an isolated node: three eigenvalues 0.
GRAPH = Graph(torch.cat([EDGES, EDGES.flip(0)], 1), num_nodes=NODES)
GROWTH, SPREAD = 0.7, 0.6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.float64)


class Growth(Field):
    """dX = m X dt + s X dW, the geometric Brownian motion, as a field of one's own."""

    def __init__(self, rate: float = GROWTH, spread: float = SPREAD) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))
        self.spread = nn.Parameter(torch.tensor(spread, dtype=torch.float64))

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return self.rate * x

    def noise(self, t: Tensor, x: Tensor) -> Tensor:
        return self.spread * x


class Own(Field):
    """Decay, with whatever noise it is given."""

    def __init__(self, noise: object) -> None:
        super().__init__()
        self.noise = noise

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -x


class Pull(Field):
    """A drift that is neither linear nor autonomous."""

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.sin(3 * t) - 2 * torch.sin(x)


def stratonovich_growth() -> Field:
    return Reaction([0.0, GROWTH]) + Noise(lambda t, x: SPREAD * x, convention="stratonovich")


def slope(steps: np.ndarray, errors: list[float]) -> float:
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])
