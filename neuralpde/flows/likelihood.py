"""Log densities along a flow: the change of variables, as a field of a larger state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.field import Field
from neuralpde.flows.divergences import Divergence, Trace
from neuralpde.graph import Graph
from neuralpde.solve import solve
from solvers.rows import Rows
from solvers.schedules import Schedule


class Augmented(Field):
    """A velocity with its divergence, `d(x, a)/dt = (v, div v)`.

    Args:
        velocity: A field.
        divergence: How the divergence is found.

    >>> import torch
    >>> field = Augmented(lambda t, x: -x, Trace()).bind(None, torch.ones(1, 2))
    >>> v, growth = field(torch.tensor(0.0), (torch.ones(1, 2), torch.zeros(1, 1)))
    >>> v.tolist(), growth.tolist()
    ([[-1.0, -1.0]], [[-2.0]])
    """

    needs_graph = False

    def __init__(self, velocity: Field | Callable[..., Any], divergence: Divergence) -> None:
        super().__init__()
        self.velocity, self.divergence = velocity, divergence

    def inner_state(self, x0: Any) -> Any:
        """The state without the density."""
        return x0[0] if isinstance(x0, tuple) else x0

    def rest(self, t: Tensor, x: Any) -> tuple[Tensor, Tensor]:
        """Velocity and divergence."""
        v, div = self.divergence(self.velocity, t, x[0])
        return v, div[:, None]


def log_prob(
    velocity: Field | Callable[..., Any],
    x: Float[Tensor, "points ..."],
    source: Callable[[Tensor], Tensor],
    ends: tuple[float, float] = (0.0, 1.0),
    graph: Any = None,
    *,
    divergence: Divergence | None = None,
    solver: str = "auto",
    steps: int | None = None,
    schedule: Schedule | str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Tensor:
    """The log density at x of what a velocity makes of a source.

    With x(t) the solution of dx/dt = v that ends in x,

        log p_1(x) = log p_0(x(0)) - int_0^1 div v(t, x(t)) dt

    solved backwards through `solve` as one state.

    Args:
        velocity: v(t, x): a field, a network or a function.
        x: Points of the target, or the nodes of a graph.
        source: The log density of the source: one number for each point (`Mixture.log_density`),
            or, with a graph, for each node, which are added up.
        ends: First and last time of the flow.
        graph: As in `solve`; then there is one log density for each graph.
        divergence: `Trace()` by default; `Hutchinson(seed)` for many numbers, and on graphs.
        solver: As in `solve`.
        steps: As in `solve`.
        schedule: As in `solve`, from the last time to the first.
        rtol: As in `solve`.
        atol: As in `solve`.

    Returns:
        `[points]`, or `[graphs]` with a graph.

    Raises:
        ValueError: For an adaptive solve with a random divergence, whose noise step control would
            chase; for the exact trace on a graph.

    References:
        Chen et al., Neural ordinary differential equations, NeurIPS 2018, arXiv:1806.07366;
        Grathwohl et al., ICLR 2019, arXiv:1810.01367.

    >>> import torch
    >>> from neuralpde.flows.mixtures import normal
    >>> x = torch.zeros(1, 1).double()
    >>> growth = log_prob(lambda t, x: 0 * x + 3.0, x, normal(1).log_density)  # N(3, 1) at 0
    >>> bool((growth - normal(1, mean=3.0).log_density(x)).abs() < 1e-9)
    True
    """
    way = Trace() if divergence is None else divergence
    if way.random and steps is None:
        raise ValueError("a divergence by random probes needs fixed steps: give steps=")
    if graph is not None and not way.random:
        raise ValueError(
            "nodes of a graph move each other, and Trace() takes points one by one: give "
            "divergence=Hutchinson(seed)"
        )
    start, end = ends
    first = x, x.new_zeros(len(x), 1)
    done = solve(
        Augmented(velocity, way),
        first,
        (end, start),
        graph,
        solver=solver,
        steps=steps,
        schedule=schedule,
        rtol=rtol,
        atol=atol,
    )
    x0, gained = done.final
    found = source(x0) + gained[:, 0]
    if graph is None:
        return found
    known = Graph.of(graph)
    return Rows(known.batch, known.num_graphs).sums((found,)).to(found)
