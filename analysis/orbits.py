"""Where a flow comes to: a fixed point with its rate, or a closed orbit with its period."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from analysis.loops import Loop, real, shaped
from analysis.multipliers import Linear, derivative, differentiable, leading_eigenvalue
from neuralpde.solve import solve

FINER = 1e-3
"""Tolerance of solves beside that of the loop."""

State = Callable[[Tensor, Tensor], Tensor]


def loop_of_flow(
    field: Any,
    x0: Tensor,
    settle: float,
    graph: Any = None,
    *,
    longest: float | None = None,
    tolerance: float = 1e-6,
    project: Linear | None = None,
) -> Loop:
    """Follow a flow x' = f(x) until it has settled, and say where it came to.

    A fixed point has |f| < tolerance |x|; its rate is the largest real part of an eigenvalue of
    J_f. A closed orbit comes back, through the plane orthogonal to f, to within the tolerance
    of its size; its contraction is the leading multiplier of the return map, by the
    variational equation v' = J_f v over one period, with the direction of the flow taken out.

    Args:
        field: A `Field` or a callable f(t, x) that does not change with time; one state tensor.
        x0: The first state.
        settle: Time that transients get.
        graph: The graph, if the field lives on one.
        longest: Longest period that is looked for; `settle` by default.
        tolerance: Relative; solves run at a thousandth of it.
        project: A projection of perturbations, of the shape of the state:
            `DirichletForm.of(graph).deviation` leaves out the constants, along which diffusion has
            a line of fixed points and the rate 0.

    Returns:
        The loop; `period` is 0 at fixed points.

    >>> loop = loop_of_flow(lambda t, x: -3.0 * (x - 1.0), torch.zeros(1).double(), 10.0)
    >>> loop.outcome, round(loop.rate, 6)
    ('fixed point', -3.0)
    """
    rtol, atol = FINER * tolerance, FINER * tolerance**2 * float(x0.abs().max() or 1.0)
    first = float(torch.linalg.vector_norm(x0))
    bound: State = field.bind(graph, x0) if hasattr(field, "bind") else field
    settled = solve(field, x0, settle, graph, save="end", grad="none", rtol=rtol, atol=atol).final
    assert isinstance(settled, Tensor)
    x = settled.detach()

    def f(v: Tensor) -> Tensor:
        return real(bound(torch.zeros((), dtype=torch.float64), shaped(v, x)))

    start = real(x)
    with torch.no_grad():
        slope = f(start)
    size, speed = (float(torch.linalg.vector_norm(v)) for v in (start, slope))
    keep: Linear | None = None
    if project is not None:
        whole = project

        def keep(v: Tensor) -> Tensor:
            return real(whole(shaped(v, x)))

    # Who decays to zero is at rest once almost nothing is left.
    resting = speed / max(size + tolerance * first, tolerance**2)
    if resting < tolerance:
        rate = leading_eigenvalue(derivative(f, start), start, "real", keep).real
        reason = f"|f| / |x| is {resting:.2g}; perturbations go like e^({rate:.4g} t)"
        return Loop("fixed point", reason, 0.0, resting, rate=rate, state=x)
    longest = settle if longest is None else longest
    period, gap = _return(f, start, slope, longest, tolerance, atol)
    if period is None:
        reason = f"|f| / |x| is {resting:.2g}, and the flow does not come back within {longest:g}"
        return Loop("undecided", f"{reason}; nearest: {gap:.2g}", residual=resting, state=x)
    around = _monodromy(f, start, period, tolerance, atol)
    unit = slope / speed

    def across(v: Tensor) -> Tensor:
        v = v if keep is None else keep(v)
        return v - unit * (unit @ v)

    contraction = abs(leading_eigenvalue(around, start, "modulus", across))
    reason = f"comes back to within {gap:.2g} of its size; a round multiplies by {contraction:.4g}"
    return Loop(f"cycle of period {period:.6g}", reason, period, gap, contraction, state=x)


def _return(
    f: Linear, start: Tensor, slope: Tensor, longest: float, tolerance: float, atol: float
) -> tuple[float | None, float]:
    """The first time at which the flow is back, and how close it came."""
    run = solve(
        lambda t, v: f(v),
        start,
        longest,
        solver="tsit5",
        save="steps",
        grad="none",
        rtol=FINER * tolerance,
        atol=atol,
    )
    assert isinstance(run.x, Tensor)
    apart = run.x - start
    height = apart @ slope
    size = float(torch.linalg.vector_norm(apart, dim=1).max())
    nearest = float("inf")

    def away(t: float) -> Tensor:
        x = run.at(t)
        assert isinstance(x, Tensor)
        return x - start

    # The flow leaves the plane upwards; whoever returns comes from below.
    for k in torch.nonzero((height[:-1] < 0) & (height[1:] >= 0))[:, 0].tolist():
        low, high = float(run.t[k]), float(run.t[k + 1])
        when = brentq(lambda t: float(away(t) @ slope), low, high, xtol=1e-13 * longest)
        gap = float(torch.linalg.vector_norm(away(when))) / size
        nearest = min(nearest, gap)
        if gap < tolerance:
            return when, gap
    return None, nearest


def _monodromy(f: Linear, start: Tensor, period: float, tolerance: float, atol: float) -> Linear:
    """v(0) -> v(T) of the variational equation along the orbit."""
    smooth = differentiable(f, start)

    def both(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, v = state
        return f(x).detach(), derivative(f, x, smooth)(v)

    def around(v: Tensor) -> Tensor:
        end = solve(
            both,
            (start, v),
            period,
            solver="dopri8",
            save="end",
            grad="none",
            rtol=FINER * tolerance,
            atol=atol,
        ).final
        assert isinstance(end, tuple)
        return end[1]

    return around
