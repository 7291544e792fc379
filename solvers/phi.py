"""Exponential and phi functions of an operator times a vector, to a bound known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Inexact, Int
from scipy.fft import dct
from scipy.special import gammainc
from torch import Tensor

from solvers.chebyshev import Chebyshev, PerGraph
from solvers.coefficients import degree_bound, poisson
from solvers.problem import Operator
from solvers.rows import Rows
from solvers.uniformisation import Uniformisation
from solvers.weights import Table, Weights

Degrees = Int[np.ndarray, " graphs"]
Rowwise = Float[np.ndarray, "graphs degree"]

# Below this the closed form of phi_2 loses digits and its power series needs few terms.
SMALL = 1.0
TERMS = 20
# What is left out at the highest degree, and what no tolerance need be finer than.
NEGLIGIBLE, RESOLVED = 1e-17, 1e-15
# Expansions that are kept for steps of a size that was there before.
KEPT = 64


def phi(k: int, w: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Compute ``phi_0 = e^w``, ``phi_1 = (e^w - 1) / w`` or ``phi_2 = (e^w - 1 - w) / w^2``.

    ``phi_k(w)`` is the integral of ``e^((1 - s) w) s^(k-1) / (k-1)!`` over [0, 1], and at 0 it is
    ``1 / k!``. Relative errors are of the order of rounding from 0 to -1e300.

    Args:
        k: 0, 1 or 2.
        w: real numbers.

    Source:
        Hochbruck and Ostermann, Exponential integrators, Acta Numerica 19 (2010), equation 2.10.

    Example:
        >>> [phi(k, np.array([0.0, 1.0])).round(6).tolist() for k in range(3)]
        [[1.0, 2.718282], [1.0, 1.718282], [0.5, 0.718282]]
    """
    w = np.asarray(w, dtype=np.float64)
    value: Float[np.ndarray, "*shape"]
    if k == 0:
        value = np.exp(w)
        return value
    far = np.where(np.abs(w) < SMALL, SMALL, w)
    if k == 1:
        near = np.where(w == 0, 1.0, w)
        value = np.where(w == 0, 1.0, np.expm1(near) / near)
        return value
    near = np.clip(w, -SMALL, SMALL)
    series = np.zeros_like(w)
    for j in range(TERMS, 0, -1):
        series = near / (j + 2) * (1.0 + series)
    # Divided twice: the square of a large number overflows.
    value = np.where(np.abs(w) < SMALL, (1.0 + series) / 2, (np.expm1(far) / far - 1.0) / far)
    return value


@dataclass
class Expansion:
    """Weights of ``phi_k(h A)`` over the terms of a series, and what each degree leaves out.

    Attributes:
        weights: of the terms 0, 1, ..., for each graph.
        beyond: sum of the moduli of the weights beyond each degree.
        total: the value at the largest exponent, which the moduli of cut weights are scaled to
            sum up to.

    Example:
        >>> weights = np.array([[0.5, 0.25, 0.25]])
        >>> whole = Expansion(weights, np.array([[0.5, 0.25, 0.0]]), np.ones(1))
        >>> whole.degrees(np.array([0.6])).tolist(), whole.cut(np.array([1]))[0].round(3).tolist()
        ([1], [0.667, 0.333])
    """

    weights: Rowwise
    beyond: Rowwise
    total: PerGraph

    def degrees(self, tail: PerGraph) -> Degrees:
        """Return the smallest degrees at which the error is at most ``tail``.

        What is left out is given back by scaling, so that the error is at most twice its mass.
        Where the tolerance is finer than rounding, the degree is the highest.
        """
        enough = 2 * self.beyond <= np.maximum(tail, RESOLVED * self.total)[:, None]
        enough[:, -1] = True
        found: Degrees = enough.argmax(1)
        return found

    def cut(self, degrees: Degrees) -> list[Weights]:
        """Return each graph's weights up to its degree, scaled to the total."""
        kept = (row[: m + 1] for row, m in zip(self.weights, degrees, strict=True))
        return [_scaled(row, total) for row, total in zip(kept, self.total, strict=True)]


