"""A solve that ended early is finished from its trajectory, from memory or from a file."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralpde import Graph, SolveFailed, SolveInterrupted, Trajectory, catalogue, solve
from neuralpde.fields import Field, Heat, Reaction

TIGHT: dict[str, Any] = {"solver": "tsit5", "rtol": 1e-10, "atol": 1e-12}


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Drift(Field):
    """tanh(A x) cos t - x, at each graph's own time."""

    batched_time = True

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("sym")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.A @ x) * torch.cos(t) - x


class Breaking(Drift):
    """The same, but Ctrl-C comes at an evaluation."""

    left = 300

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().rest(t, x)


def joined(before: Trajectory, rest: Trajectory) -> Tensor:
    """The third line of the recipe."""
    return torch.where(before.x.isnan(), rest.x, before.x)


@pytest.mark.parametrize("end", [6.0, -2.0])
def test_ctrl_c_loses_nothing(tmp_path: Path, end: float) -> None:
    graph, x0 = catalogue.barbell(4), normal(8, 2)
    times = torch.linspace(0, end, 7, dtype=torch.float64)
    whole = solve(Drift(), x0, times, graph, **TIGHT)
    with pytest.raises(SolveInterrupted) as caught:
        solve(Breaking(), x0, times, graph, **TIGHT)
    caught.value.trajectory.save(tmp_path / "run.npz")

    before = Trajectory.load(tmp_path / "run.npz")
    assert before.interrupted
    assert before.status == "interrupted"
    assert 0 < abs(float(before.ended)) < abs(end)
    later = torch.maximum if end > 0 else torch.minimum
    rest = solve(Drift(), before.final, later(before.t, before.ended), graph, **TIGHT)
    torch.testing.assert_close(joined(before, rest), whole.x, rtol=1e-8, atol=1e-10)
    assert rest.status == "done"
    # What was saved before is untouched, bit for bit.
    reached = ~before.x[:, 0, 0].isnan()
    assert 1 < int(reached.sum()) < len(times)
    torch.testing.assert_close(before.x[reached], whole.x[reached], rtol=1e-8, atol=1e-10)


def test_out_of_steps_goes_on_where_it_was(tmp_path: Path) -> None:
    graph, x0, times = catalogue.grid(4, 4), normal(16, 1), [0.0, 0.5, 2.0, 5.0]
    field = Heat() + Reaction([0.0, 1.0, 0.0, -1.0])
    whole = solve(field, x0, times, graph, **TIGHT)
    with pytest.raises(SolveFailed) as caught:
        solve(field, x0, times, graph, max_steps=40, **TIGHT)
    caught.value.trajectory.save(tmp_path / "run")
    before = Trajectory.load(tmp_path / "run.npz")
    rest = solve(field, before.final, torch.maximum(before.t, before.ended), graph, **TIGHT)
    torch.testing.assert_close(joined(before, rest), whole.x, rtol=1e-8, atol=1e-10)
    # The energy goes on as well, from the very value at which it stopped.
    assert float(rest.energy.y[0]) == pytest.approx(float(before.energy.y[-1]), rel=1e-12)


def test_graphs_go_on_from_times_of_their_own(tmp_path: Path) -> None:
    batch = Graph.union([catalogue.path(2), catalogue.star(40), catalogue.ring(5)])
    x0, times = normal(47, 1), torch.tensor([0.0, 0.4, 1.5, 3.0], dtype=torch.float64)
    whole = solve(Heat(), x0, times, batch, **TIGHT)
    before = solve(Heat(), x0, times, batch, max_steps=185, raise_on_failure=False, **TIGHT)
    assert before.status == ("done", "max_steps", "done")
    before = Trajectory.load(before.save(tmp_path / "run.npz"))
    left = torch.maximum(before.t[:, None], before.ended)
    rest = solve(Heat(), before.final, left, batch, **TIGHT)
    torch.testing.assert_close(joined(before, rest), whole.x, rtol=1e-8, atol=1e-10)
    assert rest.stats.accepted[0] == rest.stats.accepted[2] == 0


