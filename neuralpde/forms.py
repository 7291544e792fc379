"""Quadratic forms of states with stalks, and what an exact solve reads energies from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.graph import Graph
from neuralpde.looks import Look, Parts
from neuralpde.operators.blocks import BlockOperator
from neuralpde.operators.bundle import BundleOperator
from neuralpde.operators.linear import Operator
from solvers.inner import inner
from solvers.moments import Preparation
from solvers.products import products
from solvers.rooms import Room, rooms
from solvers.rows import Rows


@dataclass(frozen=True)
class Start:
    """Where Chebyshev moments of an energy start: `E = <v, L e^(-2tL) v>`.

    Attributes:
        L: Self-adjoint.
        x: A state of L.
        metric: Weights of the inner product, or None.
        prepare: Makes what is read of some columns of `x`, or None.
        space: Rooms for `x`, or None.
        lock: Held while `space` is used.
    """

    L: Operator
    x: Tensor
    metric: Tensor | None = None
    prepare: Preparation | None = None
    space: list[Room] | None = None
    lock: AbstractContextManager[object] = field(default_factory=nullcontext)


class Form(Protocol):
    """A quadratic form E(x) with the norms that stand beside it, one number per graph.

    Attributes:
        convention: What it is, in words.
        rows: How nodes belong to graphs.
    """

    convention: str
    rows: Rows

    @property
    def mass(self) -> Tensor | None:
        """Weights of the norm, or None."""

    @property
    def start(self) -> Any:
        """Gives the start of its moments where they are not those of the graph."""

    @property
    def largest(self) -> Tensor:
        """A bound of E(x) / |x|^2 per graph."""

    def look(self, x: Tensor, slope: Tensor | None = None, near: bool = False) -> Look:
        """The energy and squared norms, not yet summed up; `near`: x is thought near the kernel."""

    def looks(self, states: list[Tensor], slopes: list[Tensor], scale: Any = 1.0) -> Look:
        """The same of several states, `[looks, graphs]`; slopes times `scale` are -L x."""

    def parts(self, x: Tensor, slope: Tensor | None = None) -> Parts:
        """The energy and squared norms."""

    def norm_alone(self, x: Tensor) -> Parts:
        """The squared norm."""

    def deviation(self, x: Tensor) -> Tensor:
        """The state without its part in the kernel, where that is known."""


def start_of(form: Any, graph: Graph, x0: Tensor) -> Start:
    """Where the moments of a form start.

    Args:
        form: A form.
        graph: The graph, of any dtype.
        x0: The first state, in the dtype to compute in.
    """
    if form.start is not None:
        found: Start = form.start(x0)
        return found
    graph = graph.like(x0)
    own = DirichletForm.of(graph, form.norm)
    space = own.space(x0)
    if form.norm != "rw" or form.mass is None:
        return Start(graph.laplacian(form.norm), x0, form.mass, own.centre, space, own.lock)
    # D^(1/2) x makes the random walk symmetric, and inner products plain.
    root = form.mass.sqrt().to(x0.real.dtype).unsqueeze(1)

    def rooted(v: Tensor, out: Tensor) -> Tensor:
        left_out = own.centre(v, out)
        out.mul_(root)
        return left_out

    return Start(graph.laplacian("sym"), x0, None, rooted, space, own.lock)


class OneByOne:
    """A form that looks at several states one after the other."""

    look: Callable[..., Look]

    def looks(self, states: list[Tensor], slopes: list[Tensor], scale: Any = 1.0) -> Look:
        """Look at each state; see `DirichletForm.looks`."""
        known = [slope.reshape(len(slope), -1) * scale for slope in slopes]
        pairs = zip(states, known or [None] * len(states), strict=True)
        return Look.joined([self.look(x, slope) for x, slope in pairs])


class SheafForm(OneByOne):
    """The form of a sheaf, E(x) = tr(x^T L x), the sum of |F_v x_v - F_u x_u|^2 over the edges.

    Its kernel are the global sections, of which nothing is known beforehand: nothing is projected
    out, and the floors are those of `eps |L| |x|^2`.

    Args:
        build: Gives L for a state: one and the same where the maps are frozen.
        graph: Where it lives.
        convention: What L is, in words.

    >>> from neuralpde.operators.sheaf import sheaf_laplacian
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> L = sheaf_laplacian(graph, torch.tensor([[1.0], [2.0]]))
    >>> SheafForm(lambda x: L, graph, "sheaf")(torch.tensor([[[3.0]], [[1.0]]])).item()
    1.0
    """

    mass: Tensor | None = None

    def __init__(
        self, build: Callable[[Tensor], BlockOperator], graph: Graph, convention: str
    ) -> None:
        self._build, self.convention = build, convention
        self.rows = Rows(graph.batch, graph.num_graphs)
        self._largest: Tensor | None = None
        self._operator: BlockOperator | None = None

    def _laplacian(self, x: Tensor) -> BlockOperator:
        """L of this state; the bound of its spectrum is noted."""
        with torch.no_grad():
            L = self._build(x)
        if L is not self._operator:
            self._operator = L
            top = L.spectrum()[1].clamp(min=0.0).cpu()
            known = self._largest
            self._largest = top if known is None else torch.maximum(top, known)
        return L

    @property
    def largest(self) -> Tensor:
        """A bound of E(x) / |x|^2 per graph, for all states seen."""
        assert self._largest is not None
        return self._largest

    def __call__(
        self, x: Tensor | tuple[Tensor, ...], graph: object = None
    ) -> Float[Tensor, " graphs"]:
        """E(x) per graph, float64; of a tuple state the first part's. The graph is its own."""
        return self.parts(x[0] if isinstance(x, tuple) else x).energy

    def parts(self, x: Tensor, slope: Tensor | None = None) -> Parts:
        """The energy with the squared norms that say how far it can be trusted."""
        look = self.look(x, slope)
        return Parts(look.energy, look.square, look.deviation)

    def look(self, x: Tensor, slope: Tensor | None = None, near: bool = False) -> Look:
        """The same, not yet summed up; with `slope = -L x` nothing is multiplied.

        There is nothing to be gained from a state that is `near` the kernel.
        """
        with torch.no_grad():
            L = self._laplacian(x)
            rows = Rows(L.core.batch, L.num_graphs)
            flat = L.enter(_columns(x)).to(L.dtype)
            known = None if slope is None else L.enter(_columns(slope)).to(L.dtype)
            energy = square = torch.zeros(L.num_graphs, dtype=torch.float64, device=x.device)
            for room in products.once(rooms(flat)):
                room.first.copy_(room.of(flat))
                if known is None:
                    L.core.addmm_(room.second, room.first)
                else:
                    torch.neg(room.of(known), out=room.second)
                own, mixed = room.inner(0, rows)
                square, energy = square + own, energy + mixed
            # A look has half the energy.
            return Look.of(energy / 2, square, torch.zeros_like(square))

    def norm_alone(self, x: Tensor) -> Parts:
        """The squared norm per graph, which is its deviation too."""
        self._laplacian(x)
        flat = _columns(x).contiguous()
        square = inner(self.rows, flat, flat)
        return Parts(torch.zeros_like(square), square, square)

    def deviation(self, x: Tensor) -> Tensor:
        """The state itself: no part of it is known to be in the kernel."""
        return x

    def start(self, x0: Tensor) -> Start:
        """L and the state."""
        return Start(self._laplacian(x0), x0)


