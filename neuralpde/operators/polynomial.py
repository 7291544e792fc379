"""Polynomials and functions of a self-adjoint operator, as Chebyshev series of products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from neuralpde.operators.linear import Operator
from neuralpde.operators.tags import Enclosure, Tags
from solvers.interpolant import Interpolant, interpolant

FINE = 8
"""Points per degree at which a polynomial is looked at: between them it rises by 2% at most."""

BLOCK = 64
"""Columns of the identity that are multiplied at a time, where entries are asked for."""


class Polynomial(Operator):
    """The operator `p(A) = sum_k c_k T_k(y)`, y the affine image of A with [lo, hi] -> [-1, 1].

    One product with it takes `degree` products with A. Self-adjoint as A is; the enclosure of its
    spectrum is that of the values of p on the interval (Ehlich and Zeller 1964).

    Args:
        A: self-adjoint, its spectrum in [lo, hi].
        coefficients: c, `[degree + 1]`; may require gradients.
        interval: (lo, hi); by default the enclosure of the spectrum of A, over all graphs.

    Raises:
        ValueError: A is not known to be self-adjoint, there are no coefficients, or the interval
            does not hold the enclosure of the spectrum.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> A = SparseOperator(Pattern.identity(2), torch.tensor([1.0, 3.0]), symmetric=True)
    >>> square = Polynomial(A, torch.tensor([0.5, 0.0, 0.5]), (-1.0, 1.0 + 2.0))
    >>> (square @ torch.ones(2)).tolist()  # (x - 1)^2 / 4
    [0.0, 1.0]
    """

    def __init__(
        self,
        A: Operator,
        coefficients: Float[Tensor, " degrees"],
        interval: tuple[float, float] | None = None,
    ) -> None:
        if not A.self_adjoint:
            raise ValueError(
                f"{A!r} is not known to be self-adjoint, so that there is no interval for its "
                "spectrum; build it on an undirected graph (graph.undirected())"
            )
        if coefficients.dim() != 1 or not len(coefficients):
            raise ValueError(f"coefficients are {tuple(coefficients.shape)}; give [degree + 1]")
        self.A, self.interval = A, _interval(A, interval)
        self.coefficients = coefficients
        self.series = Series(A, self.interval)
        super().__init__(A.num_nodes, A.dtype, self._tags(), A.graphs)

    def _tags(self) -> Tags:
        tags, c = self.A.tags, self.coefficients.detach().double()
        points = torch.linspace(0.0, math.pi, FINE * len(c) + 1, dtype=torch.float64, device="cpu")
        basis = torch.arange(len(c), dtype=torch.float64, device="cpu").unsqueeze(1) * points
        values = c.cpu() @ torch.cos(basis)
        middle, half = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2
        half = half / math.cos(math.pi * (len(c) - 1) / (2 * FINE * len(c)))
        size = float(c.abs().sum()) * (1.0 + 2.0 * len(c) * tags.eps)
        norm = torch.full((self.A.num_graphs,), size, dtype=torch.float64, device=self.A.device)
        lo, hi = (end.to(norm).expand_as(norm) for end in (middle - half, middle + half))
        enclosure = Enclosure(lo, hi, norm)
        enclosure = enclosure.widened(len(c) ** 2 * max(tags.eps, torch.finfo(torch.float64).eps))
        start = self._at_kernel(tags.row_sum), self._at_kernel(tags.col_sum)
        return replace(
            tags,
            psd=bool((enclosure.lo >= 0).all()),
            nonnegative=False,
            rising=False,
            falling=False,
            row_sum=start[0],
            col_sum=start[1],
            enclosure=enclosure,
            multiple=None,
        )

    def _at_kernel(self, sums: Tensor | None) -> Tensor | None:
        """The sums of rows of p(A), where all rows of A have one sum: p of it."""
        if sums is None:
            return None
        c, (lo, hi) = self.coefficients.detach().double(), self.interval
        y = ((sums[0] - lo) / ((hi - lo) / 2 or 1.0) - 1.0).clamp(-1.0, 1.0)
        steps = torch.arange(len(c), dtype=torch.float64, device=c.device)
        value = c @ torch.cos(steps.unsqueeze(1) * torch.acos(y))
        return torch.stack([value, (c.abs().sum() * len(c)).expand_as(value)])

    def __matmul__(self, x: Inexact[Tensor, "nodes ..."]) -> Inexact[Tensor, "nodes ..."]:
        return self.series.analysis(self.coefficients.unsqueeze(0), x)[0]

    @property
    def T(self) -> Polynomial:
        """The transposed operator; itself where A is symmetric."""
        return self if self.symmetric else Polynomial(self.A.T, self.coefficients, self.interval)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of A, and the coefficients."""
        return (*self.A.tensors, self.coefficients)

    def gradients(
        self, g: Inexact[Tensor, "nodes ..."], x: Inexact[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, p(A) x> / d` each of `tensors`; 0 for those that require none."""
        with torch.enable_grad():
            own = self.fresh()
            wanted = [tensor for tensor in own.tensors if tensor.requires_grad]
            found = iter(torch.autograd.grad(own @ x.detach(), wanted, g.detach()))
        return tuple(
            next(found) if tensor.requires_grad else torch.zeros_like(tensor)
            for tensor in own.tensors
        )

    def fresh(self) -> Polynomial:
        """Return the operator on views of its tensors."""
        c = self.coefficients
        return Polynomial(self.A.fresh(), c.view_as(c), self.interval)

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Polynomial:
        """Return the operator in another dtype or on another device; itself if it is there."""
        A, c = self.A.to(dtype, device), self.coefficients.to(device or self.device)
        same = A is self.A and c is self.coefficients
        return self if same else Polynomial(A, c, self.interval)

    def diagonal(self) -> Float[Tensor, " nodes"]:
        """Return the diagonal entries, without gradients: `nodes / 64` products."""
        found = torch.empty(self.num_nodes, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            for nodes in torch.arange(self.num_nodes, device=self.device).split(BLOCK):
                columns = torch.arange(len(nodes), device=self.device)
                units = found.new_zeros(self.num_nodes, len(nodes))
                units[nodes, columns] = 1.0
                found[nodes] = (self @ units)[nodes, columns]
        return found

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli.

        Those of the norm in which A is self-adjoint, times the root of the number of nodes.
        """
        assert self.tags.enclosure is not None
        lo, hi, _ = self.tags.enclosure
        ones = torch.ones(self.num_nodes, dtype=torch.float64, device=self.device)
        m = ones if self.metric is None else self.metric
        spread = self.graphs.reduced(m, "amax") / self.graphs.reduced(m, "amin").clamp(min=1e-300)
        size = (
            torch.maximum(lo.abs(), hi.abs()) * (self.graphs.reduced(ones, "sum") * spread).sqrt()
        )
        return size, size


class Series:
    """Sums of the Chebyshev polynomials `T_k(y)` of an operator, for several filters at once.

    Args:
        A: self-adjoint operator.
        interval: holds its spectrum.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> A = SparseOperator(Pattern.identity(2), torch.tensor([0.0, 2.0]), symmetric=True)
    >>> bands = Series(A, (0.0, 2.0)).analysis(torch.eye(2), torch.ones(2, 1))
    >>> bands.squeeze(-1).tolist()
    [[1.0, 1.0], [-1.0, 1.0]]
    """

    def __init__(self, A: Operator, interval: tuple[float, float]) -> None:
        lo, hi = interval
        half = (hi - lo) / 2
        # On an interval of one point y is 1, and no product is needed.
        scale, shift = (2.0 / half, -(hi + lo) / half) if half > 0 else (0.0, 2.0)
        self.A, self.twice = A, A.shifted(scale, shift)

    def analysis(
        self, coefficients: Float[Tensor, "bands degrees"], x: Inexact[Tensor, "nodes ..."]
    ) -> Inexact[Tensor, "bands nodes ..."]:
        """Return `sum_k c_jk T_k(y) x` for every band j: `degree` products, one recurrence.

        Args:
            coefficients: c.
            x: state.
        """
        c = coefficients.to(x.real.dtype)
        bands = c.reshape(*c.shape, *[1] * x.dim())
        before, last = x, x
        total = bands[:, 0] * x
        for k in range(1, c.shape[1]):
            image = self.twice @ last
            before, last = last, 0.5 * image if k == 1 else image - before
            total = torch.addcmul(total, bands[:, k], last)
        return total

    def synthesis(
        self,
        coefficients: Float[Tensor, "bands degrees"],
        z: Inexact[Tensor, "bands nodes ..."],
    ) -> Inexact[Tensor, "nodes ..."]:
        """Return `sum_j sum_k c_jk T_k(y) z_j`: `degree` products again, by Clenshaw's recurrence.

        Args:
            coefficients: c.
            z: a state for each band.
        """
        c, flat = coefficients.to(z.dtype), z.reshape(len(z), -1)
        last = after = torch.zeros_like(z[0])
        for k in range(c.shape[1] - 1, 0, -1):
            part = (c[:, k] @ flat).view_as(last)
            last, after = part + self.twice @ last - after, last
        return (c[:, 0] @ flat).view_as(last) + 0.5 * (self.twice @ last) - after


def function(
    A: Operator,
    f: Callable[[Float[Tensor, " points"]], Float[Tensor, " points"]],
    *,
    tol: float = 1e-10,
) -> Polynomial:
    """Return `f(A)` as a polynomial, wrong by at most `tol` in the norm in which A is self-adjoint.

    No eigendecomposition: f is interpolated on the enclosure of the spectrum, see
    `solvers.interpolant`.

    Args:
        A: self-adjoint operator.
        f: maps float64 points to values, smooth on the enclosure; differentiable in what it holds.
        tol: absolute error.

    Raises:
        ValueError: f cannot be approximated so well, or A is not known to be self-adjoint.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> A = SparseOperator(Pattern.identity(2), torch.tensor([0.0, 2.0]).double(), symmetric=True)
    >>> (function(A, torch.exp) @ torch.ones(2).double()).tolist()
    [1.0, 7.389056]
    """
    lo, hi = _interval(A, None)
    found: Interpolant = interpolant(f, lo, hi, tol=tol)
    return Polynomial(A, found.coefficients.to(A.device), (lo, hi))


def _interval(A: Operator, given: tuple[float, float] | None) -> tuple[float, float]:
    lo, hi = A.spectrum()
    low, high = float(lo.min()), float(hi.max())
    if given is None:
        return low, high
    # An enclosure is widened by what rounding may have done, in single precision by so much.
    slack = 1e-4 * max(abs(low), abs(high), 1e-300)
    if not (given[0] <= low + slack and high - slack <= given[1]):
        raise ValueError(
            f"the spectrum may reach from {low:.6g} to {high:.6g}, beyond the interval {given} on "
            "which the series is meant"
        )
    return given
