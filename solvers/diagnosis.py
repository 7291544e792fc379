"""Why a run broke down, in a sentence with numbers and a remedy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from solvers.failure import INTERRUPTED, MAX_STEPS, NOT_FINITE
from solvers.flow import Flow
from solvers.rows import Rows, State
from solvers.spectrum import outer_eigenvalues
from solvers.stepper import Trouble

STABILITY_LIMITED = (0.6, 1.5)
"""Steps whose h rho lies within these multiples of the stability interval are limited by it."""

OBLIQUE = 0.3
"""Imaginary parts above this share of the radius are beyond stabilised methods."""


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
            outer = outer_eigenvalues(self.flow, self.t, self.x, self.rows)
            seen = list(zip(outer.radius.tolist(), outer.oblique.tolist(), strict=True))
            return {int(g): (MAX_STEPS, self._too_many(int(g), *seen[g])) for g in graphs}
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

    def _too_many(self, g: int, radius: float, oblique: float) -> str:
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
                f"{radius:.3g}): the problem is stiff, and looser tolerances will not help. "
            )
            if oblique > OBLIQUE * radius:
                text += (
                    f"Eigenvalues reach |Im| = {oblique:.2g}, too much for 'rkl2': use "
                    "solver='trbdf2', which is implicit"
                )
            else:
                text += (
                    "Use solver='rkl2', whose stages grow with the root of h*rho, or 'trbdf2', "
                    "which is implicit; if the field is linear, declare its operator and use "
                    "solver='exact'"
                )
        else:
            text += f"The last {since} steps were about {typical:.2g} long; loosen rtol and atol"
        needed = int(left / max(typical, 1e-12 * left)) + 1  # Steps may have shrunk to nothing.
        return text + f"; or raise max_steps (about {needed} more are needed)."

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
