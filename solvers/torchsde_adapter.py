"""torchsde's solvers on our grids and our Brownian paths: its methods, our way of failing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.answer import Answer, blind_rows, padded
from solvers.failure import DONE, INTERRUPTED, NOT_FINITE, unknown_name
from solvers.noise import NoiseTerm
from solvers.observed import Gridded
from solvers.rows import Rows, State
from solvers.stochastic import Drivers

HIDDEN = ("adjoint_reversible_heun",)
"""Methods of its backward pass alone."""

UNEQUAL = 1e-9
"""Relative difference of steps that rounding explains."""


@dataclass(frozen=True)
class Method:
    """One of torchsde's methods.

    Args:
        name: Its name there.

    Raises:
        ValueError: For an unknown name, with the nearest one.

    >>> Method("euler").convention, Method("heun").convention, Method("milstein").convention
    ('ito', 'stratonovich', None)
    """

    name: str

    def __post_init__(self) -> None:
        """Look the name up."""
        if self.name not in names():
            raise unknown_name("torchsde method", self.name, names())

    def kind(self, convention: str) -> Any:
        """Its class for equations of that convention."""
        from torchsde._core.methods import select

        return select(self.name, convention)

    @property
    def convention(self) -> str | None:
        """Whose solution it converges to; None where it follows either."""
        both = {str(self.kind(one).sde_type) for one in ("ito", "stratonovich")}
        return both.pop() if len(both) == 1 else None

    @property
    def needs_area(self) -> bool:
        """Whether it asks for the integral of W over a step, besides the increment."""
        return self.name == "srk"

    @property
    def needs_matrix(self) -> bool:
        """Whether it asks for g itself, and not only for its product with the noise."""
        return self.name == "reversible_heun"

    def check(self, noise: NoiseTerm, field: str) -> None:
        """Refuse noise that the method does not follow.

        Raises:
            ValueError: With the reason and what to take instead.
        """
        own = self.convention
        if not noise.additive and own not in (None, noise.convention):
            other = "milstein" if noise.convention == "ito" else "heun"
            raise ValueError(
                f"'torchsde:{self.name}' converges to the {own} solution, and {field} has "
                f"multiplicative noise, convention={noise.convention!r}: use 'torchsde:{other}'"
            )
        if self.needs_matrix and noise.operator is not None:
            raise ValueError(
                f"'torchsde:{self.name}' asks for the matrix g itself, and the noise of {field} is "
                "a sparse operator that couples the nodes: use 'torchsde:heun' or "
                "'stochastic_heun'"
            )


def names() -> tuple[str, ...]:
    """The methods of the installed torchsde.

    >>> "srk" in names()
    True
    """
    from torchsde.settings import METHODS

    return tuple(name for name in METHODS.all() if name not in HIDDEN)


class Increments:
    """Our Brownian paths as torchsde asks for them, at the points of a grid.

    Its own loop adds up steps, so that its times miss the grid by roundings and its last step may
    be a splinter of 1e-16; here a time stands for the nearest point of the grid.

    Args:
        drivers: The paths.
        grid: Rising times.
        shape: Rows and columns of the state.

    >>> x = torch.zeros(2, 1, dtype=torch.float64)
    >>> W = Increments(Drivers(1, Rows(), (x,)), np.array([0.0, 0.5, 1.0]), x)
    >>> torch.equal(W(0.0, 0.5) + W(0.5 + 1e-16, 1.0), W(0.0, 1.0))
    True
    """

    levy_area_approximation = "foster"

    def __init__(self, drivers: Drivers, grid: np.ndarray, like: Tensor) -> None:
        self.drivers, self.grid = drivers, grid
        self.shape, self.dtype, self.device = tuple(like.shape), like.dtype, like.device

    def __call__(
        self, start: Any, end: Any, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, None]:
        """W(end) - W(start); the Levy area, which independent noise does not need, is None."""
        first, last = (self._nearest(float(t)) for t in (start, end))
        found = self.drivers(first, last)[0].reshape(self.shape)
        return (found, None) if return_A else found

    def _nearest(self, t: float) -> np.ndarray:
        at = int(np.clip(np.searchsorted(self.grid, t), 1, len(self.grid) - 1))
        at -= t - self.grid[at - 1] < self.grid[at] - t
        return self.grid[at : at + 1]


class Equation:
    """A field and its noise as torchsde calls them: `[rows, columns]` states, and counted.

    Args:
        f: The drift on packed states.
        noise: What multiplies dW.
        x0: First state.
        convention: What torchsde is told.

    >>> equation = Equation(lambda t, x: (-x[0],), NoiseTerm(0.5), torch.ones(3), "ito")
    >>> equation.f(torch.tensor(0.0), torch.ones(3, 1)).flatten().tolist(), equation.nfe
    ([-1.0, -1.0, -1.0], 1)
    """

    def __init__(
        self, f: Callable[[Tensor, State], State], noise: NoiseTerm, x0: Tensor, convention: str
    ) -> None:
        self.drift, self.noise, self.shape = f, noise, x0.shape
        self.sde_type, self.dtype, self.nfe = convention, x0.dtype, 0
        self.noise_type = "diagonal" if noise.operator is None else "additive"
        if noise.operator is None:
            self.g = self._factors
        else:
            self.g_prod = self._product

    def flat(self, x: Tensor) -> Tensor:
        """The state as rows and columns."""
        return x.reshape(self.shape[0] if self.shape else 1, -1)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """The drift."""
        self.nfe += 1
        return self.flat(self.drift(t.to(self.dtype), (y.reshape(self.shape),))[0])

    def _factors(self, t: Tensor, y: Tensor) -> Tensor:
        self.nfe += self.noise.counted
        x = y.reshape(self.shape)
        return self.flat(self.noise.factors(t.to(self.dtype), (x,))[0].expand_as(x))

    def _product(self, t: Tensor, y: Tensor, v: Tensor) -> Tensor:
        x, dw = y.reshape(self.shape), v.reshape(self.shape)
        return self.flat(self.noise(t.to(self.dtype), (x,), (dw,))[0])


def integrate(
    f: Callable[[Tensor, State], State],
    noise: NoiseTerm,
    x0: Tensor,
    grid: np.ndarray,
    saved: Sequence[float],
    method: Method,
    *,
    seed: int,
    rows: Rows | None = None,
    leaves: Sequence[Tensor] | None = None,
) -> Answer:
    """Solve with torchsde along a grid, on the Brownian path of a seed.

    Every method but srk takes its increments from `Brownian` paths, so that it meets the noise of
    `euler_maruyama` with the same seed. srk needs the integral of W over each step too, and gets
    torchsde's BrownianInterval with the seed for its entropy and the mean step for `dt`, asked in
    the order of the grid: its search is then short (torchsde issues 105, 109).

    Args:
        f: The drift on packed states.
        noise: What multiplies dW.
        x0: First state.
        grid: Rising times.
        saved: The times to keep, all of them on the grid.
        method: Which one.
        seed: Of the path.
        rows: How rows belong to graphs.
        leaves: None: autograd through the solver; else the tensors whose gradients the stochastic
            adjoint computes, on equal steps.

    Raises:
        ValueError: For unequal steps with the adjoint.

    >>> x0, grid = torch.ones(1, 1, dtype=torch.float64), np.arange(101) / 100
    >>> answer = integrate(
    ...     lambda t, x: (-x[0],), NoiseTerm(0.0), x0, grid, (0.0, 1.0), Method("heun"), seed=1
    ... )
    >>> round(answer.x[0][-1].item(), 4), answer.nfe
    (0.3679, 200)
    """
    from torchsde import sdeint_adjoint
    from torchsde._core.base_sde import ForwardSDE

    rows = rows or Rows()
    steps = np.diff(grid)
    h = float(steps.mean())
    if leaves is not None and (np.abs(steps - h) > UNEQUAL * h).any():
        raise ValueError(
            f"torchsde's adjoint takes equal steps, and here they lie between {steps.min():.4g} "
            f"and {steps.max():.4g}: use a uniform grid that contains the saved times, or "
            "grad='tape'"
        )
    convention = method.convention or noise.convention
    equation = Equation(f, noise, x0, convention)
    y0 = equation.flat(x0)
    W: Any = Increments(Drivers(seed, rows, (x0,)), grid, y0)
    if method.needs_area:
        W = _interval(y0, grid, h, seed)
    watch = Gridded(f, False, rows, float(grid[0]))
    times = torch.from_numpy(grid).to(x0.device)
    watch.note(float(grid[0]), (x0,))
    if leaves is None:
        solver = method.kind(convention)(
            sde=ForwardSDE(equation),
            bm=W,
            dt=h,
            adaptive=False,
            rtol=0.0,
            atol=0.0,
            dt_min=0.0,
            options={},
        )
        answer = _along(solver, y0, x0, times, saved, watch)
    else:
        kept = torch.tensor(saved, dtype=torch.float64, device=x0.device)
        y = sdeint_adjoint(equation, y0, kept, W, method.name, dt=h, adjoint_params=tuple(leaves))
        x = y.reshape(len(kept), *x0.shape)
        for t, state in zip(saved, x, strict=True):
            watch.note(t, (state,))
        answer = _answer(watch, x, len(saved), DONE)
        answer.accepted = len(steps)
    answer.nfe = equation.nfe
    return answer


def _interval(y0: Tensor, grid: np.ndarray, h: float, seed: int) -> Any:
    from torchsde import BrownianInterval

    return BrownianInterval(
        t0=float(grid[0]),
        t1=float(grid[-1]),
        size=tuple(y0.shape),
        dtype=y0.dtype,
        device=y0.device,
        entropy=seed,
        dt=h,
        levy_area_approximation="space-time",
    )


def _along(
    solver: Any, y: Tensor, x0: Tensor, times: Tensor, saved: Sequence[float], watch: Gridded
) -> Answer:
    """Take the steps of the grid one by one, until the end or until every graph is lost."""
    states, wanted, taken = [x0], set(saved[1:]), 0
    status = DONE
    try:
        extra = solver.init_extra_solver_state(times[0], y)
        for start, end in pairwise(times):
            y, extra = solver.step(start, end, y, extra)
            taken += 1
            x = y.reshape(x0.shape)
            watch.note(float(end), (x,))
            if len(watch.lost) == watch.rows.num_graphs:
                break
            if float(end) in wanted:
                states.append(x)
    except KeyboardInterrupt:
        status = INTERRUPTED
    answer = _answer(watch, torch.stack(states), len(saved), status)
    answer.accepted = taken
    return answer


def _answer(watch: Gridded, x: Tensor, saved: int, status: str) -> Answer:
    """The states, without those of graphs after they were lost."""
    graphs, rows = watch.rows.num_graphs, watch.rows
    assert watch.x is not None
    words, messages = [status] * graphs, {}
    for g, when in watch.lost.items():
        words[g] = NOT_FINITE
        who = f"graph {g}" if graphs > 1 else "the solve"
        last = float(watch.reached[g])
        t = torch.tensor(last, dtype=x.dtype, device=x.device)
        own = [
            row
            for row in blind_rows(watch.f, t, watch.x)
            if rows.batch is None or int(rows.batch[row]) == g
        ]
        messages[g] = f"{who} stopped at t={when:.6g}: " + (
            f"the field returned nan or inf at t={last:.6g} in {len(own)} rows (first: row "
            f"{own[0]}) although x was finite; look at the field."
            if own
            else "the state is nan or inf there although the drift was finite before. Steps are "
            "probably too large for the drift or the noise: use more of them."
        )
    if status == INTERRUPTED:
        messages = dict.fromkeys(range(graphs), f"interrupted at t={watch.reached[0]:.6g}")
    x = padded((x,), saved)[0]
    if watch.lost:
        good = np.array([g not in watch.lost for g in range(graphs)])
        blank = torch.full_like(x[0], torch.nan)
        # What was finite when it was saved stays; behind that nothing of a lost graph does.
        finite = [np.isfinite(rows.mean_square((one.detach(),)).cpu().numpy()) | good for one in x]
        x = torch.stack(
            [rows.select(f, (one,), (blank,))[0] for f, one in zip(finite, x, strict=True)]
        )
    answer = Answer((x,), watch.x, watch.reached.tolist(), words, messages)
    answer.interrupted = status == INTERRUPTED
    return answer
