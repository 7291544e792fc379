"""The projection onto the kernel of a graph's Laplacian, component by component."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.graph import Graph

# Entries of which single precision adds up the squares to a few units in the last place.
MANY = 4096


class KernelProjection:
    """P of `x - P x`: in each component the part along one vector.

    Args:
        graph: The graph.
        kernel: A vector of the kernel, not 0 anywhere, float64.
        mass: Weights of the inner product in which P is orthogonal, or None.
        dtype: Of the states.

    Attributes:
        kernel: The vector, of length one in each component.
        components: How many there are.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> P = KernelProjection(graph, torch.ones(2).double(), None, torch.float64)
    >>> x = torch.tensor([[1.0], [4.0]]).double()
    >>> P.remove(x, P.coefficients(x)).flatten().tolist()
    [-1.5, 1.5]
    """

    def __init__(
        self, graph: Graph, kernel: Tensor, mass: Tensor | None, dtype: torch.dtype
    ) -> None:
        self._labels, self.components = graph.components
        weighted = kernel if mass is None else kernel * mass
        square = torch.zeros(self.components, dtype=torch.float64, device=graph.device)
        square.index_add_(0, self._labels, kernel * weighted)
        # Of length one in each component, so that |P x|^2 is the sum of squared coefficients.
        length = square.sqrt()[self._labels]
        self._weights, self.kernel = (weighted / length).to(dtype), (kernel / length).to(dtype)
        self._products = self._sparse(graph)
        self.graph_of: Tensor | None = None
        if graph.batch is not None:
            self.graph_of = torch.zeros_like(self._labels[: self.components])
            self.graph_of[self._labels] = graph.batch
            self._graphs = graph.num_graphs

    def _sparse(self, graph: Graph) -> tuple[Tensor, Tensor] | None:
        """Coefficients of all components, and what they make of them; one component needs none."""
        if self.components == 1:
            return None
        order = torch.argsort(self._labels, stable=True)
        counts = torch.bincount(self._labels, minlength=self.components)
        crow = torch.zeros(self.components + 1, dtype=torch.int64, device=graph.device)
        crow[1:] = counts.cumsum(0)
        every = torch.arange(graph.num_nodes + 1, device=graph.device)
        shape = (self.components, graph.num_nodes)
        return _csr(crow, order, self._weights[order], shape), _csr(
            every, self._labels, self.kernel, shape[::-1]
        )

    def coefficients(
        self, x: Float[Tensor, "nodes columns"]
    ) -> Float[Tensor, "components columns"]:
        """Return those of `P x`."""
        if self._products is None:
            return torch.mv(x.t(), self._weights.to(x.dtype)).unsqueeze(0)
        found: Tensor = self._products[0].to(x.dtype) @ x
        return found

    def remove(
        self, x: Float[Tensor, "nodes columns"], coefficients: Tensor, out: Tensor | None = None
    ) -> Float[Tensor, "nodes columns"]:
        """Return `x - P x`; differentiable where it is not put into `out`."""
        if self._products is not None and out is not None:
            return torch.addmm(x, self._products[1].to(x.dtype), coefficients, alpha=-1.0, out=out)
        if self._products is not None:
            coefficients = coefficients.index_select(0, self._labels)
        kernel = self.kernel.to(x.dtype).unsqueeze(1)
        return torch.addcmul(x, kernel, coefficients, value=-1.0, out=out)

    def square(self, coefficients: Tensor) -> Float[Tensor, " graphs"]:
        """Return `|P x|^2` of each graph, float64."""
        if self.graph_of is not None:
            squares: Tensor = torch.linalg.vecdot(coefficients, coefficients).double()
            return squares.new_zeros(self._graphs).index_add_(0, self.graph_of, squares)
        return _square(coefficients).double().view(1)

    def size(self, coefficients: Tensor) -> float:
        """Return `|P x|^2` of one graph as a number, for which a device must be waited for."""
        return _square(coefficients).item()


def _square(x: Tensor) -> Tensor:
    flat = x.view(-1)
    if flat.numel() > MANY:
        flat = flat.double()
    return torch.dot(flat, flat)


def _csr(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.sparse_csr_tensor(
        crow.int(), col.int(), values, shape, device=values.device, check_invariants=False
    )
