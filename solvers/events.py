"""Events: a graph ends where a function of its solution is zero, and the time has a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.flow import Flow
from solvers.roots import zeros
from solvers.rows import Rows, State
from solvers.stopping import Condition, Mask, Scene, Stopping, Times, Watcher

Entries = Float[np.ndarray, "graphs entries"]
Reach = Callable[[Times], State]
"""The state at fractions of a step, one per graph."""

GRAZING = 1e-8
"""|dg/dt| below this fraction of its terms, or of g's mean slope over the step that crosses, is no
crossing that can be differentiated."""


@dataclass(frozen=True, eq=False)
class Event(Condition):
    """Ends each graph at the time t* where g(t, x(t)) changes its sign.

    The step in which the sign changes is taken again so that it ends at the root: located on the
    dense output first, then with the method's own steps, to 4 spacings of t. Graphs of a batch
    end at times of their own. Where g is zero at the start, its first sign counts; signs are seen
    at the ends of steps, so a g that changes twice within one is not. Stochastic solves end at the
    end of the step.

    `traj.ended` is t*, `traj.final` the state there; both are differentiable, also in what g
    itself depends on: ``dt* = -dg / (dg/dt + dg/dx F)``, ``dx* = dx + F dt*``.

    Args:
        fn: g(t, x): one number per graph, `[graphs]`, or several, `[graphs, k]`, of which the
            first to change sign counts; anything for one graph. `t` is 0-d for one graph, else
            `[graphs]`, in float64. A graph's numbers depend on its own time and rows only.
        direction: 1 for g rising through zero, -1 for falling, 0 for both.
        name: What the status says.

    Raises:
        ValueError: For other directions; when gradients are taken of an event that is only grazed.

    Source:
        Chen, Amos, Nickel, Learning neural event functions for ordinary differential equations,
        ICLR 2021, arXiv:2011.03902.

    Example:
        >>> Event(lambda t, x: x[0] - 2.0, direction=1).direction
        1
    """

    fn: Callable[[Tensor, Any], Any]
    direction: int = 0
    name: str = "event"

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn is {type(self.fn).__name__}; give a function g(t, x)")
        if self.direction not in (-1, 0, 1):
            raise ValueError(
                f"direction is {self.direction}; give 1 (rising), -1 (falling) or 0 (both)"
            )

    def on(self, graph: Any, x0: Any) -> Event:
        """The event with its function bound to the graph, if it is a field."""
        bind = getattr(self.fn, "bind", None)
        return self if bind is None else replace(self, fn=bind(graph, x0))

    def begin(self, scene: Scene, before: Watcher | None = None) -> Watcher:
        """Get ready for one solve."""
        return Crossing(self, scene)


class Crossing(Watcher):
    """An event at work: its values, and the graphs it has ended."""

    has_root = True

    def __init__(self, event: Event, scene: Scene) -> None:
        self.event, self.name, self.packed = event, event.name, scene.packed
        self.graphs = scene.rows.num_graphs
        self.over = np.zeros(self.graphs, dtype=bool)

    def ends(self, t: Times, x: State, fx: State | None, moved: Mask) -> Mask:
        """The graphs whose root was found."""
        over: np.ndarray = moved & self.over
        return over

    def values(self, t: Tensor, x: State) -> Float[Tensor, "graphs entries"]:
        """The numbers g as a float64 matrix, differentiable."""
        t = t.to(x[0].device)
        g = self.event.fn(t if self.graphs > 1 else t[0], x if self.packed else x[0])
        if not isinstance(g, Tensor) or g.is_complex():
            kind = g.dtype if isinstance(g, Tensor) else type(g).__name__
            raise TypeError(f"the event {self.name!r} returned {kind}; give a real tensor")
        if self.graphs == 1:
            return g.double().reshape(1, -1)
        if g.dim() not in (1, 2) or len(g) != self.graphs:
            raise ValueError(
                f"the event {self.name!r} returned shape {tuple(g.shape)}; give one number per "
                f"graph [{self.graphs}], or several [{self.graphs}, k]"
            )
        return g.double().reshape(self.graphs, -1)


class Crossings:
    """All events of one solve: who crosses within a step, and where.

    Args:
        watchers: The events at work.
        t: Times of the graphs at the start.
        x: The first state.
        noisy: Whether the solve is stochastic; then steps are not cut.

    Attributes:
        ended: For each graph that an event has ended: the event, the entry of g, and the size of
            g's mean slope over the step.
    """

    def __init__(self, watchers: Sequence[Any], t: Times, x: State, noisy: bool) -> None:
        self.watchers, self.cuts = tuple(watchers), not noisy
        self.ended: dict[int, tuple[Crossing, int, float]] = {}
        values = [w.values(torch.from_numpy(t), x) for w in self.watchers]
        widths = [v.shape[1] for v in values]
        self.owner = np.repeat(np.arange(len(widths)), widths)
        self.entry = np.concatenate([np.arange(width) for width in widths])
        self.direction = np.array([w.event.direction for w in self.watchers])[self.owner]
        self.now = self.values(t, x)
        self.signs = np.nan_to_num(np.sign(self.now))
        self.crossed: np.ndarray = np.zeros(self.now.shape, dtype=bool)
        self.before = self.now

    def values(self, t: Times, x: State) -> Entries:
        """All entries of all events as numbers."""
        with torch.no_grad():
            time = torch.from_numpy(t)
            found = torch.cat([watcher.values(time, x).cpu() for watcher in self.watchers], 1)
        values: np.ndarray = found.numpy()
        return values

    def look(self, t: Times, x: State, moved: Mask) -> Mask:
        """Which of the graphs that moved have crossed zero in the right direction."""
        self.before, self.now = self.now, self.values(t, x)
        sign = np.sign(self.now)
        known = moved[:, None] & ~np.isnan(sign)
        changed = (self.signs != 0) & (sign != self.signs) & (self.direction * self.signs <= 0)
        self.crossed = known & changed
        self.orientation = self.signs
        self.signs = np.where(known & (sign != 0), sign, self.signs)
        self.now = np.where(moved[:, None], self.now, self.before)
        return np.asarray(self.crossed.any(1))

    def locate(
        self,
        graphs: Mask,
        times: Callable[[Times], Times],
        reaches: Sequence[Reach],
        tolerance: float | Times,
        rounding: float,
    ) -> Times:
        """The fractions of the step after which these graphs have their first root.

        Args:
            graphs: Who crosses, as `look` said.
            times: The times at fractions of the step.
            reaches: The states there, by one means after the other: what one finds is where the
                next begins.
            tolerance: Of the fraction.
            rounding: Relative error of states.
        """
        first = np.where(graphs, self._height(self.before), 0.0)
        last = np.where(graphs, self._height(self.now), 0.0)
        self.secant = np.abs(last - first)
        start = slope = None
        for reach in reaches:

            def height(theta: Times, reach: Reach = reach) -> Times:
                g = self.values(times(theta), reach(theta))
                return np.where(graphs, self._height(g), 0.0)

            start, slope = zeros(
                height,
                first,
                last,
                start=start,
                slope=slope,
                tolerance=tolerance,
                rounding=rounding,
            )
        assert start is not None
        return start

    def settle(self, graphs: Mask, t: Times, x: State, h: Times) -> None:
        """Note which event ended each of these graphs, now at its root.

        Args:
            graphs: Who ends.
            t: Their times.
            x: Their states.
            h: The whole steps in which they crossed.
        """
        heights = self._heights(self.values(t, x))
        for g in np.flatnonzero(graphs):
            column = int(np.argmin(heights[g]))
            watcher = self.watchers[self.owner[column]]
            watcher.over[g] = True
            mean = float(self.secant[g] / abs(h[g])) if self.cuts else 0.0
            self.ended[int(g)] = watcher, int(self.entry[column]), mean

    def _heights(self, g: Entries) -> Entries:
        """Above zero before the crossing; infinite for entries that do not cross."""
        return np.where(self.crossed, self.orientation * g, np.inf)

    def _height(self, g: Entries) -> Times:
        lowest: np.ndarray = self._heights(g).min(1)
        return lowest


def crossings(stop: Stopping, noisy: bool, t: Times, x: State) -> Crossings | None:
    """The events among the conditions of a solve that begins at (t, x); None if there is none."""
    events = [watcher for watcher in stop.watchers if watcher.has_root]
    return Crossings(events, t, x, noisy) if events else None


class _RootTime(torch.autograd.Function):
    """t* as a function of the values of g there: dt* = -dg / (dg/dt along the solution)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, t: Tensor, rate: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(t, rate, scale)
        return t.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # dg/dt is a constant here, so that a second derivative would be wrong in silence.
            raise RuntimeError(
                "event times can be differentiated once; create_graph=True asks for more"
            )
        t, rate, scale = ctx.saved_tensors
        (grad,) = grads
        grazed = (grad != 0) & ~(rate.abs() > GRAZING * scale)
        if bool(grazed.any()):
            k = int(torch.nonzero(grazed)[0])
            raise ValueError(
                f"the event at t={t[k].item():g} is only grazed: dg/dt = {rate[k].item():.3g} "
                f"there, against {scale[k].item():.3g} around it, so its time has no gradient; "
                "detach traj.ended and traj.final, or choose another event function"
            )
        return torch.where(grad != 0, -grad / rate, 0.0), None, None, None


