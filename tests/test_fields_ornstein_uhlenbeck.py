"""The graph Ornstein-Uhlenbeck process against dense exponentials and its sampled law."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy import seeded
from torch import Tensor, nn

from neuralpde import Graph, catalogue, solve
from neuralpde.catalogue import problems
from neuralpde.fields import Heat, Noise, OrnsteinUhlenbeck
from neuralpde.operators import Pattern, SparseOperator
from neuralpde.testing import check_field
from solvers.stochastic import EulerMaruyama, StochasticHeun
from tests.strategies import graphs

NORMS = ("comb", "rw", "sym", "augmented")
F64 = torch.float64
WEIGHTED = Graph(
    torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 0, 2], [1, 0, 2, 1, 3, 2, 4, 3, 2, 0]]),
    7,
    torch.tensor([1.0, 1.0, 0.5, 0.5, 2.0, 2.0, 3.0, 3.0, 0.25, 0.25]),
)
"""Five nodes and two alone."""


def matrix(graph: Graph, norm: str, rate: float, pull: float) -> Tensor:
    """-(c L + k I), dense."""
    L = graph.laplacian(norm, dtype=F64).to_dense()
    return -(rate * L + pull * torch.eye(len(L), dtype=F64))


def van_loan(A: Tensor, Q: Tensor, t: float) -> Tensor:
    """int_0^t e^(rA) Q e^(rA^T) dr from one exponential (Van Loan, IEEE TAC 23 (1978)).

    Its block grows like e^(t|A|), so it is taken over a short time, which is then doubled.
    """
    n = len(A)
    doublings = max(0, math.ceil(math.log2(1e-3 + t * float(A.abs().sum(1).max()))))
    block = torch.zeros(2 * n, 2 * n, dtype=F64)
    block[:n, :n], block[:n, n:], block[n:, n:] = -A, Q, A.T
    E = torch.linalg.matrix_exp(t / 2**doublings * block)
    flow = E[n:, n:].T
    C = flow @ E[:n, n:]
    for _ in range(doublings):
        C, flow = C + flow @ C @ flow.T, flow @ flow
    return C


@pytest.mark.parametrize("norm", NORMS)
def test_mean_and_covariance_are_those_of_van_loan(norm: str) -> None:
    generator = seeded(1)
    x0, m = torch.randn(2, 7, 2, dtype=F64, generator=generator)
    scale = torch.rand(7, 2, dtype=F64, generator=generator)
    field = OrnsteinUhlenbeck(0.7, norm, scale, pull=0.2, centre=m).bind(WEIGHTED, x0)
    A = matrix(WEIGHTED, norm, 0.7, 0.2)
    for t in (0.0, 0.3, 2.0):
        mean = m + torch.linalg.matrix_exp(t * A) @ (x0 - m)
        torch.testing.assert_close(field.mean(t, x0), mean, rtol=1e-11, atol=1e-11)
        for channel in (0, 1):
            Q = torch.diag(scale[:, channel].square())
            C = field.covariance(t, channel)
            torch.testing.assert_close(C, van_loan(A, Q, t), rtol=1e-12, atol=1e-13)


@settings(max_examples=20)
@given(graphs(), st.sampled_from(NORMS), st.floats(0.01, 2.0))
def test_without_a_pull_constants_move_like_brownian_motion(
    graph: Graph, norm: str, t: float
) -> None:
    field = OrnsteinUhlenbeck(0.8, norm, 1.5).bind(graph, torch.zeros(graph.num_nodes, 1))
    Q = 2.25 * torch.eye(graph.num_nodes, dtype=F64)
    C = van_loan(matrix(graph, norm, 0.8, 0.0), Q, t)
    torch.testing.assert_close(field.covariance(t), C, rtol=1e-9, atol=1e-9)
    if norm == "comb":
        assert field.covariance(t).sum() == pytest.approx(2.25 * t * graph.num_nodes)


def test_the_stationary_covariance_solves_lyapunovs_equation() -> None:
    scale = torch.rand(7, 1, dtype=F64, generator=seeded(2))
    for norm in NORMS:
        field = OrnsteinUhlenbeck(0.7, norm, scale, pull=0.3).bind(WEIGHTED, torch.zeros(7, 1))
        A, C = matrix(WEIGHTED, norm, 0.7, 0.3), field.covariance(math.inf)
        Q = torch.diag(scale.flatten().square())
        torch.testing.assert_close(A @ C + C @ A.T, -Q, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(field.covariance(200.0), C, rtol=1e-13, atol=1e-13)


def test_the_expected_stationary_dirichlet_energy_counts_nodes_without_components() -> None:
    # s^2 (n - components) / 2c per channel: WEIGHTED has 7 nodes in 3 components.
    for norm in ("comb", "sym"):
        field = OrnsteinUhlenbeck(0.8, norm, 1.5).bind(WEIGHTED, torch.zeros(7, 1))
        L = WEIGHTED.laplacian(norm, dtype=F64).to_dense()
        energy = torch.trace(L @ field.covariance(1e3))
        assert float(energy) == pytest.approx(1.5**2 * (7 - 3) / (2 * 0.8), rel=1e-9)


def test_sampled_stationary_energies_have_the_expected_mean() -> None:
    paths, graph, s = 4000, catalogue.ring(5), 0.5
    x0 = torch.zeros(5, paths, dtype=F64)
    field = OrnsteinUhlenbeck(scale=s)
    # The slowest difference has the rate 1.38, so that t = 4 forgets the start to 2e-5.
    x = solve(field, x0, 4.0, graph, steps=128, generator=seeded(3)).final
    energies = (x * (graph.laplacian(dtype=F64) @ x)).sum(0)
    error = energies.std() / math.sqrt(paths)
    assert abs(float(energies.mean()) - s**2 * 4 / 2) < 3 * float(error)


def test_twenty_thousand_paths_have_the_mean_and_covariance_of_the_closed_form() -> None:
    paths, t, graph = 20_000, 1.0, catalogue.barbell(3)
    column = torch.linspace(-1.0, 1.0, 6, dtype=F64).view(-1, 1)
    x0 = column.repeat(1, paths)
    field = OrnsteinUhlenbeck(scale=0.5, pull=0.4, centre=0.5)
    x = solve(field, x0, t, graph, steps=32, generator=seeded(0)).final
    bound = field.bind(graph, column)
    C, mean = bound.covariance(t), bound.mean(t, column)
    off = x - mean
    S = off @ off.T / paths
    # Standard errors of sample means and covariances of a normal law.
    assert (off.mean(1).abs() < 3 * (C.diag() / paths).sqrt()).all()
    errors = ((C.square() + torch.outer(C.diag(), C.diag())) / paths).sqrt()
    assert ((S - C).abs() < 3 * errors).all()


def test_paths_are_those_of_heat_with_noise() -> None:
    x0 = torch.randn(7, 2, dtype=F64)
    one = solve(OrnsteinUhlenbeck(scale=0.3), x0, 1.0, WEIGHTED, solver=EulerMaruyama(1), steps=16)
    two = solve(Heat() + Noise(0.3), x0, 1.0, WEIGHTED, solver=EulerMaruyama(1), steps=16)
    torch.testing.assert_close(one.final, two.final, rtol=1e-14, atol=1e-14)


def test_common_noise_on_relabelled_nodes_gives_relabelled_paths() -> None:
    # Columns of an operator select the Brownian motions, so that both solves meet the same ones.
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    inverse = torch.argsort(order)
    other = Graph(inverse[WEIGHTED.edge_index], 7, WEIGHTED.edge_weight)
    x0 = torch.randn(7, 2, dtype=F64)

    def kicks(moved: bool) -> SparseOperator:
        eye = torch.arange(7)
        rows = inverse if moved else eye
        pattern, _ = Pattern.from_edges(rows, eye, 7)
        return SparseOperator(pattern, torch.ones(7, dtype=F64))

    ends = []
    for graph, start, moved in ((WEIGHTED, x0, False), (other, x0[order], True)):
        field = Heat(rate=0.7) + Noise(0.5, operator=kicks(moved))
        ends.append(solve(field, start, 1.0, graph, solver=StochasticHeun(4), steps=20).final)
    torch.testing.assert_close(ends[0][order], ends[1], rtol=1e-13, atol=1e-13)


def test_the_catalogues_process_is_this_one() -> None:
    process = problems.ornstein_uhlenbeck(sigma=0.8)
    field = process.field.bind(process.graph, process.x0)
    for t in (0.2, 3.0):
        found = field.mean(t, process.x0)
        torch.testing.assert_close(found, process.mean(t), rtol=1e-11, atol=1e-11)
        assert torch.equal(field.covariance(t), process.covariance(t))


def test_means_are_exact_on_large_graphs_and_differentiable() -> None:
    graph = catalogue.grid(60, 60)
    rate = nn.Parameter(torch.tensor(0.5, dtype=F64))
    x0 = torch.zeros(3600, 1, dtype=F64)
    x0[0] = 1.0
    field = OrnsteinUhlenbeck(rate, pull=0.1).bind(graph, x0)
    mean = field.mean(3.0, x0)
    assert mean.sum().item() == pytest.approx(math.exp(-0.3), rel=1e-11)
    # d/dc e^(-t(cL + k)) x0 = -t L mean.
    (grad,) = torch.autograd.grad(mean[0, 0], rate)
    slope = -3.0 * (graph.laplacian(dtype=F64) @ mean.detach())[0, 0]
    torch.testing.assert_close(grad, slope, rtol=1e-9, atol=1e-12)


def test_its_settings_are_learned_from_paths() -> None:
    x0 = torch.randn(7, 3, dtype=F64)
    numbers = {"rate": 0.6, "scale": 0.4, "pull": 0.2, "centre": 0.7}
    held = {name: nn.Parameter(torch.tensor(v, dtype=F64)) for name, v in numbers.items()}

    def loss(**chosen: float | Tensor) -> Tensor:
        field = OrnsteinUhlenbeck(**chosen)
        end = solve(field, x0, 1.0, WEIGHTED, solver=StochasticHeun(1), steps=8).final
        return end.square().sum()

    grads = torch.autograd.grad(loss(**held), tuple(held.values()))
    for grad, (name, value) in zip(grads, numbers.items(), strict=True):
        up, down = (float(loss(**{**numbers, name: value + e})) for e in (1e-5, -1e-5))
        assert float(grad) == pytest.approx((up - down) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_its_drift_keeps_the_contract(norm: str) -> None:
    rate, pull = (nn.Parameter(torch.tensor(v)) for v in (0.6, 0.3))
    field = OrnsteinUhlenbeck(rate, norm, 0.5, pull=pull, centre=0.2)
    check_field(field, catalogue.barbell(3, 1))


def test_what_has_no_law_is_refused_in_words() -> None:
    x0 = torch.zeros(7, 1, dtype=F64)
    with pytest.raises(ValueError, match="no stationary law"):
        OrnsteinUhlenbeck().bind(WEIGHTED, x0).covariance(math.inf)
    with pytest.raises(ValueError, match="bind"):
        OrnsteinUhlenbeck().covariance(1.0)
    arcs = Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]))
    with pytest.raises(ValueError, match="directed graph"):
        OrnsteinUhlenbeck().bind(arcs, x0[:3]).covariance(1.0)
    with pytest.raises(TypeError, match="one tensor"):
        OrnsteinUhlenbeck().bind(WEIGHTED, (x0, x0))
    with pytest.raises(ValueError, match="pull is inf"):
        OrnsteinUhlenbeck(pull=math.inf)
