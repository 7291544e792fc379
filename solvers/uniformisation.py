"""Uniformisation: exponentials of generators as Poisson mixtures of the steps of a walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import exp, isqrt
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers.chebyshev import PerGraph, recorded
from solvers.coefficients import degree_bound, poisson, poisson_integral, power_integral
from solvers.columns import piecewise, terms_of
from solvers.problem import Operator, numbers
from solvers.rows import Rows
from solvers.weights import Table, Weights, degree_of

# Keeps 1 - a_ii / rate positive when rounded, and costs no degree.
SLACK = 1.0 + 2.0**-40


class Uniformisation:
    """Exponentials ``e^(tA)`` of a generator, or of a stochastic matrix, as sums of positive terms.

    For a generator ``P = I + A / rate`` is stochastic and ``e^(tA) = sum_k w_k P^k`` with the
    Poisson weights of mean ``q = rate t``; for a stochastic A, ``e^(tA) = e^t sum_k w_k A^k`` with
    mean t. The norm is the one in which P is a contraction: the largest modulus of an entry for
    rows, the sum of moduli for columns. Weights are positive: values stay between the extremes of
    the initial ones (rows), mass is conserved (columns).

    Args:
        A: generator or stochastic operator.
        rows: rows of its graphs.

    Attributes:
        name: of the method.
        norm: of the norm that the guarantee is about.
        restarts: whether starting again from a saved time may save work.
        measure: what z is, in words.
        roughness: of each graph, how many times the usual rounding to count.

    Source:
        Jensen (1953); Grassmann (1977); Fox and Glynn (1988).
    """

    name = "uniformisation"
    restarts = False
    measure = "largest rate times time"
    degrees = staticmethod(degree_bound)
    table: Callable[[Sequence[Weights], Tensor | None, Tensor], Table] = Table

    def __init__(self, A: Operator, rows: Rows) -> None:
        self.A, self.rows = A, rows
        self.roughness: PerGraph = np.ones(rows.num_graphs)
        self._side = A.generator or A.stochastic
        self.generator = A.generator is not None
        self.norm = "max-norm" if self._side == "row" else "1-norm"
        self.rate: PerGraph = np.ones(rows.num_graphs)
        if self.generator:
            self.rate = A.rate.detach().cpu().numpy() * SLACK
        if not np.isfinite(self.rate).all():
            raise ValueError("the operator has entries that are not finite; check its weights")

    @property
    def extent(self) -> str:
        """What the degree depends on, in words."""
        return f"rate {self.rate.max():.4g}"

    def check(self, times: Float[np.ndarray, "times graphs"]) -> None:
        """Refuse negative times.

        Raises:
            ValueError: backward diffusion.
        """
        if (times * self.rate).min(initial=0.0) < 0:
            raise ValueError(
                "backward diffusion: uniformisation runs forward in time only, and a generator has "
                "details that grow without bound backwards; solve forward, or name an explicit "
                "method (solver='tsit5') to run it all the same"
            )

    def reach(self, times: Float[np.ndarray, "times graphs"]) -> Float[np.ndarray, "times graphs"]:
        """Return the mean number of steps until each time."""
        reach: Float[np.ndarray, "times graphs"] = np.abs(times) * self.rate
        return reach

    def growth(self, times: Float[np.ndarray, "times graphs"]) -> Float[np.ndarray, "times graphs"]:
        """Return the largest exponent of each time."""
        return np.zeros_like(times) if self.generator else times.copy()

    def weights(self, graph: int, t: float, tail: float) -> Weights:
        """Return the weights of ``P^k`` in ``e^(tA)``, wrong by ``tail e^g`` at most."""
        weights = poisson(t * float(self.rate[graph]), tail)
        return weights if self.generator else weights * exp(t)

    def source_weights(self, graph: int, t: float, tail: float) -> Weights:
        """Return the weights of ``P^k`` in ``t phi_1(tA)``, to ``tail t phi_1(g)``."""
        integral = poisson_integral if self.generator else power_integral
        return t * integral(t * float(self.rate[graph]), tail)

    def norms(self, x: Float[Tensor, "nodes channels"]) -> PerGraph:
        """Return the norm of each graph's part of a state."""
        if self._side == "row":
            norms = self._extreme(x.abs().amax(1, keepdim=True), "amax")[:, 0].double()
        else:
            norms = self.rows.sums((x.abs(),))
        found: PerGraph = norms.cpu().numpy()
        return found

    def terms(self, dtype: torch.dtype) -> Walk:
        """Return the terms of the series in a working dtype."""
        return Walk(self, dtype)

    @torch.no_grad()
    def confine(self, x: Tensor, y: Tensor) -> None:
        """Move ``y = e^(tA) x`` in place, by rounding errors, so that maximum principles hold.

        With rows, a value lies between the extremes of its graph and channel in ``x``. Moving
        it there brings it no farther from the exact one, which lies there too.
        """
        if self._side != "row" or not self.generator or not x.numel():
            return
        low, high = self._extreme(x, "amin"), self._extreme(x, "amax")
        if self.rows.batch is not None:
            low, high = (bound.index_select(0, self.rows.batch) for bound in (low, high))
        y.clamp_(low, high)

    def _extreme(self, x: Tensor, how: str) -> Tensor:
        if self.rows.batch is None:
            return x.amin(0, keepdim=True) if how == "amin" else x.amax(0, keepdim=True)
        index = self.rows.batch.unsqueeze(1).expand_as(x)
        empty = x.new_zeros(self.rows.num_graphs, x.shape[1])
        return empty.scatter_reduce(0, index, x, how, include_self=False)


