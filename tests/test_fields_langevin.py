"""Langevin dynamics: slopes by hand, stationary laws by quadrature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from noisy import seeded
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.fields import DoubleWell, Langevin
from neuralpde.testing import check_field
from solvers.stochastic import StochasticHeun
from tests.strategies import graphs

F64 = torch.float64
PATHS = 20_000
PAIR = catalogue.path(2)
# The paths of a pair, 200 copies with 100 channels each.
EVEN = torch.arange(0, 400, 2)
PAIRS = Graph(torch.stack([torch.cat([EVEN, EVEN + 1]), torch.cat([EVEN + 1, EVEN])]))


def sampled(field: Langevin, end: float, steps: int, seed: int) -> Tensor:
    """Both nodes of many pairs that started at zero, `[2, PATHS]`."""
    x0 = torch.zeros(400, 100, dtype=F64)
    x = solve(field, x0, end, PAIRS, steps=steps, generator=seeded(seed)).final
    return torch.stack([x[0::2].flatten(), x[1::2].flatten()])


@settings(max_examples=20)
@given(graphs(loops=False))
def test_the_slope_of_the_double_well_is_that_of_allen_and_cahn(graph: Graph) -> None:
    x = torch.randn(graph.num_nodes, 3, dtype=F64)
    bound = Langevin(DoubleWell(0.7, 1.3)).bind(graph, x)
    L = graph.laplacian(dtype=F64).to_dense()
    expected = -0.7 * L @ x + 1.3 * (x - x**3)
    torch.testing.assert_close(bound(torch.tensor(0.0), x), expected, rtol=1e-12, atol=1e-12)


def test_the_energy_is_minus_the_integral_of_the_slope() -> None:
    graph = catalogue.barbell(3)
    x, way = torch.randn(2, 6, 2, dtype=F64, generator=seeded(1))
    bound = Langevin().bind(graph, x)
    # Simpson's rule is exact for the cubic slope of a quartic.
    slopes = [(bound(torch.tensor(0.0), x + s * way) * way).sum() for s in (0.0, 0.5, 1.0)]
    work = (slopes[0] + 4 * slopes[1] + slopes[2]) / 6
    rise = bound.lyapunov(x + way) - bound.lyapunov(x)
    torch.testing.assert_close(rise, -work.reshape(1), rtol=1e-12, atol=1e-12)


def test_graphs_of_a_batch_have_energies_of_their_own() -> None:
    graphs_alone = [catalogue.ring(4), catalogue.path(3)]
    both = Graph.union(graphs_alone)
    x = torch.randn(7, 2, dtype=F64)
    found = Langevin().bind(both, x).lyapunov(x)
    alone = [
        Langevin().bind(one, part).lyapunov(part)
        for one, part in zip(graphs_alone, x.split([4, 3]), strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-14, atol=1e-14)
    with pytest.raises(ValueError, match=r"return one number for each"):
        Langevin(lambda x, graph: x.square().sum()).bind(both, x).lyapunov(x)


def test_a_quadratic_energy_has_a_normal_stationary_law() -> None:
    K, T = torch.tensor([[1.5, -0.5], [-0.5, 1.0]], dtype=F64), 0.7
    blocks = torch.block_diag(*[K] * 200)
    field = Langevin(lambda x, graph: (x * (blocks @ x)).sum() / 2, T)
    # The slower mode has the rate 0.69: e^(-5.5) of its variance is missing.
    x = sampled(field, 4.0, 64, seed=2)
    C = T * torch.linalg.inv(K)
    assert (x.mean(1).abs() < 3 * (C.diag() / PATHS).sqrt()).all()
    S = x @ x.T / PATHS
    errors = ((C.square() + torch.outer(C.diag(), C.diag())) / PATHS).sqrt()
    assert ((S - C).abs() < 3 * errors).all()


def test_the_double_well_has_the_moments_of_the_gibbs_law() -> None:
    coupling, height, T = 0.4, 1.0, 0.5
    field = Langevin(DoubleWell(coupling, height), T)
    x, y = sampled(field, 8.0, 256, seed=1)
    # The trapezoidal rule, which converges exponentially for what decays at both ends.
    line = np.linspace(-4.0, 4.0, 401)
    u, v = np.meshgrid(line, line)
    wells = 0.25 * height * ((1 - u**2) ** 2 + (1 - v**2) ** 2)
    weight = np.exp(-(0.5 * coupling * (u - v) ** 2 + wells) / T)
    for moment in (lambda a, b: a, lambda a, b: a * a, lambda a, b: a * b, lambda a, b: a**4):
        sample = moment(x, y)
        known = float((moment(u, v) * weight).sum() / weight.sum())
        error = float(sample.std()) / math.sqrt(PATHS)
        assert abs(float(sample.mean()) - known) < 3 * error


def test_at_temperature_zero_it_is_the_gradient_flow() -> None:
    graph, x0 = catalogue.barbell(3, 1), torch.randn(7, 2, dtype=F64)
    field = Langevin(temperature=0.0)
    traj = solve(field, x0, torch.linspace(0, 3, 7, dtype=F64), graph, rtol=1e-6)
    bound = field.bind(graph, x0)
    energies = torch.cat([bound.lyapunov(x) for x in traj.x])
    assert (energies.diff() < 0).all()
    stiff = solve(field, x0, 3.0, graph, solver="trbdf2", rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(stiff.final, traj.final, rtol=1e-2, atol=1e-3)


class Spring(nn.Module):
    """E = k/2 |x|^2 + q/4 sum x^4."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(0.8, dtype=F64))
        self.q = nn.Parameter(torch.tensor(0.5, dtype=F64))

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return (self.k * x**2 / 2 + self.q * x**4 / 4).sum()


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_energy_and_temperature_are_learned_through_the_paths(grad: str) -> None:
    x0, energy = torch.randn(2, 50, dtype=F64), Spring()
    temperature = nn.Parameter(torch.tensor(0.3, dtype=F64))
    field = Langevin(energy, temperature)

    def loss() -> Tensor:
        traj = solve(field, x0, 1.0, PAIR, solver=StochasticHeun(3), steps=16, grad=grad)
        return traj.final.square().sum()

    numbers = (energy.k, energy.q, temperature)
    for number, found in zip(numbers, torch.autograd.grad(loss(), numbers), strict=True):
        ends = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                number += step
                ends.append(loss().item())
        with torch.no_grad():
            number += 1e-5
        assert found.item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)


def test_its_drift_keeps_the_contract() -> None:
    coupling, height, temperature = (nn.Parameter(torch.tensor(v)) for v in (0.7, 1.2, 0.4))
    check_field(Langevin(DoubleWell(coupling, height), temperature), catalogue.barbell(3))


def test_what_is_no_thermal_motion_is_refused_in_words() -> None:
    for temperature in (-1.0, torch.tensor(-0.5)):
        with pytest.raises(ValueError, match="not negative"):
            Langevin(temperature=temperature)
    arcs = Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]))
    x = torch.zeros(3, 1)
    with pytest.raises(ValueError, match="undirected"):
        Langevin().bind(arcs, x)(torch.tensor(0.0), x)
    with pytest.raises(ValueError, match="flows on a graph"):
        Langevin().bind(None, x)


def test_the_slope_of_the_double_well_is_its_derivative() -> None:
    graph = catalogue.barbell(3)
    x = torch.randn(6, 2, dtype=torch.float64).requires_grad_()
    energy = DoubleWell(0.7, 1.9)
    (expected,) = torch.autograd.grad(energy(x, graph).sum(), x)
    torch.testing.assert_close(energy.slope(x, graph), expected)
