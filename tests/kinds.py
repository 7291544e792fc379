"""Which problems each method is for; the shared tests run over what is registered."""

from solvers import methods
from solvers.tableaus import TABLEAUS

# "any": every field; "split": A x + rest; "force": x'' = force - damping x'; "noise": stochastic.
KIND = {
    **dict.fromkeys(TABLEAUS, "any"),
    "rkl2": "any",
    "trbdf2": "any",
    "implicit_euler": "any",
    "crank_nicolson": "any",
    "ars222": "split",
    "etdrk2": "split",
    "strang": "split",
    "leapfrog": "force",
    "symplectic_euler": "force",
    "kick_drift_damp": "force",
    "graphcon": "force",
    "euler_maruyama": "noise",
    "stochastic_heun": "noise",
}
IMPLICIT = ("trbdf2", "implicit_euler", "crank_nicolson")
"""The ones that are made for stiff problems of any spectrum."""


def registered(*kinds: str) -> list[str]:
    """The methods of these kinds that are there."""
    there = methods.names()
    return [name for name, kind in KIND.items() if kind in kinds and name in there]


def adaptive(*kinds: str) -> list[str]:
    """Those that choose their own steps."""
    return [name for name in registered(*kinds) if methods.stepper(name).adaptive]
