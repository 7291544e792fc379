"""Noise as fields declare it: what it does, and what is refused."""

import math

import pytest
import torch
from noisy import (
    GRAPH,
    NODES,
    STEPPERS,
    Growth,
    Own,
    ones,
    stratonovich_growth,
)
from torch import Tensor, nn

from neuralpde import solve
from neuralpde.catalogue import path
from neuralpde.fields import Field, Heat, Layers, Noise, Pinned, Reaction
from neuralpde.odeint import odeint, odeint_adjoint
from solvers.brownian import Brownian
from solvers.stochastic import EulerMaruyama


def test_noise_may_be_a_parameter_a_module_an_operator_or_a_tuple() -> None:
    class Half(nn.Module):
        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return 0.5 * torch.ones_like(x)

    x0 = ones(NODES, 2)
    W = Brownian(1, (NODES, 2))(0.25)
    A = GRAPH.adjacency().to(torch.float64)
    cases = [
        (nn.Parameter(torch.tensor(0.5, dtype=torch.float64)), 0.5 * W),
        (Half(), 0.5 * W),
        (A, A.to_dense() @ W),
        (0.5, 0.5 * W),
    ]
    for noise, kick in cases:
        x = solve(Own(noise), x0, 0.25, GRAPH, solver=EulerMaruyama(1), steps=1).final
        torch.testing.assert_close(x, 0.75 * x0 + kick, rtol=1e-6, atol=1e-6)


def test_parts_of_a_state_have_noise_of_their_own() -> None:
    class Langevin(Field):
        """dx = v dt, dv = -v dt + 0.5 dW."""

        noise = (0.0, 0.5)

        def rest(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return x[1], -x[1]

    x0 = (ones(3), 2 * ones(3))
    x, v = solve(Langevin(), x0, 0.5, path(3), solver=EulerMaruyama(4), steps=1).final
    assert torch.equal(x, 2 * ones(3))
    kick = 0.5 * Brownian(4, (3,), part=1)(0.5)
    torch.testing.assert_close(v, 1 + kick, rtol=1e-14, atol=1e-14)


def test_pinned_nodes_feel_no_noise() -> None:
    x0 = ones(NODES, 2)
    for noise in (Noise(0.5), Noise(lambda t, x: 0.5 * x)):
        field = Pinned(Heat() + noise, [0, 4])
        x = solve(field, x0, 1.0, GRAPH, solver=EulerMaruyama(3), steps=8).final
        assert torch.equal(x[[0, 4]], x0[[0, 4]])
        assert (x[[1, 2, 3, 5, 8]] != 1).all()


def test_the_drift_of_a_stochastic_field_is_the_field_without_its_noise() -> None:
    x0 = torch.randn(NODES, 2, dtype=torch.float64)
    zero = torch.tensor(0.0)
    drift = (Heat() + Noise(1.0)).bind(GRAPH, x0)
    assert torch.equal(drift(zero, x0), Heat().bind(GRAPH, x0)(zero, x0))
    assert torch.equal(Noise(1.0).bind(None, x0)(zero, x0), 0 * x0)
    assert Heat().noise is None
    assert (Heat() + Reaction([1.0])).noise is None


def test_noise_that_lifts_a_tiny_state_is_no_sign_of_instability() -> None:
    # A deterministic solve would warn of growth here, and warnings are errors.
    x = solve(Noise(1.0), 1e-12 * ones(3), 1.0, solver="euler_maruyama", steps=2).final
    assert x.abs().max() > 1e-3


def test_single_precision_rounds_the_increments_and_no_more() -> None:
    x0 = torch.zeros(4)
    x = solve(Noise(1.0), x0, 1.0, solver=EulerMaruyama(2), steps=1).final
    assert x.dtype == torch.float32
    assert torch.equal(x, Brownian(2, (4,))(1.0).float())


def test_a_number_is_as_precise_as_the_state() -> None:
    x0 = torch.zeros(4, dtype=torch.float64)
    x = solve(Noise(0.1), x0, 1.0, solver=EulerMaruyama(2), steps=1).final
    torch.testing.assert_close(x, 0.1 * Brownian(2, (4,))(1.0), rtol=1e-15, atol=0)


# --- what is refused ------------------------------------------------------------------------

DETERMINISTIC = ("euler", "heun", "tsit5", "dopri5", "exact", "chebyshev", "rkl2", "trbdf2")


@pytest.mark.parametrize("solver", [*DETERMINISTIC, "torchdiffeq:dopri5", "scipy:RK45"])
@pytest.mark.parametrize("steps", [None, 4])
def test_deterministic_solvers_refuse_to_leave_out_noise(solver: str, steps: int | None) -> None:
    with pytest.raises(ValueError, match=r"is stochastic, and solver .* would leave out its noise"):
        solve(Heat() + Noise(0.3), ones(NODES, 1), 1.0, GRAPH, solver=solver, steps=steps)


def test_noise_is_seen_wherever_a_field_declares_it() -> None:
    class Hidden(Field):
        """Noise in a field with a forward of its own."""

        noise = 0.3

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return -x

    fields = [Hidden(), Growth(), Pinned(Heat() + Noise(0.3), [0]), Layers([Heat() + Noise(1.0)])]
    for field in fields:
        with pytest.raises(ValueError, match="is stochastic"):
            solve(field, ones(NODES, 1), 1.0, GRAPH)
        traj = solve(field, ones(NODES, 1), 1.0, GRAPH, steps=4)
        assert traj.stats.solver in STEPPERS
    bound = (Heat() + Noise(0.3)).bind(GRAPH, ones(NODES, 1))
    with pytest.raises(ValueError, match="is stochastic"):
        solve(bound, ones(NODES, 1), 1.0)
    for peer in (odeint, odeint_adjoint):
        with pytest.raises(ValueError, match="would leave out its noise"):
            peer(bound, ones(NODES, 1), torch.tensor([0.0, 1.0]))


def test_auto_follows_the_convention_of_the_noise() -> None:
    for field, name in (
        (Heat() + Noise(0.3), "stochastic_heun"),
        (stratonovich_growth(), "stochastic_heun"),
        (Growth(), "euler_maruyama"),
    ):
        assert solve(field, ones(NODES, 1), 1.0, GRAPH, steps=2).stats.solver == name
        with pytest.raises(ValueError, match="give steps=n"):
            solve(field, ones(NODES, 1), 1.0, GRAPH)


def test_each_method_refuses_the_other_convention() -> None:
    with pytest.raises(ValueError, match="converges to the Stratonovich solution"):
        solve(Growth(), ones(1, 1), 1.0, solver="stochastic_heun", steps=4)
    with pytest.raises(ValueError, match="converges to the Ito solution"):
        solve(stratonovich_growth(), ones(1, 1), 1.0, solver="euler_maruyama", steps=4)


@pytest.mark.parametrize("name", STEPPERS)
def test_stochastic_solvers_say_what_they_need(name: str) -> None:
    with pytest.raises(ValueError, match="declares no noise"):
        solve(Heat(), ones(NODES, 1), 1.0, GRAPH, solver=name, steps=4)
    with pytest.raises(ValueError, match="takes fixed steps"):
        solve(Noise(1.0), ones(3), 1.0, solver=name)
    t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="no derivative in time"):
        solve(Noise(1.0), ones(3), t, solver=name, steps=4)
    with pytest.raises(ValueError, match="2 seeds for 1 graphs"):
        solve(Noise(1.0), ones(3), 1.0, solver=STEPPERS[name]([1, 2]), steps=4)
    with pytest.raises(TypeError, match="noise of Noise is real"):
        solve(Noise(1.0), ones(3) + 0j, 1.0, solver=name, steps=4)


