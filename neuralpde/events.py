"""The first time a function of the solution changes sign, differentiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralpde.fields.field import State
from neuralpde.solve import solve
from solvers.failure import MAX_STEPS, SolveFailed
from solvers.trajectory import Trajectory

MAX_EVENT_STEPS = 20_000
HORIZON = 1e12
"""How far an event is looked for; the number of steps ends the search long before."""

GRAZING = 1e-8
"""|dg/dt| below this fraction of its terms, or of g's mean slope over the step that crosses, is no
crossing that can be differentiated."""

DENSE = ("dopri5", "tsit5", "bosh3", "heun")

Function = Callable[[Tensor, Any], Any]


@dataclass
class Crossing:
    """A stop condition: some entry of an event function changes sign.

    An entry that starts at zero counts from its first sign on.

    Args:
        event: g(t, y), any number of entries.
        packed: Whether y is a tuple.

    Attributes:
        signs: The last sign of each entry, 0 before it had any.
        crossed: Which entries have changed sign.

    >>> crossing = Crossing(lambda t, y: y - 2.0, packed=False)
    >>> [bool(crossing(np.array([float(v)]), (torch.tensor(v),), None)) for v in (1.0, 3.0)]
    [False, True]
    """

    event: Function
    packed: bool
    name: str = "event"
    signs: np.ndarray | None = field(default=None, init=False)
    crossed: np.ndarray | None = field(default=None, init=False)

    def value(self, t: float, x: Any) -> np.ndarray:
        """All entries of g as numbers."""
        with torch.no_grad():
            g = torch.as_tensor(self.event(torch.tensor(t, dtype=torch.float64), x))
        values: np.ndarray = g.detach().double().reshape(-1).cpu().numpy()
        return values

    def __call__(self, t: np.ndarray, x: Any, fx: Any) -> np.ndarray:
        """Whether an entry has changed sign."""
        now = np.sign(self.value(float(t[0]), x if self.packed else x[0]))
        if self.signs is None:
            self.signs = np.nan_to_num(now)
        self.crossed = (self.signs != 0) & (now != self.signs) & ~np.isnan(now)
        self.signs = np.where(self.signs == 0, now, self.signs)
        return np.array([bool(self.crossed.any())])


def first_event(
    func: Function,
    y0: State,
    t: Tensor,
    event_fn: Function,
    *,
    solver: str,
    grad: str,
    rtol: float,
    atol: float,
    max_steps: int | None = None,
) -> tuple[Tensor, State]:
    """Solve from t[0] towards t[1] and beyond until `event_fn` changes sign.

    g(t*, y(t*)) = 0, dt* = -dg / (dg/dt + dg/dy f), dy(t*) = dy + f dt*.

    Args:
        func: dy/dt.
        y0: First state.
        t: Start, and a time on the way.
        event_fn: g(t, y), any number of entries.
        solver: An adaptive stepper with dense output.
        grad: "tape" or "replay".
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Most steps tried.

    Returns:
        t* and the states at t[0] and t*.

    Raises:
        RuntimeError: When there is no event.
        ValueError: For other solvers, and for gradients of a grazed event.

    >>> start = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> when, _ = first_event(lambda t, y: 0 * y + 1, torch.zeros(1).double(), start,
    ...     lambda t, y: y - 3, solver="tsit5", grad="tape", rtol=1e-6, atol=1e-6)
    >>> round(when.item(), 12)
    3.0
    """
    if solver not in DENSE:
        raise ValueError(
            f"events are located on the dense output of an adaptive method, and {solver!r} has "
            "none; use 'dopri5', 'tsit5', 'bosh3' or 'adaptive_heun'"
        )
    packed = isinstance(y0, tuple)
    first, second = t.detach().double().tolist()
    far = first + float(np.copysign(HORIZON, second - first))
    given: dict[str, Any] = {
        "solver": solver,
        "rtol": rtol,
        "atol": atol,
        "max_steps": MAX_EVENT_STEPS if max_steps is None else int(max_steps),
    }
    crossing = Crossing(event_fn, packed)
    with torch.no_grad():
        search = solve(
            func, y0, (first, far), stop=crossing, save="steps", raise_on_failure=False, **given
        )
    _check_found(search, crossing, far)
    when, entry, secant = _locate(search, crossing)
    # The steps do not depend on what is saved: the second solve repeats those of the first, and
    # what it saves at t* is the interpolant on which the root was found.
    times = torch.cat([t[:1].double().cpu(), torch.tensor([when, far], dtype=torch.float64)])
    again = solve(func, y0, times, stop=Crossing(event_fn, packed), grad=grad, **given)
    saved = again.x if isinstance(again.x, tuple) else (again.x,)
    state = tuple(part[1] for part in saved)
    event_t, state = _linked(func, event_fn, when, state, entry, secant, packed)
    start = y0 if isinstance(y0, tuple) else (y0,)
    solution = tuple(torch.stack(ends) for ends in zip(start, state, strict=True))
    return event_t.to(t), solution if packed else solution[0]


def _check_found(search: Trajectory, crossing: Crossing, far: float) -> None:
    if crossing.crossed is not None and crossing.crossed.any():
        return
    if search.status == MAX_STEPS or search.succeeded:
        ended = far if search.ended is None else float(search.ended)
        raise RuntimeError(
            f"event_fn did not change sign up to t={ended:.6g}, after "
            f"{search.stats.accepted} steps; check its sign at the start, or raise "
            "options={'max_num_steps': n}"
        )
    raise SolveFailed(search, " ".join(search.messages.values()))


def _locate(search: Trajectory, crossing: Crossing) -> tuple[float, int, float]:
    """The earliest root inside the last step, which entry has it, and its mean slope there."""
    from scipy.optimize import brentq

    low, high = search.t[-2:].tolist()
    assert crossing.signs is not None
    assert crossing.crossed is not None
    roots = []
    for entry in np.flatnonzero(crossing.crossed).tolist():

        def g(time: float, entry: int = entry) -> float:
            return float(crossing.value(time, search.at(time))[entry])

        ends = g(low), g(high)
        secant = abs((ends[1] - ends[0]) / (high - low))
        if ends[1] == 0 or np.sign(ends[0]) != crossing.signs[entry]:
            roots.append((high if ends[1] == 0 else low, entry, secant))
            continue
        root = brentq(
            g,
            low,
            high,
            xtol=4 * np.spacing(max(abs(low), abs(high))),
            rtol=4 * np.finfo(np.float64).eps,
            maxiter=1000,
        )
        roots.append((float(root), entry, secant))
    return min(roots, key=lambda found: abs(found[0] - low))


def _linked(
    func: Function,
    event_fn: Function,
    when: float,
    state: tuple[Tensor, ...],
    entry: int,
    secant: float,
    packed: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Attach the implicit function's gradient to the event time, and through it to the state."""
    event_t = torch.tensor(when, dtype=torch.float64, device=state[0].device)
    g = torch.as_tensor(event_fn(event_t, state if packed else state[0])).reshape(-1)[entry]
    if not g.requires_grad:
        return event_t, state
    now = torch.tensor(when, dtype=state[0].dtype.to_real(), device=state[0].device)
    with torch.no_grad():
        slope = func(now, state if packed else state[0])
    # A field may hand a part of the state back as it is, gradient and all.
    slopes = tuple(part.detach() for part in (slope if packed else (slope,)))
    rate, size = _rate(event_fn, event_t, state, slopes, entry, packed)
    if not abs(float(rate)) > GRAZING * max(size, secant):
        raise ValueError(
            f"the event at t={when:g} is only grazed: dg/dt = {float(rate):.3g} there, against "
            f"{max(size, secant):.3g} around it. Its time has no gradient; take it under "
            "torch.no_grad()"
        )
    event_t = event_t - (g - g.detach()) / rate
    shift = event_t - event_t.detach()
    return event_t, tuple(
        part + f * shift.to(part.dtype.to_real()) for part, f in zip(state, slopes, strict=True)
    )


def _rate(
    event_fn: Function,
    t: Tensor,
    state: tuple[Tensor, ...],
    slopes: tuple[Tensor, ...],
    entry: int,
    packed: bool,
) -> tuple[Tensor, float]:
    """dg/dt along the solution, and the size of the terms that make it up."""
    with torch.enable_grad():
        now = t.detach().requires_grad_()
        x = tuple(part.detach().requires_grad_() for part in state)
        g = torch.as_tensor(event_fn(now, x if packed else x[0])).reshape(-1)[entry]
        found: tuple[Tensor | None, ...] = torch.autograd.grad(g, (now, *x), allow_unused=True)
    known = [
        torch.zeros_like(slope) if grad is None else grad.conj() * slope
        for slope, grad in zip((torch.ones_like(t), *slopes), found, strict=True)
    ]
    terms = [term.reshape(-1) for term in known]
    every = torch.cat([(term.real if term.is_complex() else term).double() for term in terms])
    return every.sum().detach(), float(every.abs().sum())
