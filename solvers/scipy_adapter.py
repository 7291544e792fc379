"""scipy's solvers of initial value problems, stepped one by one; small systems, no gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.answer import MORE_STEPS, Answer, Blind, FieldFunction, blind_rows, lookout, padded
from solvers.failure import (
    DONE,
    INTERRUPTED,
    MAX_STEPS,
    NOT_FINITE,
    STEP_TOO_SMALL,
    unknown_name,
)
from solvers.rows import State

IMPLICIT = ("Radau", "BDF")
NAMES = ("RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA")
LARGEST = 5_000
"""Unknowns up to which an implicit method's dense Jacobian is reasonable (200 MB)."""

FINEST = 100 * float(np.finfo(np.float64).eps)
"""scipy's smallest rtol."""

FEW = 20
"""Steps in which a field that stopped a solve shows itself again."""


@dataclass(frozen=True)
class Method:
    """One of scipy's methods.

    Args:
        name: As in `scipy.integrate.solve_ivp`.

    Raises:
        ValueError: For an unknown name, with the nearest one.

    >>> Method("BDF").dense, Method("RK45").dense
    (True, False)
    """

    name: str

    def __post_init__(self) -> None:
        """Look the name up."""
        if self.name not in NAMES:
            raise unknown_name("scipy method", self.name, NAMES)

    @property
    def dense(self) -> bool:
        """Whether it factorises a dense Jacobian."""
        return self.name in (*IMPLICIT, "LSODA")

    @property
    def takes_complex(self) -> bool:
        """Whether it takes complex states."""
        return self.name != "LSODA"


def check(method: Method, x0: State, rtol: float) -> None:
    """Refuse what scipy cannot do, before any work.

    Raises:
        ValueError: A Jacobian that would not fit, complex states for LSODA, rtol below scipy's.

    >>> check(Method("RK45"), (torch.ones(3),), 1e-4)
    """
    unknowns = sum(part.numel() for part in x0)
    if x0[0].is_complex() and not method.takes_complex:
        raise ValueError(
            f"scipy:{method.name} takes real states only and x0 is {x0[0].dtype}; use 'scipy:BDF' "
            "or 'scipy:DOP853'"
        )
    if method.dense and unknowns > LARGEST:
        size = unknowns**2 * (16 if x0[0].is_complex() else 8)
        raise ValueError(
            f"scipy:{method.name} factorises a dense Jacobian: {unknowns} unknowns would take "
            f"{size / 1e9:.3g} GB (allowed are {LARGEST} unknowns). Use solver='exact' for a "
            "linear field, an explicit solver such as 'tsit5', or 'scipy:DOP853'"
        )
    if rtol < FINEST:
        raise ValueError(f"rtol={rtol:g} is below scipy's smallest, {FINEST:.2g}; use that or more")


def integrate(
    f: FieldFunction,
    x0: State,
    t: np.ndarray,
    method: Method,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    max_steps: int = 10_000,
) -> Answer:
    """Solve in float64 on the CPU with the steps of `scipy.integrate.solve_ivp`.

    The state is flattened, evaluated in its own dtype, and cast back; no gradients.

    Args:
        f: The field on packed states.
        x0: First state.
        t: Save times `[saved]`, strictly monotone.
        method: Which one.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        max_steps: Most steps accepted; scipy does not tell how many it rejects.

    >>> x0 = (torch.ones(1, dtype=torch.float64),)
    >>> answer = integrate(lambda t, x: (-x[0],), x0, np.array([0.0, 1.0]), Method("BDF"))
    >>> round(answer.x[0][-1].item(), 3), answer.status
    (0.368, ['done'])
    """
    flat = _Flat(f, x0)
    run = _Run([flat.start])
    with torch.no_grad():
        try:
            run.advance(flat, t, method, rtol, atol, max_steps)
        except KeyboardInterrupt:
            run.status, run.message = INTERRUPTED, "interrupted"
    when = t[0] if run.t is None else run.t
    last = flat.parts(run.y if run.y is not None else flat.start)
    states = [flat.parts(y) for y in run.saved]
    x = padded(tuple(torch.stack(parts) for parts in zip(*states, strict=True)), len(t))
    messages = {}
    if run.status != DONE:
        blind = None
        if run.status in (STEP_TOO_SMALL, NOT_FINITE):
            blind = _blind(f, last, np.array([when, t[-1]]), method, rtol, atol)
            run.status = run.status if blind is None else NOT_FINITE
        messages = {0: _explain(run, float(when), float(t[-1]), blind)}
    return Answer(
        x,
        last,
        [float(when)],
        [run.status],
        messages,
        nfe=flat.nfe,
        accepted=run.steps,
        notes=run.notes(),
        interrupted=run.status == INTERRUPTED,
    )