class Functions:
    """The actions ``phi_k(h A) v`` of one operator, with a step h for each graph.

    Self-adjoint operators go by Chebyshev series on the enclosure of their spectrum; generators
    and stochastic matrices by uniformisation, with positive weights. All weights are those of an
    average of exponentials: the error in the norm of the series is at most twice the mass that
    a degree leaves out, times the norm of v. Constants and masses in the kernel of A are kept to
    rounding. Several functions of the same vector share one recurrence. A Chebyshev series takes
    about ``sqrt(h Lambda log(1 / tail))`` products, Lambda the width of the spectrum, a walk about
    ``h rate``.

    Args:
        A: self-adjoint, a generator, or stochastic.

    Attributes:
        rows: which rows belong to which graph of A.
        series: the Chebyshev series or the walk.

    Raises:
        ValueError: the operator is none of these.

    Source:
        Tal-Ezer and Kosloff (1984) for the series; coefficients by a discrete cosine transform.

    Example:
        >>> import torch
        >>> from neuralpde.operators import Pattern, SparseOperator
        >>> A = SparseOperator(Pattern.identity(1), -torch.ones(1).double(), symmetric=True)
        >>> ones, h = torch.ones(1, 1).double(), np.array([1.0])
        >>> functions = Functions(A)
        >>> degrees = [functions.degrees(k, h, np.array([1e-12])) for k in (0, 1)]
        >>> [y.item() for y in functions(ones, h, [(0, degrees[0]), (1, degrees[1])])]
        [0.367879, 0.632121]
    """

    def __init__(self, A: Operator) -> None:
        self.rows = Rows(A.batch if A.num_graphs > 1 else None, A.num_graphs)
        self.A, self._kept = A, dict[tuple[int, bytes], Expansion]()
        A = A.core
        rows = Rows(A.batch if A.num_graphs > 1 else None, A.num_graphs)
        self.series: Chebyshev | Uniformisation
        if A.self_adjoint:
            self.series = series = Chebyshev(A, rows)
            self._expand: Callable[[int, PerGraph], Expansion] = Interval(series).expansion
        elif A.generator is not None or A.stochastic is not None:
            self.series = walk = Uniformisation(A, rows)
            self._expand = Poisson(walk).expansion
        else:
            raise ValueError(
                "functions of an operator need one that is self-adjoint, a generator or "
                "stochastic, and this one is not known to be: make the graph undirected "
                "(graph.undirected()), or take solver='tsit5', or 'rkl2' for stiff diffusion"
            )
        self.terms = self.series.terms(A.dtype)

    def norms(self, x: Inexact[Tensor, "nodes ..."]) -> PerGraph:
        """Return the norms in which errors are bounded, one for each graph."""
        norms: PerGraph = self.series.norms(self.A.enter(_columns(x.detach())))
        return norms

    def reach(self, h: PerGraph) -> PerGraph:
        """Return ``|h|`` times half the width of the spectrum, or times the rate of the walk."""
        reach: PerGraph = self.series.reach(h[None])[0]
        return reach

    def degrees(self, k: int, h: PerGraph, tail: PerGraph) -> Degrees:
        """Return the degrees for which ``phi_k(h A) v`` is wrong by at most ``tail |v|``."""
        return self._expansion(k, h).degrees(tail)

    def __call__(
        self,
        v: Inexact[Tensor, "nodes ..."],
        h: PerGraph,
        wanted: Sequence[tuple[int, Degrees]],
        norms: PerGraph | None = None,
    ) -> list[Inexact[Tensor, "nodes ..."]]:
        """Return ``phi_k(h A) v`` for several k, each with its degrees.

        Differentiable once in v and in the tensors of A, with two states kept by Chebyshev series
        and about the root of the degree by walks. Graphs where v is not finite get NaN.

        Args:
            v: state, real or complex.
            h: step of each graph.
            wanted: pairs of k and of what :meth:`degrees` gave.
            norms: of v, if they are known.
        """
        sound = np.isfinite(self.norms(v) if norms is None else norms)
        if not sound.all():
            nothing = torch.full_like(v, torch.nan)
            (safe,) = self.rows.select(sound, (v,), (torch.zeros_like(v),))
            found = self(safe, h, wanted) if sound.any() else [nothing for _ in wanted]
            return [self.rows.select(sound, (y,), (nothing,))[0] for y in found]
        flat, batch = self.A.enter(_columns(v)), self.series.rows.batch
        tables = [Table(self._expansion(k, h).cut(degrees), batch, flat) for k, degrees in wanted]
        return [_like(self.A.leave(y), v) for y in self.terms.sums(flat, tables)]

    def _expansion(self, k: int, h: PerGraph) -> Expansion:
        key = k, h.tobytes()
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            with np.errstate(over="ignore", invalid="ignore"):
                found = self._kept[key] = self._expand(k, h)
        return found


