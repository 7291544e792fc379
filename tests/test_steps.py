"""Every step that was tried: sizes, errors, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis import StepSize
from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Heat, Layers
from neuralpde.watching import WatchTrack

GRID = catalogue.grid(4, 4)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def restless(**options: object) -> Trajectory:
    """A field whose sudden changes get steps refused."""

    def f(t: Tensor, x: Tensor) -> Tensor:
        return -x + 30 * torch.exp(-(((t - 2.0) / 0.05) ** 2))

    return solve(f, normal(16, 1), 4.0, GRID, solver="dopri5", **options)


def test_taken_steps_cover_the_time_and_refused_ones_are_counted() -> None:
    traj = restless()
    steps = traj.steps
    assert steps is not None
    taken = steps.accepted
    assert int(taken.sum()) == traj.stats.accepted
    assert int((~taken).sum()) == traj.stats.rejected > 0
    assert float(steps.h[taken].sum()) == pytest.approx(4.0, rel=1e-14)
    ends = (steps.t + steps.h)[taken]
    torch.testing.assert_close(ends[:-1], steps.t[taken][1:], rtol=0, atol=1e-14)
    assert bool((steps.ratio[taken] <= 1).all())
    assert bool((steps.ratio[~taken] > 1).all())


def test_a_refused_step_is_tried_again_from_the_same_place_and_shorter() -> None:
    steps = restless().steps
    assert steps is not None
    (refused,) = np.nonzero(~steps.accepted.numpy())
    for k in refused:
        assert float(steps.t[k + 1]) == pytest.approx(float(steps.t[k]), abs=1e-14)
        assert float(steps.h[k + 1]) < float(steps.h[k])


def test_sizes_are_watched_live() -> None:
    traj = restless(watch=StepSize())
    steps, seen = traj.steps, traj["step size"]
    assert steps is not None
    assert bool(seen.y[0].isnan())
    torch.testing.assert_close(seen.y[1:], steps.h[steps.accepted], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(seen.t, traj.energy.t)


def test_a_fixed_grid_has_sizes_and_no_errors_also_backwards() -> None:
    traj = solve(Heat(), normal(16, 1), (1.0, 0.0), GRID, solver="rk4", steps=4, watch=StepSize())
    assert traj.steps is not None
    torch.testing.assert_close(traj.steps.h, torch.full((4,), -0.25).double())
    torch.testing.assert_close(traj.steps.t, torch.tensor([1.0, 0.75, 0.5, 0.25]).double())
    assert bool(traj.steps.ratio.isnan().all())
    assert traj["step size"].y[1:].tolist() == [-0.25] * 4


def test_graphs_with_their_own_clocks_have_columns() -> None:
    batch = Graph.union([catalogue.ring(5), catalogue.complete(16)])
    traj = solve(Heat(), normal(21, 1), 3.0, batch, solver="dopri5", watch=StepSize())
    steps = traj.steps
    assert steps is not None
    assert steps.h.shape[1] == 2
    taken = steps.h[steps.accepted]
    torch.testing.assert_close(taken.nansum(0), torch.full((2,), 3.0).double())
    counts = tuple((~taken.isnan()).sum(0).tolist())
    assert counts == traj.stats.accepted
    assert counts[0] != counts[1]
    refused = (~steps.h[~steps.accepted].isnan()).sum(0)
    assert tuple(refused.tolist()) == traj.stats.rejected
    seen = traj["step size"].y
    for g in range(2):
        own = taken[:, g][~taken[:, g].isnan()]
        torch.testing.assert_close(seen[1 : 1 + len(own), g], own, rtol=1e-9, atol=1e-12)


def test_a_clock_that_waits_is_measured_from_where_it_moved_last() -> None:
    watch = WatchTrack((StepSize(),), Graph.union([GRID, GRID]), False, stepping=True)
    x = (normal(32, 1),)
    # The second graph is shown where it has not moved: what it says of its time is void.
    for t, moved in (((0.0, 0.0), (1, 1)), ((1.0, 9.0), (1, 0)), ((2.0, 3.0), (1, 1))):
        watch(np.array(t), x, None, np.array(moved, dtype=bool))
    sizes = watch.series()["step size"].y
    assert sizes[1:, 0].tolist() == [1.0, 1.0]
    assert float(sizes[1, 1]) == 3.0


def test_graphs_on_one_clock_share_the_worst_error() -> None:
    batch = Graph.union([catalogue.ring(5), catalogue.complete(6)])
    driven = (torch.arange(11) >= 5).double()[:, None]

    def f(t: Tensor, x: Tensor) -> Tensor:
        return -x + 30 * driven * torch.exp(-(((t - 2.0) / 0.05) ** 2))

    steps = solve(f, normal(11, 1), 4.0, batch, solver="dopri5").steps
    assert steps is not None
    assert steps.h.dim() == 1
    assert bool((steps.ratio[steps.accepted] <= 1).all())
    assert int((~steps.accepted).sum()) > 0
    assert bool((steps.ratio[~steps.accepted] > 1).all())


def test_pieces_put_their_steps_in_a_row() -> None:
    traj = solve(Layers([Heat(rate=1.0), Heat(rate=2.0)]), normal(16, 1), 2.0, GRID, solver="tsit5")
    assert traj.steps is not None
    assert int(traj.steps.accepted.sum()) == traj.stats.accepted
    assert float(traj.steps.h[traj.steps.accepted].sum()) == pytest.approx(2.0)


def test_solvers_without_steps_say_so() -> None:
    exact = solve(Heat(), normal(16, 1), [0.0, 0.5, 1.0], GRID, watch=StepSize())
    assert exact.steps is None
    assert bool(exact["step size"].y.isnan().all())
    with pytest.raises(TypeError, match="no function of a state"):
        exact.measure(StepSize())


def test_steps_travel_with_the_trajectory(tmp_path: Path) -> None:
    traj = restless()
    back = Trajectory.load(traj.save(tmp_path / "run.npz"))
    assert back.steps is not None
    assert traj.steps is not None
    for name in ("t", "h", "ratio", "accepted"):
        assert torch.equal(getattr(back.steps, name), getattr(traj.steps, name))
    exact = solve(Heat(), normal(16, 1), 1.0, GRID)
    assert Trajectory.load(exact.save(tmp_path / "exact.npz")).steps is None
