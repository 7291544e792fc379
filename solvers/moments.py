"""Energy curves of exact solves from Chebyshev moments: no states, half the products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from solvers.chebyshev import numbers
from solvers.coefficients import decay, energy
from solvers.problem import Operator
from solvers.rows import Rows

# Longest stretch of which torch.dot may add up single precision; 1e-7 relative, measured.
STRETCH = 1 << 18
# Rounding errors of a moment of order k, in units of (k + 4)^1.5 eps |x|^2; below 0.05, measured.
ROUNDING = 1.0


@dataclass(frozen=True)
class Curves:
    """The energy and the squared norm of ``e^(-tL) x`` at many times.

    Attributes:
        energy: ``<x, L e^(-2tL) x>``, ``[times, graphs]``.
        energy_error: bound of its absolute error.
        square: ``<x, e^(-2tL) x>``.
        square_error: bound of its absolute error.
        products: products with L that it took.
    """

    energy: Float[np.ndarray, "times graphs"]
    energy_error: Float[np.ndarray, "times graphs"]
    square: Float[np.ndarray, "times graphs"]
    square_error: Float[np.ndarray, "times graphs"]
    products: int


def energy_curve(
    L: Operator,
    x: Inexact[Tensor, "nodes ..."],
    times: Float[np.ndarray, " times"] | Float[np.ndarray, "times graphs"],
    *,
    metric: Float[Tensor, " nodes"] | None = None,
    tol: float = 1e-5,
) -> tuple[Float[np.ndarray, "times graphs"], Float[np.ndarray, "times graphs"]]:
    """Compute ``E(t) = <x, L e^(-2tL) x>``, the Dirichlet energy of ``e^(-tL) x``.

    With ``V_k = T_k(y) x`` and ``y`` the affine image of L in [-1, 1], the moments
    ``mu_k = <x, V_k>`` follow from half as many products: ``mu_2k = 2 <V_k, V_k> - mu_0`` and
    ``mu_(2k+1) = 2 <V_(k+1), V_k> - mu_1``. Then ``E(t) = sum_k d_k(t) mu_k`` at any number of
    times. Inner products are accumulated in float64.

    Args:
        L: self-adjoint operator.
        x: state, its part in the kernel of L taken out by the caller; real or complex.
        times: not negative; for all graphs or for each.
        metric: weights of the inner product, in which L is self-adjoint; None: the plain one.
        tol: error of the series relative to ``|L| |x|^2``, by which its degree is chosen.

    Returns:
        Energies, and bounds of their absolute errors: what the series leaves out, and rounding.

    Raises:
        ValueError: a time is negative or not finite, L is not self-adjoint, or sizes differ.

    Source:
        Silver and Roder (1994), moments of orders above the number of products.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> path, _ = Pattern.from_edges(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
        >>> L = SparseOperator(path, torch.tensor([1.0, -1.0, -1.0, 1.0]).double(), symmetric=True)
        >>> x = torch.tensor([1.0, -1.0]).double()
        >>> values, floor = energy_curve(L, x, np.array([0.0, 1.0]))
        >>> abs(values[:, 0] - 4 * np.exp([0.0, -4.0])) < floor[:, 0]
        array([ True,  True])
    """
    found = curves(L, x, times, metric=metric, tol=tol)
    return found.energy, found.energy_error


def curves(
    L: Operator,
    x: Inexact[Tensor, "nodes ..."],
    times: Float[np.ndarray, " times"] | Float[np.ndarray, "times graphs"],
    *,
    metric: Float[Tensor, " nodes"] | None = None,
    tol: float = 1e-5,
    spare: Tensor | None = None,
) -> Curves:
    """Compute energy and squared norm of ``e^(-tL) x`` from one set of moments.

    See :func:`energy_curve`, whose arguments these are. With `spare`, a second real tensor like
    x, everything is computed in these two and x is overwritten.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> path, _ = Pattern.from_edges(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
        >>> L = SparseOperator(path, torch.tensor([1.0, -1.0, -1.0, 1.0]).double(), symmetric=True)
        >>> found = curves(L, torch.tensor([1.0, -1.0]).double(), np.zeros(1), tol=1e-9)
        >>> found.energy.round(9).item(), found.square.round(9).item()
        (4.0, 2.0)
    """
    rows = Rows(L.batch if L.num_graphs > 1 else None, L.num_graphs)
    times = np.asarray(times, dtype=np.float64)
    if times.ndim == 1:
        times = np.repeat(times[:, None], rows.num_graphs, axis=1)
    if times.shape[1:] != (rows.num_graphs,) or x.dim() == 0 or x.shape[0] != L.num_nodes:
        raise ValueError(
            f"times of shape {times.shape} and a state of shape {tuple(x.shape)} do not fit "
            f"{rows.num_graphs} graphs with {L.num_nodes} nodes"
        )
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise ValueError("energies are computed at finite times that are not negative")
    real = torch.view_as_real(x) if x.is_complex() else x
    v = real.detach().reshape(len(x), real.shape[1:].numel()).contiguous()
    lo, hi = (end.detach().cpu().numpy() for end in L.spectrum())
    size = np.maximum(np.abs(lo), np.abs(hi))
    series = _series(times, lo, hi, tol)
    dot = _products(rows, metric)
    moments = _moments(L, v, lo, hi, max(d.shape[1] for d, _ in series), dot, spare)
    eps = torch.finfo(v.dtype).eps
    values, floor, squares, errors = (np.empty_like(times) for _ in range(4))
    for graph, (weights, left_out) in enumerate(series):
        orders = np.arange(weights.shape[1])
        values[:, graph] = weights @ moments[: len(orders), graph]
        rounding = ROUNDING * eps * np.abs(weights) @ (orders + 4.0) ** 1.5
        # The weights are differences of numbers of size 1, known to float64.
        rounding += len(orders) * np.finfo(np.float64).eps * size[graph]
        floor[:, graph] = (left_out + rounding) * moments[0, graph]
        weights, left_out = decay(times[:, graph], lo[graph], hi[graph], len(orders) - 1)
        squares[:, graph] = weights @ moments[: len(orders), graph]
        rounding = ROUNDING * eps * weights @ (orders + 4.0) ** 1.5
        errors[:, graph] = (left_out + rounding) * moments[0, graph]
    return Curves(values, floor, squares, errors, len(moments) // 2)


def _series(
    times: np.ndarray, lo: np.ndarray, hi: np.ndarray, tol: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    known: dict[tuple[bytes, float, float], tuple[np.ndarray, np.ndarray]] = {}
    series = []
    for graph, (low, high) in enumerate(zip(lo.tolist(), hi.tolist(), strict=True)):
        key = (times[:, graph].tobytes(), low, high)
        if key not in known:
            known[key] = energy(times[:, graph], low, high, tol)
        series.append(known[key])
    return series


def _moments(
    L: Operator,
    v: Tensor,
    lo: np.ndarray,
    hi: np.ndarray,
    count: int,
    dot: Callable[[Tensor, Tensor], Tensor],
    spare: Tensor | None,
) -> Float[np.ndarray, "moments graphs"]:
    half, middle = (hi - lo) / 2, (hi + lo) / 2
    safe = np.where(half > 0, half, 1.0)
    with torch.no_grad():
        scalars = (numbers(2 * c, L) for c in (-1 / safe, np.where(half > 0, middle / safe, 1.0)))
        twice = L.shifted(*scalars).to(v.dtype).addmm_
    before, last = v, v
    first = dot(v, v)
    moments = [first]
    for order in range(1, count):
        k = order // 2
        if order == 1:
            last = twice(torch.empty_like(v) if spare is None else spare, v, alpha=0.5)
            moments.append(dot(last, v))
        elif order % 2 == 0:
            moments.append(2 * dot(last, last) - first)
        else:
            spent = before if k > 1 or spare is not None else before.clone()
            before, last = last, twice(spent, last, beta=-1.0)
            moments.append(2 * dot(last, before) - moments[1])
    found: np.ndarray = torch.stack(moments).cpu().numpy()
    return found


def _products(rows: Rows, metric: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the inner product of two states, a float64 number for each graph."""

    def whole(x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(x.view(-1).split(STRETCH), y.view(-1).split(STRETCH), strict=True)
        return torch.stack([torch.dot(*pair) for pair in pairs]).sum(0, True, dtype=torch.float64)

    def by_rows(x: Tensor, y: Tensor) -> Tensor:
        dots = torch.linalg.vecdot(x, y).double()
        return rows.sums((dots if metric is None else dots * metric.to(dots),))

    return whole if metric is None and rows.batch is None else by_rows
