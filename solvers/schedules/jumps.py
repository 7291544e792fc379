"""The n Euler steps that miss a pilot run the least, of all that land on its times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.schedules.closed_forms import Points
from solvers.schedules.pilots import clock
from solvers.trajectory import Trajectory


def fewest_misses(
    trajectory: Trajectory,
    field: Callable[[Tensor, Tensor], Tensor],
    n: int,
    discount: float = 1.15,
) -> Points:
    """Choose n + 1 of a pilot's times so that Euler steps between them stay close to it.

    A step from x_i to time t_j misses by ``|x_i + (t_j - t_i) f(t_i, x_i) - x_j|``, a mean over the
    points (first axis) of distances. The sum of misses, each weighed by `discount` to the power of
    the steps before it, is least for the times chosen, by dynamic programming over all of them.
    With many modes the jumps of single points average out badly: compare with other schedules.

    Args:
        trajectory: a pilot of states `[points, ...]` with more than n steps, of many saved times.
        field: what the pilot solved; it is evaluated once at each of its times but the last.
        n: number of steps, for which alone the schedule is.
        discount: above 1, misses of late steps count for more.

    Raises:
        ValueError: for fewer times than the steps need.

    References:
        Chen et al., On the trajectory regularity of ODE-based diffusion sampling, ICML 2024,
        arXiv:2405.11326.

    Example:
        >>> t = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
        >>> bent = torch.tensor([[0.0], [1.0], [1.0], [1.0]], dtype=torch.float64)  # turns at 0.1
        >>> pilot = Trajectory(t, bent[:, None])
        >>> fewest_misses(pilot, lambda t, x: 10.0 * (1 - x), 2).times
        (0.0, 0.1, 1.0)
    """
    x, t = trajectory.x, trajectory.t
    unit = clock(trajectory)
    if isinstance(x, tuple) or not 1 <= n < len(unit):
        raise ValueError(
            f"{n} steps over {len(unit)} times: needed are a pilot of one tensor and more times "
            "than steps"
        )
    miss = np.full((len(unit), len(unit)), np.inf)
    with torch.no_grad():
        for i in range(len(unit) - 1):
            ahead = (t[i + 1 :] - t[i]).to(x).reshape(-1, *[1] * (x.dim() - 1))
            gaps = (x[i] + ahead * field(t[i], x[i]) - x[i + 1 :]).flatten(2)
            miss[i, i + 1 :] = gaps.norm(dim=2).mean(1).double().cpu().numpy()
    return Points(tuple(unit[_cheapest(miss, n, discount)]))


def _cheapest(miss: Float[np.ndarray, "times times"], n: int, discount: float) -> list[int]:
    """The way from the first to the last time in n jumps, of least discounted cost."""
    rest, choices = miss[:, -1], []
    for _ in range(n - 1):
        total = miss + discount * rest[None, :]
        choices.append(total.argmin(axis=1))
        rest = total.min(axis=1)
    way = [0]
    for choice in reversed(choices):
        way.append(int(choice[way[-1]]))
    return [*way, len(miss) - 1]