class Walk:
    """The terms ``V_k = P^k v`` of uniformisation.

    Args:
        series: gives the rates.
        dtype: of the states.
    """

    def __init__(self, series: Uniformisation, dtype: torch.dtype) -> None:
        self.series, self.A = series, series.A.to(dtype)
        moving = series.rate > 0
        inverse = 1 / np.where(moving, series.rate, 1.0)
        self._scale = np.where(moving, inverse, 0.0)
        self._shift = np.ones_like(inverse) if series.generator else np.zeros_like(inverse)
        with torch.no_grad():
            # Shifted before it is cast: rounded once.
            scalars = (numbers(c, self.A) for c in (self._scale, self._shift))
            self._P = series.A.shifted(*scalars).to(dtype)

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
        """Return ``sum_k w_k P^k v`` for several tables of weights.

        Args:
            v: state.
            tables: weights of each sum.
            tape: record every operation instead of walking back by hand.
            out: where to put the sums; only outside autograd.
        """
        if tape:
            return self._taped(v, tables)
        if torch.is_grad_enabled() and any(x.requires_grad for x in (v, *self.A.tensors)):
            return recorded(_Mixture, self, tables, v, *self.A.tensors)
        sums = [torch.empty_like(v) for _ in tables] if out is None else list(out)

        def propagate(terms: Tensor, places: list[Tensor]) -> None:
            self.forward(terms, tables, places)

        piecewise(propagate, v, sums, whole=not self.A.separate)
        return sums

    def forward(
        self,
        terms: Float[Tensor, "two nodes columns"],
        tables: Sequence[Table],
        sums: Sequence[Tensor],
        every: int = 0,
    ) -> list[Tensor]:
        """Fill the sums; return copies of each ``every``-th term (0: none) to walk back from.

        Args:
            terms: the state, and room for another one; overwritten.
            tables: weights of each sum.
            sums: filled.
            every: distance of the terms to keep.
        """
        degree, targets = degree_of(tables), list(zip(tables, sums, strict=True))
        kept = [terms[0].clone()] if every else []
        if degree == 0:
            for table, y in targets:
                table.begin(terms[0], y)
        for k, term in enumerate(self._steps(terms, degree), start=1):
            for table, y in targets:
                if k % 2:
                    table.take(k, terms, y)
                elif k == degree:
                    table.add(k, term, y)
            if every and k % every == 0:
                kept.append(term.clone())
        return kept

    def backward(
        self,
        gradients: Sequence[Tensor],
        tables: Sequence[Table],
        kept: Sequence[Tensor],
        every: int,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of the state and of the operator's tensors.

        Horner's rule ``B_k = sum_j w_jk G_j + P^T B_(k+1)`` is the adjoint of the sums. The terms
        are walked again from the kept ones, a stretch at a time.

        Args:
            gradients: with respect to each sum.
            tables: weights of each sum.
            kept: terms ``V_0, V_every, ...``; empty if only the state's gradient is asked for.
            every: distance of the kept terms.
        """
        degree, back = degree_of(tables), self._P.T.addmm_
        targets = list(zip(tables, gradients, strict=True))
        B, spare = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])
        entries = [torch.zeros_like(x) for x in self.A.tensors] if kept else []
        stretch: list[Tensor] = []
        for k in range(degree, -1, -1):
            if k < degree:
                B, spare = back(spare, B), B
            for table, g in targets:
                table.add(k, g, B)
            if kept and k:
                if not stretch:
                    start = (k - 1) // every
                    walked = self._steps(terms_of(kept[start]), k - 1 - start * every)
                    stretch = [kept[start], *(term.clone() for term in walked)]
                self._add_gradients(entries, B, stretch.pop())
        return B, entries

    def _steps(self, terms: Tensor, steps: int) -> Iterator[Tensor]:
        # A term is overwritten two steps later.
        this, other = terms
        for _ in range(steps):
            this, other = self._P.addmm_(other, this), this
            yield this

    def _add_gradients(self, entries: list[Tensor], B: Tensor, V: Tensor) -> None:
        factor = float(self._scale[0])
        if len(self._scale) > 1:
            B, factor = B * self.series.rows.spread(self._scale, B), 1.0
        for total, part in zip(entries, self.A.gradients(B, V), strict=True):
            total.add_(part, alpha=factor)

    def _taped(self, v: Tensor, tables: Sequence[Table]) -> list[Tensor]:
        scale, shift = (self.series.rows.spread(c, v) for c in (self._scale, self._shift))
        sums, term = [table.begin(v) for table in tables], v
        for k in range(1, degree_of(tables) + 1):
            term = scale * (self.A @ term) + shift * term
            sums = [table.plus(k, term, y) for table, y in zip(tables, sums, strict=True)]
        return sums


class _Mixture(torch.autograd.Function):
    """The sums of a walk, with about as many terms kept as the root of its length."""

    @staticmethod
    def forward(
        ctx: Any, walk: Walk, tables: Sequence[Table], v: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        needs_terms = any(ctx.needs_input_grad[3:])
        ctx.walk, ctx.tables = walk, tables
        ctx.every = isqrt(degree_of(tables)) + 1 if needs_terms else 0
        sums = [torch.empty_like(v) for _ in tables]
        kept = walk.forward(terms_of(v), tables, sums, ctx.every)
        ctx.save_for_backward(*kept)
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors
        B, entries = ctx.walk.backward(gradients, ctx.tables, kept, ctx.every)
        return None, None, B, *(entries or [None] * (len(ctx.needs_input_grad) - 3))
