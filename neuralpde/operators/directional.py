"""Directions on a graph: averages and derivatives along the flow of a function on nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.operators.graphs import Graphs
from neuralpde.operators.laplacian import EPS, Weighted, laplacian
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.tags import Tags

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Vector = Float[np.ndarray, " nodes"]

KINDS = ("average", "derivative")

DENSE = 64
"""Nodes of a component up to which all its eigenvectors are computed."""


def directional(
    graph: Weighted, kind: str = "average", phi: Float[Tensor, " nodes"] | None = None
) -> SparseOperator:
    """Return the directional average or derivative along `phi`.

    With the differences `F_ij = phi_j - phi_i` on the edges (from j to i), each row divided by the
    sum of its moduli,

        average     B_av = |F|
        derivative  B_dx = F - diag(sum_j F_ij)

    Rows where `phi` does not change are zero. Rows of B_av sum to 1 (elsewhere), those of B_dx to
    0. Edge weights play no part but through `phi`.

    Args:
        graph: a graph; self-loops do not count.
        kind: "average" or "derivative".
        phi: a function on the nodes; by default :func:`fiedler`. Its sign is arbitrary: B_av does
            not depend on it, and B_dx changes its own.

    Raises:
        ValueError: the kind is unknown, or `phi` is not one number for each node.

    References:
        D. Beaini et al., Directional Graph Networks, ICML 2021, arXiv:2010.02863, and their use in
        A. Elhag et al., Graph Anisotropic Diffusion, 2022, arXiv:2205.00354.

    >>> from neuralpde.graph import Graph
    >>> path = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    >>> phi = torch.tensor([0.0, 1.0, 4.0])
    >>> directional(path, phi=phi).to_dense().tolist()
    [[0.0, 1.0, 0.0], [0.25, 0.0, 0.75], [0.0, 1.0, 0.0]]
    >>> directional(path, "derivative", phi).to_dense().tolist()
    [[-1.0, 1.0, 0.0], [-0.25, -0.5, 0.75], [0.0, -1.0, 1.0]]
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; allowed: {', '.join(KINDS)}")
    phi = fiedler(graph) if phi is None else phi
    if phi.shape != (graph.num_nodes,):
        raise ValueError(
            f"phi is {tuple(phi.shape)}; it is a function on {graph.num_nodes} nodes, [nodes]"
        )
    pattern, slot = graph.pattern.with_diagonal()
    row, col = graph.pattern.row, graph.pattern.col.long()
    change = torch.where(graph.weight > 0, phi.double()[col] - phi.double()[row], 0.0)
    size = change.new_zeros(graph.num_nodes).index_add(0, row, change.abs())
    share = change / torch.where(size > 0, size, 1.0)[row]
    graphs = Graphs(graph.batch, graph.num_graphs, share.device)
    ones = torch.ones(2, graph.num_graphs, dtype=torch.float64, device=share.device)
    if kind == "average":
        sums = ones if bool((size > 0).all()) else None
        values = share.new_zeros(pattern.nnz).index_add(0, slot, share.abs())
        tags = Tags(EPS, nonnegative=True, rising=True, row_sum=sums)
        return SparseOperator.tagged(pattern, values, tags, graphs)
    values = share.new_zeros(pattern.nnz).index_add(0, slot, share)
    total = share.new_zeros(graph.num_nodes).index_add(0, row, share)
    values = values.index_add(0, pattern.diagonal, -total)
    none = torch.stack([0.0 * ones[0], 2.0 * ones[0]])
    return SparseOperator.tagged(pattern, values, Tags(EPS, row_sum=none), graphs)


def fiedler(graph: Weighted) -> Float[Tensor, " nodes"]:
    """Return the first non-trivial eigenvector of `L phi = lambda D phi`, in every component.

    Components of one node have none and get 0. The sign is arbitrary (here the entry of largest
    modulus is positive), and so is the choice where the eigenvalue is not simple: on symmetric
    graphs results may then depend on the order of nodes.

    Args:
        graph: undirected.

    Returns:
        float64, of unit norm in the weights D on every component.

    Raises:
        ValueError: the graph is directed.

    >>> from neuralpde.graph import Graph
    >>> path = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    >>> fiedler(path).abs().tolist()
    [0.7071068, 0.0, 0.7071068]
    """
    from scipy.sparse.csgraph import connected_components

    L = laplacian(graph, "sym").to_scipy()
    weight = graph.weight * (graph.pattern.row != graph.pattern.col)
    degree = weight.new_zeros(graph.num_nodes).index_add(0, graph.pattern.row, weight)
    root = degree.sqrt().cpu().numpy()
    phi = np.zeros(graph.num_nodes)
    count, labels = connected_components(L, directed=False)
    order = np.argsort(labels, kind="stable")
    for nodes in np.split(order, np.bincount(labels, minlength=count).cumsum()[:-1]):
        if len(nodes) > 1:
            vector = _second(L[nodes][:, nodes], root[nodes]) / root[nodes]
            phi[nodes] = vector * np.sign(vector[np.abs(vector).argmax()])
    return torch.from_numpy(phi).to(degree.device)


def _second(L: csr_matrix, root: Vector) -> Vector:
    """The second eigenvector of a symmetric Laplacian with the kernel `root`."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    if len(root) <= DENSE:
        vectors: Vector = np.linalg.eigh(L.toarray())[1]
        return vectors[:, 1]
    kernel = root / np.linalg.norm(root)

    def lifted(x: Vector) -> Vector:
        # The kernel is moved to the other end, and the largest of 2 - L is looked for.
        moved: Vector = 2.0 * x - L @ x - 2.0 * kernel * (kernel @ x)
        return moved

    start = np.cos(np.arange(len(root)))
    vectors = eigsh(LinearOperator(L.shape, matvec=lifted), k=1, which="LA", v0=start)[1]
    return vectors[:, 0]
