"""Chebyshev series of self-adjoint operators: the three-term recurrence, and its adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers.coefficients import degree_bound, exponential, integral
from solvers.columns import piecewise, reordered, terms_of
from solvers.inner import inner
from solvers.problem import Operator, Reordered, numbers
from solvers.rows import Rows
from solvers.weights import Table, Weights, degree_of

PerGraph = Float[np.ndarray, " graphs"]


class Chebyshev:
    """Exponentials ``e^(tA)`` of a self-adjoint operator as series in ``y = (A - mid) / half``.

    With the spectrum in [lo, hi], ``z = |t| (hi - lo) / 2`` and the largest exponent
    ``g = max(t lo, t hi)``, ``e^(tA) = e^g sum_k c_k T_k(y)``, ``c_k`` from
    :func:`~solvers.coefficients.exponential`, with alternating signs for t < 0. The error is
    bounded in the norm in which A is self-adjoint: Frobenius, or weighted by its metric.

    Args:
        A: self-adjoint operator.
        rows: rows of its graphs.

    Attributes:
        name: of the method.
        norm: of the norm that the guarantee is about.
        restarts: whether starting again from a saved time may save work.
        measure: what z is, in words.
        roughness: of each graph, how many times the usual rounding to count.

    Raises:
        ValueError: the enclosure of the spectrum is not finite.

    Source:
        Tal-Ezer and Kosloff (1984); Hochbruck and Lubich (1997) for the degree.
    """

    name = "chebyshev"
    restarts = True
    measure = "half the width of the spectrum times time"
    degrees = staticmethod(degree_bound)
    table: Callable[[Sequence[Weights], Tensor | None, Tensor], Table] = Table

    def __init__(self, A: Operator, rows: Rows) -> None:
        self.A, self.rows = A, rows
        self.roughness: PerGraph = np.ones(rows.num_graphs)
        lo, hi = (end.detach().cpu().numpy() for end in A.spectrum())
        self.lo, self.hi = _rounded(lo, hi, max(1e-10, 16 * torch.finfo(A.dtype).eps))
        if not (np.isfinite(self.lo).all() and np.isfinite(self.hi).all()):
            raise ValueError("the operator's spectrum has no finite enclosure; check its weights")
        self.norm = "Frobenius norm" if A.metric is None else "norm weighted by the metric"
        self._metric = A.metric

    @property
    def extent(self) -> str:
        """What the degree depends on, in words."""
        return f"spectrum in [{self.lo.min():.4g}, {self.hi.max():.4g}]"

    def check(self, times: Float[np.ndarray, "times graphs"]) -> None:
        """Refuse times at which every mode grows, the finest most.

        Raises:
            ValueError: backward diffusion.
        """
        backward = (times < 0) & (self.hi <= 0) & (self.lo < 0)
        if self.A.psd and self.A.stochastic is None:
            backward |= (times > 0) & (self.lo == 0) & (self.hi > 0)
        if backward.any():
            raise ValueError(
                "backward diffusion: from the first to the last time the finest details grow by "
                f"up to e^{self.growth(times)[backward].max():.3g}, whatever the tolerance; solve "
                "forward in time, or name an explicit method (solver='tsit5') to run it all the "
                "same"
            )

    def reach(self, times: Float[np.ndarray, "times graphs"]) -> Float[np.ndarray, "times graphs"]:
        """Return ``z`` of each time."""
        reach: Float[np.ndarray, "times graphs"] = np.abs(times) * ((self.hi - self.lo) / 2)
        return reach

    def growth(self, times: Float[np.ndarray, "times graphs"]) -> Float[np.ndarray, "times graphs"]:
        """Return the largest exponent ``g`` of each time."""
        grown: Float[np.ndarray, "times graphs"] = np.maximum(times * self.lo, times * self.hi)
        return grown

    def weights(self, graph: int, t: float, tail: float) -> Weights:
        """Return the weights of ``T_k`` in ``e^(tA)``, wrong by ``tail e^g`` at most."""
        z, growth = self._argument(graph, t)
        return _turned(exponential(z, tail), t, float(np.exp(growth)))

    def source_weights(self, graph: int, t: float, tail: float) -> Weights:
        """Return the weights of ``T_k`` in ``t phi_1(tA)``, to ``tail |t| phi_1(g)``."""
        z, growth = self._argument(graph, t)
        return _turned(integral(z, growth, tail), t, t)

    def _argument(self, graph: int, t: float) -> tuple[float, float]:
        lo, hi = float(self.lo[graph]), float(self.hi[graph])
        return abs(t) * (hi - lo) / 2, max(t * lo, t * hi)

    def norms(self, x: Float[Tensor, "nodes channels"], order: Reordered | None = None) -> PerGraph:
        """Return the norm of each graph's part of a state; its rows may be in another order."""
        if self._metric is None and self.rows.batch is None:
            whole = x.contiguous()
            norms: PerGraph = inner(self.rows, whole, whole).sqrt_().cpu().numpy()
        else:
            norms = self._norms(torch.linalg.vector_norm(x, dim=1).double(), order)
        if not np.isfinite(norms).all():
            # Single precision may have overflowed where the norm itself does not.
            norms = self._norms(torch.linalg.vector_norm(x, dim=1, dtype=torch.float64), order)
        return norms

    def sizes(self, x: Float[Tensor, "nodes channels"], order: Reordered | None = None) -> PerGraph:
        """Return the same norms, perhaps to a few digits only, as fast as possible."""
        if self._metric is None and self.rows.batch is None and x.device.type == "cpu":
            flat = x.view(-1)
            square = torch.dot(flat, flat).item()
            if square < np.inf:
                return np.sqrt([square])
        return self.norms(x, order)

    def _norms(self, of_rows: Tensor, order: Reordered | None) -> PerGraph:
        squares = of_rows.square_()
        if self._metric is not None:
            metric = self._metric if order is None else self._metric[order.order]
            squares *= metric.to(squares.device)
        norms: PerGraph = self.rows.sums((squares,)).sqrt_().cpu().numpy()
        return norms

    def confine(self, x: Tensor, y: Tensor) -> None:
        """Leave ``y = e^(tA) x`` as it is: maximum principles hold to the tolerance."""

    def terms(self, dtype: torch.dtype) -> Recurrence:
        """Return the terms of the series in a working dtype."""
        return Recurrence(self, dtype)


