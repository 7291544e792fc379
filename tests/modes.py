"""Graphs with spectra of several kinds, and functions of their operators by dense matrices."""

import mpmath
import networkx as nx
import numpy as np
import torch
from strategies import quietly
from torch import Tensor

from neuralpde import Graph, catalogue
from neuralpde.operators import SparseOperator

DOUBLE = torch.float64
EPS = torch.finfo(DOUBLE).eps


def preferential(nodes: int, seed: int = 0) -> Graph:
    """Barabasi and Albert's graph with two edges for each new node: hubs, clustered spectrum."""
    edges = torch.tensor(list(nx.barabasi_albert_graph(nodes, 2, seed=seed).edges)).T
    return Graph(torch.cat([edges, edges.flip(0)], 1), nodes)


def several() -> Graph:
    """A lollipop, a path, and two isolated nodes, as one graph."""
    edges = [catalogue.lollipop(10, 15).edge_index, catalogue.path(6).edge_index + 25]
    return Graph(torch.cat(edges, 1), 33)


def directed(nodes: int = 9) -> Graph:
    generator = np.random.default_rng(0)
    arcs = np.argwhere(generator.random((nodes, nodes)) < 0.4)
    return quietly(torch.tensor(arcs.T), nodes)


GRAPHS = {
    "star": catalogue.star(80),
    "lollipop": catalogue.lollipop(20, 30),
    "preferential": preferential(150),
    "path": catalogue.path(60),
    "several": several(),
}


def ends(*t: float) -> Tensor:
    return torch.tensor([0.0, *t], dtype=DOUBLE)


class Modes:
    """Exact solutions by the eigenvectors of the symmetrised matrix."""

    def __init__(self, A: SparseOperator) -> None:
        ones = torch.ones(A.num_nodes, dtype=DOUBLE)
        self.root = (ones if A.metric is None else A.metric).sqrt().unsqueeze(1)
        matrix = self.root * A.to_dense().double() / self.root.T
        self.values, self.vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        self.values[self.values.abs() < 1e-10] = 0.0

    def at(self, t: float, x: Tensor) -> Tensor:
        moved = self.vectors.T @ (self.root * x.double())
        return self.vectors @ ((t * self.values).exp().unsqueeze(1) * moved) / self.root

    def size(self, x: Tensor) -> Tensor:
        return (self.root * x).norm(dim=0)

    def off(self, x: Tensor, exact: Tensor, x0: Tensor) -> float:
        """Largest error of a column relative to max(|x0|, |x|)."""
        scale = torch.maximum(self.size(x0), self.size(exact))
        return float((self.size(x.double() - exact) / scale).max())


def chosen(k: int, w: float) -> mpmath.mpf:
    w = mpmath.mpf(w)
    if w == 0:
        return mpmath.mpf(1) / mpmath.factorial(k)
    return (mpmath.exp(w), mpmath.expm1(w) / w, (mpmath.expm1(w) - w) / w**2)[k]


def dense(A: SparseOperator, k: int, h: float, x: Tensor) -> Tensor:
    """phi_k(h A) x by the eigenvectors of the symmetrised matrix, phi from mpmath."""
    root = torch.ones(A.num_nodes, 1) if A.metric is None else A.metric.sqrt().unsqueeze(1)
    matrix = root * A.to_dense().double() / root.T
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    with mpmath.workdps(40):
        f = torch.tensor([float(chosen(k, h * w)) for w in values.tolist()], dtype=DOUBLE)
    return vectors @ (f.unsqueeze(1) * (vectors.T @ (root * x))) / root
