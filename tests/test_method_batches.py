"""A batch gives what its graphs give alone, for every method, with its own steps or on a grid."""

from typing import Any

import pytest
import torch
from kinds import adaptive, registered
from torch import Tensor

from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.catalogue.problems import Forcing
from neuralpde.fields import Field, Heat, Reaction, Wave

# Their largest eigenvalues go from 3.6 to 25: none would choose the steps of another.
GRAPHS = (catalogue.path(5), catalogue.star(24), catalogue.ring(7), catalogue.complete(4))
BATCH = Graph.union(GRAPHS)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def assert_alone(field: Field, x0: Any, **how: Any) -> None:
    """To rounding, and with the same steps."""
    together = solve(field, x0, [0.0, 0.3, 1.0], BATCH, **how)
    parts = x0 if isinstance(x0, tuple) else (x0,)
    for g, graph in enumerate(GRAPHS):
        rows = BATCH.batch == g
        own_x0 = tuple(part[rows] for part in parts)
        own = solve(
            field, own_x0 if isinstance(x0, tuple) else own_x0[0], [0.0, 0.3, 1.0], graph, **how
        )
        assert together.stats.accepted[g] == own.stats.accepted
        assert together.stats.rejected[g] == own.stats.rejected
        for whole, piece in zip(states(together), states(own), strict=True):
            torch.testing.assert_close(whole[:, rows], piece, rtol=1e-12, atol=1e-12)


def states(traj: Trajectory) -> tuple[Tensor, ...]:
    return traj.x if isinstance(traj.x, tuple) else (traj.x,)


@pytest.mark.parametrize("method", adaptive("any", "split"))
def test_graphs_with_steps_of_their_own(method: str) -> None:
    field = Heat() + Reaction.allen_cahn() + Forcing()
    assert_alone(field, normal(BATCH.num_nodes, 2).tanh(), solver=method, rtol=1e-3)


@pytest.mark.parametrize("method", registered("any", "split"))
def test_graphs_on_one_grid(method: str) -> None:
    field = Heat(rate=0.3) + Reaction.allen_cahn() + Forcing()
    assert_alone(field, normal(BATCH.num_nodes, 2).tanh(), solver=method, steps=12)


@pytest.mark.parametrize("method", registered("force"))
def test_waves_on_one_grid(method: str) -> None:
    x = normal(BATCH.num_nodes, 2)
    assert_alone(Wave(damping=0.3), (x, x.flip(0)), solver=method, steps=20)


@pytest.mark.parametrize("method", adaptive("any"))
def test_nonlinear_attention_with_steps_of_its_own(method: str) -> None:
    from neuralpde.fields import GRAND

    field = GRAND(2, attention_dim=4, variant="nonlinear").double()
    assert_alone(field, normal(BATCH.num_nodes, 2), solver=method, rtol=1e-2)
