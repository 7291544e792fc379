"""What solve promises of linear diffusion, in the user's own terms: field, graph, state, rtol."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat


def scattered() -> Graph:
    """A ring, a star, and two nodes on their own."""
    star = catalogue.star(30).edge_index + 9
    return Graph(torch.cat([catalogue.ring(9).edge_index, star], dim=1), 41)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "star": lambda: catalogue.star(120),
    "lollipop": lambda: catalogue.lollipop(12, 40),
    "scattered": scattered,
}
NORMS = ("comb", "sym", "rw", "augmented")
TIMES = (1e-8, 1.0, 18.3, 1e3)


def kernel(graph: Graph, norm: str) -> torch.Tensor:
    if norm in ("comb", "rw"):
        return torch.ones(graph.num_nodes, dtype=torch.float64)
    return (graph.degree + (norm == "augmented")).sqrt()


def size(x: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt((weights[:, None] * x**2).sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", GRAPHS)
def test_the_tolerance_is_never_exceeded(name: str, norm: str, dtype: torch.dtype) -> None:
    graph = GRAPHS[name]()
    weights = np.ones(graph.num_nodes)
    if norm == "rw":
        weights = torch.where(graph.degree > 0, graph.degree, 1.0).numpy()
    L = graph.laplacian(norm, dtype=torch.float64).to_dense().numpy()
    noise = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    half = np.finfo(np.float32).eps if dtype is torch.float32 else 0.0
    for x in (noise.to(dtype), (kernel(graph, norm)[:, None] + 1e-3 * noise).to(dtype)):
        start = x.double().numpy()
        for end in TIMES:
            exact = expm(-end * L) @ start
            for rtol in (1e-3, 1e-6, 1e-9):
                found = solve(Heat(norm), x, end, graph, rtol=rtol).final.double().numpy()
                # The reference itself and the cast to single precision round, too.
                slack = half * size(exact, weights) + 1e-13 * size(start, weights)
                allowed = rtol * max(size(start, weights), size(exact, weights))
                assert size(found - exact, weights) <= allowed + slack, (end, rtol)


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_the_tolerance_is_never_exceeded_on_directed_graphs(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 30, (2, 120), generator=generator)
    graph = Graph(edges, 30)
    assert graph.directed
    L = graph.laplacian(norm, dtype=torch.float64).to_dense().numpy()
    for dtype, half in ((torch.float32, np.finfo(np.float32).eps), (torch.float64, 0.0)):
        x = torch.randn(30, 2, generator=generator, dtype=torch.float64).to(dtype)
        start = x.double().numpy()
        for end in TIMES:
            exact = expm(-end * L) @ start
            for rtol in (1e-3, 1e-6, 1e-9):
                traj = solve(Heat(norm), x, end, graph, rtol=rtol)
                assert traj.stats.solver == "uniformisation"
                error = np.abs(traj.final.double().numpy() - exact).max()
                largest = max(np.abs(start).max(), np.abs(exact).max())
                assert error <= (rtol + half + 1e-13) * largest, (end, rtol)
