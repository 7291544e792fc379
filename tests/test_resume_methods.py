"""Stiff and stochastic solves that were broken off are finished from their files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralpde import SolveInterrupted, Trajectory, catalogue, solve
from neuralpde.fields import Heat, Noise, Reaction
from solvers import EulerMaruyama, StochasticHeun

TIGHT: dict[str, Any] = {"solver": "tsit5", "rtol": 1e-10, "atol": 1e-12}


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def joined(before: Trajectory, rest: Trajectory) -> Tensor:
    return torch.where(before.x.isnan(), rest.x, before.x)


@pytest.mark.parametrize("solver", ["trbdf2", "implicit_euler", "rkl2", "etdrk2"])
def test_stiff_solves_go_on_where_they_were_broken_off(solver: str, tmp_path: Path) -> None:
    class Killed(Reaction):
        """Ctrl-C comes at an evaluation, in the middle of a step or of Newton's iteration."""

        left = 60

        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            Killed.left -= 1
            if Killed.left == 0:
                raise KeyboardInterrupt
            return super().rest(t, x)

    graph, x0 = catalogue.star(30), normal(30, 1)
    times, cubic = torch.tensor([0.0, 0.1, 1.0, 10.0]).double(), [0.0, 1.0, 0.0, -1.0]
    how: dict[str, Any] = {"solver": solver, "rtol": 1e-4, "atol": 1e-6, "grad": "none"}
    exact = solve(Heat() + Reaction(cubic), x0, times, graph, **TIGHT)
    with pytest.raises(SolveInterrupted) as caught:
        solve(Heat() + Killed(cubic), x0, times, graph, **how)
    caught.value.trajectory.save(tmp_path / "run")
    before = Trajectory.load(tmp_path / "run.npz")
    assert 0 < float(before.ended) < 10
    left = torch.maximum(before.t, before.ended)
    rest = solve(Heat() + Reaction(cubic), before.final, left, graph, **how)
    torch.testing.assert_close(joined(before, rest), exact.x, rtol=1e-2, atol=1e-3)
    assert rest.status == "done"


@pytest.mark.parametrize("method", [EulerMaruyama, StochasticHeun])
def test_stochastic_solves_go_on_along_their_path_bit_for_bit(
    method: type[EulerMaruyama] | type[StochasticHeun], tmp_path: Path
) -> None:
    graph, x0, field = catalogue.grid(3, 3), normal(9, 2), Heat() + Noise(0.5)
    how: dict[str, Any] = {"solver": method(seed=3), "grad": "none"}
    times = torch.tensor([0.0, 0.25, 0.5, 1.0]).double()
    whole = solve(field, x0, times, graph, steps=64, **how)
    cut = {"max_steps": 20, "raise_on_failure": False}
    before = solve(field, x0, times, graph, steps=64, **cut, **how)
    before = Trajectory.load(before.save(tmp_path / "run.npz"))
    assert float(before.ended) == 20 / 64
    left = torch.maximum(before.t, before.ended)
    rest = solve(field, before.final, left, graph, steps=44, **how)
    assert joined(before, rest).equal(whole.x)
