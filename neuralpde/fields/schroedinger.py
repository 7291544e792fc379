"""The Schroedinger equation on a graph: unitary flow, exact in both directions of time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from neuralpde.fields.constants import hold, per_graph
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Pattern, SkewAdjoint, SparseOperator
from neuralpde.operators.tags import Enclosure, Tags
from solvers.rows import Rows

Potential = Float[Tensor, " nodes"] | Callable[[Graph], Float[Tensor, " nodes"]] | None


class Schroedinger(Field):
    """The Schroedinger equation, psi' = -i H psi with H = rate L + V (hbar = 1).

    The state is complex. Norms are conserved (weighted by degrees for "rw", by the measure of a
    graph with `node_weight`), and so is the energy <psi, H psi>, which is `lyapunov`. The field is
    linear and solved exactly, forwards and backwards in time, by a Chebyshev series with Bessel
    coefficients and an error bound. With V = 0 it is the continuous-time quantum walk of L.

    Args:
        rate: A number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        potential: V, one real number for each node, or a function of the graph that returns them;
            None for none. An `nn.Parameter` is learned.
        norm: "comb", "rw", "sym" or "augmented"; see `Graph.laplacian`.

    Raises:
        ValueError: For numbers that are not finite; at bind, for a potential of another length and
            for directed graphs, where H is not self-adjoint.
        TypeError: At bind, for a state that is not complex.

    References:
        Farhi and Gutmann, Quantum computation and decision trees, Phys. Rev. A 58 (1998), 915;
        Muelken and Blumen, Continuous-time quantum walks, Phys. Rep. 502 (2011), 37.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> psi = torch.tensor([[1.0 + 0.0j], [0.0j]])
    >>> field = Schroedinger(rate=2.0, potential=torch.tensor([0.5, 0.0])).bind(graph, psi)
    >>> field(torch.tensor(0.0), psi).flatten().tolist(), field.lyapunov(psi).tolist()
    ([-2.5j, 2j], [2.5])
    """

    is_complex = True
    batched_time = True
    rate: float | Tensor
    potential: Potential

    def __init__(
        self,
        rate: float | Tensor = 1.0,
        potential: Potential | nn.Parameter = None,
        norm: str = "comb",
    ) -> None:
        super().__init__()
        self.norm = norm
        hold(self, "rate", rate)
        if isinstance(potential, Tensor):
            hold(self, "potential", potential)
        else:
            self.potential = potential

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build -i (rate L + V)."""
        assert self.norm is not None
        if not (isinstance(x0, Tensor) and x0.is_complex()):
            raise TypeError(
                "the state of a Schroedinger equation is one complex tensor; give x0.to("
                "torch.complex64), or torch.complex128 for double precision"
            )
        rate = per_graph("rate", self.rate, graph.num_graphs)
        H = graph.laplacian(self.norm)
        if not H.self_adjoint:
            # Refused before a potential hides why.
            SkewAdjoint(H)
        H = H * rate
        if self.potential is not None:
            V = self.potential(graph) if callable(self.potential) else self.potential
            H = _plus_diagonal(H, V, graph)
        self.operator = SkewAdjoint(H)
        # The operator stands for what it was made of.
        self._parameters = {}
        vars(self).pop("potential", None)

    def lyapunov(self, x: Complex[Tensor, "nodes ..."]) -> Float[Tensor, " graphs"]:
        """The energy <psi, H psi> of each graph, float64; conserved."""
        assert self.operator is not None
        H = self.operator.hamiltonian
        assert H is not None
        both = (x.conj() * (H @ x)).real
        if H.metric is not None:
            both = both * H.metric.to(both.dtype).view(-1, *[1] * (x.dim() - 1))
        return Rows(H.batch, H.num_graphs).sums((both,))

    def extra_repr(self) -> str:
        """The arguments."""
        return f"rate={self.rate!r}, norm={self.norm!r}"


def _plus_diagonal(H: SparseOperator, V: Tensor, graph: Graph) -> SparseOperator:
    """Return H + diag(V), self-adjoint where H is."""
    if V.is_complex() or V.shape != (graph.num_nodes,):
        raise ValueError(
            f"the potential is {V.dtype} of shape {tuple(V.shape)}; it is one real number for each "
            f"of the {graph.num_nodes} nodes"
        )
    V = V.to(H.device, torch.float64)
    ends = V.detach()
    lo, hi = (H.graphs.reduced(ends, how) for how in ("amin", "amax"))
    tags = Tags(
        torch.finfo(V.dtype).eps,
        symmetric=H.symmetric,
        metric=H.metric,
        enclosure=Enclosure(lo, hi, H.graphs.reduced(ends.abs(), "amax")),
    )
    diagonal = SparseOperator.tagged(Pattern.identity(len(V), V.device), V, tags, H.graphs)
    # Cast like the Laplacian: it remembers what it was, and phases of single states are right.
    total = H + diagonal.to(H.dtype)
    assert isinstance(total, SparseOperator)
    return total
