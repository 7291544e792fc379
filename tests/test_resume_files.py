"""Files of trajectories are whole or not there, and legs of a solve cover the whole way."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralpde import solve
from neuralpde.stopping import WallTime

TIGHT: dict[str, Any] = {"solver": "tsit5", "rtol": 1e-10, "atol": 1e-12}


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.npz"
    traj = solve(lambda t, x: -x, torch.ones(2).double(), 1.0, **TIGHT)
    traj.save(path)
    kept = path.read_bytes()

    def torn(target: Any, **arrays: Any) -> None:
        Path(target).write_bytes(b"half a f")
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "savez_compressed", torn)
    with pytest.raises(OSError, match="disk is full"):
        traj.save(path)
    assert path.read_bytes() == kept
    assert [one.name for one in tmp_path.iterdir()] == ["run.npz"]


def test_legs_of_wall_time_cover_the_whole_way() -> None:
    ticks = iter(range(10**6))
    x, t, seen = torch.ones(1).double(), torch.tensor([0.0, 3.0]).double(), []
    while True:
        leg = WallTime(4.0, lambda: float(next(ticks)))
        traj = solve(lambda t, x: -x, x, t, stop=leg, **TIGHT)
        x, t = traj.final, torch.maximum(t, traj.ended)
        seen.append(traj.status)
        if traj.succeeded and traj.status == "done":
            break
    assert len(seen) > 2
    assert float(x) == pytest.approx(math.exp(-3.0), rel=1e-8)
