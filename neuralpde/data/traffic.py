"""Speeds on the roads of Los Angeles: days of measurements on a graph of sensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.graph import Graph

FILE = Path("sensors/metr_la_week.npz")
HOURS = 24


@dataclass(frozen=True)
class Traffic:
    """Speeds at sensors, day by day, on their graph.

    Attributes:
        graph: Undirected; `pos` is longitude and latitude in degrees.
        speed: Miles an hour, float64, from midnight to midnight.
        days: The date of each day, as `2012-03-01`.

    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> Traffic(pair, torch.ones(3, 24, 2), ("Mon", "Tue", "Wed")).window(8.0, minutes=120).shape
    torch.Size([3, 2, 2])
    """

    graph: Graph
    speed: Float[Tensor, "days looks nodes"]
    days: tuple[str, ...]

    def window(self, hour: float, minutes: float = 30) -> Float[Tensor, "days looks nodes"]:
        """The states within some minutes from a time of day, on every day.

        Args:
            hour: Where it begins, from 0 to 24.
            minutes: How long it is.

        Raises:
            ValueError: Where the window is empty or leaves the day.
        """
        looks = self.speed.shape[1]
        first, last = (round(at * looks / HOURS) for at in (hour, hour + minutes / 60))
        if not 0 <= first < last <= looks:
            raise ValueError(
                f"{minutes} minutes from {hour} o'clock are the looks {first} to {last} of "
                f"{looks}: give a window of at least {60 * HOURS / looks:g} minutes within the day"
            )
        return self.speed[:, first:last]

    def leave_out(self, day: int, hour: float, minutes: float = 30) -> tuple[Tensor, Tensor]:
        """The states of a window, `[states, nodes]`: those of all other days, and of the day.

        Args:
            day: Its number, from 0.
            hour: See `window`.
            minutes: See `window`.

        Raises:
            ValueError: For a day that is none of them.

        >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> days = torch.arange(3.0).view(3, 1, 1).expand(3, 24, 2)
        >>> others, own = Traffic(pair, days, ("Mon", "Tue", "Wed")).leave_out(1, 8, minutes=60)
        >>> others.tolist(), own.tolist()
        ([[0.0, 0.0], [2.0, 2.0]], [[1.0, 1.0]])
        """
        if not 0 <= day < len(self.days):
            raise ValueError(f"day={day}; the days are 0 to {len(self.days) - 1}: {self.days}")
        window = self.window(hour, minutes)
        return torch.cat([window[:day], window[day + 1 :]]).flatten(0, 1), window[day]


def load_traffic(root: str | Path) -> Traffic:
    """Read a week of METR-LA: 207 sensors every 5 minutes from 1 to 7 March 2012.

    The weights of the two directions of an edge differ; the larger one is taken for both. METR-LA
    writes 0 where a sensor was silent; those are filled along the time, see `fill_gaps`.

    Args:
        root: Folder that holds `sensors/metr_la_week.npz`.

    Raises:
        FileNotFoundError: Where it does not.
        ValueError: Where the speeds are not whole days.

    References:
        Li et al., Diffusion convolutional recurrent neural network: data-driven traffic
        forecasting, ICLR 2018, arXiv:1707.01926.

    >>> try:
    ...     load_traffic("nowhere")
    ... except FileNotFoundError as lost:
    ...     print(lost)
    no sensors/metr_la_week.npz below nowhere: give the folder of the data sets
    """
    path = Path(root) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"no {FILE} below {root}: give the folder of the data sets")
    with np.load(path, allow_pickle=False) as stored:
        edges, weight = (
            torch.from_numpy(stored["edge_index"]),
            torch.from_numpy(stored["edge_weight"]),
        )
        # Latitude first in the file; a map has it upwards.
        pos = torch.from_numpy(stored["pos"]).flip(1)
        speed = torch.from_numpy(stored["speed"]).double()
        start = np.datetime64(int(stored["start"]), "m")
        looks = HOURS * 60 // int(stored["minutes_per_step"])
    if len(speed) % looks:
        raise ValueError(f"{path} has {len(speed)} looks, which are no whole days of {looks}")
    graph = Graph(edges, edge_weight=weight.double(), pos=pos, num_nodes=len(pos)).undirected()
    count = len(speed) // looks
    days = tuple(str(start.astype("datetime64[D]") + k) for k in range(count))
    return Traffic(graph, fill_gaps(speed).view(count, looks, -1), days)


def fill_gaps(speed: Float[Tensor, "looks nodes"]) -> Float[Tensor, "looks nodes"]:
    """Replace zeros, which stand for nothing measured, by lines between their neighbours in time.

    Args:
        speed: Measurements; before the first and after the last one they are constant.

    Raises:
        ValueError: For a sensor that never measured.

    >>> fill_gaps(torch.tensor([[0.0], [10.0], [0.0], [30.0]])).flatten().tolist()
    [10.0, 10.0, 20.0, 30.0]
    """
    there = (speed != 0).numpy()
    if not there.any(0).all():
        silent = np.flatnonzero(~there.any(0)).tolist()
        raise ValueError(f"sensors {silent} never measured anything; leave them out")
    looks = np.arange(len(speed))
    columns = [
        np.interp(looks, looks[seen], column[seen])
        for seen, column in zip(there.T, speed.numpy().T, strict=True)
    ]
    return torch.from_numpy(np.stack(columns, 1)).to(speed.dtype)
