"""Steps cut short: a graph whose event lies inside a step ends at the root, not behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from solvers.events import Crossings, Reach
from solvers.rows import State
from solvers.stepper import Step
from solvers.stopping import Mask
from solvers.tape import interpolate

if TYPE_CHECKING:
    from solvers.integrate import Loop

Sizes = np.ndarray
"""One number per clock."""


def end_at_roots(
    loop: Loop,
    events: Crossings,
    step: Step,
    h: Sizes,
    arrival: Sizes,
    moved: np.ndarray,
    plan: Any,
) -> np.ndarray:
    """End the graphs that have an event inside a step, each by a shorter step to its root.

    Graphs with clocks of their own share that step; on a shared clock there is one for every
    graph, and its companions stay where they are. Stochastic steps are not cut, since nobody
    knows how the noise runs inside of them: their graphs end at the end of the step.

    Args:
        loop: The solve, before the step.
        events: Its events.
        step: The step, accepted.
        h: Its signed sizes.
        arrival: Where it goes.
        moved: The clocks that take it.
        plan: What the stepper decided for it.

    Returns:
        The clocks that still take it.
    """
    own = len(loop.t) > 1
    graphs = moved[loop.clock_of] & loop.alive
    crossing = events.look(arrival[loop.clock_of], step.x, graphs)
    if not crossing.any():
        return moved
    if not events.cuts:
        events.settle(crossing, arrival[loop.clock_of], step.x, h[loop.clock_of])
        return moved
    for group in [crossing] if own else np.eye(len(crossing), dtype=bool)[crossing]:
        short = _to_roots(loop, events, group, step, h, arrival, plan)
        landed = np.where(short != 0, loop.t + short, loop.t)
        again = loop.take(group, short, plan)
        events.settle(group, landed[loop.clock_of], again.x, h[loop.clock_of])
        before = loop.t, loop.next
        loop.accept(group, again, short, landed, plan)
        if not own and loop.alive.any():
            # The others on this clock are still where they were.
            loop.t, loop.next = before
        loop.take_stock()
    going = loop.alive if own else loop.alive.any(keepdims=True)
    left: np.ndarray = moved & going
    return left


def _to_roots(
    loop: Loop,
    events: Crossings,
    group: Mask,
    step: Step,
    h: Sizes,
    arrival: Sizes,
    plan: Any,
) -> Sizes:
    """Sizes of the steps that end where the graphs of the group have their events."""
    own = len(loop.t) > 1
    whole = np.where(group, h, 0.0) if own else h

    def sizes(theta: np.ndarray) -> Sizes:
        size: np.ndarray = whole * (theta if own else theta[group])
        return size

    def times(theta: np.ndarray) -> np.ndarray:
        here: np.ndarray = (loop.t + sizes(theta))[loop.clock_of]
        return here

    def taken(theta: np.ndarray) -> State:
        return loop.take(group, sizes(theta), plan).x

    with torch.no_grad():
        reaches: list[Reach] = [taken]
        if loop.stepper.dense:
            end = loop.flow(arrival, step.x) if step.f is None else step.f

            def dense(theta: np.ndarray) -> State:
                ends, slopes = (loop.x, step.x), (loop.fx, end)
                where = theta if own else theta[group]
                return interpolate(loop.flow.clocks, where, h, ends, slopes, step.mid)

            reaches = [dense, taken]
        finest = np.spacing(np.maximum(np.abs(loop.t), np.abs(loop.t + whole)))
        eps = torch.finfo(loop.flow.dtype).eps
        length = np.maximum(np.abs(whole), finest)
        tolerance = 4 * np.maximum(finest / length, eps)[loop.clock_of]
        short = sizes(events.locate(group, times, reaches, tolerance, eps))
    # However near the root is, the clock moves.
    stays = (whole != 0) & (loop.t + short == loop.t)
    nearest: Sizes = np.where(stays, np.sign(whole) * finest, short)
    return nearest
