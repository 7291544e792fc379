"""Waves on a graph: the second-order companion of heat flow."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.fields.constants import hold, per_graph
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators.graphs import Graphs
from solvers.rows import Rows


class Wave(Field):
    """The wave equation, x'' = -c^2 L x - damping x', as dx/dt = v, dv/dt = -c^2 L x - damping v.

    The state is the pair `(x, v)` of position and velocity. Each eigenvector of L with eigenvalue
    lambda swings with frequency `c sqrt(lambda)`; on a ring of n nodes that is the dispersion
    relation `2 c sin(pi k / n)`. The energy of a trajectory is that of x; `lyapunov` is the total
    one, which is conserved without damping and never rises with it.

    Args:
        speed: c: a number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        norm: "comb" (D - A; M^-1 (D - A) on a graph with `node_weight` M), "rw", "sym" or
            "augmented"; see `Graph.laplacian`.
        damping: A number or a 0-d tensor; an `nn.Parameter` is learned.

    Raises:
        ValueError: For numbers that are not finite.
        TypeError: At bind, for a state that is no pair.

    References:
        Friedman and Tillich, Wave equations for graphs and the edge-based Laplacian, Pacific J.
        Math. 216 (2004); Eliasof et al., PDE-GCN, NeurIPS 2021, arXiv:2108.01938, eq. 3.

    >>> import torch
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x, v = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [0.0]])
    >>> field = Wave(speed=2.0, damping=0.5).bind(graph, (x, v))
    >>> [part.flatten().tolist() for part in field(torch.tensor(0.0), (x, v))]
    [[2.0, 0.0], [-5.0, 4.0]]
    >>> field.lyapunov((x, v)).tolist()
    [4.0]
    """

    order = 2
    batched_time = True
    speed: float | Tensor

    def __init__(
        self, speed: float | Tensor = 1.0, norm: str = "comb", damping: float | Tensor = 0.0
    ) -> None:
        super().__init__()
        self.norm = norm
        hold(self, "speed", speed)
        hold(self, "damping", damping, dims=0)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build -c^2 L."""
        assert self.norm is not None
        if not isinstance(x0, tuple) or len(x0) != 2:
            raise TypeError("the state of a wave is the pair (x, v) of position and velocity")
        speed = per_graph("speed", self.speed, graph.num_graphs)
        self.springs = graph.laplacian(self.norm) * -(speed**2)
        if type(self).force is Wave.force:
            # A subclass may add what is not linear.
            self.stiffness = self.springs

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        """The pull of the neighbours, -c^2 L x."""
        return self.springs @ x

    def lyapunov(self, x: tuple[Tensor, Tensor]) -> Float[Tensor, " graphs"]:
        """The total energy |v|^2 / 2 + c^2 x^T L x / 2 of each graph, float64.

        Norms are taken where L is self-adjoint: weighted by degrees for "rw", by the measure of a
        graph with `node_weight`.

        Raises:
            ValueError: On a directed graph, where no such energy exists.
        """
        graph, norm = self.graph, self.norm
        if graph is None or norm is None:
            raise ValueError("the energy of a wave needs a graph: bind the field first")
        if graph.directed:
            raise ValueError(
                "waves on a directed graph have no conserved energy; use "
                'graph.undirected(reduce="max")'
            )
        position, velocity = x
        speed = Graphs(graph.batch, graph.num_graphs, graph.device).numbers(self.speed)
        metric = graph.laplacian(norm).metric
        weighted: Tensor = velocity.detach()
        if metric is not None:
            shape = (-1, *[1] * (velocity.dim() - 1))
            weighted = weighted * metric.to(weighted.dtype.to_real()).sqrt().view(shape)
        kinetic = Rows(graph.batch, graph.num_graphs).sums((weighted.abs().square(),))
        elastic = DirichletForm(graph, norm)(position.detach())
        return 0.5 * kinetic + 0.5 * speed.square() * elastic.to(kinetic)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"speed={self.speed!r}, norm={self.norm!r}, damping={self.damping!r}"
