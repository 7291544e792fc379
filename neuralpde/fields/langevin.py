"""Langevin dynamics: down an energy, with thermal noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.constants import hold, spend
from neuralpde.fields.field import State
from neuralpde.fields.gradient_flow import GradientFlow
from neuralpde.graph import Graph
from solvers.rows import Rows

Energy = Callable[[Tensor, Graph], Tensor]


class DoubleWell(nn.Module):
    """A double well on every node, coupled by springs: the energy of Allen and Cahn.

    `E(x) = coupling/2 x^T L x + height/4 sum_i (1 - x_i^2)^2`, L = D - A, the sum over channels of
    it; -dE/dx is `-coupling L x + height (x - x^3)`.

    Args:
        coupling: Of neighbours: a number or a 0-d tensor; an `nn.Parameter` is learned.
        height: Of the barrier at 0 is a quarter of it: likewise.

    Raises:
        ValueError: On a directed graph, where -L x is no gradient.

    References:
        Allen and Cahn, Acta Metall. 27 (1979), 1085.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> DoubleWell()(torch.tensor([[1.0], [-1.0]]), graph).tolist()  # |1 - -1|^2 / 2, no wells
    [2.0]
    """

    coupling: float | Tensor
    height: float | Tensor

    def __init__(self, coupling: float | Tensor = 1.0, height: float | Tensor = 1.0) -> None:
        super().__init__()
        hold(self, "coupling", coupling, dims=0)
        hold(self, "height", height, dims=0)

    def forward(self, x: Tensor, graph: Graph) -> Float[Tensor, " graphs"]:
        """The energy of each graph."""
        if graph.directed or graph.node_weight is not None:
            raise ValueError(
                "the springs of a double well are those of an undirected graph without "
                'node_weight; use graph.undirected(reduce="max")'
            )
        springs = 0.5 * self.coupling * x * (graph.like(x).laplacian("comb") @ x)
        wells = 0.25 * self.height * (1 - x.square()).square()
        return Rows(graph.batch, graph.num_graphs).sums((springs + wells,))

    def slope(self, x: Tensor, graph: Graph) -> Tensor:
        """dE/dx, without automatic differentiation, so that a field of it can be compiled."""
        springs = self.coupling * (graph.like(x).laplacian("comb") @ x)
        return springs - self.height * (x - x**3)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"coupling={self.coupling!r}, height={self.height!r}"


class Langevin(GradientFlow):
    """Overdamped Langevin dynamics, dX = -grad E(X) dt + sqrt(2 T) dW.

    Where exp(-E/T) can be integrated, it is the density of the stationary law, up to a factor. On a
    grid of steps h the law is another one, at a distance of order h: compare two step sizes.

    `lyapunov` is E, which the drift descends: at temperature 0 the field is the gradient flow.

    Args:
        energy: A function of the state and the graph that returns a number, or one for each graph
            (`[graphs]`: needed for batches by `lyapunov` alone); an `nn.Module` where it has
            parameters. Where it has a method `slope(x, graph)`, that is dE/dx; else it is
            differentiated by autograd at every evaluation, which torch.compile cannot trace.
        temperature: T: a number or a 0-d tensor, not negative; an `nn.Parameter` is learned.

    Raises:
        ValueError: For a temperature that is negative or not finite.

    References:
        Gardiner, Handbook of stochastic methods, 4th edition 2009, section 5.3; Roberts and
        Tweedie, Bernoulli 2 (1996), 341, for the law on a grid.

    >>> well = Langevin(lambda x, graph: (x**4 / 4).sum(), temperature=0.5)
    >>> bound = well.bind(Graph(torch.zeros(2, 0).long(), 1), torch.tensor([[2.0]]))
    >>> bound(torch.tensor(0.0), torch.tensor([[2.0]])).tolist(), bound.noise
    ([[-8.0]], 1.0)
    """

    temperature: float | Tensor

    def __init__(
        self, energy: Energy | nn.Module | None = None, temperature: float | Tensor = 1.0
    ) -> None:
        super().__init__(DoubleWell() if energy is None else energy)
        hold(self, "temperature", temperature, dims=0)
        if not bool(torch.as_tensor(temperature).detach() >= 0):
            raise ValueError(f"temperature is {temperature!r}; it is not negative")

    def prepare(self, graph: Graph, x0: State) -> None:
        """Freeze the strength of the noise."""
        if isinstance(self.temperature, Tensor):
            self.noise = (2 * self.temperature).sqrt()
        elif self.temperature:
            self.noise = math.sqrt(2 * self.temperature)
        with torch.no_grad():
            # What the energy asks of the graph is found here, once.
            self.energy(x0, graph)
        spend(self, "temperature")

    def extra_repr(self) -> str:
        """The temperature."""
        return f"temperature={self.temperature!r}"
