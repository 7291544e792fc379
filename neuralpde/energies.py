"""Dirichlet energies of one state, in the conventions in use, right near consensus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import Pattern, SparseOperator
from solvers.failure import unknown_name
from solvers.rows import Rows

CONVENTIONS = {
    "comb": "comb: tr(x'Lx), L = D - A",
    "rw": "comb: tr(x'Lx), L = D - A, the form of random-walk diffusion",
    "sym": "sym: tr(x'Lx), L = I - D^-1/2 A D^-1/2",
    "augmented": "augmented: tr(x'Lx), L = I - (D+I)^-1/2 (A+I) (D+I)^-1/2",
}


class DirichletForm:
    """The quadratic form E(x) = tr(x^H L x) of a graph, one number per graph of a batch.

    With "comb" it is the sum over undirected edges of w_ij |x_i - x_j|^2; on a directed graph the
    sum over arcs of w_ij |x_i - x_j|^2 / 2. The kernel of L is projected out first, component by
    component: what is left of a nearly constant state is then small everywhere and nothing
    cancels, so the form is right in single precision too. Only the upper triangle of L is
    multiplied, half a product.

    Norms that stand beside the energy are taken in the metric in which diffusion is self-adjoint:
    degrees for "rw", the measure of a graph with `node_weight`, else all ones.

    Args:
        graph: The graph, in the dtype and on the device of the states.
        norm: "comb", "rw" (the same form), "sym" or "augmented".

    Raises:
        ValueError: For an unknown norm, or "sym" and "augmented" on a directed graph.

    >>> graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    >>> DirichletForm(graph, "comb")(torch.tensor([[1.0], [2.0], [5.0]])).item()
    10.0
    """

    def __init__(self, graph: Graph, norm: str = "comb") -> None:
        if norm not in CONVENTIONS:
            raise unknown_name("norm", norm, CONVENTIONS)
        self.norm, self.convention = norm, CONVENTIONS[norm]
        self.rows = Rows(graph.batch, graph.num_graphs)
        source, target = graph.edge_index
        degree = graph.degree
        if norm in ("sym", "augmented"):
            # The operator refuses directed graphs in the same words everywhere.
            graph.laplacian(norm)
        mass = degree + 1.0 if norm == "augmented" else degree
        plain = norm in ("comb", "rw")
        root = torch.where((mass > 0) & (not plain), mass, 1.0).sqrt()
        self.kernel = root
        weight = graph.edge_weight / (root[source] * root[target])
        diagonal = (degree + _sent(graph)) / 2 if plain else degree / root.square()
        # States in half precision are read in single, and so is the form.
        kept = torch.promote_types(graph.dtype, torch.float32)
        self.half = _half(graph, weight, diagonal).to(kept)
        self.labels, self.components = graph.components
        self.mass = _metric(graph, degree, norm)
        self.largest = self._largest(graph, degree, plain)
        weighted = self.kernel if self.mass is None else self.kernel * self.mass
        square = torch.zeros(self.components, dtype=torch.float64, device=graph.device)
        square.index_add_(0, self.labels, self.kernel * weighted)
        self.weights = (weighted / square[self.labels]).to(kept)
        self.kernel = self.kernel.to(kept)
        self._averages = self._averaging(graph)
        self._work: list[Tensor] = []

    @classmethod
    def of(cls, graph: Graph, norm: str = "comb") -> DirichletForm:
        """The form of a graph in its dtype, built once."""
        form: DirichletForm = graph.remember(("form", norm, graph.dtype), lambda: cls(graph, norm))
        return form

    def _largest(self, graph: Graph, degree: Tensor, plain: bool) -> Tensor:
        """A bound of E(x) / |x|^2 per graph, for the floors."""
        if not plain:
            return torch.full((graph.num_graphs,), 2.0, dtype=torch.float64)
        both = degree + _sent(graph)
        both = both if self.mass is None else both / self.mass
        top = torch.zeros(graph.num_graphs, dtype=torch.float64, device=graph.device)
        batch = torch.zeros_like(graph.components[0]) if graph.batch is None else graph.batch
        return top.scatter_reduce(0, batch, both, "amax").cpu()

    def _averaging(self, graph: Graph) -> Tensor | None:
        """Kernel coefficients of all components as one sparse product; one needs none."""
        if self.components == 1:
            return None
        order = torch.argsort(self.labels, stable=True)
        counts = torch.bincount(self.labels, minlength=self.components)
        crow = torch.zeros(self.components + 1, dtype=torch.int64, device=graph.device)
        crow[1:] = counts.cumsum(0)
        shape = (self.components, graph.num_nodes)
        return torch.sparse_csr_tensor(
            crow.int(), order.int(), self.weights[order], shape, check_invariants=False
        )

    def deviation(self, x: Tensor) -> Tensor:
        """X - P x, P the projection onto the kernel of L, component by component."""
        flat = _columns(x)
        out = self._project(flat)
        if x.is_complex():
            return torch.view_as_complex(out.view(*x.shape, 2))
        return out.view(x.shape)

    def _project(
        self, flat: Tensor, out: Tensor | None = None, work: Tensor | None = None
    ) -> Tensor:
        if self._averages is None:
            mean = (self.weights.to(flat.dtype) @ flat).unsqueeze(0)
        else:
            means = self._averages.to(flat.dtype) @ flat
            mean = torch.index_select(means, 0, self.labels, out=work)
        kernel = self.kernel.to(flat.dtype).unsqueeze(1)
        return torch.addcmul(flat, kernel, mean, value=-1.0, out=out)

    def __call__(
        self, x: Tensor | tuple[Tensor, ...], graph: object = None
    ) -> Float[Tensor, " graphs"]:
        """E(x) per graph, float64; of a tuple state the first part's. The graph is its own."""
        return self.parts(x[0] if isinstance(x, tuple) else x).energy

    def parts(self, x: Tensor, slope: Tensor | None = None) -> Parts:
        """The energy with the squared norms that say how far it can be trusted.

        Args:
            x: The state `[nodes, ...]`; half precision is read in float32.
            slope: -L x (weighted by L's metric) when it is known already: then E = -<x, slope>
                and nothing is multiplied.
        """
        with torch.no_grad():
            flat, centred, product = self.centred(x)
            if slope is None:
                half = self.half if self.half.dtype == flat.dtype else self.half.to(flat.dtype)
                image = half.addmm_(product, centred)
            else:
                image = _columns(slope.detach())
            pairs = ((centred, image), (flat, flat), (centred, centred))
            totals = self._totals(torch.stack([torch.linalg.vecdot(a, b) for a, b in pairs]))
            return Parts(totals[0] * (2 if slope is None else -1), totals[1], totals[2])

    def centred(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The state as a real matrix, x - P x, and a spare buffer; the next call uses them again.

        Args:
            x: The state `[nodes, ...]`; half precision is read in float32.
        """
        flat = _columns(x.detach())
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.to(torch.float32)
        if not self._work or self._work[0].shape != flat.shape or self._work[0].dtype != flat.dtype:
            self._work = [torch.empty_like(flat), torch.empty_like(flat)]
        centred, spare = self._work
        return flat, self._project(flat, centred, spare), spare

    def norm_alone(self, x: Tensor) -> Parts:
        """The squared norm per graph; energy and deviation are left at zero."""
        with torch.no_grad():
            flat = _columns(x.detach())
            squares = torch.linalg.vecdot(flat, flat)
            totals = self._totals(torch.stack([torch.zeros_like(squares), squares, squares]))
            return Parts(totals[0], totals[1], totals[0])

    def _totals(self, of_rows: Tensor) -> Float[Tensor, "three graphs"]:
        """Inner product and squares, summed over the rows of each graph in double precision."""
        if self.mass is not None:
            of_rows = torch.cat([of_rows[:1], of_rows[1:] * self.mass])
        if self.rows.batch is None:
            return of_rows.sum(1, keepdim=True, dtype=torch.float64)
        totals = torch.zeros(3, self.rows.num_graphs, dtype=torch.float64, device=of_rows.device)
        return totals.index_add_(1, self.rows.batch, of_rows.double())


@dataclass(frozen=True)
class Parts:
    """One evaluation of a form.

    Attributes:
        energy: E(x) per graph, float64.
        square: |x|^2 per graph, in the form's metric.
        deviation: |x - P x|^2 per graph, likewise.
    """

    energy: Tensor
    square: Tensor
    deviation: Tensor


def dirichlet_energy(
    x: Float[Tensor, "nodes ..."], graph: object, norm: str = "comb"
) -> Float[Tensor, " graphs"]:
    """The Dirichlet energy tr(x^H L x) of one state, per graph and differentiable.

    Args:
        x: The state.
        graph: A graph, or what stands for one.
        norm: "comb", "rw", "sym" or "augmented".

    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> dirichlet_energy(torch.tensor([[0.0], [3.0]]), edges).item()
    9.0
    """
    form = DirichletForm.of(Graph.of(graph).like(x), norm)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return form(x)
    flat = _columns(x)
    centred = form._project(flat)
    both = torch.linalg.vecdot(centred, form.half @ centred)
    return 2 * form.rows.sums((both,))


def _columns(x: Tensor) -> Tensor:
    """A state as a real matrix [nodes, columns], contiguous."""
    real = torch.view_as_real(x) if x.is_complex() else x
    return real.reshape(real.shape[0], -1).contiguous()


def _metric(graph: Graph, degree: Tensor, norm: str) -> Tensor | None:
    """The weights in which the diffusion of this form is self-adjoint, None for all ones."""
    if norm == "rw":
        return torch.where(degree > 0, degree, 1.0)
    return graph.node_weight if norm == "comb" else None


def _sent(graph: Graph) -> Tensor:
    """What each node sends, self-loops left out: the degree again when undirected."""
    source, target = graph.edge_index
    arcs = torch.where(source == target, 0.0, graph.edge_weight)
    return arcs.new_zeros(graph.num_nodes).index_add(0, source, arcs)


def _half(graph: Graph, weight: Tensor, diagonal: Tensor) -> SparseOperator:
    """H with x^H L x = 2 Re x^H H x: the upper triangle of L and half its diagonal."""
    source, target = graph.edge_index
    keep = source != target
    low, high = torch.minimum(source, target)[keep], torch.maximum(source, target)[keep]
    nodes = torch.arange(graph.num_nodes, device=graph.device)
    pattern, slot = Pattern.from_edges(
        torch.cat([low, nodes]), torch.cat([high, nodes]), graph.num_nodes
    )
    values = torch.cat([-weight[keep] / 2, diagonal / 2])
    merged = torch.zeros(pattern.nnz, dtype=torch.float64, device=graph.device)
    merged.index_add_(0, slot, values)
    return SparseOperator(pattern, merged, batch=graph.batch, num_graphs=graph.num_graphs)
