"""What a solve returns: times, states, series measured along the way, statistics, status."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.failure import FAILURES, unknown_name
from solvers.series import Series, read
from solvers.steps import Steps

Dense = Callable[[float], Tensor | tuple[Tensor, ...]]


@dataclass
class Stats:
    """What a solve cost, who did it and why.

    Attributes:
        solver: Name of the method that ran.
        reason: Why this method, and what it promises.
        nfe: Evaluations of the field.
        operator_products: Sparse products of any kind, those inside the field included.
        accepted: Accepted steps; a tuple with one entry per graph in a batch.
        rejected: Rejected steps; likewise.
        seconds: Wall-clock time of the solve.
        gradient: How gradients are taken: "none", "tape", "replay", "reversible", "adjoint".

    >>> Stats(solver="euler", nfe=3).nfe
    3
    """

    solver: str = ""
    reason: str = ""
    nfe: int = 0
    operator_products: int = 0
    accepted: int | tuple[int, ...] = 0
    rejected: int | tuple[int, ...] = 0
    seconds: float = 0.0
    gradient: str = "none"


@dataclass
class Trajectory:
    """A solution with what was measured along it.

    Attributes:
        t: Saved times, float64, `[saved]` or `[saved, graphs]` when graphs keep their own times.
        x: Saved states `[saved, nodes, ...]`; a tuple of such tensors for tuple states. Times that
            were not reached hold NaN.
        stats: Cost, solver and the reason for it.
        status: How it ended; one entry per graph in a batch.
        messages: For each graph that did not end as asked, the sentence that says why.
        settings: What was asked, as plain data; it travels with `save`.
        graph: The graph, for measures that are asked for later; it does not travel.
        last: Where each graph ended, when that is not the last saved state.
        ended: The time each graph reached.
        interrupted: Whether Ctrl-C ended the solve.
        steps: Every step that was tried, or None where the solver takes or tells none.

    A solve that ended early goes on from where it ended, also in another process: the part that
    is missing has the same saved times, and starts at `ended`.

        before = Trajectory.load("run.npz")            # or `error.trajectory`, after Ctrl-C
        rest = solve(field, before.final, torch.maximum(before.t, before.ended), graph)
        x = torch.where(before.x.isnan(), rest.x, before.x)

    Backwards in time it is `torch.minimum`. With `save="end"` there is one saved time T: solve
    over `(before.ended, T)`. Graphs of a batch that were not at the same time need t `[saved,
    graphs]`: give `before.t[:, None]` where `t` has one dimension.

    >>> traj = Trajectory(torch.tensor([0.0, 1.0]), torch.zeros(2, 3, 1))
    >>> traj.final.shape
    torch.Size([3, 1])
    """

    t: Tensor
    x: Tensor | tuple[Tensor, ...]
    stats: Stats = field(default_factory=Stats)
    status: str | tuple[str, ...] = "done"
    messages: Mapping[int, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    graph: Any = None
    last: Tensor | tuple[Tensor, ...] | None = None
    ended: Tensor | None = None
    interrupted: bool = False
    steps: Steps | None = None
    _series: dict[str, Series | Callable[[], Series]] = field(default_factory=dict, repr=False)
    _span: tuple[float, float] | None = field(default=None, repr=False)
    _dense: Dense | None = field(default=None, repr=False)
    _why_not_dense: str = field(default="this trajectory was loaded from a file", repr=False)

    @property
    def final(self) -> Tensor | tuple[Tensor, ...]:
        """The state at the last time; of graphs that ended before, the state where they ended."""
        if self.last is not None:
            return self.last
        return tuple(part[-1] for part in self.x) if isinstance(self.x, tuple) else self.x[-1]

    @property
    def energy(self) -> Series | None:
        """The field's own Dirichlet energy along time; None without a graph, or with watch=None."""
        return self["energy"] if "energy" in self._series else None

    @property
    def succeeded(self) -> bool:
        """Whether no graph failed."""
        status = (self.status,) if isinstance(self.status, str) else self.status
        return not any(one in FAILURES for one in status)

    def __getitem__(self, name: str) -> Series:
        """The series of that name: "energy", "norm", "rayleigh", or whatever was watched."""
        if name not in self._series:
            raise unknown_name("series", name, self._series)
        found = self._series[name]
        if not isinstance(found, Series):
            found = self._series[name] = found()
        return found

    def __contains__(self, name: str) -> bool:
        """Whether a series of that name can be had."""
        return name in self._series

    def __iter__(self) -> Iterator[str]:
        """The names of the series."""
        return iter(self._series)

    def offer(self, name: str, series: Series | Callable[[], Series]) -> None:
        """Add a series, or how to compute it when it is first read; a watched one stays."""
        self._series.setdefault(name, series)

    def at(self, t: float) -> Tensor | tuple[Tensor, ...]:
        """The state at one time: exact at saved times, dense output or a new product in between.

        Args:
            t: A time inside the solved interval.

        Raises:
            ValueError: Outside the interval, or in between when nothing was kept to say.
        """
        if self.t.dim() > 1:
            raise ValueError(
                "at(t) reads one clock, but the graphs of this batch keep their own; read traj.x"
            )
        times = self.t.detach().numpy()
        span = (times[0], times[-1]) if self._span is None else self._span
        low, high = min(span), max(span)
        t = float(t)
        if not low <= t <= high:
            raise ValueError(f"t={t:g} lies outside the solved interval [{low:g}, {high:g}]")
        (hit,) = np.nonzero(times == t)
        if hit.size:
            at = int(hit[0])
            return tuple(p[at] for p in self.x) if isinstance(self.x, tuple) else self.x[at]
        if self._dense is None:
            raise ValueError(f"t={t:g} was not saved and {self._why_not_dense}")
        return self._dense(t)

    def measure(self, measure: Callable[..., Tensor]) -> Series:
        """Evaluate a measure at every saved time.

        Args:
            measure: Called with the state and the graph, `m(x, graph)`, or with the state alone
                when the trajectory has no graph. Its method `reading`, if it has one, tells the
                absolute error beside the value.
        """
        where = () if self.graph is None else (self.graph,)
        states = zip(*self.x, strict=True) if isinstance(self.x, tuple) else iter(self.x)
        with torch.no_grad():
            values = [read(measure, x, *where) for x in states]
        y, floor = (
            torch.stack([v.double().cpu() for v in part]) for part in zip(*values, strict=True)
        )
        t = self.t.detach()
        if y.dim() > 1 and y.shape[1] == 1:
            y, floor = y[:, 0], floor[:, 0]
        elif y.dim() > 1 and t.dim() == 1:
            t = t[:, None].expand(y.shape[:2])
        convention = getattr(measure, "convention", None) or getattr(measure, "__name__", "")
        return Series(t, y, str(convention), floor)

    def save(self, path: str | Path) -> Path:
        """Write one npz file: arrays, and settings and versions as JSON; nothing is pickled."""
        parts = _parts(self.x)
        arrays: dict[str, np.ndarray] = {"t": self.t.detach().numpy()}
        for k, part in enumerate(parts):
            arrays[f"x{k}"] = _array(part)
        for k, part in enumerate(() if self.last is None else _parts(self.last)):
            arrays[f"last{k}"] = _array(part)
        if self.ended is not None:
            arrays["ended"] = self.ended.detach().numpy()
        if self.steps is not None:
            arrays |= {f"steps/{name}": part.numpy() for name, part in vars(self.steps).items()}
        conventions = {}
        for name in self:
            series = self[name]
            conventions[name] = series.convention
            arrays[f"series/{name}/t"] = series.t.numpy()
            arrays[f"series/{name}/y"] = series.y.numpy()
            arrays[f"series/{name}/floor"] = series.floor.numpy()
        header = {
            "format": 1,
            "dtypes": [str(part.dtype).removeprefix("torch.") for part in parts],
            "tuple": isinstance(self.x, tuple),
            "stats": asdict(self.stats),
            "status": self.status,
            "messages": {str(k): v for k, v in self.messages.items()},
            "interrupted": self.interrupted,
            "span": self._span,
            "settings": self.settings,
            "conventions": conventions,
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
        }
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        arrays["header"] = np.array(json.dumps(header))
        # Whoever is killed while writing leaves the file before it as it was.
        draft = path.with_name(f".{path.stem}.{os.getpid()}.npz")
        try:
            np.savez_compressed(draft, allow_pickle=False, **arrays)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return path

    @staticmethod
    def load(path: str | Path) -> Trajectory:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            header = json.loads(str(data["header"]))

            def stored(name: str) -> Tensor | tuple[Tensor, ...]:
                parts = tuple(
                    torch.from_numpy(data[f"{name}{k}"]).to(getattr(torch, dtype))
                    for k, dtype in enumerate(header["dtypes"])
                )
                return parts if header["tuple"] else parts[0]

            x = stored("x")
            last = stored("last") if "last0" in data else None
            ended = torch.from_numpy(data["ended"]) if "ended" in data else None
            series: dict[str, Series | Callable[[], Series]] = {
                name: Series(
                    torch.from_numpy(data[f"series/{name}/t"]),
                    torch.from_numpy(data[f"series/{name}/y"]),
                    convention,
                    torch.from_numpy(data[f"series/{name}/floor"]),
                )
                for name, convention in header["conventions"].items()
            }
            t = torch.from_numpy(data["t"])
            tried = {name: f"steps/{name}" for name in Steps.__annotations__}
            known = all(name in data for name in tried.values())
            steps = (
                Steps(**{k: torch.from_numpy(data[v]) for k, v in tried.items()}) if known else None
            )
        stats = header["stats"]
        for key in ("accepted", "rejected"):
            stats[key] = tuple(stats[key]) if isinstance(stats[key], list) else stats[key]
        status = header["status"]
        return Trajectory(
            t,
            x,
            Stats(**stats),
            status if isinstance(status, str) else tuple(status),
            {int(k): v for k, v in header["messages"].items()},
            header["settings"],
            last=last,
            ended=ended,
            interrupted=header["interrupted"],
            steps=steps,
            _span=None if header.get("span") is None else tuple(header["span"]),
            _series=series,
        )

    def to_xarray(self) -> Any:
        """The states as an `xarray.DataArray` with dims (time, node, channel); needs xarray."""
        import xarray

        if isinstance(self.x, tuple) or self.x.dim() != 3 or self.t.dim() != 1:
            raise ValueError("to_xarray needs one state [saved, nodes, channels] and one clock")
        return xarray.DataArray(
            self.x.detach().cpu().numpy(),
            dims=("time", "node", "channel"),
            coords={"time": self.t.detach().numpy()},
            attrs={"solver": self.stats.solver, "settings": json.dumps(self.settings)},
        )

    def __str__(self) -> str:
        """A few lines: interval, cost, energy, and how it ended."""
        parts = self.x if isinstance(self.x, tuple) else (self.x,)
        shape = " and ".join("x".join(map(str, part.shape[1:])) or "scalar" for part in parts)
        dtype = str(parts[0].dtype).removeprefix("torch.")
        first, last = self.t.detach()[0].min().item(), self.t.detach()[-1].max().item()
        s = self.stats
        steps = _total(s.accepted), _total(s.rejected)
        lines = [
            f"Trajectory: {len(self.t)} saved times from t={first:g} to t={last:g}, "
            f"state {shape} ({dtype})",
            f"  solver     {s.solver}: {s.reason}",
            f"  cost       {s.nfe} evaluations, {s.operator_products} sparse products, "
            f"{steps[0]} steps accepted, {steps[1]} rejected, {s.seconds:.3g} s",
        ]
        if self.energy is not None:
            lines.append(f"  energy     {self.energy}")
        lines.append(f"  status     {_count(self.status)}")
        lines += [f"             {text}" for text in list(self.messages.values())[:3]]
        return "\n".join(lines)


def _parts(x: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def _array(part: Tensor) -> np.ndarray:
    part = part.detach().cpu()
    exotic = part.dtype in (torch.bfloat16, torch.float16)
    array: np.ndarray = (part.float() if exotic else part).numpy()
    return array


def _total(count: int | tuple[int, ...]) -> int:
    return sum(count) if isinstance(count, tuple) else count


def _count(status: str | tuple[str, ...]) -> str:
    if isinstance(status, str):
        return status
    kinds = sorted(set(status))
    return ", ".join(f"{kind} ({status.count(kind)} graphs)" for kind in kinds)