@dataclass
class Interval:
    """Expansions in Chebyshev polynomials on the enclosure of a spectrum.

    ``phi_k(g - z (1 - y)) = sum_j c_j T_j(y)``, ``z = |h| (hi - lo) / 2``, ``g`` the largest
    exponent; ``c_j`` is not negative, being an average of Bessel functions.
    """

    series: Chebyshev

    def expansion(self, k: int, h: PerGraph) -> Expansion:
        """Expand ``phi_k(h A)`` to the degree at which nothing is left."""
        z, growth = self.series.reach(h[None])[0], self.series.growth(h[None])[0]
        nodes = int(degree_bound(z, NEGLIGIBLE).max(initial=0.0)) + 1
        half_angle = np.pi * (np.arange(nodes) + 0.5) / (2 * nodes)
        arguments = growth[:, None] - 2 * z[:, None] * np.sin(half_angle) ** 2
        weights = dct(phi(k, arguments), type=2, axis=1) / nodes
        weights[:, 0] /= 2
        weights[h < 0, 1::2] *= -1
        return Expansion(weights, _beyond(np.abs(weights)), phi(k, growth))


@dataclass
class Poisson:
    """Expansions in the steps of a walk, with positive weights.

    For a generator ``phi_k(q (P - I)) = sum_j w_j P^j``: the weights of ``phi_0`` are Poisson's
    with mean q, and ``w_j`` of ``phi_(k+1)`` is the sum of those of ``phi_k`` beyond j, over q.
    For a stochastic matrix ``phi_k(h P) = sum_j h^j / (j + k)! P^j``.
    """

    series: Uniformisation

    def expansion(self, k: int, h: PerGraph) -> Expansion:
        """Expand ``phi_k(h A)`` to the degree at which nothing is left.

        Raises:
            ValueError: a step backward in time.
        """
        self.series.check(h[None])
        mean = self.series.reach(h[None])[0]
        weights_of = self._generated if self.series.generator else self._powers
        columns = [weights_of(k, float(q)) for q in mean]
        weights = np.zeros((len(columns), max(map(len, columns))))
        for row, column in zip(weights, columns, strict=True):
            row[: len(column)] = column
        return Expansion(weights, _beyond(weights), weights.sum(1))

    @staticmethod
    def _generated(k: int, q: float) -> Weights:
        if q == 0:
            return np.full(1, 0.5 if k == 2 else 1.0)
        if k == 0:
            return poisson(q, NEGLIGIBLE)
        # Pr[N > j], with all its digits also where it is tiny.
        tails: Weights = gammainc(np.arange(1, int(q + 9 * np.sqrt(q)) + 40), q) / q
        sums: Weights = tails if k == 1 else np.cumsum(tails[:0:-1])[::-1]
        total = 1.0 if k == 1 else 0.5
        sums *= total / sums.sum()
        return sums

    @staticmethod
    def _powers(k: int, h: float) -> Weights:
        steps = np.arange(1, int(2.72 * h) + 40)
        weights: Weights = np.concatenate([np.ones(1), np.cumprod(h / (steps + k))])
        weights *= 0.5 if k == 2 else 1.0
        return weights


def _scaled(weights: Weights, total: float) -> Weights:
    # Added from the end, where they are small; all are zero where an exponential underflows.
    mass = np.cumsum(np.abs(weights[::-1]))[-1]
    return weights * (total / mass if mass > 0 else 1.0)


def _beyond(weights: Rowwise) -> Rowwise:
    beyond: Rowwise = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1] - weights
    return beyond


def _columns(x: Tensor) -> Float[Tensor, "nodes columns"]:
    real = torch.view_as_real(x) if x.is_complex() else x
    return real.reshape(len(x), real.shape[1:].numel()).contiguous()


def _like(y: Tensor, x: Tensor) -> Tensor:
    if x.is_complex():
        return torch.view_as_complex(y.reshape(*x.shape, 2))
    return y.reshape(x.shape)
