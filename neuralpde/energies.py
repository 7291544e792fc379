"""Dirichlet energies of one state, in the conventions in use, right near consensus."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.looks import Look, Parts, unit
from neuralpde.operators import Pattern, SparseOperator
from neuralpde.projection import KernelProjection
from solvers.failure import unknown_name
from solvers.inner import inner
from solvers.lasting import lasting
from solvers.products import products
from solvers.rooms import Room, rooms
from solvers.rows import Rows
from solvers.sampled import Sampled

CONVENTIONS = {
    "comb": "comb: tr(x'Lx), L = D - A",
    "rw": "comb: tr(x'Lx), L = D - A, the form of random-walk diffusion",
    "sym": "sym: tr(x'Lx), L = I - D^-1/2 A D^-1/2",
    "augmented": "augmented: tr(x'Lx), L = I - (D+I)^-1/2 (A+I) (D+I)^-1/2",
}


FAR = 0.5
"""Share of |x|^2 in the kernel up to which a single-precision form is right without projection."""


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

    start: Any = None

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
        weight = graph.edge_weight / (root[source] * root[target])
        diagonal = (degree + _sent(graph)) / 2 if plain else degree / root.square()
        # States in half precision are read in single, and so is the form.
        kept = torch.promote_types(graph.dtype, torch.float32)
        self.half = _half(graph, weight, diagonal).to(kept)
        self.mass = _metric(graph, degree, norm)
        self.largest = self._largest(graph, degree, plain)
        self._P = KernelProjection(graph, root, self.mass, kept)
        self.kernel = self._P.kernel
        # Solves in several threads share what is kept.
        self.lock = Lock()
        self._sampled: tuple[tuple[torch.dtype, torch.Size], Sampled] | None = None
        self._kept: tuple[tuple[torch.dtype, torch.Size], list[Room]] | None = None

    @classmethod
    def of(cls, graph: Graph, norm: str = "comb") -> DirichletForm:
        """The form of a graph in its dtype, built once."""
        form: DirichletForm = graph.remember(("form", norm, graph.dtype), lambda: cls(graph, norm))
        return form

    def _largest(self, graph: Graph, degree: Tensor, plain: bool) -> Tensor:
        """A bound of E(x) / |x|^2 per graph, for the floors."""
        if not plain:
            return torch.full((graph.num_graphs,), 2.0, dtype=torch.float64, device="cpu")
        both = degree + _sent(graph)
        both = both if self.mass is None else both / self.mass
        top = torch.zeros(graph.num_graphs, dtype=torch.float64, device=graph.device)
        batch = torch.zeros_like(graph.components[0]) if graph.batch is None else graph.batch
        return top.scatter_reduce(0, batch, both, "amax").cpu()

    def deviation(self, x: Tensor) -> Tensor:
        """X - P x, P the projection onto the kernel of L, component by component."""
        flat = _columns(x)
        out = self._P.remove(flat, self._P.coefficients(flat))
        if x.is_complex():
            return torch.view_as_complex(out.view(*x.shape, 2))
        return out.view(x.shape)

    def centre(self, flat: Tensor, out: Tensor) -> Float[Tensor, " graphs"]:
        """Put x - P x of some columns of a real state into another matrix; return |P x|^2."""
        coefficients = self._P.coefficients(flat)
        self._P.remove(flat, coefficients, out)
        return self._P.square(coefficients)

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
        if torch.promote_types(x.dtype, torch.float64) is x.dtype:
            look = self.look(x, slope)
            return Parts(look.energy, look.square, look.deviation)
        # Squares overflow in single precision, or vanish, long before the state does.
        size = unit(x.detach())
        look, square = self.look(x / size, None if slope is None else slope / size), size.double()
        square = square * square
        return Parts(square * look.energy, square * look.square, square * look.deviation)

    def look(self, x: Tensor, slope: Tensor | None = None, near: bool = False) -> Look:
        """The same as it comes, for every step of a solve: squares may overflow.

        Args:
            x: The state.
            slope: -L x, if it is known.
            near: Most of the state is thought to lie in the kernel: a hint, which saves time.
        """
        flat = self._flat(x)
        with self.lock, lasting():
            if slope is None and not near and self._sampling(flat):
                return self._sampled_look(flat)
            return self._multiplied_look(flat, None if slope is None else self._flat(slope))

    @torch.no_grad()
    def _multiplied_look(self, flat: Tensor, known: Tensor | None) -> Look:
        """The same from a product, or from what is known of it."""
        half = self.half if self.half.dtype == flat.dtype else self.half.to(flat.dtype)
        looks = []
        for room in products.once(self.space(flat)):
            part = room.of(flat)
            coefficients = self._P.coefficients(part)
            self._P.remove(part, coefficients, room.first)
            if known is None:
                half.addmm_(room.second, room.first)
            else:
                torch.mul(room.of(known), -0.5, out=room.second)
            looks.append(Look.of(*self._read(room), self._P.square(coefficients)))
        return looks[0] if len(looks) == 1 else Look.added(looks)

    def _read(self, room: Room) -> tuple[Tensor, Tensor]:
        """<y, H y> and |y|^2 of the matrices y = x - P x and H y."""
        if self.mass is None:
            deviation, product = room.inner(0, self.rows)
            return product, deviation
        # The form itself has no weights.
        deviations, of_rows = room.of_rows(0).unbind(1)
        return self.rows.sums((of_rows,)), self.rows.sums((deviations * self.mass,))

    def _sampled_look(self, flat: Tensor) -> Look:
        """The same as sums over the entries of L, of a state that is not copied if need not be."""
        assert self._sampled is not None
        products.total += 1
        forms, coefficients = self._sampled[1], self._P.coefficients(flat)
        kernel, (half, deviation) = self._P.size(coefficients), forms(flat)
        if FAR * deviation >= kernel:
            # L annihilates P x; what is left of it by rounding is no more than that of y.
            deviation -= kernel
        else:
            (room,) = self.space(flat)
            half, deviation = forms(self._P.remove(flat, coefficients, room.first))
        numbers = torch.tensor((half, deviation, kernel), dtype=torch.float64, device="cpu")
        return Look(numbers.unsqueeze(1))

    def _sampling(self, flat: Tensor) -> bool:
        """Whether looks at such states are sampled; then what samples them is made."""
        key = (flat.dtype, flat.shape)
        if self._sampled is None or self._sampled[0] != key:
            pattern = self.half.pattern
            if self.rows.batch is not None or not Sampled.suits(flat, pattern.nnz):
                return False
            weights = torch.zeros(2, pattern.nnz, dtype=torch.float64, device="cpu")
            weights[0] = self.half.wide().values
            weights[1, pattern.diagonal] = 1.0 if self.mass is None else self.mass
            self._sampled = key, Sampled(pattern.crow, pattern.col, weights, flat.dtype)
        return True

    def looks(self, states: list[Tensor], slopes: list[Tensor], scale: Any = 1.0) -> Look:
        """The same of several states of one shape at once, added up, `[looks, graphs]`.

        Small states cost calls, not arithmetic, and this takes about as many as one look.

        Args:
            states: The states.
            slopes: One for each, or none at all.
            scale: What slopes are multiplied with to be -L x; a number, or a column.
        """
        with torch.no_grad():
            wide = self._flat(torch.stack(states, dim=1))
            coefficients = self._P.coefficients(wide)
            centred = self._P.remove(wide, coefficients)
            if slopes:
                image = self._flat(torch.stack(slopes, dim=1)).mul_(scale).mul_(-0.5)
            else:
                half = self.half if self.half.dtype == wide.dtype else self.half.to(wide.dtype)
                image = half.addmm_(wide, centred)
                products.total += len(states) - 1
            count, rows = len(states), self.rows
            return Look.of(
                _each(image.mul_(centred), count, rows.batch, rows.num_graphs),
                _each(centred.square_(), count, rows.batch, rows.num_graphs, self.mass),
                _each(coefficients.square_(), count, self._P.graph_of, rows.num_graphs),
            )

    def norm_alone(self, x: Tensor) -> Parts:
        """The squared norm per graph; energy and deviation are left at zero."""
        with torch.no_grad():
            flat = self._flat(x).contiguous()
            square = inner(self.rows, flat, flat, self.mass)
            return Parts(torch.zeros_like(square), square, torch.zeros_like(square))

    def _flat(self, x: Tensor) -> Tensor:
        flat = _columns(x.detach())
        return flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat

    def space(self, x: Tensor) -> list[Room]:
        """Rooms for a state; kept, as fresh memory would cost as much as the work.

        Whoever uses them holds the lock.
        """
        flat, kept = self._flat(x), self._kept
        if kept is None or kept[0] != (flat.dtype, flat.shape):
            kept = self._kept = (flat.dtype, flat.shape), rooms(flat)
        return kept[1]


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
    centred = form._P.remove(flat, form._P.coefficients(flat))
    both = torch.linalg.vecdot(centred, form.half @ centred)
    return 2 * form.rows.sums((both,))


def _each(
    terms: Tensor, looks: int, groups: Tensor | None, graphs: int, mass: Tensor | None = None
) -> Tensor:
    """Add up what stands side by side for each look, in double precision, `[looks, graphs]`."""
    of_rows = terms.view(len(terms), looks, -1).sum(2, dtype=torch.float64)
    if mass is not None:
        of_rows *= mass.unsqueeze(1)
    if groups is None:
        return of_rows.sum(0).unsqueeze(1)
    return of_rows.new_zeros(graphs, looks).index_add_(0, groups, of_rows).t()


def _columns(x: Tensor) -> Tensor:
    """A state as a real matrix [nodes, columns], contiguous."""
    if x.dim() == 2 and x.is_floating_point():
        return x.contiguous()
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