def test_fixed_steps_and_tuples_go_on_bit_for_bit() -> None:
    def swing(t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[1], -torch.sin(x[0]) + torch.cos(t)

    start = (normal(6, 2), normal(6, 2, seed=2))
    whole = solve(swing, start, 4.0, solver="rk4", steps=64)
    before = solve(swing, start, 4.0, solver="rk4", steps=64, max_steps=32, raise_on_failure=False)
    assert float(before.ended) == 2.0
    rest = solve(swing, before.final, (before.ended, 4.0), solver="rk4", steps=32)
    for ours, theirs in zip(rest.final, whole.final, strict=True):
        assert ours.equal(theirs)


def test_every_line_may_be_the_last() -> None:
    """Ctrl-C before any line of the loop: state, time and gradient belong together all the same."""
    graph = catalogue.path(2)
    files = ("integrate.py", "tape.py", "tracking.py", "watching.py", "pace.py", "explicit.py")

    class Growth(Field):
        def rest(self, t: Tensor, x: Tensor) -> Tensor:
            return x

    x0, times = torch.ones(2, 1, dtype=torch.float64, requires_grad=True), [0.0, 0.5, 1.0]
    options: dict[str, Any] = {"solver": "heun", "steps": 3}
    whole = solve(Growth(), x0, times, graph, save="steps", **options)
    known = dict(zip(whole.t.tolist(), whole.x[:, 0, 0].tolist(), strict=True))

    lines = 0

    def interrupted(after: int) -> Trajectory | None:
        """The trajectory of a solve in which Ctrl-C comes after so many lines."""
        nonlocal lines
        lines, stepping = 0, False

        def trace(frame: FrameType, what: str, _: Any) -> Any:
            nonlocal lines, stepping
            if frame.f_code.co_name == "_advance":
                stepping = what != "return"
            lines += stepping and what == "line" and frame.f_code.co_filename.endswith(files)
            if lines == after:
                lines += 1
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        watch = [lambda shot: shot.x.sum()]
        try:
            solve(Growth(), x0, times, graph, watch=watch, grad="replay", **options)
        except SolveInterrupted as error:
            return error.trajectory
        finally:
            sys.settrace(None)
        return None

    assert interrupted(-1) is None
    # The second of four steps, which saves, and what is left of its neighbours.
    found = [interrupted(after) for after in range(lines // 5, lines * 3 // 5)]
    assert len(found) > 100
    for traj in found:
        right = known[float(traj.ended)]
        assert traj.final.flatten().tolist() == pytest.approx([right] * 2, rel=1e-14)
        # The field is linear: what is reached is its own gradient with respect to ones.
        (slope,) = torch.autograd.grad(traj.final.sum(), x0)
        assert slope.flatten().tolist() == pytest.approx([right] * 2, rel=1e-14)
        reached = ~traj.x[:, 0, 0].isnan()
        expected = [known[t] for t in traj.t[reached].tolist()]
        assert traj.x[reached, 0, 0].tolist() == pytest.approx(expected, rel=1e-14)
        if traj.energy is not None:
            assert len(traj.energy.t) in (traj.stats.accepted, traj.stats.accepted + 1)
    assert len({float(traj.ended) for traj in found}) > 2


@pytest.mark.parametrize("grad", ["tape", "replay"])
def test_an_interrupted_solve_still_has_its_gradient(grad: str) -> None:
    graph, x0 = catalogue.ring(4), normal(4, 1).requires_grad_()
    with pytest.raises(SolveInterrupted) as caught:
        solve(Breaking(), x0, 6.0, graph, grad=grad, **TIGHT)
    before = caught.value.trajectory
    (found,) = torch.autograd.grad(before.final.sum(), x0)
    again = solve(Drift(), x0, float(before.ended), graph, **TIGHT)
    (known,) = torch.autograd.grad(again.final.sum(), x0)
    torch.testing.assert_close(found, known, rtol=1e-8, atol=1e-10)


LEGS = """
import itertools, sys, time
import torch
from neuralpde import Trajectory, catalogue, solve
from neuralpde.fields import Heat, Reaction
from neuralpde.stopping import WallTime

path, ticks = sys.argv[1], itertools.count()
field = Heat(rate=0.1) + Reaction([0.0, 1.0, 0.0, -1.0])
generator = torch.Generator().manual_seed(1)
x0 = torch.randn(25, 1, generator=generator, dtype=torch.float64)
graph, t, x = catalogue.grid(5, 5), torch.tensor([0.0, 40.0], dtype=torch.float64), x0
while True:
    # A leg of five steps: the clock goes on by one whenever it is asked.
    leg = WallTime(5.0, lambda: float(next(ticks)))
    traj = solve(field, x, t, graph, solver="tsit5", rtol=1e-10, atol=1e-12, stop=leg)
    traj.save(path)
    x, t = traj.final, torch.maximum(t, traj.ended)
    print(traj.status, flush=True)
    time.sleep(0.02)
    if traj.status == "done":
        break
"""


def test_a_process_that_is_killed_leaves_a_file_to_go_on_from(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LEGS), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        for _ in range(3):
            assert process.stdout.readline() == "stopped (wall time)\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    before = Trajectory.load(path)
    assert before.status == "stopped (wall time)"
    assert 0 < float(before.ended) < 40
    field = Heat(rate=0.1) + Reaction([0.0, 1.0, 0.0, -1.0])
    graph, x0 = catalogue.grid(5, 5), normal(25, 1)
    rest = solve(field, before.final, (before.ended, 40.0), graph, **TIGHT)
    whole = solve(field, x0, 40.0, graph, **TIGHT)
    torch.testing.assert_close(rest.final, whole.final, rtol=1e-8, atol=1e-10)


def cases() -> dict[str, Callable[[], Trajectory]]:
    graph = catalogue.path(3)
    pair = (normal(3, 2), normal(3, 2, seed=2))
    half = normal(3, 1).to(torch.bfloat16)
    early: dict[str, Any] = {"max_steps": 2, "raise_on_failure": False, "solver": "heun"}
    return {
        "one graph": lambda: solve(Drift(), normal(3, 1), 1.0, graph, rtol=1e-9, **early),
        "a tuple": lambda: solve(lambda t, x: (x[1], -x[0]), pair, 9.0, steps=9, **early),
        "complex": lambda: solve(
            lambda t, z: 1j * z, torch.ones(2, dtype=torch.complex64), 9.0, steps=9, **early
        ),
        "half precision": lambda: solve(Heat(), half, 1.0, graph, steps=9, **early),
        "the end alone": lambda: solve(
            Drift(), normal(3, 1), 1.0, graph, rtol=1e-9, save="end", **early
        ),
    }


@pytest.mark.parametrize("kind", cases())
def test_partial_trajectories_are_saved_without_loss(kind: str, tmp_path: Path) -> None:
    traj = cases()[kind]()
    assert traj.status == "max_steps"
    again = Trajectory.load(traj.save(tmp_path / "run.npz"))
    both = (
        (traj.final, again.final)
        if isinstance(traj.final, tuple)
        else ((traj.final,), (again.final,))
    )
    for ours, theirs in zip(*both, strict=True):
        assert ours.equal(theirs)
        assert ours.dtype == theirs.dtype
        assert not ours.isnan().any()
    assert again.ended.equal(traj.ended)
    assert again.ended.dtype == torch.float64
    assert again.messages == traj.messages
    assert (again.status, again.interrupted) == (traj.status, False)