class Recurrence:
    """The polynomials ``V_k = T_k(y) v``: ``V_0 = v, V_1 = y v, V_(k+1) = 2 y V_k - V_(k-1)``.

    Args:
        series: gives the interval that is mapped to [-1, 1].
        dtype: of the states.
    """

    def __init__(self, series: Chebyshev, dtype: torch.dtype) -> None:
        self.series, self.A = series, series.A.to(dtype)
        half, middle = (series.hi - series.lo) / 2, (series.hi + series.lo) / 2
        flat = half <= 0
        half = np.where(flat, 1.0, half)
        self._scale = np.where(flat, 0.0, 1 / half)
        self._shift = np.where(flat, 1.0, -middle / half)
        with torch.no_grad():
            # Shifted before it is cast: rounded once.
            doubled = (numbers(2 * c, self.A) for c in (self._scale, self._shift))
            self._twice = series.A.shifted(*doubled).to(dtype)

    def act(self, x: Tensor) -> Tensor:
        """Return ``A x``."""
        return self.A @ x

    def sums(
        self,
        v: Tensor,
        tables: Sequence[Table],
        tape: bool = False,
        out: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return ``sum_k w_k T_k(y) v`` for several tables of weights.

        Args:
            v: state.
            tables: weights of each sum.
            tape: record every operation instead of using the reversed recurrence.
            out: where to put the sums; only outside autograd.

        Raises:
            ArithmeticError: an eigenvalue lies outside the enclosure of the spectrum.
        """
        if tape:
            return self._taped(v, tables)
        if torch.is_grad_enabled() and any(x.requires_grad for x in (v, *self.A.tensors)):
            return recorded(_Sums, self, tables, v, *self.A.tensors)
        order = reordered(self._twice, v, degree_of(tables))
        sums = [torch.empty_like(v) for _ in tables] if out is None else list(out)

        def propagate(terms: Tensor, places: list[Tensor]) -> None:
            self.forward(terms, tables, places, order)

        piecewise(propagate, v, sums, order, whole=not self.A.separate)
        return sums

    def forward(
        self,
        terms: Float[Tensor, "two nodes columns"],
        tables: Sequence[Table],
        sums: Sequence[Tensor],
        order: Reordered | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fill the sums; return the last two terms, ``V_(m-1)`` and ``V_m``; ``v`` where m is 0.

        Args:
            terms: the state ``v``, and room for another one; overwritten.
            tables: weights of each sum.
            sums: filled.
            order: the order of the rows of the state, if it is another one.
        """
        degree, targets = degree_of(tables), list(zip(tables, sums, strict=True))
        if degree == 0:
            for table, y in targets:
                table.begin(terms[0], y)
            return terms[0], terms[0]
        twice = (self._twice if order is None else order).addmm_
        size, both = self.series.sizes(terms[0], order), tuple(terms)
        for k in range(1, degree + 1):
            last, this = both[1 - k % 2], both[k % 2]
            alpha, beta = (1.0, -1.0) if k > 1 else (0.5, 0.0)
            twice(this, last, alpha, beta)
            for table, y in targets:
                if k % 2:
                    table.take(k, terms, y)
                elif k == degree:
                    table.add(k, this, y)
        self._check(size, self.series.sizes(this, order), degree)
        return last, this

    def backward(
        self,
        gradients: Sequence[Tensor],
        tables: Sequence[Table],
        terms: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of the state and of the operator's tensors.

        Clenshaw's recurrence ``B_k = sum_j w_jk G_j + 2 y^T B_(k+1) - B_(k+2)`` is the adjoint
        of the sums, and ``V_(k-2) = 2 y V_(k-1) - V_k`` finds the terms again.

        Args:
            gradients: with respect to each sum.
            tables: weights of each sum.
            terms: the last two terms, overwritten; None if only the state's gradient is asked for.
        """
        degree = degree_of(tables)
        twice, twice_T = self._twice.addmm_, self._twice.T.addmm_
        targets = list(zip(tables, gradients, strict=True))
        B, after = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])
        entries = [torch.zeros_like(x) for x in self.A.tensors] if terms else []
        for k in range(degree, -1, -1):
            if k < degree:
                # The first step of the recurrence has y where the others have 2 y.
                B, after = twice_T(after, B, alpha=1.0 if k else 0.5, beta=-1.0), B
            for table, g in targets:
                table.add(k, g, B)
            if terms and k:
                before, last = terms
                self._add_gradients(entries, B, before, 2.0 if k > 1 else 1.0)
                terms = (twice(last, before, beta=-1.0), before) if k > 1 else None
        return B, entries

    def _add_gradients(self, entries: list[Tensor], B: Tensor, V: Tensor, factor: float) -> None:
        if len(self._scale) == 1:
            factor *= float(self._scale[0])
        else:
            B = B * self.series.rows.spread(self._scale, B)
        for total, part in zip(entries, self.A.gradients(B, V), strict=True):
            total.add_(part, alpha=factor)

    def _taped(self, v: Tensor, tables: Sequence[Table]) -> list[Tensor]:
        scale, shift = (self.series.rows.spread(c, v) for c in (self._scale, self._shift))
        sums = [table.begin(v) for table in tables]
        before = last = v
        for k in range(1, degree_of(tables) + 1):
            image = scale * (self.A @ last) + shift * last
            before, last = last, (2 * image - before if k > 1 else image)
            sums = [table.plus(k, last, y) for table, y in zip(tables, sums, strict=True)]
        return sums

    def _check(self, first: PerGraph, grown: PerGraph, degree: int) -> None:
        bad = ~(grown <= 2 * first)
        if bad.any():
            graph = int(np.argmax(bad))
            raise ArithmeticError(
                f"the Chebyshev polynomial of degree {degree} of the operator is "
                f"{grown[graph] / max(first[graph], 1e-300):.3g} times the state on graph {graph}, "
                "at most 1 if the spectrum lies in "
                f"[{self.series.lo[graph]:.6g}, {self.series.hi[graph]:.6g}] and the operator is "
                "self-adjoint: correct its enclosure or its tags, or use an explicit method"
            )


class _Sums(torch.autograd.Function):
    """The sums of a recurrence, with two terms kept for the way back, whatever the degree."""

    @staticmethod
    def forward(
        ctx: Any, recurrence: Recurrence, tables: Sequence[Table], v: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        sums = [torch.empty_like(v) for _ in tables]
        before, last = recurrence.forward(terms_of(v), tables, sums)
        ctx.recurrence, ctx.tables = recurrence, tables
        ctx.save_for_backward(*((before, last) if any(ctx.needs_input_grad[3:]) else ()))
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        terms = tuple(term.clone() for term in ctx.saved_tensors) or None
        B, entries = ctx.recurrence.backward(gradients, ctx.tables, terms)
        return None, None, B, *(entries or [None] * (len(ctx.needs_input_grad) - 3))


def _rounded(lo: PerGraph, hi: PerGraph, slack: float) -> tuple[PerGraph, PerGraph]:
    # An enclosure is widened by what rounding may have done to the entries. An end that is only
    # that far from 0 is 0, so that the kernel is at the end and kept exactly; the others lose their
    # last bits, so that the widening of a batch is no other than that of its graphs. Polynomials
    # of a degree below 1e4 do not notice either.
    size = np.maximum(np.abs(lo), np.abs(hi))
    ends = []
    for end in (lo, hi):
        mantissa, exponent = np.frexp(np.where(np.abs(end) <= slack * size, 0.0, end))
        ends.append(np.ldexp(np.round(mantissa * 2.0**32) / 2.0**32, exponent))
    return ends[0], ends[1]


def _turned(weights: Weights, t: float, factor: float) -> Weights:
    if factor == 1.0 and t >= 0:
        return weights
    turned = weights * factor
    if t < 0:
        turned[1::2] *= -1
    return turned


def recorded(form: type[torch.autograd.Function], *arguments: object) -> list[Tensor]:
    """Return the outputs of a function that autograd records."""
    return list(form.apply(*arguments))
