"""The Dirichlet energy of a directed graph, arcs weighted by how often a walk takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from analysis.energies import bound, rounding
from analysis.measures import Measure
from analysis.perron import perron_measure, walk
from neuralpde.energies import DirichletForm, dirichlet_energy
from neuralpde.graph import Graph


@dataclass(frozen=True)
class DirectedDirichlet(Measure):
    """Chung's Dirichlet energy of a directed graph, sum_ij phi_i P_ij |x_i - x_j|^2 / 2.

    P is the random walk along the arcs and phi P = phi its Perron measure, of mass 1: the energy is
    x^T L x with L = Phi - (Phi P + P^T Phi) / 2, 0 for constants only. On an undirected graph it is
    the combinatorial energy over the volume. A graph that is not strongly connected is walked with
    jumps, see `perron_measure`, and they count: then the energy is that of networkx's
    `directed_combinatorial_laplacian_matrix`, and on strongly connected graphs too, except periodic
    ones, where networkx takes the lazy walk, which has half the energy.

    `Dirichlet("comb")` is the other convention, the average of both directions.

    Args:
        name: Name of its series.

    References:
        Chung, Laplacians and the Cheeger inequality for directed graphs, Ann. Comb. 9 (2005), 1.

    >>> ring = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
    >>> round(DirectedDirichlet()(torch.tensor([[0.0], [0.0], [1.0]]), ring).item(), 9)
    0.4
    """

    name: str = "directed dirichlet"
    convention = "directed: sum of phi_i P_ij |x_i - x_j|^2 / 2, phi P = phi"

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The energy per graph; differentiable where the state is."""
        averaged, jumps = _averaged(graph)
        energy = dirichlet_energy(x, averaged)
        return energy if jumps is None else energy + _jumped(x, graph, jumps)

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """What rounding of the form and of the state leaves."""
        averaged = _averaged(graph)[0]
        form = DirichletForm.of(averaged, "comb")
        # Jumps add at most |x|^2, as phi is of mass 1.
        return rounding(form.parts(x), bound(averaged, form) + 1.0, x.dtype)


def _averaged(graph: Graph) -> tuple[Graph, Tensor | None]:
    """The undirected graph of the same form, and the mass that jumps from each node, or None."""

    def build() -> tuple[Graph, Tensor | None]:
        source, target = graph.edge_index.cpu().numpy()
        shape = (graph.num_nodes, graph.num_nodes)
        weights = graph.edge_weight.cpu().numpy()
        P = walk(csr_array((weights, (source, target)), shape=shape))
        groups = np.zeros(graph.num_nodes, dtype=np.int64)
        if graph.batch is not None:
            groups = graph.batch.cpu().numpy()
        phi, jumps = perron_measure(P, groups)
        rows = np.repeat(np.arange(graph.num_nodes), np.diff(P.indptr))
        flow = P.data * (phi * (1 - jumps))[rows]
        arcs = torch.from_numpy(np.stack([rows, P.indices.astype(np.int64)]))
        both = torch.cat([arcs, arcs.flip(0)], 1).to(graph.device)
        half = torch.from_numpy(flow / 2).repeat(2).to(graph.device)
        same = Graph(both, graph.num_nodes, half, graph.batch).to(dtype=graph.dtype)
        mass = torch.from_numpy(phi * jumps).to(graph.device)
        return same, mass if jumps.any() else None

    found: tuple[Graph, Tensor | None] = graph.remember(("walk", graph.dtype), build)
    return found


def _jumped(x: Tensor, graph: Graph, mass: Tensor) -> Tensor:
    """The sum of mass_i |x_i - x_j|^2 / (2 n) over all pairs of nodes of each graph."""
    flat = x.reshape(len(x), -1)
    wide = flat.to(torch.promote_types(flat.dtype, torch.float64))
    labels = torch.zeros_like(graph.components[0]) if graph.batch is None else graph.batch

    def sums(terms: Tensor) -> Tensor:
        return terms.new_zeros(graph.num_graphs, *terms.shape[1:]).index_add(0, labels, terms)

    total = sums(mass)
    # About the mean that jumps start from, so that nothing cancels.
    mean = sums(mass[:, None] * wide) / torch.where(total > 0, total, 1.0)[:, None]
    squares = (wide - mean[labels]).abs().square().sum(1)
    return (sums(mass * squares) + total * sums(squares) / sums(torch.ones_like(mass))) / 2
