"""What gradients hold in memory: never edges x channels, never the degree of a series."""

import pytest
import torch

from analysis.timing import peak_memory
from neuralpde import catalogue
from neuralpde.operators import SparseOperator
from solvers.exact import propagate

MB = 2**20


def learned(nodes: int, pairs: int, channels: int) -> tuple[SparseOperator, torch.Tensor]:
    """An operator whose values require grad, and a state."""
    generator = torch.Generator().manual_seed(0)
    graph = catalogue.random_pairs(nodes, pairs, generator=generator)
    x = torch.randn(nodes, channels, generator=generator)
    L = graph.like(x).laplacian("sym")
    values = L.values.clone().requires_grad_()
    return SparseOperator.tagged(L.pattern, values, L.tags, L.graphs), x


def held_by_a_gradient(A: SparseOperator, x: torch.Tensor) -> float:
    """Megabytes at the peak of product and backward, all gradients asked for."""
    x = x.clone().requires_grad_()
    torch.autograd.grad((A @ x).sum(), (A.values, x))
    return peak_memory(lambda: torch.autograd.grad((A @ x).square().sum(), (A.values, x)))


def test_gradients_hold_states_and_values_but_no_edges_times_channels() -> None:
    A, x = learned(2_000, 40_000, 64)
    state, entries = x.numel() * 4 / MB, A.values.numel() * 4 / MB
    assert held_by_a_gradient(A, x) < 8 * (state + entries) < 0.5 * 64 * entries


@pytest.mark.slow
def test_so_it_is_with_millions_of_edges() -> None:
    A, x = learned(170_000, 1_150_000, 64)
    state, entries = x.numel() * 4 / MB, A.values.numel() * 4 / MB
    assert held_by_a_gradient(A, x) < 8 * (state + entries) < 64 * entries


def test_the_way_back_from_an_exact_solve_does_not_grow_with_the_degree() -> None:
    A, x = learned(300, 900, 16)
    held, degrees = [], []
    for z in (10.0, 1e3, 1e4):
        found = propagate(A * -1.0, x, torch.tensor([0.0, z], dtype=torch.float64), rtol=1e-2)
        degrees.append(found.degree)
        held.append(
            peak_memory(lambda out=found.x: torch.autograd.grad(out[-1].square().sum(), A.values))
        )
    assert degrees[-1] > 20 * degrees[0]
    assert held[-1] < 1.1 * held[0]
    assert held[-1] < 12 * x.numel() * 8 / MB
