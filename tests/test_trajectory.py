"""Trajectories: read at any time, measured afterwards, printed, saved without pickle, loaded."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import Tensor

from neuralpde import Graph, Trajectory, catalogue, solve
from neuralpde.fields import Heat, Wave, allen_cahn
from neuralpde.watching import Snapshot

RING = catalogue.ring(6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def largest(shot: Snapshot) -> Tensor:
    return shot.x.abs().max()


def cases() -> dict[str, Trajectory]:
    x, times = normal(6, 2), [0.0, 0.5, 2.0]
    batch = Graph.union([RING, catalogue.path(4)])
    return {
        "double": solve(allen_cahn(), x, times, RING, watch=largest),
        "single": solve(allen_cahn(), x.float(), times, RING),
        "half": solve(Heat(), x.bfloat16(), times, RING, solver="rk4", steps=20),
        "complex": solve(Heat(), torch.complex(x, x.flip(0)), times, RING, solver="tsit5"),
        "tuple": solve(Wave(), (x, 0 * x), times, RING),
        "batch": solve(allen_cahn(), normal(10, 2), times, batch),
        "exact": solve(Heat("sym"), x, times, RING),
        "bare": solve(lambda t, y: -y, x, times),
        "failed": solve(
            lambda t, y: y**2, x.abs() + 1, times, RING, max_steps=50, raise_on_failure=False
        ),
    }


@pytest.mark.parametrize("kind", cases())
def test_what_was_saved_comes_back(kind: str, tmp_path: Path) -> None:
    traj = cases()[kind]
    path = traj.save(tmp_path / "run.npz")
    back = Trajectory.load(path)
    torch.testing.assert_close(back.x, traj.x, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(back.t, traj.t)
    parts = (traj.x, back.x) if isinstance(traj.x, tuple) else ((traj.x,), (back.x,))
    assert [p.dtype for p in parts[0]] == [p.dtype for p in parts[1]]
    assert back.stats == traj.stats
    assert back.status == traj.status
    assert dict(back.messages) == dict(traj.messages)
    assert back.settings == traj.settings
    assert set(back) == set(traj)
    for name in traj:
        for key in ("t", "y", "floor"):
            torch.testing.assert_close(
                getattr(back[name], key), getattr(traj[name], key), rtol=0, atol=0, equal_nan=True
            )
        assert back[name].convention == traj[name].convention
    assert back.succeeded == traj.succeeded == (kind != "failed")


def test_files_hold_arrays_and_json_and_no_pickle(tmp_path: Path) -> None:
    path = cases()["double"].save(tmp_path / "run")
    assert path.name == "run.npz"
    for name in zipfile.ZipFile(path).namelist():
        with zipfile.ZipFile(path).open(name) as file:
            version = np.lib.format.read_magic(file)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            assert not read[version[0]](file)[2].hasobject
    with np.load(path, allow_pickle=False) as data:
        header = json.loads(str(data["header"]))
    assert header["versions"]["torch"] == torch.__version__
    assert header["settings"]["rtol"] == 1e-4
    assert header["settings"]["solver"] == "tsit5"


def test_a_loaded_trajectory_says_what_it_cannot_do(tmp_path: Path) -> None:
    back = Trajectory.load(cases()["double"].save(tmp_path / "a.b.npz"))
    assert torch.equal(back.at(0.5), back.x[1])
    with pytest.raises(ValueError, match=r"t=0\.7 was not saved and .*loaded from a file"):
        back.at(0.7)


def test_exact_solves_are_read_at_any_time_and_counted() -> None:
    x = normal(6, 2)
    traj = solve(Heat(), x, (1.0, 4.0), RING, rtol=1e-9)
    before = traj.stats.operator_products
    L = RING.laplacian(dtype=torch.float64).to_dense().numpy()
    for t in (1.0, 1.7, 3.2, 4.0):
        want = torch.from_numpy(expm(-(t - 1.0) * L)) @ x
        torch.testing.assert_close(traj.at(t), want, rtol=1e-7, atol=1e-8)
    assert traj.stats.operator_products > before


def test_what_was_not_kept_is_not_made_up() -> None:
    with pytest.raises(ValueError, match=r"t=0\.7 was not saved and only save='steps'"):
        cases()["double"].at(0.7)
    for t in (-0.1, 2.1):
        with pytest.raises(ValueError, match=r"outside the solved interval \[0, 2\]"):
            cases()["double"].at(t)
    eighth = solve(lambda t, y: -y, torch.ones(2), 1.0, solver="dopri8", save="steps")
    with pytest.raises(ValueError, match="dopri8 has no dense output"):
        eighth.at(0.123)
    batch = Graph.union([RING, RING])
    times = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="graphs of this batch keep their own"):
        solve(Heat(), normal(12, 1), times, batch).at(0.5)


def test_dense_output_runs_backwards_and_through_tuples() -> None:
    traj = solve(lambda t, s: (s[1], -s[0]), (torch.zeros(1).double(), torch.ones(1).double()),
                 (0.0, -3.0), rtol=1e-7, atol=1e-9, save="steps")  # fmt: skip
    for t in (-0.01, -1.234, -2.9):
        sine, cosine = traj.at(t)
        assert float(sine) == pytest.approx(np.sin(t), abs=1e-5)
        assert float(cosine) == pytest.approx(np.cos(t), abs=1e-5)


def test_unknown_series_are_answered_with_the_nearest() -> None:
    traj = cases()["double"]
    assert set(traj) == {"energy", "norm", "rayleigh", "dirichlet", "largest"}
    assert "largest" in traj
    assert "largset" not in traj
    with pytest.raises(ValueError, match="unknown series 'largset'; did you mean 'largest'"):
        traj["largset"]
    assert traj["energy"] is traj.energy
    assert float(traj["dirichlet"].y[0]) == pytest.approx(float(traj.energy.y[0]))


def test_measures_are_taken_at_the_saved_times() -> None:
    traj = cases()["double"]

    def spread(x: Tensor, graph: Graph) -> Tensor:
        return (x.max() - x.min()) / graph.num_nodes

    series = traj.measure(spread)
    assert series.convention == "spread"
    assert series.t.tolist() == [0.0, 0.5, 2.0]
    want = [float(x.max() - x.min()) / 6 for x in traj.x]
    assert series.y.tolist() == pytest.approx(want)
    bare = cases()["bare"].measure(lambda x: x.sum())
    assert bare.y.tolist() == pytest.approx([float(x.sum()) for x in cases()["bare"].x])
    pair = cases()["tuple"].measure(lambda x, graph: x[1].norm())
    assert float(pair.y[0]) == 0.0
    batch = cases()["batch"].measure(lambda x, graph: graph.batch.new_tensor([3, 4]))
    assert batch.y.tolist() == [[3.0, 4.0]] * 3
    assert batch.t.shape == (3, 2)


def test_it_prints_what_one_wants_to_know() -> None:
    text = str(cases()["double"])
    for words in (
        "3 saved times from t=0 to t=2", "state 6x2 (float64)", "tsit5: auto:", "nonlinear",
        "evaluations", "sparse products", "accepted", "rejected", "comb: tr(x'Lx)", "done",
    ):  # fmt: skip
        assert words in text
    assert len(text.splitlines()) <= 6
    assert "all 50 steps are used" in str(cases()["failed"])
    assert "done (2 graphs)" in str(cases()["batch"])
    assert "6x2 and 6x2" in str(cases()["tuple"])
    assert "energy" not in str(cases()["bare"])
    assert "chebyshev" in str(cases()["exact"])
    assert "bfloat16" in str(cases()["half"])


def test_the_final_state_is_where_it_ended() -> None:
    failed = cases()["failed"]
    assert failed.final.isfinite().all()
    assert failed.x[-1].isnan().all()
    position, velocity = cases()["tuple"].final
    assert torch.equal(position, cases()["tuple"].x[0][-1])
    assert velocity.shape == (6, 2)


def test_the_end_alone_still_knows_its_interval(tmp_path: Path) -> None:
    x = torch.tensor([[1.0], [2.0], [4.0], [0.0]], dtype=torch.float64)
    graph = catalogue.ring(4)
    kept = solve(Heat(), x, [0.5, 2.0], graph, save="end")
    assert kept.t.tolist() == [2.0]
    between = solve(Heat(), x, [0.5, 1.25, 2.0], graph).x[1]
    torch.testing.assert_close(kept.at(1.25), between, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept.at(0.5), x, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"outside the solved interval \[0.5, 2\]"):
        kept.at(2.5)
    stepped = solve(Heat(), x, [0.5, 2.0], graph, save="end", solver="tsit5")
    with pytest.raises(ValueError, match="was not saved and only save='steps'"):
        stepped.at(1.25)
    back = Trajectory.load(stepped.save(tmp_path / "end"))
    with pytest.raises(ValueError, match=r"t=1\.25 was not saved and .*loaded from a file"):
        back.at(1.25)