def linked(
    ended: dict[int, tuple[Crossing, int, float]],
    times: Times,
    flow: Flow,
    rows: Rows,
    last: State,
) -> tuple[Tensor, State]:
    """Attach the gradients of the event times, and through them those of the states.

    Args:
        ended: What `Crossings.ended` holds.
        times: Where each graph ended.
        flow: The field; its evaluations here are not counted.
        rows: How rows belong to graphs.
        last: The states where graphs ended, differentiable at fixed times.

    Returns:
        The times `[graphs]`, float64 on the CPU, and the states.
    """
    when = torch.from_numpy(times.copy())
    groups = [
        (crossing, [g for g in ended if ended[g][0] is crossing])
        for crossing in dict.fromkeys(crossing for crossing, _, _ in ended.values())
    ]
    graphs = torch.tensor([g for _, own in groups for g in own], device="cpu")

    def chosen(t: Tensor, x: State) -> Tensor:
        picked = [
            crossing.values(t, x)[own, [ended[g][1] for g in own]] for crossing, own in groups
        ]
        return torch.cat(picked).cpu()

    g = chosen(when, last)
    if not g.requires_grad:
        return when, last
    slopes = _slopes(times, graphs.tolist(), flow, rows, last)
    rate, size = _rates(chosen, when, graphs, rows, last, slopes)
    secant = torch.tensor([ended[k][2] for k in graphs.tolist()], dtype=torch.float64, device="cpu")
    attach: Any = _RootTime
    roots = attach.apply(g, when[graphs], rate, torch.maximum(size, secant))
    when = when.index_put((graphs,), roots)
    shift = when - when.detach()
    moved = []
    for part, slope in zip(last, slopes, strict=True):
        own = shift.to(part.device, part.dtype.to_real())
        own = own[0] if rows.batch is None else own[rows.batch].view(-1, *[1] * (part.dim() - 1))
        moved.append(part + slope * own)
    return when, tuple(moved)