class BundleForm(OneByOne):
    """The form of a flat bundle: the Dirichlet form of the graph, of the state in the frames.

    Its kernel is that of the graph, seen in the frames, and is projected out as there.

    Args:
        frames: See `BundleOperator`.
        graph: The graph, in the dtype of the frames.
        norm: The norm of its Laplacian.

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> form = BundleForm(torch.tensor([[[1.0]], [[-1.0]]]), graph, "comb")
    >>> form.parts(torch.tensor([[[2.0]], [[-1.0]]])).energy.item()
    1.0
    """

    def __init__(self, frames: Tensor, graph: Graph, norm: str) -> None:
        self._frames, self._graph = frames.detach(), graph
        self._form = DirichletForm.of(graph, norm)
        self.convention = f"bundle in {self._form.convention}"
        self.rows, self.mass, self.norm = self._form.rows, self._form.mass, norm
        self.largest = self._form.largest

    def _operator(self, x: Tensor) -> BundleOperator:
        L = self._graph.like(x).laplacian(self.norm)
        return BundleOperator(self._frames.to(L.dtype), L)

    def _framed(self, x: Tensor) -> Tensor:
        return self._operator(x).enter(_columns(x))

    def parts(self, x: Tensor, slope: Tensor | None = None) -> Parts:
        """The energy with the squared norms."""
        return self._form.parts(self._framed(x), None if slope is None else self._framed(slope))

    def look(self, x: Tensor, slope: Tensor | None = None, near: bool = False) -> Look:
        """The same, not yet summed up."""
        known = None if slope is None else self._framed(slope)
        return self._form.look(self._framed(x), known, near)

    def norm_alone(self, x: Tensor) -> Parts:
        """The squared norm per graph."""
        return self._form.norm_alone(x)

    def deviation(self, x: Tensor) -> Tensor:
        """The state without its part in the kernel, which is constant in the frames."""
        y = self._operator(x).leave(self._form.deviation(self._framed(x)))
        if x.is_complex():
            return torch.view_as_complex(y.reshape(*x.shape, 2))
        return y.reshape(x.shape)

    def start(self, x0: Tensor) -> Start:
        """The graph's Laplacian and the state in the frames."""
        return start_of(self._form, self._graph, self._framed(x0))


def _columns(x: Tensor) -> Tensor:
    real = torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x.detach()
    return real.reshape(real.shape[0], real.shape[1:].numel())
