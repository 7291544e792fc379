"""How much the state of a node at time t depends on that of another node at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analysis.blocks import check_norm, directions, measured
from analysis.tangents import Request, way
from neuralpde.fields.field import Field, State
from neuralpde.problem import pose

WHOLE = 8
"""Channels up to which blocks are computed whole; beyond, they are probed."""

PROBES = 4

SMALL = 3000
"""Nodes up to which all of them are sources unless some are named."""

NUMBERS = 1 << 25
"""Numbers of tangents that one solve may hand back; more sources are taken in turn."""

RTOL, ATOL = 1e-8, 1e-12


@dataclass(frozen=True)
class Sensitivity:
    """Norms of the blocks J_ij(t) = dx_i(t)/dx_j(0) for some sources j and all nodes i.

    Attributes:
        t: Times, as `solve` takes them.
        sources: The nodes j.
        value: Norms of the blocks, float64.
        error: Standard error of each where blocks were probed; 0 where they were computed whole.
        norm: "fro", "spectral" or "l1".
        method: How it was computed.

    >>> J = torch.ones(1, 1, 3)
    >>> print(Sensitivity(torch.zeros(1), torch.tensor([0]), J, 0 * J, "fro", "columns"))
    |J|_fro of 3 nodes by 1 source at 1 time (columns)
    """

    t: Tensor
    sources: Int[Tensor, " sources"]
    value: Float[Tensor, "times sources nodes"]
    error: Float[Tensor, "times sources nodes"]
    norm: str
    method: str

    @property
    def relative_error(self) -> float:
        """Root mean square over all blocks of the standard error, relative to the blocks."""
        size = float(self.value.square().sum())
        return float(self.error.square().sum() / size) ** 0.5 if size > 0 else 0.0

    def __str__(self) -> str:
        """Norm, sizes, method."""
        times, sources, nodes = self.value.shape
        plural = ("s" if count != 1 else "" for count in (sources, times))
        return (
            f"|J|_{self.norm} of {nodes} nodes by {sources} source{next(plural)} at {times} "
            f"time{next(plural)} ({self.method})"
        )


def sensitivity(
    field: Field | Callable[[Tensor, Any], Any],
    x0: State,
    t: float | Sequence[float] | Tensor,
    graph: Any = None,
    *,
    sources: Sequence[int] | Int[Tensor, " sources"] | None = None,
    probes: int | None = None,
    norm: str = "fro",
    part: int | tuple[int, int] = 0,
    solver: Any = "auto",
    steps: int | None = None,
    rtol: float = RTOL,
    atol: float = ATOL,
    max_steps: int = 10_000,
    generator: torch.Generator | None = None,
) -> Sensitivity:
    """How strongly nodes depend on the first states of some sources, |dx_i(t)/dx_j(0)|, along t.

    It is the derivative of `solve(field, x0, t, graph).x`, so also through what the field prepares
    from x0; give a bound field to hold that fixed. The derivative obeys the variational equation
    y' = (df/dx) y, which is solved forwards along with x:

        linear fields  the tangents obey the equation of x. They are solved by themselves, exactly
                       where `solve` can; where channels are alike, one column for each source
        others         x and its tangents are one system, `channels` tangents for each source, or
                       as many as there are probes, or one where f is A x + r(x) with r acting
                       entry by entry. Steps are controlled by the error of all of them together,
                       so that `rtol` holds for the sensitivity, not for x alone

    A probe g, with random signs in the channels of the source, gives E |J_ij g|^2 = |J_ij|_F^2:
    only the Frobenius norm can be had from probes. Their `error` is a standard error.

    Args:
        field: A `Field`, or any callable f(t, x).
        x0: First state; a tuple for fields of second order.
        t: As in `solve`; with an exact solve more times cost next to nothing.
        graph: The graph; none is needed for a bound field.
        sources: Nodes that are disturbed; all of them by default.
        probes: Tangents per source; by default all channels where there are up to 8, else 4.
        norm: Of a block `[channels, channels]`: "fro", "spectral", or "l1" (the sum of moduli).
        part: Of a tuple state: the part that is disturbed and read, or (read, disturbed).
        solver: As in `solve`: methods for f(t, x) that need no structure; exact ones for linear.
        steps: Number of fixed steps; the derivative is then that of the discrete solution.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Most steps.
        generator: Of the probes.

    Raises:
        ValueError: For bad sources, norms, parts and probes; complex states of a nonlinear field
            (f need not be holomorphic); noise that depends on the state, or of a nonlinear field.
        SolveFailed: As `solve` does.

    References:
        Topping et al., ICLR 2022, arXiv:2111.14522 (over-squashing as |dx_i/dx_j|);
        Hairer, Nørsett and Wanner, Solving ODEs I, section I.14 (the variational equation).

    >>> from neuralpde import catalogue
    >>> from neuralpde.fields import Heat
    >>> x0 = torch.zeros(2, 1, dtype=torch.float64)
    >>> J = sensitivity(Heat(), x0, [0.0, 0.5], catalogue.path(2), sources=[0]).value[:, 0]
    >>> [[round(entry, 6) for entry in row] for row in J.tolist()]
    [[1.0, 0.0], [0.68394, 0.31606]]
    """
    check_norm(norm, probes)
    parts = tuple(x0) if isinstance(x0, (tuple, list)) else (x0,)
    read, moved = part if isinstance(part, tuple) else (part, part)
    if not (0 <= read < len(parts) and 0 <= moved < len(parts)):
        raise ValueError(f"part is {part}; the state has parts 0 to {len(parts) - 1}")
    where = checked_sources(sources, len(parts[moved]))
    tolerances = (rtol, atol) if steps is None else (None, None)
    limits: dict[str, Any] = {
        "rtol": tolerances[0],
        "atol": tolerances[1],
        "steps": steps,
        "max_steps": max_steps,
    }
    with torch.no_grad():
        problem = pose(
            field,
            x0,
            t,
            graph,
            **limits,
            error_scale="state",
            save=None,
            schedule=None,
            watch=(),
            stop=None,
            grad="none",
            generator=None,
            progress=False,
        )
        request = Request(problem, field, read, moved, {"solver": solver, **limits})
        return _gathered(request, where, probes, norm, generator)


def checked_sources(
    sources: Sequence[int] | Int[Tensor, " sources"] | None, nodes: int
) -> Int[Tensor, " sources"]:
    """Sources as a tensor of different nodes that exist.

    Raises:
        ValueError: For none, nodes that do not exist, nodes named twice.

    >>> checked_sources([2, 0], 3).tolist(), checked_sources(None, 2).tolist()
    ([2, 0], [0, 1])
    """
    if sources is None:
        if nodes > SMALL:
            raise ValueError(
                f"all {nodes} nodes as sources give {nodes} x {nodes} blocks for every time; name "
                "some, sources=[...]"
            )
        return torch.arange(nodes)
    found = torch.as_tensor(sources).cpu()
    found = found if found.numel() else found.long()
    if found.dtype.is_floating_point or found.dtype == torch.bool or found.dim() != 1:
        raise ValueError("sources are node numbers, a list of integers")
    found = found.long()
    if not len(found) or int(found.min()) < 0 or int(found.max()) >= nodes:
        raise ValueError(
            f"sources are {found.tolist()[:8]}; give at least one node, from 0 to {nodes - 1}"
        )
    if len(found.unique()) < len(found):
        raise ValueError(f"sources {found.tolist()[:8]} name a node twice; name each once")
    return found


def _gathered(
    request: Request,
    sources: Tensor,
    probes: int | None,
    norm: str,
    generator: torch.Generator | None,
) -> Sensitivity:
    """Blocks of some sources at a time, reduced to their norms."""
    how, problem = way(request), request.problem
    if how.whole:
        probes = None
    elif probes is None and norm == "fro" and how.channels > WHOLE:
        probes = PROBES
    count = len(sources)
    if how.diagonal:
        given = torch.ones(count, 1, how.channels, dtype=torch.float64)
    else:
        given = directions(count, how.channels, probes, generator)
    numbers = len(problem.t) * len(problem.x0[0]) * how.width * given.shape[1]
    size, found = max(1, NUMBERS // max(numbers, 1)), []
    for some, those in zip(sources.split(size), given.split(size), strict=True):
        J = how.blocks(some, those)
        value, error = measured(J, norm, probes, how.copies, diagonal=how.diagonal)
        found.append((value.transpose(1, 2), error.transpose(1, 2)))
    value, error = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    told = how.method + ("" if probes is None else f", {probes} probes for each source")
    return Sensitivity(problem.t.detach(), sources, value, error, norm, told)
