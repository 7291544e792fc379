"""Sensitivity to a disturbance at any time, and its split into a power of space and one of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analysis.sensitivities import ATOL, RTOL, checked_sources, sensitivity
from analysis.tangents import Unforced
from neuralpde import solve
from neuralpde.fields.field import Field, State
from neuralpde.operators import Operator

Matrix = Float[Tensor, "steps steps"]


@dataclass(frozen=True)
class SpaceTime:
    """Norms of the blocks dx_i(t)/dx_j(s) for some sources j, start times s, and all nodes i.

    Attributes:
        t: Times at which x is read.
        starts: Times s at which it is disturbed.
        sources: The nodes j.
        value: Norms of the blocks, float64; 0 for t < s.
        error: Standard error of each where blocks were probed.
        norm: "fro", "spectral" or "l1".

    >>> one = torch.ones(1, 1, 1, 3)
    >>> print(SpaceTime(torch.zeros(1), torch.zeros(1), torch.tensor([0]), one, 0 * one, "fro"))
    |J|_fro of 3 nodes by 1 source, 1 start by 1 time
    """

    t: Float[Tensor, " times"]
    starts: Float[Tensor, " starts"]
    sources: Int[Tensor, " sources"]
    value: Float[Tensor, "starts times sources nodes"]
    error: Float[Tensor, "starts times sources nodes"]
    norm: str

    def __str__(self) -> str:
        """Norm and sizes."""
        names = ("start", "time", "source", "node")
        told = [
            f"{count} {name}{'s' if count != 1 else ''}"
            for count, name in zip(self.value.shape, names, strict=True)
        ]
        return f"|J|_{self.norm} of {told[3]} by {told[2]}, {told[0]} by {told[1]}"


def space_time_sensitivity(
    field: Field | Callable[[Tensor, Any], Any],
    x0: State,
    t: Sequence[float] | Float[Tensor, " times"],
    graph: Any = None,
    *,
    starts: Sequence[float] | Float[Tensor, " starts"],
    sources: Sequence[int] | Int[Tensor, " sources"] | None = None,
    probes: int | None = None,
    norm: str = "fro",
    part: int | tuple[int, int] = 0,
    solver: Any = "auto",
    rtol: float = RTOL,
    atol: float = ATOL,
    max_steps: int = 10_000,
    generator: torch.Generator | None = None,
) -> SpaceTime:
    """How strongly nodes depend on the state of some sources at times s, |dx_i(t)/dx_j(s)|.

    The solution is followed to each s, and tangents start there. The field is bound once, at x0: a
    disturbance at s > t[0] does not change what it prepared from x0, and neither does one at t[0]
    (as it does in `sensitivity`).

    Args:
        field: A `Field`, or any callable f(t, x).
        x0: First state.
        t: Rising times at which x is read; the first is x0's.
        graph: The graph.
        starts: Times s, from t[0] on.
        sources: See `sensitivity`, also for the arguments below.
        probes: Tangents per source.
        norm: Of a block.
        part: Of a tuple state.
        solver: As in `solve`.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Most steps.
        generator: Of the probes.

    Raises:
        ValueError: For times that do not rise, starts before the first of them, piecewise fields
            (whose pieces are parts of a whole interval), and as `sensitivity` does.

    References:
        Marisca et al., Over-squashing in spatiotemporal graph neural networks, 2025,
        arXiv:2506.15507.

    >>> from neuralpde import catalogue
    >>> from neuralpde.fields import Heat
    >>> x0, path = torch.zeros(2, 1, dtype=torch.float64), catalogue.path(2)
    >>> J = space_time_sensitivity(Heat(), x0, [0.0, 0.5], path, starts=[0.0, 0.5], sources=[0])
    >>> [[round(entry, 6) for entry in row] for row in J.value[:, 1, 0].tolist()]
    [[0.68394, 0.31606], [1.0, 0.0]]
    """
    times, begin = (torch.as_tensor(one, dtype=torch.float64) for one in (t, starts))
    if times.dim() != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError("t is a list of at least two rising times, the first of them x0's")
    if begin.dim() != 1 or not len(begin) or bool((begin < times[0]).any()):
        raise ValueError(f"starts is a list of times s, none of them before t[0] = {times[0]:g}")
    if isinstance(field, Field):
        if field.pieces is not None:
            raise ValueError("a piecewise field is a whole of its interval; give one of its pieces")
        field = field if field.is_bound else field.bind(graph, x0)
    first = x0[0] if isinstance(x0, tuple) else x0
    where = checked_sources(sources, len(first))
    value = torch.zeros(len(begin), len(times), len(where), len(first), dtype=torch.float64)
    error, order = torch.zeros_like(value), torch.argsort(begin)
    state, now = x0, times[0]
    for k in order.tolist():
        s = begin[k]
        if s > now:
            to = torch.stack([now, s])
            state = solve(
                field,
                state,
                to,
                graph,
                solver=solver,
                rtol=rtol,
                atol=atol,
                max_steps=max_steps,
                grad="none",
            ).final
            now = s
        later = times >= s
        if not bool(later.any()):
            continue
        # A solve has two ends, though one of them may be all that is read.
        read = torch.cat([s[None], times[later]])
        read = read if len(read) > 1 and read[-1] > s else torch.stack([s, s])
        found = sensitivity(
            field,
            state,
            read,
            graph,
            sources=where,
            probes=probes,
            norm=norm,
            part=part,
            solver=solver,
            rtol=rtol,
            atol=atol,
            max_steps=max_steps,
            generator=generator,
        )
        value[k, later], error[k, later] = found.value[1:], found.error[1:]
    return SpaceTime(times, begin, where, value, error, norm)


@dataclass(frozen=True)
class Powers:
    """The two factors of a sensitivity in space and time.

    Attributes:
        t: Times, or numbers of layers.
        sources: The nodes j.
        space: Power of space, from node j to all nodes.
        time: Power of time, from step b (second axis) to step a (first axis).

    >>> two, three = torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 3.0)
    >>> Powers(torch.ones(1), torch.tensor([0]), two, three).value.item()
    6.0
    """

    t: Float[Tensor, " times"]
    sources: Int[Tensor, " sources"]
    space: Float[Tensor, "times sources nodes"]
    time: Float[Tensor, "times steps steps"]

    @property
    def value(self) -> Float[Tensor, "times sources nodes steps steps"]:
        """Their product: how node i at step a depends on node j at step b."""
        return self.space[..., None, None] * self.time[:, None, None]


def split_flow(
    A: Operator,
    T: Matrix,
    t: Sequence[float] | Float[Tensor, " times"],
    sources: Sequence[int] | Int[Tensor, " sources"] | None = None,
) -> Powers:
    """Powers of x' = A x + x T^T on nodes by time steps: e^{t(A (+) T)} = e^{tA} (x) e^{tT}.

    Space and time commute, so it makes no difference whether the steps are mixed first and then the
    nodes ("time then space") or both at once ("time and space").

    Args:
        A: Mixes nodes, `[nodes, nodes]`.
        T: Mixes time steps, such as `delay_line`.
        t: Times, from 0 on.
        sources: Nodes j; all by default.

    References:
        Marisca et al., 2025, arXiv:2506.15507, theorems 4.1 and 5.1, whose bounds are
        products of the same kind.

    >>> from neuralpde import catalogue
    >>> A = catalogue.path(2).adjacency("row", dtype=torch.float64)
    >>> found = split_flow(A, delay_line(2), [0.0, 2.0], [0])
    >>> found.time[1].tolist()
    [[1.0, 0.0], [2.0, 1.0]]
    """
    times = torch.as_tensor(t, dtype=torch.float64)
    x0 = torch.zeros(A.num_nodes, 1, dtype=A.dtype, device=A.device)
    flow = Unforced(A).bind(None, x0)
    found = sensitivity(flow, x0, times, sources=sources, rtol=1e-10)
    time = torch.linalg.matrix_exp(times[:, None, None] * T.double())
    return Powers(times, found.sources, found.value, time.abs())


def split_layers(
    S: Operator,
    R: Matrix,
    layers: Sequence[int],
    sources: Sequence[int] | Int[Tensor, " sources"] | None = None,
) -> Powers:
    """Powers of layers that mix nodes by S and time steps by R: S^l and R^l.

    Args:
        S: Mixes nodes.
        R: Mixes time steps; I + `delay_line` is a causal convolution of two steps.
        layers: Numbers of layers l, from 0 on.
        sources: Nodes j; all by default.

    Raises:
        ValueError: For numbers below 0.

    References:
        Marisca et al., 2025, arXiv:2506.15507, theorem 4.1 and proposition 4.2.

    >>> from neuralpde import catalogue
    >>> S = catalogue.path(2).adjacency("row", dtype=torch.float64)
    >>> split_layers(S, torch.eye(3) + delay_line(3), [4], [0]).time[0, :, 0].tolist()
    [1.0, 4.0, 6.0]
    """
    if min(layers) < 0:
        raise ValueError(f"layers is {list(layers)}; numbers of layers are not negative")
    where = checked_sources(sources, S.num_nodes)
    x = torch.zeros(S.num_nodes, len(where), dtype=S.dtype, device=S.device)
    x[where, torch.arange(len(where))] = 1.0
    space = {0: x}
    for k in range(max(layers)):
        space[k + 1] = S @ space[k]
    columns = torch.stack([space[k].T.double().abs() for k in layers])
    powers = [torch.linalg.matrix_power(R.double(), k).abs() for k in layers]
    return Powers(torch.tensor(layers).double(), where, columns, torch.stack(powers))


def delay_line(steps: int) -> Matrix:
    """The shift that feeds every time step from the one before, `x_a' = x_(a - 1)`.

    >>> delay_line(3).tolist()
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return torch.diag(torch.ones(steps - 1, dtype=torch.float64), -1)
