"""Why a run broke down, in a sentence with numbers and a remedy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from solvers.explicit import combine
from solvers.failure import INTERRUPTED, MAX_STEPS, NOT_FINITE
from solvers.flow import Flow
from solvers.rows import Rows, State
from solvers.stepper import Trouble

STABILITY_LIMITED = (0.6, 1.5)
"""Steps whose h rho lies within these multiples of the stability interval are limited by it."""


@dataclass
class Breakdown:
    """The state of affairs when graphs failed.

    Attributes:
        status: What happened, in one word.
        flow: The field on its clocks.
        rows: How rows belong to graphs.
        clock_of: The clock of each graph.
        x: The last accepted state.
        start: The first state.
        t: Times of the clocks.
        tried: Times of the clocks after the step that failed.
        end: Where the clocks were to arrive.
        ratio: Error ratios of the last try per graph; NaN for fixed steps.
        sizes: Step sizes of the accepted moves, one array over the clocks each.
        accepted: Accepted steps per graph.
        rejected: Rejected steps per graph.
        stability: Length of the method's real stability interval.
        max_steps: The limit on tries.
        trouble: What the stepper says went wrong in its last step.
    """

    status: str
    flow: Flow
    rows: Rows
    clock_of: np.ndarray
    x: State
    start: State
    t: np.ndarray
    tried: np.ndarray
    end: np.ndarray
    ratio: np.ndarray
    sizes: list[np.ndarray]
    accepted: np.ndarray
    rejected: np.ndarray
    stability: float
    max_steps: int
    trouble: Trouble | None = None

    def explain(self, graphs: np.ndarray) -> dict[int, tuple[str, str]]:
        """Status and text for each of these graphs; its evaluations are not counted."""
        counted = self.flow.nfe
        try:
            with torch.no_grad():
                texts = self._explain(graphs)
        finally:
            self.flow.nfe = counted
        return texts

    def _explain(self, graphs: np.ndarray) -> dict[int, tuple[str, str]]:
        if self.status == INTERRUPTED:
            return {int(g): (INTERRUPTED, f"{self._where(g)}: interrupted.") for g in graphs}
        if self.status == MAX_STEPS:
            radius = spectral_radius(self.flow, self.t, self.x, self.rows)
            return {int(g): (MAX_STEPS, self._too_many(int(g), float(radius[g]))) for g in graphs}
        blind = self._blind_rows()
        return {int(g): self._broken(int(g), blind) for g in graphs}

    def _where(self, g: int) -> str:
        clock = self.clock_of[g]
        who = f"graph {g}" if len(self.clock_of) > 1 else "the solve"
        return f"{who} stopped at t={self.t[clock]:.6g} of {self.end[clock]:g}"

    def _counts(self, g: int) -> str:
        return f"{self.accepted[g]} steps accepted, {self.rejected[g]} rejected."

    def _growth(self, g: int) -> float:
        now, then = (self.rows.mean_square(x)[g].sqrt().item() for x in (self.x, self.start))
        return now / then if then > 0 else float("inf") if now > 0 else 1.0

    def _broken(self, g: int, blind: tuple[float, np.ndarray] | None) -> tuple[str, str]:
        where, counts = self._where(g), self._counts(g)
        if blind is not None:
            time, nodes = blind
            own = nodes if self.rows.batch is None else nodes[self._belongs(nodes, g)]
            if len(own):
                total = len(self.x[0]) if self.x[0].dim() else 1
                return NOT_FINITE, (
                    f"{where}: the field returned nan or inf at t={time:.6g} in {len(own)} of "
                    f"{total} nodes (first: node {own[0]}) although x was finite. Look at the "
                    f"field there: a division by zero, a logarithm, an overflow? {counts}"
                )
        if self.trouble is not None and self.trouble.status == self.status:
            return self.status, f"{where}: {self.trouble.text} {counts}"
        growth = self._growth(g)
        if self.status == NOT_FINITE:
            step = abs(float((self.tried - self.t)[self.clock_of[g]]))
            return NOT_FINITE, (
                f"{where}: the state overflowed within a fixed step of {step:.3g} although the "
                f"field was finite before it; |x| grew {growth:.2g}-fold since the start. The "
                "step is probably outside the method's stability interval: use more steps, or an "
                f"adaptive solver such as 'tsit5'. {counts}"
            )
        step = abs(float((self.tried - self.t)[self.clock_of[g]]))
        return self.status, (
            f"{where}: a step of {step:.2g} is below the spacing of numbers at t (error ratio "
            f"{self.ratio[g]:.3g} at the last try; |x| grew {growth:.2g}-fold since the start). "
            "The solution probably blows up or jumps there: end before it, or mend the field. "
            f"{counts}"
        )

    def _too_many(self, g: int, radius: float) -> str:
        clock = self.clock_of[g]
        left = abs(self.end[clock] - self.t[clock])
        sizes = np.abs([move[clock] for move in self.sizes if move[clock] != 0])
        text = f"{self._where(g)}: all {self.max_steps} steps are used ({self._counts(g)[:-1]}). "
        if not len(sizes):
            return text + "No step was accepted: loosen rtol and atol, or look for a jump in time."
        typical = float(np.median(sizes[-200:]))
        different = np.flatnonzero((sizes < typical / 2) | (sizes > typical * 2))
        since = len(sizes) - (different[-1] + 1 if len(different) else 0)
        limit = typical * radius / self.stability
        if STABILITY_LIMITED[0] <= limit <= STABILITY_LIMITED[1]:
            text += (
                f"For the last {since} steps h*rho = {typical * radius:.2g}, i.e. the step is "
                f"limited by stability (interval {self.stability:.2g}), not by accuracy (rho = "
                f"{radius:.3g}): the problem is stiff, and looser tolerances will not help. Use "
                "solver='scipy:BDF' for up to a few thousand unknowns; if the field is linear, "
                "declare its operator and use solver='exact'"
            )
        else:
            text += f"The last {since} steps were about {typical:.2g} long; loosen rtol and atol"
        return text + f"; or raise max_steps (about {int(left / typical) + 1} more are needed)."

    def _blind_rows(self) -> tuple[float, np.ndarray] | None:
        """Where the field is not finite although the state is: at the last state, now or next."""
        for t in (self.t, self.tried):
            bad = [~part.isfinite() for part in self.flow(t, self.x)]
            if any(bool(part.any()) for part in bad):
                rows = [part.reshape(part.shape[0] if part.dim() else 1, -1).any(1) for part in bad]
                width = max(len(part) for part in rows)
                marked = torch.stack([part for part in rows if len(part) == width]).any(0)
                return float(t.max()), torch.nonzero(marked).squeeze(1).cpu().numpy()
        return None

    def _belongs(self, nodes: np.ndarray, g: int) -> np.ndarray:
        assert self.rows.batch is not None
        own: np.ndarray = self.rows.batch.cpu().numpy()[nodes] == g
        return own


def spectral_radius(
    flow: Flow, t: np.ndarray, x: State, rows: Rows, iterations: int = 30
) -> np.ndarray:
    """Estimate the Jacobian's largest modulus per graph by a nonlinear power iteration.

    `v <- (f(x + eps v) - f(x)) / eps`, normalised per graph; an estimate from below.

    >>> flow = Flow(lambda t, x: (-3.0 * x[0],), Rows(None, 1), torch.ones(2))
    >>> x = (torch.ones(2, dtype=torch.float64),)
    >>> spectral_radius(flow, np.zeros(1), x, Rows(None, 1)).round(6).tolist()
    [3.0]
    """
    generator = torch.Generator().manual_seed(0)
    v = tuple(torch.randn(p.shape, generator=generator, dtype=p.dtype.to_real()).to(p) for p in x)
    fx = flow(t, x)
    size = rows.mean_square(x).sqrt().cpu().numpy()
    eps = np.sqrt(torch.finfo(x[0].dtype).eps) * np.where(size > 0, size, 1.0)
    radius = np.zeros(rows.num_graphs)
    for _ in range(iterations):
        norm = rows.mean_square(v).sqrt().cpu().numpy()
        scale = np.divide(eps, norm, out=np.zeros_like(eps), where=norm > 0)
        moved = combine(x, rows.spread(scale, x[0]), (1.0,), (v,))
        v = combine(None, 1.0, (1.0, -1.0), (flow(t, moved), fx))
        radius = rows.mean_square(v).sqrt().cpu().numpy() / eps
    return radius