def _slopes(times: Times, graphs: Sequence[int], flow: Flow, rows: Rows, last: State) -> State:
    """dx/dt of these graphs where they ended; zero elsewhere."""
    counted, slopes = flow.nfe, tuple(torch.zeros_like(part) for part in last)
    own = flow.clocks.batch is not None
    with torch.no_grad():
        for group in [graphs] if own else [[g] for g in graphs]:
            mask = np.isin(np.arange(len(times)), group)
            here = flow(times if own else times[group], last)
            # A field may hand a part of the state back as it is, gradient and all.
            slopes = rows.select(mask, tuple(part.detach() for part in here), slopes)
    flow.nfe = counted
    return slopes


def _rates(
    chosen: Callable[[Tensor, State], Tensor],
    when: Tensor,
    graphs: Tensor,
    rows: Rows,
    last: State,
    slopes: State,
) -> tuple[Tensor, Tensor]:
    """dg/dt along the solution, and the size of the terms that make it up, per ended graph."""
    with torch.enable_grad():
        t = when.detach().requires_grad_()
        x = tuple(part.detach().requires_grad_() for part in last)
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            chosen(t, x).sum(), (t, *x), allow_unused=True
        )
    own = torch.zeros_like(when) if found[0] is None else found[0]
    terms = [
        torch.zeros_like(slope) if grad is None else grad.conj() * slope
        for slope, grad in zip(slopes, found[1:], strict=True)
    ]
    real = tuple((term.real if term.is_complex() else term) for term in terms)
    along = rows.sums(real).cpu()
    size = rows.sums(tuple(part.abs() for part in real)).cpu()
    return (own + along)[graphs], (own.abs() + size)[graphs]
