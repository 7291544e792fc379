"""Butcher tableaus of diagonally implicit Runge-Kutta methods, exact in Q(sqrt 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Surd:
    """The number ``p + q sqrt 2`` with rational p and q, computed with exactly.

    Args:
        p: the rational part.
        q: the factor of sqrt 2.

    Example:
        >>> gamma = Surd(Fraction(2), Fraction(-1))
        >>> gamma * gamma - 4 * gamma + 2 == Surd()
        True
    """

    p: Fraction = Fraction(0)
    q: Fraction = Fraction(0)

    def __add__(self, other: Surd | int) -> Surd:
        other = _surd(other)
        return Surd(self.p + other.p, self.q + other.q)

    def __neg__(self) -> Surd:
        return Surd(-self.p, -self.q)

    def __sub__(self, other: Surd | int) -> Surd:
        return self + -_surd(other)

    def __mul__(self, other: Surd | Fraction | int) -> Surd:
        other = _surd(other)
        return Surd(self.p * other.p + 2 * self.q * other.q, self.p * other.q + self.q * other.p)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Surd | int) -> Surd:
        other = _surd(other)
        norm = other.p**2 - 2 * other.q**2
        return self * Surd(other.p / norm, -other.q / norm)

    def __float__(self) -> float:
        """The nearest number, give or take a rounding: both terms are added at high precision."""
        root = Fraction(math.isqrt(2 * 10**80), 10**40)
        return float(self.p + self.q * root)


@dataclass(frozen=True)
class ImplicitTableau:
    """The coefficients of a method whose first stage is explicit and all others implicit alike.

    ``k_i = f(t + c_i h, x + h sum_{j<=i} a_ij k_j)`` with ``a_11 = 0`` and ``a_ii = d`` for the
    others, so that one matrix ``I - h d J`` serves a whole step; the last stage is the solution
    (``b`` is the last row of ``a``: stiffly accurate).

    Attributes:
        name: how users ask for it.
        order: order of ``b``.
        c: nodes, ``[stages]``.
        a: rows of the lower triangle with its diagonal; row ``i`` has ``i + 1`` entries.
        b_hat: weights of the embedded method, or None.
        embedded_order: order of ``b_hat``; 0 without one.
        source: where the coefficients were published.

    Example:
        >>> tableau = IMPLICIT_TABLEAUS["crank_nicolson"]
        >>> float(tableau.d), [float(weight) for weight in tableau.b]
        (0.5, [0.5, 0.5])
    """

    name: str
    order: int
    c: tuple[Surd, ...]
    a: tuple[tuple[Surd, ...], ...]
    b_hat: tuple[Surd, ...] | None
    embedded_order: int
    source: str

    @property
    def b(self) -> tuple[Surd, ...]:
        """The weights: the last row of ``a``.

        Example:
            >>> [float(weight) for weight in IMPLICIT_TABLEAUS["implicit_euler"].b]
            [0.0, 1.0]
        """
        return self.a[-1]

    @property
    def d(self) -> Surd:
        """The diagonal entry of all implicit stages.

        Example:
            >>> IMPLICIT_TABLEAUS["trbdf2"].d
            Surd(p=Fraction(1, 1), q=Fraction(-1, 2))
        """
        return self.a[-1][-1]

    @property
    def explicit_part(self) -> bool:
        """Whether the solution needs the field at the start of the step.

        Example:
            >>> [name for name, tableau in IMPLICIT_TABLEAUS.items() if tableau.explicit_part]
            ['crank_nicolson', 'trbdf2']
        """
        return any(row[0] != Surd() for row in self.a)

    @property
    def error_order(self) -> int:
        """Order of the local error estimate; ``order`` without one.

        Example:
            >>> IMPLICIT_TABLEAUS["trbdf2"].error_order
            3
        """
        return self.order + 1 if self.b_hat is not None else self.order


def _surd(value: Surd | Fraction | int) -> Surd:
    return value if isinstance(value, Surd) else Surd(Fraction(value))


_0, _1, _HALF = Surd(), Surd(Fraction(1)), Surd(Fraction(1, 2))
_GAMMA = Surd(Fraction(2), Fraction(-1))
_D = _GAMMA * Fraction(1, 2)
_W = Surd(Fraction(0), Fraction(1, 4))

_IMPLICIT_EULER = ImplicitTableau(
    name="implicit_euler",
    order=1,
    c=(_0, _1),
    a=((_0,), (_0, _1)),
    b_hat=(_HALF, _HALF),
    embedded_order=2,
    source="Euler's method backward; the trapezoidal rule on its result is embedded",
)

_CRANK_NICOLSON = ImplicitTableau(
    name="crank_nicolson",
    order=2,
    c=(_0, _1),
    a=((_0,), (_HALF, _HALF)),
    b_hat=None,
    embedded_order=0,
    source="trapezoidal rule: Crank and Nicolson, Proc. Cambridge Philos. Soc. 43 (1947)",
)

_TRBDF2 = ImplicitTableau(
    name="trbdf2",
    order=2,
    c=(_0, _GAMMA, _1),
    a=((_0,), (_D, _D), (_W, _W, _D)),
    b_hat=((-_W + 1) / 3, (3 * _W + 1) / 3, _D / 3),
    embedded_order=3,
    source="Bank et al. (1985) as an ESDIRK: Hosea and Shampine, Appl. Numer. Math. 20 (1996), 21",
)

IMPLICIT_TABLEAUS: dict[str, ImplicitTableau] = {
    tableau.name: tableau for tableau in (_IMPLICIT_EULER, _CRANK_NICOLSON, _TRBDF2)
}
"""Every diagonally implicit method we ship, by name."""
