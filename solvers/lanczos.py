"""Lanczos: exponentials of self-adjoint operators with few products, bounded afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from solvers.basis import Basis, Pairs, column_norms
from solvers.chebyshev import Chebyshev, recorded
from solvers.guarantee import EPS, LARGEST_GROWTH, ROUNDING, Guarantee
from solvers.ritz import Column, Ritz

# Most vectors of one basis: orthogonalising costs their square.
LARGEST = 100
# Sizes at which the bound is looked at, the same for everybody: each column then stops where it
# would stop alone. A look costs an eigendecomposition; one product in ten is lost at most.
LOOKS = (*range(1, 13), 14, 16, 18, 20, 22, 25, 28, 31, 34, 38, 42, 46, 51, 56, 62, 68, 75, 82, 91)


class Lanczos:
    """One solve of ``x' = A x + source`` by Lanczos' method, each column of each graph on its own.

    ``e^(t A) x`` is ``|x| V e^(t T) e_1`` in an orthonormal basis V of m vectors, from m products.
    With a source it is ``x + |w| V t phi_1(t T) e_1``, w the slope at the start. One basis gives
    all saved times; where 100 vectors do not reach the end, a new basis starts from where they do.
    Half of the tolerance goes to what the bases leave out: `Ritz.bound`, an upper bound in exact
    arithmetic. The other half is left to rounding, which is not bounded but small: the vectors are
    orthogonal to it, and everything is done in float64. Gradients are those of the Chebyshev
    series, which is summed in the backward pass: Lanczos' recurrence is no stable function of A.

    Args:
        series: Chebyshev series of the same operator: its enclosure, norm and checks.
        offsets: times from the start, for each graph.
        times: the same as given, perhaps with gradients.
        x: initial state.
        source: constant state, or None.
        rtol: relative tolerance.
        tape: not possible.

    Attributes:
        name: of the method.
        products: products with the operator so far.
        degree: size of the largest basis so far.

    Raises:
        ValueError: times lie on both sides of the start, the tolerance is below rounding, or every
            product is to be recorded.

    Source:
        Saad, SIAM J. Numer. Anal. 29 (1992); Hochbruck and Lubich, SIAM J. Numer. Anal. 34 (1997).
    """

    name = "lanczos"

    def __init__(
        self,
        series: Chebyshev,
        offsets: Float[np.ndarray, "times graphs"],
        times: Tensor,
        x: Float[Tensor, "nodes columns"],
        source: Float[Tensor, "nodes columns"] | None,
        rtol: float,
        tape: bool,
    ) -> None:
        self.series, self.rows, self.rtol = series, series.rows, rtol
        self.offsets, self.times, self.x, self.source = offsets, times, x, source
        self.grown = series.growth(offsets).max(0, initial=0.0)
        self.farthest = float(series.reach(offsets).max(initial=0.0))
        self.products = self.degree = self.bases = 0
        if tape:
            raise ValueError(
                "lanczos takes its gradients from the Chebyshev series and records no products: "
                "use grad='auto', or method='chebyshev' to differentiate twice"
            )
        if ((offsets > 0).any(0) & (offsets < 0).any(0)).any():
            raise ValueError(
                "times lie before and after the start: lanczos runs one way, solve each way alone"
            )
        floor = 2 * ROUNDING * (self.farthest + 20) * EPS
        if rtol < floor or self.grown.max(initial=0.0) > LARGEST_GROWTH:
            self._refuse(floor)
        if not all(part.isfinite().all() for part in (x, source) if part is not None):
            raise ValueError("x0 or source has entries that are NaN or infinite")
        self._signs = np.where((offsets < 0).any(0), -1.0, 1.0)
        self._top = np.where(self._signs > 0, series.hi, -series.lo)

    def run(self) -> Float[Tensor, "times nodes columns"]:
        """Return the states in the dtype of ``x``."""
        inputs = (self.x, self.times, *([] if self.source is None else [self.source]))
        tensors = (*inputs, *self.series.A.tensors)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            (states,) = recorded(_Solution, self, len(inputs), *tensors)
            return states
        return self.states()

    @torch.no_grad()
    def states(self) -> Float[Tensor, "times nodes columns"]:
        """Return the states without gradients."""
        A, x = self.series.A.to(torch.float64), self.x.detach().double()
        source = None if self.source is None else self.source.detach().double()
        states = x.expand(len(self.offsets), *x.shape).clone()
        if not x.numel():
            return states.to(self.x.dtype)
        columns = self._columns(column_norms(x, self.rows, A.metric))
        while going := [column for column in columns if column.left]:
            v = x if source is None else A @ x + source
            kept = sorted({column.index for column in going})
            part = torch.as_tensor(kept, device=x.device)
            mask = np.zeros((self.rows.num_graphs, len(kept)), dtype=np.bool_)
            for column in going:
                column.place = kept.index(column.index)
                mask[column.graph, column.place] = True
            moving = self._of_rows(mask, x)
            basis = Basis(A, self.rows, torch.where(moving, v[:, part], 0.0), self._signs)
            origin = None if source is None else x[:, part]
            self._grow(basis, going, origin)
            self.products += basis.products + int(source is not None)
            self.degree, self.bases = max(self.degree, basis.products), self.bases + 1
            x = self._write(basis, going, origin, part, x, states)
        return states.to(self.x.dtype)

    def reason(self) -> str:
        """Return method, sizes, norm and what the tolerance rests on, in words."""
        words = (
            f"lanczos with {self.bases} {'basis' if self.bases == 1 else 'bases'} of up to "
            f"{self.degree} vectors (z = {self.farthest:.4g}, {self.series.extent}) in float64, "
            f"rtol {self.rtol:g} met by an a-posteriori bound of each column in the "
            f"{self.series.norm}, rounding not counted"
        )
        rounded = self.rtol < torch.finfo(self.x.dtype).eps
        return words + (f"; rounded to {self.x.dtype}" if rounded else "")

    def _refuse(self, floor: float) -> None:
        remedy = "solve over a shorter time, or use method='chebyshev'"
        if floor < 0.9 and self.grown.max(initial=0.0) <= LARGEST_GROWTH:
            remedy = f"the smallest possible rtol is {1.01 * floor:.2g}"
        raise ValueError(
            f"rtol={self.rtol:g} is below what lanczos can hold in float64 here (z = half the "
            f"width of the spectrum times time = {self.farthest:.4g}); {remedy}"
        )

    def _columns(self, norms: Pairs) -> list[Column]:
        times = np.abs(self.offsets)
        return [
            Column(g, c, times[:, g], float(norms[g, c]), self.rtol / 2, float(self._top[g]))
            for g in range(norms.shape[0])
            for c in range(norms.shape[1])
        ]

    def _grow(self, basis: Basis, going: list[Column], origin: Tensor | None) -> None:
        """Grow the basis until every column gets to the end, or as far as the largest one gets."""
        waiting = going
        norms = None if origin is None else column_norms(origin, self.rows, basis.A.metric)
        for size in (*LOOKS, LARGEST):
            while basis.products < size:
                basis.grow()
            diagonal, beside = basis.tridiagonal()
            along = None if origin is None else basis.along(origin)
            for column in waiting:
                g, c = column.graph, column.place
                ritz = Ritz.of(
                    diagonal[:, g, c], beside[:, g, c], float(basis.size[g, c]), column.top
                )
                if norms is not None and along is not None:
                    ritz.origin, ritz.along = float(norms[g, c]), along[:, g, c]
                column.look(ritz, last=size == LARGEST)
            waiting = [column for column in waiting if column.ritz is None]
            if not waiting:
                return
        self._refuse(1.0)

    def _write(
        self,
        basis: Basis,
        going: list[Column],
        origin: Tensor | None,
        part: Tensor,
        x: Tensor,
        states: Tensor,
    ) -> Tensor:
        """Write the saved states that were reached; return where each column goes on from."""
        slots = sorted({int(slot) for column in going for slot in column.saved()})
        shape = (self.rows.num_graphs, len(part), len(slots) + 1, basis.products)
        weights, reached = np.zeros(shape), np.zeros(shape[:3], dtype=np.bool_)
        for column in going:
            g, c, own = column.graph, column.place, column.saved()
            assert column.ritz is not None
            times = np.append(column.times[own] - column.at, column.step)
            found = column.ritz.coefficients(times)
            where = [*(slots.index(int(slot)) for slot in own), len(slots)]
            weights[g, c, where, : found.shape[1]] = found
            reached[g, c, where] = True
        moved = basis.combined(weights)
        if origin is not None:
            moved += origin
        for slot, y, mask in zip(slots, moved, reached.transpose(2, 0, 1), strict=False):
            states[slot][:, part] = torch.where(self._of_rows(mask, y), y, states[slot][:, part])
        x = x.clone()
        x[:, part] = torch.where(self._of_rows(reached[:, :, -1], x), moved[-1], x[:, part])
        for column in going:
            column.advance()
        return x

    def _of_rows(self, mask: Bool[np.ndarray, "graphs columns"], like: Tensor) -> Tensor:
        of_graphs = torch.as_tensor(mask, device=like.device)
        return of_graphs if self.rows.batch is None else of_graphs[self.rows.batch]


class _Solution(torch.autograd.Function):
    """The states, with the gradients of the Chebyshev series."""

    @staticmethod
    def forward(ctx: Any, solve: Lanczos, count: int, *tensors: Tensor) -> tuple[Tensor]:
        ctx.solve, ctx.count = solve, count
        ctx.save_for_backward(*tensors[:count])
        return (solve.states(),)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        solve, needed = ctx.solve, ctx.needs_input_grad[2:]
        with torch.enable_grad():
            own = zip(ctx.saved_tensors, needed, strict=False)
            x, times, *rest = (part.detach().requires_grad_(need) for part, need in own)
            source = None if solve.source is None else rest[0]
            exact = Guarantee(solve.series, solve.offsets, times, x, source, solve.rtol, False)
            inputs = (x, times, *rest, *solve.series.A.tensors)
            wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(exact.run(), wanted, g, allow_unused=True))
        return None, None, *(next(found) if need else None for need in needed)
