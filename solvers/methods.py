"""The one-step methods by their names."""

from __future__ import annotations

from collections.abc import Callable

from solvers.explicit import explicit
from solvers.exponential import ETDRK2
from solvers.imex import ARS222
from solvers.implicit import crank_nicolson, implicit_euler, trbdf2
from solvers.oscillators import graphcon, kick_drift_damp, leapfrog, symplectic_euler
from solvers.splitting import Strang
from solvers.stabilised import RKL2
from solvers.stepper import Stepper
from solvers.stochastic import EulerMaruyama, StochasticHeun
from solvers.tableaus import TABLEAUS

METHODS: dict[str, Callable[[], Stepper]] = {
    "rkl2": RKL2,
    "etdrk2": ETDRK2,
    "strang": Strang,
    "ars222": ARS222,
    "leapfrog": leapfrog,
    "kick_drift_damp": kick_drift_damp,
    "symplectic_euler": symplectic_euler,
    "graphcon": graphcon,
    "trbdf2": trbdf2,
    "implicit_euler": implicit_euler,
    "crank_nicolson": crank_nicolson,
    "euler_maruyama": EulerMaruyama,
    "stochastic_heun": StochasticHeun,
}
"""Methods that are no tableau, each with what makes its stepper."""


def stepper(name: str) -> Stepper:
    """Return the method of that name.

    Example:
        >>> stepper("tsit5").order
        5
    """
    return METHODS[name]() if name in METHODS else explicit(name)


def names() -> tuple[str, ...]:
    """Every method that has a name.

    Example:
        >>> "heun" in names()
        True
    """
    return (*TABLEAUS, *METHODS)
