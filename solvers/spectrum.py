"""The outer eigenvalues of a field's Jacobian, from a few products with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from solvers.explicit import combine
from solvers.flow import Flow
from solvers.rows import Rows, State

MOST = 12
"""Products with the Jacobian at most."""

CLOSE = 0.05
"""An estimate is good enough when its residual is below this part of it: of 76 graphs and starts
the largest eigenvalue was then missed by at most 3 % beyond the residual, with 0.1 by 33 %."""


@dataclass
class Ritz:
    """Eigenvalues of the Jacobian as few products show them.

    Attributes:
        values: with the positive imaginary part of each pair; NaN beyond those found.
        radius: largest modulus, from below.
        residual: of that eigenvalue; one of the Jacobian's is at most this far, if it is normal.
        vector: where the next estimate may start.
    """

    values: Complex[np.ndarray, "clocks values"]
    radius: Float[np.ndarray, " clocks"]
    residual: Float[np.ndarray, " clocks"]
    vector: State

    @property
    def oblique(self) -> Float[np.ndarray, " clocks"]:
        """Largest imaginary part per clock."""
        largest: Float[np.ndarray, " clocks"] = np.nan_to_num(self.values.imag).max(1, initial=0.0)
        return largest


class Jacobian:
    """Products with the Jacobian of the field at one point, by finite differences.

    ``J v = (f(x + e v) - f(x)) / e`` with e about sqrt(eps) |x| / |v|, clock by clock; each costs
    one evaluation.

    Args:
        flow: the field on its clocks.
        t: times of the clocks.
        x: the state.
        fx: the field there.
        rows: whose norms count; the clocks' by default.

    Example:
        >>> flow = Flow(lambda t, x: (x[0] ** 2,), Rows(), torch.ones(2))
        >>> x = (torch.tensor([1.0, 3.0], dtype=torch.float64),)
        >>> J = Jacobian(flow, np.zeros(1), x, (x[0] ** 2,))
        >>> J((torch.ones_like(x[0]),))[0].tolist()
        [2.000000, 6.000000]
    """

    def __init__(
        self,
        flow: Flow,
        t: Float[np.ndarray, " clocks"],
        x: State,
        fx: State,
        rows: Rows | None = None,
    ) -> None:
        self.flow, self.t, self.x, self.fx = flow, t, x, fx
        self.rows = flow.clocks if rows is None else rows
        size = norm(self.rows, x)
        self._eps = np.sqrt(torch.finfo(x[0].dtype).eps) * np.where(size > 0, size, 1.0)

    def __call__(self, v: State) -> State:
        """Multiply."""
        rows = self.rows
        size = norm(rows, v)
        small = np.divide(self._eps, size, out=np.zeros_like(size), where=size > 0)
        back = np.divide(size, self._eps)
        moved = combine(self.x, rows.spread(small, v[0]), (1.0,), (v,))
        change = combine(None, 1.0, (1.0, -1.0), (self.flow(self.t, moved), self.fx))
        return combine(None, rows.spread(back, v[0]), (1.0,), (change,))


def norm(rows: Rows, v: State) -> Float[np.ndarray, " clocks"]:
    """Compute the root mean square per clock.

    >>> norm(Rows(), (torch.tensor([3.0, -3.0]),)).tolist()
    [3.0]
    """
    size: Float[np.ndarray, " clocks"] = rows.mean_square(v).sqrt().cpu().numpy()
    return size


def inner(rows: Rows, v: State, w: State) -> Float[np.ndarray, " clocks"]:
    """Sum up the real part of ``conj(v) w`` per clock.

    >>> inner(Rows(), (torch.tensor([1.0, 2.0]),), (torch.tensor([3.0, 4.0]),)).tolist()
    [11.0]
    """
    parts = tuple((a.conj() * b).real for a, b in zip(v, w, strict=True))
    total: Float[np.ndarray, " clocks"] = rows.sums(parts).cpu().numpy()
    return total


def scattered(rows: Rows, like: State) -> State:
    """Fill a state with numbers in [-1/2, 1/2) that look random and depend on places alone.

    A graph gets the same numbers in a batch as on its own.

    >>> a = scattered(Rows(), (torch.empty(2, 3),))[0]
    >>> b = scattered(Rows(torch.tensor([0, 1, 1]), 2), (torch.empty(3, 3),))[0]
    >>> bool((b[1:] == a).all()), bool(a.abs().max() <= 0.5)
    (True, True)
    """
    parts = []
    for k, part in enumerate(like):
        count = part.shape[0] if part.dim() else 1
        place = torch.arange(count, device=part.device)
        if rows.batch is not None:
            place = place - torch.searchsorted(rows.batch, rows.batch)
        column = torch.arange(part.numel() // max(count, 1), device=part.device)
        # Odd constants of splitmix64, cut to 31 bits, so that products do not overflow.
        mixed = place[:, None] * 0x3F58476D + column * 0x14D049BB + (k + 1) * 0x1E3779B9
        for _ in range(2):
            mixed = (mixed ^ (mixed >> 15)) & 0x7FFFFFFF
            mixed = (mixed * 0x2C1B3C6D) & 0x7FFFFFFF
        mixed = mixed ^ (mixed >> 13)
        parts.append((mixed.double() / 2**31 - 0.5).reshape(part.shape).to(part))
    return tuple(parts)


def ritz(
    jacobian: Jacobian,
    start: State,
    most: int = MOST,
    wanted: Bool[np.ndarray, " clocks"] | None = None,
    close: float = CLOSE,
) -> Ritz:
    """Approximate the eigenvalues of largest modulus by Arnoldi's method, clock by clock.

    It ends for a clock when the largest Ritz value has a residual below a part of it, and never
    before two products.

    Args:
        jacobian: the products.
        start: a vector with a part in every direction of interest.
        most: products at most.
        wanted: clocks to work for; all by default.
        close: the part, 5 % by default.

    Returns:
        What was found; zeros for clocks that were not wanted.

    Source:
        Arnoldi, Quart. Appl. Math. 9 (1951); residuals: Saad, Numerical Methods for Large
        Eigenvalue Problems (2011), prop. 6.8.

    Example:
        >>> d = torch.tensor([-4.0, -1.0, 0.0], dtype=torch.float64)
        >>> x = (torch.ones_like(d),)
        >>> J = Jacobian(Flow(lambda t, x: (d * x[0],), Rows(), d), np.zeros(1), x, (d * x[0],))
        >>> ritz(J, scattered(Rows(), x), 3).radius.round(4).tolist()
        [4.0]
    """
    rows = jacobian.rows
    clocks = rows.num_graphs
    wanted = np.ones(clocks, bool) if wanted is None else wanted
    H = np.zeros((clocks, most + 1, most))
    basis = [_scaled(rows, 1 / np.maximum(_length(rows, start), 1e-300), start)]
    values = np.full((clocks, most), np.nan, dtype=complex)
    radius, residual = np.zeros(clocks), np.zeros(clocks)
    weights = np.zeros((clocks, most))
    open_ = wanted.copy()
    for k in range(most):
        w = jacobian(basis[k])
        for i, v in enumerate(basis):
            H[:, i, k] = inner(rows, v, w)
            w = combine(w, rows.spread(-H[:, i, k], w[0]), (1.0,), (v,))
        H[:, k + 1, k] = _length(rows, w)
        H = np.nan_to_num(H, posinf=0.0, neginf=0.0)
        for c in np.flatnonzero(open_):
            found, vectors = np.linalg.eig(H[c, : k + 1, : k + 1])
            top = int(np.argmax(np.abs(found)))
            values[c, : k + 1] = found.real + 1j * np.abs(found.imag)
            radius[c] = abs(found[top])
            residual[c] = H[c, k + 1, k] * abs(vectors[k, top])
            # Of the two signs that an eigenvector may have, the one along the start.
            weights[c, : k + 1] = vectors[:, top].real * np.copysign(1.0, vectors[0, top].real)
            if k and residual[c] <= close * radius[c]:
                open_[c] = False
        if not open_.any():
            break
        small = H[:, k + 1, k]
        basis.append(
            _scaled(rows, np.divide(1.0, small, out=np.zeros_like(small), where=small > 0), w)
        )
    vector = combine(None, rows.spread(weights[:, 0], start[0]), (1.0,), (basis[0],))
    for i, v in enumerate(basis[1:most], start=1):
        vector = combine(vector, rows.spread(weights[:, i], v[0]), (1.0,), (v,))
    return Ritz(values, radius, residual, vector)


def _length(rows: Rows, v: State) -> Float[np.ndarray, " clocks"]:
    length: Float[np.ndarray, " clocks"] = np.sqrt(inner(rows, v, v))
    return length


def _scaled(rows: Rows, by: Float[np.ndarray, " clocks"], v: State) -> State:
    return combine(None, rows.spread(by, v[0]), (1.0,), (v,))


def outer_eigenvalues(
    flow: Flow, t: Float[np.ndarray, " clocks"], x: State, rows: Rows, products: int = 30
) -> Ritz:
    """Approximate the outer eigenvalues of the Jacobian at one point, per graph.

    Args:
        flow: the field on its clocks.
        t: times of the clocks.
        x: the state.
        rows: how rows belong to graphs.
        products: evaluations at most, besides one.

    Example:
        >>> flow = Flow(lambda t, x: (-3.0 * x[0],), Rows(), torch.ones(2))
        >>> x = (torch.ones(2, dtype=torch.float64),)
        >>> outer_eigenvalues(flow, np.zeros(1), x, Rows()).radius.round(6).tolist()
        [3.0]
    """
    with torch.no_grad():
        jacobian = Jacobian(flow, t, x, flow(t, x), rows)
        return ritz(jacobian, scattered(rows, x), products)


def spectral_radius(
    flow: Flow, t: Float[np.ndarray, " clocks"], x: State, rows: Rows, products: int = 30
) -> Float[np.ndarray, " graphs"]:
    """Estimate the largest modulus of the Jacobian's eigenvalues per graph, from below.

    Args:
        flow: the field on its clocks.
        t: times of the clocks.
        x: the state.
        rows: how rows belong to graphs.
        products: evaluations at most, besides one.

    Example:
        >>> flow = Flow(lambda t, x: (x[0] ** 2,), Rows(), torch.ones(2))
        >>> x = (torch.tensor([2.0, 0.0], dtype=torch.float64),)
        >>> spectral_radius(flow, np.zeros(1), x, Rows()).round(6).tolist()
        [4.0]
    """
    return outer_eigenvalues(flow, t, x, rows, products).radius
