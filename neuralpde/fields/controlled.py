"""Diffusion under control: a signal on the nodes drives what spreads between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.fields.constants import hold, per_graph, spend
from neuralpde.fields.diffusion import Heat
from neuralpde.fields.field import Field, State
from neuralpde.fields.layers import Layers
from neuralpde.graph import Graph
from solvers.signal import Signal

Input = Signal | Callable[[Graph, Any], Signal]
Encoder = nn.Module | Callable[[Tensor], Tensor]


class ControlledDiffusion(Field):
    """Diffusion driven by a signal, dx/dt = -rate L x - decay x + encoder(u(t)).

    The signal u gives every node an input at every time, and input and diffusion act together
    ("time and space"). The linear part is an operator, so that splitting, exponential and implicit
    methods apply. For a linear encoder B and from x0 = 0 it is a filter,
    `x(t) = int_0^t e^(-(t-s) (rate L + decay)) B u(s) ds`: what a node hears of another one's input
    is a heat kernel times a memory.

    Steps should end where the signal has its knots: `solve(field.between(0, T), x0, T, graph)` ends
    adaptive steps there, `solve(field, x0, signal.grid(0, T), graph, steps=n)` adds the knots to a
    grid. Without either, errors are larger than the tolerance, or steps many. Outside of its times
    the signal keeps its end values.

    Args:
        signal: u, with values `[knots, nodes, inputs]`, or `[knots, 1, inputs]` where all nodes get
            the same; or a function of the graph and the first state that builds it.
        encoder: Maps `[nodes, inputs]` to `[nodes, channels]`: a layer such as
            `nn.Sequential(nn.Linear(inputs, channels), nn.Tanh())`. Without one the inputs have to
            broadcast against the state.
        rate: A number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        decay: Likewise.
        norm: "comb", "rw", "sym" or "augmented"; see `Graph.laplacian`.

    Raises:
        ValueError: For numbers that are not finite; at bind, for a signal that does not fit.

    References:
        Kidger, Morrill, Foster, Lyons, Neural controlled differential equations, NeurIPS 2020,
        arXiv:2005.08926, for controls by interpolation; Marisca, Bamberger, Alippi, Bronstein,
        Over-squashing in spatiotemporal graph neural networks, NeurIPS 2025, arXiv:2506.15507,
        for time-and-space and time-then-space.

    >>> graph, x = Graph(torch.tensor([[0, 1], [1, 0]])), torch.tensor([[1.0], [0.0]])
    >>> u = Signal([0.0, 2.0], torch.tensor([[[0.0], [0.0]], [[4.0], [8.0]]]))
    >>> ControlledDiffusion(u).bind(graph, x)(torch.tensor(1.0), x).flatten().tolist()
    [1.0, 5.0]
    """

    batched_time = True
    pointwise = True
    rate: float | Tensor
    decay: float | Tensor
    signal: Any
    encoder: Any

    def __init__(
        self,
        signal: Input,
        encoder: Encoder | None = None,
        *,
        rate: float | Tensor = 1.0,
        decay: float | Tensor = 0.0,
        norm: str = "comb",
    ) -> None:
        super().__init__()
        self.signal, self.encoder, self.norm = signal, encoder, norm
        hold(self, "rate", rate)
        hold(self, "decay", decay)
        channels = getattr(encoder, "out_features", None)
        if channels is not None:
            self.channels = channels

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build -rate L - decay I, and the signal in the dtype of the state."""
        assert self.norm is not None
        if not isinstance(x0, Tensor):
            raise TypeError("the state of a controlled diffusion is one tensor")
        rate = per_graph("rate", self.rate, graph.num_graphs)
        decay = per_graph("decay", self.decay, graph.num_graphs)
        self.operator = graph.laplacian(self.norm).shifted(-rate, -decay)
        signal, self.signal = self.signal, None
        if not isinstance(signal, Signal):
            signal = signal(graph, x0)
        self.signal = signal.like(x0)
        self._check(graph, x0)
        spend(self, "rate", "decay")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The encoded signal."""
        return self._encoded(t).expand_as(x)

    def between(self, start: float, end: float) -> Layers:
        """Return the same field in pieces that end at the knots, for a solve from start to end.

        Raises:
            ValueError: For a signal that is only built at bind.

        >>> field = ControlledDiffusion(Signal([0.0, 1.0, 4.0], torch.zeros(3, 1, 1)))
        >>> field.between(0.0, 2.0).fractions
        (0.0, 0.5, 1.0)
        """
        if not isinstance(self.signal, Signal):
            raise ValueError(
                "the knots of a signal that is built at bind are not known yet; give a Signal"
            )
        grid = self.signal.grid(start, end)
        fractions = ((grid - grid[0]) / (grid[-1] - grid[0])).tolist()
        return Layers([self] * (len(fractions) - 1), fractions)

    def relabelled(self, order: Tensor) -> ControlledDiffusion:
        """Return the same field on a graph whose node `k` was node `order[k]` before."""
        signal = self.signal
        if isinstance(signal, Signal):
            signal = signal.relabelled(order)
        return ControlledDiffusion(
            signal, self.encoder, rate=self.rate, decay=self.decay, norm=self.norm or "comb"
        )

    def _encoded(self, t: Tensor) -> Tensor:
        u: Tensor = self.signal(t)
        return u if self.encoder is None else self.encoder(u)

    def _check(self, graph: Graph, x0: Tensor) -> None:
        shape = tuple(self.signal.values.shape[1:])
        if len(shape) < 2 or shape[0] not in (1, graph.num_nodes):
            raise ValueError(
                f"the signal has shape {shape} at a time; it needs one input for each of the "
                f"{graph.num_nodes} nodes, or one for all: [{graph.num_nodes} or 1, inputs]"
            )
        with torch.no_grad():
            found = tuple(self._encoded(self.signal.times[0]).shape)
        pairs = zip(found, x0.shape, strict=False)
        if len(found) != x0.dim() or any(a not in (1, b) for a, b in pairs):
            raise ValueError(
                f"the signal brings {found} into a state of shape {tuple(x0.shape)}; map its "
                f"inputs to channels: encoder=nn.Linear({shape[-1]}, {x0.shape[-1]})"
            )

    def extra_repr(self) -> str:
        """The arguments."""
        return f"rate={self.rate!r}, decay={self.decay!r}, norm={self.norm!r}"


def time_then_space(
    signal: Input,
    encoder: Encoder | None = None,
    *,
    rate: float | Tensor = 1.0,
    decay: float | Tensor = 0.0,
    norm: str = "comb",
    share: float = 0.5,
) -> Layers:
    """Return the field that first listens, then spreads: two pieces of one interval.

    For the first `share` of the interval of a solve every node filters its own signal,
    dx/dt = -decay x + encoder(u(t)), a leaky integrator; then what was gathered diffuses,
    dx/dt = -rate L x, exactly. In `ControlledDiffusion` both happen at once.

    Args:
        signal: See `ControlledDiffusion`; its times are those of the solve.
        encoder: Likewise.
        rate: Of the second piece.
        decay: Of the first piece.
        norm: Likewise.
        share: Where the first piece ends, as a fraction of the interval.

    References:
        Marisca, Bamberger, Alippi, Bronstein, NeurIPS 2025, arXiv:2506.15507.

    >>> from neuralpde import solve
    >>> u = Signal([0.0, 1.0], torch.tensor([[[4.0], [0.0]]] * 2))
    >>> field = time_then_space(u, rate=50.0)
    >>> x = solve(field, torch.zeros(2, 1), 2.0, torch.tensor([[0, 1], [1, 0]])).final
    >>> x.flatten().round(decimals=3).tolist()  # 4 gathered by one node, shared by both
    [2.0, 2.0]
    """
    listening = ControlledDiffusion(signal, encoder, rate=0.0, decay=decay, norm=norm)
    return Layers([listening, Heat(norm, rate)], (0.0, share, 1.0))
