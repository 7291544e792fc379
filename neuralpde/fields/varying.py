"""Heat on a graph whose edge weights change in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.constants import hold
from neuralpde.fields.diffusion import Diffusion
from neuralpde.fields.field import Field, State
from neuralpde.fields.layers import Layers
from neuralpde.graph import Graph
from neuralpde.operators import Operator, multiply
from solvers.failure import unknown_name

Snapshots = Float[Tensor, "snapshots edges"] | Callable[[Graph], Float[Tensor, "snapshots edges"]]

KINDS = ("linear", "constant")
NORMS = ("comb", "rw")


class Varying(Field):
    """Heat flow on a graph with weights that depend on time, dx/dt = -L(w(t)) x.

    The weights of the edges are given at some times and interpolated: linearly, or constant from
    each time to the next ("constant"). Before the first and after the last time they stand still.
    The graph names the edges that there ever are (`Varying.union` makes it of several graphs); only
    the values change with t, no pattern is built again.

    Linear weights have kinks at the inner times: put these on the grid of a method with fixed steps
    (in `t`). Weights that jump break the order of every method that steps over a jump: solve
    `field.layers(start, end)`, whose pieces end there and are solved exactly.

    Args:
        weights: `[snapshots, edges]`, not negative, in the order of `graph.edge_index` (sorted by
            receiver, then sender), or a function of the graph that returns them; an `nn.Parameter`
            is learned.
        times: Their times, rising; 0, ..., 1 in equal steps by default.
        kind: "linear" or "constant".
        norm: "comb" (D - A) or "rw" (I - D^-1 A), at every time.

    Raises:
        ValueError: For unknown names, and times that do not rise; at bind for weights of another
            shape or negative ones.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> field = Varying(torch.tensor([[1.0, 1.0], [3.0, 3.0]]))
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> field.bind(graph, x)(torch.tensor(0.5), x).flatten().tolist()
    [2.0, -2.0]
    """

    weights: Snapshots

    def __init__(
        self,
        weights: Snapshots,
        times: Sequence[float] | None = None,
        *,
        kind: str = "linear",
        norm: str = "comb",
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)
        self.kind, self.norm = kind, norm
        self.times = None if times is None else tuple(float(time) for time in times)
        if self.times is not None and not _rise(self.times):
            raise ValueError(f"times are {list(self.times)}; give at least one, rising")
        if isinstance(weights, Tensor):
            hold(self, "weights", weights, dims=2)
        else:
            self.weights = weights

    @classmethod
    def union(
        cls,
        graphs: Sequence[Graph],
        times: Sequence[float] | None = None,
        *,
        kind: str = "linear",
        norm: str = "comb",
    ) -> tuple[Graph, Varying]:
        """Return the graph with the edges of all graphs, and the field that goes through them.

        Args:
            graphs: Snapshots on the same nodes.
            times: Their times.
            kind: "linear" or "constant".
            norm: "comb" or "rw".

        Raises:
            ValueError: For no graphs, or graphs on different nodes.

        >>> ends = [Graph(torch.tensor([[i, i + 1], [i + 1, i]]), 3) for i in (0, 1)]
        >>> graph, field = Varying.union(ends)
        >>> graph.num_edges, field.weights.tolist()
        (2, [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
        """
        if not graphs or len({graph.num_nodes for graph in graphs}) > 1:
            raise ValueError("give at least one graph, all of them on the same nodes")
        first = graphs[0]
        edges = torch.cat([graph.edge_index for graph in graphs], 1)
        whole = Graph(edges, first.num_nodes, batch=first.batch)
        ones = torch.ones(whole.edge_index.shape[1], dtype=torch.float64)
        whole = Graph(whole.edge_index, first.num_nodes, ones, first.batch).to(dtype=first.dtype)
        weights = torch.zeros(len(graphs), len(ones), dtype=torch.float64)
        keys = whole.edge_index[1] * first.num_nodes + whole.edge_index[0]
        for row, graph in zip(weights, graphs, strict=True):
            own = graph.edge_index[1] * first.num_nodes + graph.edge_index[0]
            row[torch.searchsorted(keys, own)] = graph.edge_weight
        return whole, cls(weights, times, kind=kind, norm=norm)

    def layers(self, start: float, end: float) -> Layers:
        """Return the field as `Layers` over [start, end], for weights that are constant in pieces.

        Each piece is linear, and solved exactly by `solve(field.layers(a, b), x0, (a, b), graph)`.
        Its weights are constants: gradients to learned ones go through the field itself.

        Raises:
            ValueError: For weights that are not, and an empty interval.

        >>> field = Varying(torch.ones(3, 2), [0.0, 1.0, 2.0], kind="constant")
        >>> field.layers(0.5, 2.5).fractions
        (0.0, 0.25, 0.75, 1.0)
        """
        if self.kind != "constant" or self.times is None:
            raise ValueError('layers need kind="constant" and times=')
        if not end > start:
            raise ValueError(f"the interval from {start} to {end} is empty")
        inside = [time for time in self.times[1:] if start < time < end]
        bounds = [start, *inside, end]
        pieces = [Diffusion(_Frozen(self, (a + b) / 2), self.norm) for a, b in pairwise(bounds)]
        return Layers(pieces, [(bound - start) / (end - start) for bound in bounds])

    def prepare(self, graph: Graph, x0: State) -> None:
        """Bring the snapshots into the dtype of the state."""
        assert isinstance(x0, Tensor)
        if graph.node_weight is not None:
            raise ValueError("this field knows no node_weight; give a graph without")
        # Laplacians do not see self-loops.
        apart = (graph.edge_index[0] != graph.edge_index[1]).double()
        self.snapshots = (self._snapshots(graph) * apart).to(x0.device, x0.dtype.to_real())
        count = len(self.snapshots)
        given = torch.linspace(0, 1, count).tolist() if self.times is None else self.times
        if len(given) != count:
            raise ValueError(f"{count} snapshots of weights and {len(given)} times; give one each")
        self.at = torch.tensor(given, dtype=torch.float64, device=x0.device)
        # The snapshots stand for the parameters they were computed from.
        for held in (self._parameters, self._buffers, self._modules, vars(self)):
            held.pop("weights", None)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """-L(w(t)) x: what comes from the neighbours, less what is there."""
        assert self.graph is not None
        w = self._at(t)
        row = self.graph.pattern.row
        degree = w.new_zeros(self.graph.num_nodes).index_add(0, row, w)
        if self.norm == "rw":
            w = w / torch.where(degree > 0, degree, 1.0)[row]
            degree = (degree > 0).to(w)
        return multiply(self.graph.pattern, w, x) - degree.view(-1, *[1] * (x.dim() - 1)) * x

    def _snapshots(self, graph: Graph) -> Tensor:
        weights = self.weights if isinstance(self.weights, Tensor) else self.weights(graph)
        edges = graph.edge_index.shape[1]
        if weights.dim() != 2 or not len(weights) or weights.shape[1] != edges:
            raise ValueError(
                f"weights are {tuple(weights.shape)}; give [snapshots, {edges}], a number for each "
                "column of graph.edge_index (both directions of undirected edges)"
            )
        if not bool((weights.detach() >= 0).all()):
            raise ValueError("weights of edges are finite and not negative")
        return weights

    def _at(self, t: Tensor) -> Tensor:
        """The weights at time t, differentiable in it."""
        count = len(self.at)
        if count == 1:
            return self.snapshots[0]
        time = t.to(torch.float64)
        right = torch.searchsorted(self.at, time.detach(), right=True).clamp(1, count - 1)
        if self.kind == "constant":
            return self._snapshot(torch.where(time.detach() >= self.at[-1], right, right - 1))
        left, span = self.at.take(right - 1), self.at.take(right) - self.at.take(right - 1)
        share = ((time - left) / span).clamp(0.0, 1.0).to(self.snapshots.dtype)
        return torch.lerp(self._snapshot(right - 1), self._snapshot(right), share)

    def _snapshot(self, place: Tensor) -> Tensor:
        # As an operation on tensors, which a trace of the field can hold.
        return self.snapshots.index_select(0, place.view(1)).squeeze(0)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kind={self.kind!r}, norm={self.norm!r}, times={self.times}"


class _Frozen:
    """The operator -L(w(t)) at one time."""

    def __init__(self, field: Varying, time: float) -> None:
        self.field, self.time = field, time

    def __call__(self, graph: Graph, x0: State) -> Operator:
        assert self.field.times is not None
        place = sum(time <= self.time for time in self.field.times) - 1
        weights = self.field._snapshots(graph)[max(place, 0)]
        assert self.field.norm is not None
        return (
            -Graph(graph.edge_index, graph.num_nodes, weights.detach(), graph.batch)
            .to(dtype=graph.dtype)
            .laplacian(self.field.norm)
        )


def _rise(times: Sequence[float]) -> bool:
    return bool(times) and all(a < b for a, b in pairwise(times))
