"""The Allen-Cahn field: diffusion against a double well."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.diffusion import Heat
from neuralpde.fields.field import State, Sum
from neuralpde.fields.reaction import Reaction
from neuralpde.graph import Graph
from solvers.rows import Rows


class AllenCahn(Sum):
    """The Allen-Cahn field, dx/dt = -diffusivity L x + rate (x - x^3).

    With "comb" and "rw" it keeps states in [-1, 1]. On undirected graphs it is the gradient flow,
    in the metric m of L (degrees for "rw", `node_weight` for "comb", else ones), of its `lyapunov`
    functional

        E(x) = diffusivity / 2 <x, L x>_m + rate / 4 sum_i m_i (1 - x_i^2)^2

    Args:
        diffusivity: A number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        rate: A number or a 0-d tensor; an `nn.Parameter` is learned.
        norm: "comb", "rw", "sym" or "augmented"; see `Graph.laplacian`.

    Raises:
        ValueError: For numbers that are not finite; from `lyapunov`, on a directed graph.

    References:
        S. Allen, J. Cahn, Acta Metall. 27 (1979), 1085. On graphs: A. Bertozzi, A. Flenner, Diffuse
        interface models on graphs, Multiscale Model. Simul. 10 (2012).

    >>> import torch
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> field = AllenCahn(0.1).bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> field(torch.tensor(0.0), x).flatten().tolist(), round(field.lyapunov(x).item(), 6)
    ([-0.2, 0.2], 0.2)
    """

    def __init__(
        self,
        diffusivity: float | Tensor = 1.0,
        rate: float | Tensor = 1.0,
        norm: str = "comb",
    ) -> None:
        super().__init__(Heat(norm, diffusivity), Reaction.allen_cahn(rate))

    def prepare(self, graph: Graph, x0: State) -> None:
        """Merge the two terms; what is left of them is the well."""
        super().prepare(graph, x0)
        (self.well,) = self.parts

    def lyapunov(self, x: Float[Tensor, "nodes ..."]) -> Float[Tensor, " graphs"]:
        """The functional E of each graph, float64."""
        operator, graph = self.operator, self.graph
        if operator is None or graph is None:
            raise ValueError("the functional of Allen-Cahn needs a graph: bind the field first")
        if not operator.self_adjoint:
            raise ValueError(
                "on a directed graph Allen-Cahn is no gradient flow; use "
                'graph.undirected(reduce="max")'
            )
        well = (1.0 - x.double().square()).square() * (self.well.rate / 4)
        density = well - x * (operator @ x).double() / 2
        if operator.metric is not None:
            density = density * operator.metric.view(-1, *[1] * (x.dim() - 1))
        return Rows(graph.batch, graph.num_graphs).sums((density,))


def allen_cahn(
    diffusivity: float | Tensor = 1.0, rate: float | Tensor = 1.0, norm: str = "comb"
) -> AllenCahn:
    """Return the Allen-Cahn field; see `AllenCahn`.

    >>> import torch
    >>> x = torch.tensor([[2.0], [2.0]])
    >>> field = allen_cahn().bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> field(torch.tensor(0.0), x).flatten().tolist()
    [-6.0, -6.0]
    """
    return AllenCahn(diffusivity, rate, norm)
