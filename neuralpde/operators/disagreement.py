"""How much neighbours differ, entry by entry: sums over edges of |y_j - y_i|^p."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from neuralpde.operators.pattern import Pattern
from neuralpde.operators.product import WIDE

CHUNK = 1 << 20
"""Numbers per edge and channel that are held at a time."""

State = Float[Tensor, "nodes channels"]


def disagreement(
    pattern: Pattern, weights: Float[Tensor, " nnz"], y: Float[Tensor, "nodes ..."], p: float
) -> Float[Tensor, "nodes ..."]:
    """Return `D_ik = sum_j w_ij |y_jk - y_ik|^p` over the entries (i, j) of a pattern.

    Differences are formed edge by edge: multiplied out, as `|y_j - y_i|^2` can be, they would
    cancel where neighbours agree and might come out negative. Edges are taken some at a time, so
    that memory is that of the state; differentiable any number of times, in reverse and forward.
    Where two neighbours agree, derivatives that do not exist (of `|d|^p` of an order above p, or
    equal to an odd p) count as 0.

    Args:
        pattern: rows receive.
        weights: not negative, without gradients.
        y: a real state.
        p: exponent, positive.

    Raises:
        ValueError: p is not positive and finite, or sizes do not fit.
        TypeError: y is complex, or holds integers.

    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 0]), torch.tensor([1, 2]), 3)
    >>> y = torch.tensor([[1.0], [4.0], [-1.0]])
    >>> disagreement(pattern, torch.ones(2), y, 2.0).flatten().tolist()
    [13.0, 0.0, 0.0]
    """
    if not 0.0 < p < float("inf"):
        raise ValueError(f"p is {p}; the exponent of differences is positive and finite")
    if len(y) != pattern.num_nodes or weights.shape != (pattern.nnz,):
        raise ValueError(
            f"y has {len(y)} rows and there are {len(weights)} weights; the pattern has "
            f"{pattern.num_nodes} nodes and {pattern.nnz} entries"
        )
    if not y.is_floating_point():
        raise TypeError(f"y is {y.dtype}; differences are taken of real floating states")
    wide = WIDE.get(y.dtype, y.dtype)
    form = _Form(pattern, weights.detach().to(wide), float(p))
    flat = y.reshape(len(y), -1).to(wide)
    if torch.compiler.is_compiling():
        return form.traced(flat).reshape(y.shape).to(y.dtype)
    return _applied(_Gathered, form, flat).reshape(y.shape).to(y.dtype)


class _Form:
    """`T(g, y) = sum_e w_e <g_row(e), phi(y_col(e) - y_row(e))>` with phi(d) = |d|^p.

    Its derivatives along u, v, ... multiply `phi', phi'', ...` by differences of u, v, ... One more
    derivative, with respect to g or to the states, gives the two operations below; each is the
    derivative of the other.
    """

    def __init__(self, pattern: Pattern, weights: Tensor, p: float) -> None:
        self.pattern, self.weights, self.p = pattern, weights, p

    def gathered(self, y: State, *along: State) -> State:
        """Return `sum_e w_e phi^(k)(d_e) prod (u_j - u_i)` at receivers, k directions u."""
        out = torch.zeros_like(y)
        for i, j, w in self._chunks(y.shape[1]):
            out.index_add_(0, i, self._terms(i, j, w, len(along), y, along))
        return out

    def traced(self, y: State) -> State:
        """Return `gathered(y)` in plain operations: a trace holds no derivatives of one's own."""
        i, j = self.pattern.row, self.pattern.col
        size = (y.index_select(0, j) - y.index_select(0, i)).abs()
        apart = size > 0
        powers = torch.where(apart, torch.where(apart, size, 1.0) ** self.p, 0.0)
        return torch.zeros_like(y).index_add(0, i, self.weights.unsqueeze(1) * powers)

    def pushed(self, g: State, y: State, *along: State) -> State:
        """Return the same with `phi^(k + 1)` times g_i, added at senders and taken at receivers."""
        out = torch.zeros_like(y)
        for i, j, w in self._chunks(y.shape[1]):
            terms = self._terms(i, j, w, len(along) + 1, y, along)
            terms.mul_(g.index_select(0, i))
            out.index_add_(0, j, terms).index_add_(0, i, terms, alpha=-1)
        return out

    def _chunks(self, channels: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        size = max(1, CHUNK // max(1, channels))
        parts = (self.pattern.row, self.pattern.col, self.weights)
        return zip(*(part.split(size) for part in parts), strict=True)

    def _terms(
        self, i: Tensor, j: Tensor, w: Tensor, order: int, y: State, along: tuple[State, ...]
    ) -> State:
        terms = self._derivative(_difference(y, i, j), order)
        for u in along:
            terms.mul_(_difference(u, i, j))
        return terms.mul_(w.unsqueeze(1))

    def _derivative(self, d: Tensor, order: int) -> Tensor:
        """`phi^(order)(d) = p (p - 1) ... |d|^(p - order) sign(d)^order`."""
        factor, left = 1.0, self.p - order
        for k in range(order):
            factor *= self.p - k
        if factor == 0.0:
            return torch.zeros_like(d)
        size = d.abs()
        power = torch.where(size > 0, size**left, 0.0) if left < 0 else size**left
        return power.mul_(factor * torch.sign(d) if order % 2 else factor)


def _difference(y: State, i: Tensor, j: Tensor) -> State:
    return y.index_select(0, j).sub_(y.index_select(0, i))


def _applied(operation: type[Function], form: _Form, *states: Tensor) -> Tensor:
    result: Tensor = operation.apply(form, *states)
    return result


class _Operation(Function):
    """What both share: the states that their derivatives need."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.form, *states = inputs
        ctx.save_for_backward(*states)
        ctx.save_for_forward(*states)


class _Gathered(_Operation):
    @staticmethod
    def forward(form: _Form, y: Tensor, *along: Tensor) -> Tensor:
        return form.gathered(y, *along)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        y, *along = ctx.saved_tensors
        return None, *_pushed_from(ctx.form, ctx.needs_input_grad[1:], g, y, along)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor | None:
        y, *along = ctx.saved_tensors
        return _moved(lambda *us: _applied(_Gathered, ctx.form, y, *us), along, tangents)


class _Pushed(_Operation):
    @staticmethod
    def forward(form: _Form, g: Tensor, y: Tensor, *along: Tensor) -> Tensor:
        return form.pushed(g, y, *along)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, y, *along = ctx.saved_tensors
        to_g, *to_states = ctx.needs_input_grad[1:]
        received = _applied(_Gathered, ctx.form, y, *along, v) if to_g else None
        # v is one more direction; with respect to the others it takes their places.
        found = _pushed_from(ctx.form, (*to_states, False), g, y, [*along, v])
        return None, received, *found[:-1]

    @staticmethod
    def jvp(ctx: Any, _: None, dg: Tensor | None, *tangents: Tensor | None) -> Tensor | None:
        g, y, *along = ctx.saved_tensors
        moved = _moved(lambda *us: _applied(_Pushed, ctx.form, g, y, *us), along, tangents)
        if dg is None:
            return moved
        pushed = _applied(_Pushed, ctx.form, dg, y, *along)
        return pushed if moved is None else pushed + moved


def _pushed_from(
    form: _Form, needed: tuple[bool, ...], g: Tensor, y: Tensor, along: list[Tensor]
) -> list[Tensor | None]:
    """Return the derivatives of `<g, gathered(y, along)>` in y and in each direction."""
    places = [along, *(along[:k] + along[k + 1 :] for k in range(len(along)))]
    return [
        _applied(_Pushed, form, g, y, *rest) if need else None
        for need, rest in zip(needed, places, strict=True)
    ]


def _moved(
    operation: Callable[..., Tensor], along: list[Tensor], tangents: tuple[Tensor | None, ...]
) -> Tensor | None:
    """Return the tangent of an operation that is linear in its directions, and moves with y."""
    dy, *others = tangents
    parts = [] if dy is None else [operation(*along, dy)]
    for k, du in enumerate(others):
        if du is not None:
            parts.append(operation(*along[:k], du, *along[k + 1 :]))
    return sum(parts[1:], parts[0]) if parts else None
