"""Energy curves of exact solves from Chebyshev moments: no states, half the products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from solvers.columns import reordered
from solvers.energy_coefficients import energy_and_decay
from solvers.problem import Operator, numbers
from solvers.products import products
from solvers.rooms import Room, rooms
from solvers.rows import Rows

Preparation = Callable[[Tensor, Tensor], Float[Tensor, " graphs"]]
"""Called with some columns of a state, and a place where to put what is read in their stead.

It returns the squared norm of what it left out, in each graph.
"""

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
        removed: squared norm of what was left out of x before, ``[graphs]``.
        products: products with L that it took.
    """

    energy: Float[np.ndarray, "times graphs"]
    energy_error: Float[np.ndarray, "times graphs"]
    square: Float[np.ndarray, "times graphs"]
    square_error: Float[np.ndarray, "times graphs"]
    removed: Float[np.ndarray, " graphs"]
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
    prepare: Preparation | None = None,
    space: Sequence[Room] | None = None,
) -> Curves:
    """Compute energy and squared norm of ``e^(-tL) x`` from one set of moments.

    See :func:`energy_curve`, whose arguments these are.

    Args:
        L: self-adjoint operator.
        x: state.
        times: not negative; for all graphs or for each.
        metric: weights of the inner product.
        tol: error of the series.
        prepare: puts what is read in the stead of some columns of the state, such as those without
            their part in the kernel of L, into a contiguous place of their shape.
        space: rooms for the state, if some are at hand: fresh memory costs as much as products.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> path, _ = Pattern.from_edges(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1]), 2)
        >>> L = SparseOperator(path, torch.tensor([1.0, -1.0, -1.0, 1.0]).double(), symmetric=True)
        >>> found = curves(L, torch.tensor([1.0, -1.0]).double(), np.zeros(1), tol=1e-9)
        >>> found.energy.round(9).item(), found.square.round(9).item()
        (4.0, 2.0)
    """
    rows = _rows(L)
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
    v = _entered(L, x)
    lo, hi = (end.detach().cpu().numpy() for end in L.spectrum())
    size = np.maximum(np.abs(lo), np.abs(hi))
    series = _series(times, lo, hi, tol)
    count = max(found[0].shape[1] for found in series)
    mu, removed = _moments(L.core, v, lo, hi, count, rows, metric, prepare, space)
    eps = torch.finfo(v.dtype).eps
    values, floor, squares, errors = (np.empty_like(times) for _ in range(4))
    for graph, (weights, left_out, decays, lost) in enumerate(series):
        orders = np.arange(weights.shape[1])
        values[:, graph] = weights @ mu[: len(orders), graph]
        rounding = ROUNDING * eps * np.abs(weights) @ (orders + 4.0) ** 1.5
        # The weights are differences of numbers of size 1, known to float64.
        rounding += len(orders) * np.finfo(np.float64).eps * size[graph]
        floor[:, graph] = (left_out + rounding) * mu[0, graph]
        squares[:, graph] = decays @ mu[: len(orders), graph]
        rounding = ROUNDING * eps * decays @ (orders + 4.0) ** 1.5
        errors[:, graph] = (lost + rounding) * mu[0, graph]
    return Curves(values, floor, squares, errors, removed, len(mu) // 2)


def moments(
    L: Operator,
    x: Inexact[Tensor, "nodes ..."],
    count: int,
    *,
    metric: Float[Tensor, " nodes"] | None = None,
) -> Float[np.ndarray, "moments graphs"]:
    """Return ``<x, T_k(y) x>`` for ``k < count``, ``y = (mid - L) / half`` in [-1, 1].

    The interval is the operator's enclosure, whose lower end is ``y = 1``. It takes ``count / 2``
    products; see :func:`energy_curve`.

    Args:
        L: self-adjoint operator.
        x: state; squares are added up over its channels.
        count: how many moments.
        metric: weights of the inner product, in which L is self-adjoint; None: the plain one.

    Example:
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> L = SparseOperator(Pattern.identity(2), torch.tensor([0.0, 2.0]), symmetric=True)
        >>> moments(L, torch.tensor([1.0, 2.0]), 4).round(5).ravel().tolist()
        [5.0, -3.0, 5.0, -3.0]
    """
    lo, hi = (end.detach().cpu().numpy() for end in L.spectrum())
    return _moments(L.core, _entered(L, x), lo, hi, count, _rows(L), metric, None, None)[0]


def _rows(L: Operator) -> Rows:
    return Rows(L.core.batch if L.num_graphs > 1 else None, L.num_graphs)


def _entered(L: Operator, x: Tensor) -> Tensor:
    """A state as real columns, in the operator's own coordinates."""
    real = torch.view_as_real(x) if x.is_complex() else x
    return L.enter(real.detach().reshape(len(x), real.shape[1:].numel()))


def _series(
    times: np.ndarray, lo: np.ndarray, hi: np.ndarray, tol: float
) -> list[tuple[np.ndarray, ...]]:
    return [
        _weights(np.ascontiguousarray(times[:, graph]).tobytes(), low, high, tol)
        for graph, (low, high) in enumerate(zip(lo.tolist(), hi.tolist(), strict=True))
    ]


# Graphs of a batch, and solves again, often ask for the same.
@lru_cache(maxsize=16)
def _weights(times: bytes, lo: float, hi: float, tol: float) -> tuple[np.ndarray, ...]:
    return energy_and_decay(np.frombuffer(times), lo, hi, tol)


def _moments(
    L: Operator,
    x: Tensor,
    lo: np.ndarray,
    hi: np.ndarray,
    count: int,
    graphs: Rows,
    metric: Tensor | None,
    prepare: Preparation | None,
    space: Sequence[Room] | None,
) -> tuple[Float[np.ndarray, "moments graphs"], Float[np.ndarray, " graphs"]]:
    half, middle = (hi - lo) / 2, (hi + lo) / 2
    safe = np.where(half > 0, half, 1.0)
    total = torch.zeros(count, graphs.num_graphs, dtype=torch.float64, device=x.device)
    removed = total.new_zeros(graphs.num_graphs)
    with torch.no_grad():
        scalars = (numbers(2 * c, L) for c in (-1 / safe, np.where(half > 0, middle / safe, 1.0)))
        A = L.shifted(*scalars).to(x.dtype)
        order = reordered(A, x, count // 2)
        twice = A.addmm_ if order is None else order.addmm_
        if order is not None and metric is not None:
            metric = metric[order.order]
        for room in products.once(space or rooms(x)):
            start = room.first if order is None else room.second
            if prepare is None:
                start.copy_(room.of(x))
            else:
                removed += prepare(room.of(x), start)
            if order is not None:
                order.enter(start, room.first)
            total += _inner_products(twice, room, count, graphs, metric)
    moments: np.ndarray = total.cpu().numpy()
    for k in range(2, count):
        moments[k] = 2 * moments[k] - moments[k % 2]
    return moments, removed.cpu().numpy()


def _inner_products(
    twice: Callable[..., Tensor],
    room: Room,
    count: int,
    graphs: Rows,
    metric: Tensor | None,
) -> Float[Tensor, "moments graphs"]:
    """Return ``<V_k, V_k>`` and ``<V_k, V_(k+1)>`` in turn, with V_0 in the room's first matrix."""
    terms, found = (room.first, room.second), []
    for k in range((count + 1) // 2):
        this, other = k % 2, 1 - k % 2
        if 2 * k + 1 < count:
            alpha, beta = (1.0, -1.0) if k else (0.5, 0.0)
            twice(terms[other], terms[this], alpha, beta)
        pair = room.inner(this, graphs, metric)
        found += [pair[this], pair[other]]
    return torch.stack(found[:count])