def _blind(
    f: FieldFunction, x: State, t: np.ndarray, method: Method, rtol: float, atol: float
) -> Blind | None:
    """Where the field is to blame: at the last state, or in the steps that would come next."""
    flat = _Flat(lookout(f), x)
    rows = blind_rows(f, flat.time(t[0]), x)
    if rows:
        return Blind(float(t[0]), rows)
    try:
        with torch.no_grad():
            _Run([flat.start]).advance(flat, t, method, rtol, atol, FEW)
    except Blind as found:
        return found
    return None


class _Flat:
    """The field as scipy calls it: numbers in, numbers out."""

    def __init__(self, f: FieldFunction, x0: State) -> None:
        self.f, self.like = f, x0
        self.nfe = 0
        wide = torch.complex128 if x0[0].is_complex() else torch.float64
        self.wide = wide
        self.start: np.ndarray = self.flatten(x0)

    def flatten(self, x: State) -> np.ndarray:
        parts = [part.detach().to("cpu", self.wide).reshape(-1) for part in x]
        flat: np.ndarray = torch.cat(parts).numpy()
        return flat

    def parts(self, y: np.ndarray) -> State:
        pieces = torch.from_numpy(np.array(y)).split([part.numel() for part in self.like])
        return tuple(
            piece.reshape(part.shape).to(part.device, part.dtype)
            for piece, part in zip(pieces, self.like, strict=True)
        )

    def time(self, t: float) -> Tensor:
        like = self.like[0]
        return torch.tensor(float(t), dtype=like.dtype.to_real(), device=like.device)

    def __call__(self, t: float, y: np.ndarray) -> np.ndarray:
        self.nfe += 1
        return self.flatten(self.f(self.time(t), self.parts(y)))


@dataclass
class _Run:
    """How far scipy came."""

    saved: list[np.ndarray]
    status: str = DONE
    message: str = ""
    steps: int = 0
    t: float | None = None
    y: np.ndarray | None = None
    solver: Any = None

    def advance(
        self,
        f: Callable[[float, np.ndarray], np.ndarray],
        t: np.ndarray,
        method: Method,
        rtol: float,
        atol: float,
        max_steps: int,
    ) -> None:
        """Step to the last time; saved times are read from each step's dense output."""
        import scipy.integrate

        sign = 1.0 if t[-1] >= t[0] else -1.0
        make = getattr(scipy.integrate, method.name)
        try:
            self.solver = make(f, t[0], self.saved[0], t[-1], rtol=rtol, atol=atol)
            while self.solver.status == "running":
                if self.steps >= max_steps:
                    self.status = MAX_STEPS
                    return
                message = self.solver.step()
                if self.solver.status == "failed":
                    self.status, self.message = STEP_TOO_SMALL, str(message)
                    return
                if not np.isfinite(self.solver.y).all():
                    self.status, self.message = NOT_FINITE, "the state is nan or inf"
                    return
                self.steps += 1
                self.t, self.y = self.solver.t, self.solver.y.copy()
                due = sign * (t[len(self.saved) :] - self.t) <= 0
                if due.any():
                    dense = self.solver.dense_output()
                    new = t[len(self.saved) :][due]
                    self.saved += [self.y if s == self.t else dense(s) for s in new]
        except ValueError as error:
            # scipy.linalg's words when it meets a Jacobian of a field that is not finite.
            if "infs or NaNs" not in str(error):
                raise
            self.status, self.message = STEP_TOO_SMALL, str(error)

    def notes(self) -> tuple[str, ...]:
        """The Jacobians and factorisations, where there are any."""
        jacobians = getattr(self.solver, "njev", 0) or 0
        factors = getattr(self.solver, "nlu", 0) or 0
        if not jacobians:
            return ()
        return (f"njev={jacobians}, nlu={factors}",)


def _explain(run: _Run, when: float, end: float, blind: Blind | None) -> str:
    where = f"the solve stopped at t={when:.6g} of {end:g} after {run.steps} steps"
    if run.status == MAX_STEPS:
        return f"{where}, all that max_steps allows: {MORE_STEPS}"
    if run.status == INTERRUPTED:
        return f"{where}: interrupted."
    if blind is not None:
        return f"{where}: {blind}"
    said = run.message.rstrip(".")
    return f"{where} (scipy: {said}): the solution probably blows up or jumps there; end before it."
