"""Reactions against closed forms; invariant regions; learned coefficients."""

import pytest
import torch
from torch import nn

from neuralpde import catalogue
from neuralpde.fields import Heat, Reaction, allen_cahn, fisher
from neuralpde.solve import solve
from neuralpde.testing import check_field

TIGHT = {"rtol": 1e-10, "atol": 1e-11}


def test_fisher_on_constants_is_the_logistic_curve() -> None:
    x0 = torch.tensor([[0.1], [0.1], [0.1]], dtype=torch.float64)
    times = torch.linspace(0, 4, 9, dtype=torch.float64)
    traj = solve(fisher(2.0, rate=1.5), x0, times, catalogue.path(3), **TIGHT)
    expected = 0.1 / (0.1 + 0.9 * torch.exp(-1.5 * times))
    torch.testing.assert_close(traj.x[:, 1, 0], expected, rtol=1e-8, atol=1e-9)


def test_allen_cahn_on_constants_follows_its_closed_form() -> None:
    x0 = torch.tensor([[0.2]], dtype=torch.float64)
    final = solve(Reaction.allen_cahn(0.7), x0, 3.0, **TIGHT).final
    growth = torch.exp(torch.tensor(2 * 0.7 * 3.0, dtype=torch.float64))
    expected = x0 * growth.sqrt() / (1 + x0**2 * (growth - 1)).sqrt()
    torch.testing.assert_close(final, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("norm", ["comb", "rw"])
def test_states_stay_in_the_invariant_interval(norm: str) -> None:
    graph = catalogue.star(7)
    noise = torch.rand(7, 3, dtype=torch.float64)
    for field, x0, low in (
        (allen_cahn(0.2, 3.0, norm), 2 * noise - 1, -1.0),
        (fisher(0.2, 3.0, norm), noise, 0.0),
    ):
        traj = solve(field, x0, torch.linspace(0, 6, 13), graph, rtol=1e-7, atol=1e-8)
        assert traj.x.min() >= low - 1e-6
        assert traj.x.max() <= 1 + 1e-6


def test_the_allen_cahn_functional_falls() -> None:
    graph = catalogue.ring(6)
    x0 = torch.linspace(-1.2, 0.9, 6, dtype=torch.float64)[:, None]
    traj = solve(allen_cahn(0.5), x0, torch.linspace(0, 5, 21), graph, **TIGHT)
    L = graph.to(dtype=torch.float64).laplacian().to_dense()
    well = 0.25 * ((1 - traj.x**2) ** 2).sum((1, 2))
    values = 0.25 * torch.einsum("sic,ij,sjc->s", traj.x, L, traj.x) + well
    assert (values.diff() < 0).all()


def test_coefficients_are_those_of_a_polynomial_for_each_channel() -> None:
    table = nn.Parameter(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, -3.0]], dtype=torch.float64))
    x = torch.tensor([[2.0, 5.0]], dtype=torch.float64)
    bound = Reaction(table, rate=2.0).bind(None, x)
    torch.testing.assert_close(
        bound(torch.tensor(0.0), x), torch.tensor([[10.0, -150.0]], dtype=torch.float64)
    )
    (grad,) = torch.autograd.grad(bound(torch.tensor(0.0), x).sum(), table)
    powers = torch.stack([x[0] ** k for k in range(3)])
    torch.testing.assert_close(grad, 2.0 * powers)


def test_numbers_are_not_rounded_to_single_precision() -> None:
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    graph = catalogue.path(2)
    final = solve(Heat(rate=0.1), x, 1.0, graph, rtol=1e-12).final
    expected = 0.5 - 0.5 * torch.exp(torch.tensor(-0.2, dtype=torch.float64))
    assert abs(final[0, 0] - expected) < 1e-12


def test_they_keep_the_contract() -> None:
    check_field(allen_cahn(nn.Parameter(torch.tensor(0.3))), catalogue.star(4))
    check_field(Heat() + Reaction(nn.Parameter(0.1 * torch.ones(3, 3))), catalogue.path(4))


def test_wrong_coefficients_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Reaction([])
    with pytest.raises(ValueError, match="finite"):
        Reaction([1.0], rate=float("nan"))
