"""Solves of one graph in several threads do not disturb each other's energies."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import Heat

GRAPH = catalogue.random_pairs(2_000, 4_000, generator=torch.Generator().manual_seed(0))
DENSE = catalogue.random_pairs(2_000, 12_000, generator=torch.Generator().manual_seed(0))


def steps(graph: Graph, x: Tensor) -> Tensor:
    A = graph.adjacency("row")
    found: Tensor = solve(lambda t, x: torch.tanh(A @ x) - x, x, 3.0, graph).energy.y
    return found


def exact(graph: Graph, x: Tensor) -> Tensor:
    found: Tensor = solve(Heat("sym"), x, 5.0, graph).energy.y
    return found


@pytest.mark.parametrize("graph", [GRAPH, DENSE], ids=["sampled", "multiplied"])
@pytest.mark.parametrize("energies", [steps, exact])
def test_threads_share_a_graph(energies: Callable[[Graph, Tensor], Tensor], graph: Graph) -> None:
    generator = torch.Generator().manual_seed(1)
    states = [torch.randn(2_000, 40, generator=generator) for _ in range(4)]
    alone = [energies(graph, x) for x in states]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: energies(graph, x), [*states, *states]))
    for found, wanted in zip(together, [*alone, *alone], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0, equal_nan=True)
