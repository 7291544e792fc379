"""What an initial value problem with a known answer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ODE:
    """dx/dt = f(t, x), x(t0) = x0, with the state that it reaches at t1.

    Attributes:
        name: As the literature calls it.
        f: The right-hand side on tensors; `t` is 0-d, `x` has shape `[n]`.
        x0: The first state.
        t: Start and end.
        end: The state at the end, to every digit that is known; None where `solution` says it.
        source: Where problem and numbers come from.
        solution: x(t) in closed form, from a number to numbers; None where there is none.
        small: Sizes below this count as zero in `error`; a fitting `atol` is `rtol * small`.
        stiffness: What makes it stiff, in words; empty where it is not.

    >>> decay = ODE("decay", lambda t, x: -x, (1.0,), (0.0, 2.0), (0.5,), "by hand")
    >>> decay.f(torch.tensor(0.0), decay.start()).tolist(), decay.error(torch.tensor([0.6]))
    ([-1.0], 0.2)
    """

    name: str
    f: Callable[[Tensor, Tensor], Tensor]
    x0: tuple[float, ...]
    t: tuple[float, float]
    end: tuple[float, ...] | None
    source: str
    solution: Callable[[float], tuple[float, ...]] | None = None
    small: float = 0.0
    stiffness: str = ""

    def start(self) -> Float[Tensor, " n"]:
        """The first state in float64.

        >>> from solvers.problems import DECAY
        >>> DECAY.start().tolist()
        [1.0]
        """
        return torch.tensor(self.x0, dtype=torch.float64)

    def answer(self) -> Float[Tensor, " n"]:
        """The state at the end in float64.

        Raises:
            ValueError: For a problem that has neither `end` nor `solution`.

        >>> from solvers.problems import SEASON
        >>> SEASON.answer().item() == torch.tensor(3.0).double().sin().exp().item()
        True
        """
        if self.end is None and self.solution is None:
            raise ValueError(f"{self.name} has neither an end value nor a solution; give one")
        values = self.end if self.solution is None else self.solution(self.t[1])
        return torch.tensor(values, dtype=torch.float64)

    def error(self, x: Float[Tensor, " n"]) -> float:
        """The largest relative error of an entry, max_i |x_i - y_i| / max(|y_i|, small).

        >>> from solvers.problems import ROBER
        >>> ROBER.error(1.25 * ROBER.answer())
        0.25
        """
        right = self.answer()
        scale = right.abs().clamp_min(max(self.small, torch.finfo(torch.float64).tiny))
        return float(((x.detach().double() - right).abs() / scale).max())