def test_noise_that_does_not_fit_is_refused_before_any_work() -> None:
    x0 = ones(NODES, 2)
    with pytest.raises(ValueError, match=r"shape \(3,\) does not broadcast against .* \(9, 2\)"):
        (Heat() + Noise(torch.ones(3))).bind(GRAPH, x0)
    with pytest.raises(ValueError, match=r"shape \(1, 9, 2\) does not broadcast"):
        Noise(torch.ones(1, NODES, 2)).bind(GRAPH, x0)
    with pytest.raises(ValueError, match=r"1 part\(s\) of a state of 2"):
        Noise(1.0).bind(None, (x0, x0))
    with pytest.raises(ValueError, match="scale is nan"):
        Noise(math.nan)
    with pytest.raises(ValueError, match=r"convention 'itoh'.*'ito'"):
        Noise(1.0, convention="itoh")
    with pytest.raises(TypeError, match=r"its operator is torch\.float32"):
        Own(GRAPH.adjacency()).bind(GRAPH, x0)
    with pytest.raises(ValueError, match=r"operator on 4 nodes.*state of 9"):
        Noise(operator=path(4).adjacency()).bind(GRAPH, x0)


def test_noises_that_cannot_be_one_are_refused_where_they_are_added() -> None:
    A = GRAPH.adjacency()
    with pytest.raises(ValueError, match="adds up with no other noise"):
        Noise(1.0, A) + Noise(0.5)
    with pytest.raises(ValueError, match="one noise is Ito and the other Stratonovich"):
        Noise(torch.sin, convention="stratonovich") + Growth()
    with pytest.raises(ValueError, match="with a number for a scale"):
        Noise(torch.ones(NODES, 1), A)


def test_a_function_must_not_hide_what_it_differentiates() -> None:
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    field = Heat() + Noise(lambda t, x: theta * x)
    for grad in ("auto", "replay"):
        with pytest.raises(ValueError, match="tensors that require grad and that the field does"):
            solve(field, ones(NODES, 1), 1.0, GRAPH, solver="euler_maruyama", steps=4, grad=grad)
    x = solve(field, ones(NODES, 1), 1.0, GRAPH, solver="euler_maruyama", steps=4, grad="tape")
    assert torch.autograd.grad(x.final.sum(), theta)[0] != 0
