"""White noise on a graph: what turns a field into a stochastic one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from neuralpde.fields.constants import hold
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Operator
from solvers.noise import NoiseTerm


class Noise(Field):
    """White noise without a drift, dX = g dW; added to a field it makes it stochastic.

    `Heat() + Noise(s)` is the graph Ornstein-Uhlenbeck process dX = -L X dt + s dW, and `Noise(s)`
    alone Brownian motion. Every entry of the state has a Brownian motion of its own. Noises that
    are added are independent, and act like one of amplitude sqrt(g_1^2 + g_2^2); an operator does
    not add up with other noise, nor do multiplicative noises of both conventions.

    Stochastic fields are solved on fixed grids: `solve(..., solver="euler_maruyama", steps=n)`,
    `"stochastic_heun"` or `"torchsde:<method>"`; deterministic solvers refuse them. Samples are
    cheapest as channels: the paths of a field that treats channels alike, as `Heat` does, are the
    columns of a state `[nodes, paths]`, for which a sparse product runs once over the graph.
    Where the field mixes channels, a batch of copies of the graph holds the samples.

    Args:
        scale: g: a number; a tensor that broadcasts against the state (`[nodes, 1]`, one entry per
            channel, ...), an `nn.Parameter` to learn it; a tuple of such for a tuple state; or a
            function g(t, x) whose entry i depends on entry i of x alone, an `nn.Module` where it
            has parameters.
        operator: B, for noise `scale * B dW` with the covariance `scale^2 B B^T` between the nodes:
            an operator, or a function of the graph and the first state that builds it.
        additive: That the function is of time alone, g(t).
        convention: Of multiplicative noise: "ito" or "stratonovich".

    Raises:
        ValueError: For numbers that are not finite, an unknown convention, an operator with a
            scale that is not a number; at bind, for shapes that do not broadcast.

    References:
        Gardiner, Handbook of stochastic methods, 4th edition 2009, sections 4.3 and 4.4.6.

    >>> import torch
    >>> from neuralpde import solve
    >>> x, rng = torch.zeros(1, 1000), torch.Generator().manual_seed(0)
    >>> traj = solve(Noise(2.0), x, 9.0, solver="euler_maruyama", steps=4, generator=rng)
    >>> 0.9 < (traj.final.std() / 6).item() < 1.1
    True
    """

    batched_time = True
    needs_graph = False
    scale: Any
    matrix: Any

    def __init__(
        self,
        scale: float | Tensor | tuple[Any, ...] | nn.Module | Callable[..., Any] = 1.0,
        operator: Operator | Callable[[Graph, Any], Operator] | None = None,
        *,
        additive: bool = False,
        convention: str = "ito",
    ) -> None:
        super().__init__()
        if isinstance(scale, Tensor | float | int):
            hold(self, "scale", scale, dims=None)
        else:
            self.scale = scale
        self.matrix = operator
        self.needs_graph = callable(operator)
        self.additive, self.convention = additive, convention
        self.inherited_noise()

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build the operator; a builder that is a module leaves its parameters behind."""
        if self.needs_graph:
            build, self.matrix = self.matrix, None
            self.matrix = build(graph, x0)
        if self.matrix is not None:
            first = x0[0] if isinstance(x0, tuple) else x0
            self.matrix = self.matrix.to(first.dtype, first.device)

    def inherited_noise(self) -> NoiseTerm:
        """The amplitude, the operator and the convention."""
        additive = self.additive or not callable(self.scale)
        return NoiseTerm(self.scale, self.matrix, additive, self.convention)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"scale={self.scale!r}, operator={self.matrix!r}, convention={self.convention!r}"
