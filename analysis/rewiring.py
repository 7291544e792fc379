"""Rewiring against over-squashing, as torch_geometric transforms."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import GDC, BaseTransform

from analysis.local_curvature import LocalCurvature
from neuralpde.graph import Graph


class SDRF(BaseTransform):
    """Stochastic discrete Ricci flow: support the most negatively curved edges.

    Each step takes the edge (i, j) of least balanced Forman curvature, draws an edge (k, l) between
    the neighbourhoods of i and j with probability softmax(tau gain), where gain is what the
    curvature of (i, j) gains, and adds it; then it removes the edge of largest curvature if that
    exceeds `removal_bound`.

    The public code works with a curvature that is 0 for nearly all edges; this one is the paper's.
    Diffusion-based rewiring is `Diffused`.

    Args:
        steps: Number of steps.
        tau: Inverse temperature; infinite takes the best edge.
        removal_bound: C+; None removes nothing.
        generator: Of the draws.

    Attributes of the result:
        rewiring: A list of ("add" or "remove", i, j, curvature or gain).
        edge_type: 1 for edges that were added, else 0.

    Edge attributes are kept; added edges get weight 1 in `edge_weight` and zeros in `edge_attr`.

    References:
        Topping et al., ICLR 2022, arXiv:2111.14522, algorithm 1.

    >>> from neuralpde import catalogue
    >>> data = SDRF(1, tau=math.inf)(catalogue.barbell(4).to_pyg())
    >>> data.rewiring[0][0], data.num_edges
    ('add', 28)
    """

    def __init__(
        self,
        steps: int,
        tau: float = 1.0,
        removal_bound: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; at least 1 is needed")
        if not tau >= 0:
            raise ValueError(f"tau is {tau}; an inverse temperature is not negative")
        self.steps, self.tau, self.removal_bound = steps, tau, removal_bound
        self.generator = generator

    def forward(self, data: Data) -> Data:
        """Return a rewired copy."""
        local, log = LocalCurvature(_undirected(data)), []
        for _ in range(self.steps):
            if not local.of:
                break
            i, j = local.least()
            gains = local.gains(i, j)
            if gains:
                pair = self._drawn(gains)
                log.append(("add", *pair, gains[pair]))
                local.add(*pair)
            if self.removal_bound is not None:
                i, j = local.most()
                if local.of[(i, j)] > self.removal_bound:
                    log.append(("remove", i, j, local.of[(i, j)]))
                    local.remove(i, j)
        return _rewired(data, log)

    def _drawn(self, gains: dict[tuple[int, int], float]) -> tuple[int, int]:
        pairs, values = list(gains), torch.tensor(list(gains.values()), dtype=torch.float64)
        if math.isinf(self.tau):
            return pairs[int(values.argmax())]
        # Largest first, so that nothing overflows at low temperatures.
        shares = torch.softmax(self.tau * (values - values.max()), 0)
        return pairs[int(torch.multinomial(shares, 1, generator=self.generator))]


class FoSR(BaseTransform):
    """First-order spectral rewiring: add the edges that open the spectral gap most.

    With x the second eigenvector of (D + I)^(-1/2) (A + I) (D + I)^(-1/2), followed by power
    iteration from step to step, each step adds the pair (i, j) that is no edge and makes
    2 x_i x_j / sqrt((1 + d_i) (1 + d_j)) least.

    Args:
        steps: Number of edges to add.
        iterations: Power iterations before the first step; one more before each.
        generator: Of the first vector.

    Attributes of the result: As for `SDRF`.

    References:
        Karhadkar, Banerjee and Montufar, FoSR, ICLR 2023, arXiv:2210.11790, algorithm 1.

    >>> from analysis import spectral_gap
    >>> from neuralpde import catalogue
    >>> graph = catalogue.barbell(5)
    >>> data = FoSR(3)(graph.to_pyg())
    >>> spectral_gap(data) > 2 * spectral_gap(graph)
    True
    """

    def __init__(
        self, steps: int, iterations: int = 20, generator: torch.Generator | None = None
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; at least 1 is needed")
        self.steps, self.iterations, self.generator = steps, iterations, generator

    def forward(self, data: Data) -> Data:
        """Return a rewired copy."""
        graph = _undirected(data)
        source, target = graph.edge_index
        keep = source != target
        source, target = source[keep], target[keep]
        near: list[set[int]] = [set() for _ in range(graph.num_nodes)]
        for i, j in zip(source.tolist(), target.tolist(), strict=True):
            near[i].add(j)
        generator = self.generator or torch.Generator().manual_seed(0)
        x = torch.randn(graph.num_nodes, dtype=torch.float64, generator=generator)
        log: list[tuple[str, int, int, float]] = []
        for step in range(self.steps):
            degree = torch.tensor([len(one) for one in near], dtype=torch.float64)
            for _ in range(self.iterations if step == 0 else 1):
                x = _power_step(x, source, target, degree)
            pair = _most_opposed(x / (1 + degree).sqrt(), near)
            if pair is None:
                break
            i, j = pair
            log.append(("add", i, j, float(x[i] * x[j])))
            near[i].add(j)
            near[j].add(i)
            source = torch.cat([source, torch.tensor([i, j])])
            target = torch.cat([target, torch.tensor([j, i])])
        return _rewired(data, log)


class Diffused(BaseTransform):
    """Graph diffusion: the edges and weights of a heat kernel, or of personalised PageRank.

    With T = (D + I)^(-1/2) (A + I) (D + I)^(-1/2) the new weights are those entries of S that are
    large enough for the average degree, normalised by degrees on both sides:

        time    S = e^(time (T - I))
        alpha   S = alpha (I - (1 - alpha) T)^(-1)

    torch_geometric's `GDC` computes S and picks its entries, with a dense matrix. It reads weights
    from `edge_attr`, writes them there, and drops one direction of an edge where rounding puts it
    below the threshold: here they come from `edge_weight` and go there, and the result is
    undirected. Other edge attributes are kept where an edge was; the rest get zeros.

    Args:
        alpha: The probability of return, in (0, 1).
        time: Of the heat kernel; takes the place of alpha.
        degree: The average degree to keep, self-loops included.

    Attributes of the result: As for `SDRF`; `rewiring` is [("diffuse", added, removed, threshold)]
        with numbers of undirected edges, self-loops left out.

    References:
        Gasteiger, Weissenberger and Guennemann, Diffusion improves graph learning, NeurIPS 2019,
        arXiv:1911.05485.

    >>> from analysis import spectral_gap
    >>> from neuralpde import catalogue
    >>> graph = catalogue.barbell(5)
    >>> data = Diffused(time=5.0, degree=8)(graph.to_pyg())
    >>> spectral_gap(data) > 2 * spectral_gap(graph)
    True
    """

    def __init__(self, alpha: float = 0.15, *, time: float | None = None, degree: int = 64) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}; a probability of return lies between 0 and 1")
        if time is not None and not time > 0:
            raise ValueError(f"time is {time}; heat flows for a positive time")
        if degree < 1:
            raise ValueError(f"degree is {degree}; keep at least 1 entry a node")
        self.alpha, self.time, self.degree = alpha, time, degree

    def forward(self, data: Data) -> Data:
        """Return a rewired copy."""
        graph = _undirected(data)
        if self.time is None:
            diffusion: dict[str, Any] = {"method": "ppr", "alpha": self.alpha}
        else:
            diffusion = {"method": "heat", "t": self.time}
        # It trips where all entries are asked for, and nothing else is.
        degree = self.degree if self.degree < graph.num_nodes else graph.num_nodes + 1
        theirs = GDC(
            normalization_out=None,
            diffusion_kwargs=diffusion,
            sparsification_kwargs={"method": "threshold", "avg_degree": degree},
        )
        plain = Data(edge_index=graph.edge_index, edge_attr=graph.edge_weight)
        plain.num_nodes = graph.num_nodes
        kept = theirs(plain)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Graph(kept.edge_index, graph.num_nodes, kept.edge_attr.clamp(min=0.0))
        found = found.undirected()
        return _reweighted(data, found, float(kept.edge_attr.min()))


def _reweighted(data: Data, graph: Graph, threshold: float) -> Data:
    """A copy with the edges of a graph and its normalised weights."""
    new: Any = copy.copy(data)
    count = graph.num_nodes
    before = data.edge_index[0] * count + data.edge_index[1]
    now = graph.edge_index.to(before)
    code = now[0] * count + now[1]
    order = torch.argsort(before)
    place = torch.searchsorted(before[order], code).clamp(max=max(len(before) - 1, 0))
    old = torch.zeros_like(code, dtype=torch.bool)
    if len(before):
        slot = order[place]
        old = before[slot] == code
        for name, value in data.to_dict().items():
            if data.is_edge_attr(name) and name not in ("edge_index", "edge_weight"):
                carried = value.new_zeros(len(code), *value.shape[1:])
                carried[old] = value[slot[old]]
                new[name] = carried
    given = getattr(data, "edge_weight", None)
    dtype = torch.get_default_dtype() if given is None else given.dtype
    new.edge_index = now
    new.edge_weight = graph.adjacency("sym", dtype=dtype).values.to(now.device)
    new.edge_type = (~old).long()
    apart = now[0] < now[1]
    was = torch.unique(before[data.edge_index[0] < data.edge_index[1]])
    added = int((apart & ~old).sum())
    new.rewiring = [("diffuse", added, len(was) - int((apart & old).sum()), threshold)]
    return new


def _power_step(x: Tensor, source: Tensor, target: Tensor, degree: Tensor) -> Tensor:
    """One step towards the second eigenvector, orthogonal to the first, (D + I)^(1/2) 1."""
    root = (1 + degree).sqrt()
    x = x - root * (root @ x) / (root @ root)
    y = x / root
    y = (y + torch.zeros_like(y).index_add(0, target, y[source])) / root
    # The mean with x itself leaves the second largest eigenvalue, not the most negative one.
    y = (x + y) / 2
    size: Tensor = torch.linalg.vector_norm(y)
    return y / size


def _most_opposed(y: Tensor, near: list[set[int]]) -> tuple[int, int] | None:
    """The pair that is no edge with the least product, searched from the extremes inwards."""
    order = torch.argsort(y).tolist()
    values = y.tolist()
    best, found = math.inf, None
    for i in order:
        for j in reversed(order):
            product = values[i] * values[j]
            if product >= best:
                break
            if i != j and j not in near[i]:
                best, found = product, (min(i, j), max(i, j))
                break
        if values[i] >= 0:
            break
        if values[i] * values[order[-1]] >= best:
            break
    return found


def _undirected(data: Data) -> Graph:
    graph = Graph.of(data)
    if graph.directed:
        raise ValueError(
            "rewiring is for undirected graphs; apply torch_geometric's ToUndirected() before"
        )
    return graph


def _rewired(data: Data, log: list[tuple[str, int, int, float]]) -> Data:
    """A copy with the edges of the log added and removed, attributes kept."""
    new: Any = copy.copy(data)
    added: dict[tuple[int, int], None] = {}
    removed: set[tuple[int, int]] = set()
    for what, i, j, _ in log:
        if what == "add":
            added[(i, j)] = None
            removed.discard((i, j))
        elif (i, j) in added:
            del added[(i, j)]
        else:
            removed.add((i, j))
    edges = data.edge_index
    pairs = [tuple(sorted(pair)) for pair in edges.T.tolist()]
    keep = torch.tensor([pair not in removed for pair in pairs], dtype=torch.bool)
    keep = keep.to(edges.device)
    extra = torch.tensor(list(added), dtype=edges.dtype, device=edges.device).view(-1, 2).T
    extra = torch.cat([extra, extra.flip(0)], 1)
    for name, value in data.to_dict().items():
        if data.is_edge_attr(name) and name != "edge_index":
            fill = torch.ones if name == "edge_weight" else torch.zeros
            more = fill(extra.shape[1], *value.shape[1:], dtype=value.dtype, device=value.device)
            new[name] = torch.cat([value[keep], more])
    new.edge_index = torch.cat([edges[:, keep], extra], 1)
    kinds = torch.zeros(new.edge_index.shape[1], dtype=torch.int64, device=edges.device)
    kinds[int(keep.sum()) :] = 1
    new.edge_type, new.rewiring = kinds, log
    return new
