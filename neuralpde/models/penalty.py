"""A price on the Dirichlet energy of the last state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.fields.field import State
from neuralpde.graph import Graph
from neuralpde.models.states import flattened
from solvers.failure import unknown_name

SCALES = ("rayleigh", "node")


@dataclass(frozen=True)
class EnergyPenalty:
    """What a loss pays for the energy of a state: weight * mean of e, or of (e - target)^2.

        e = tr(x^T L x) / |x|^2   ("rayleigh": how rough, whatever the size)
        e = tr(x^T L x) / nodes   ("node")

    The mean goes over the graphs of a batch. A positive weight without a target smooths, a
    negative one sharpens: "rayleigh" is bounded by the largest eigenvalue, so that this is safe
    there and not with "node". The kernel of L is projected out first, as in `DirichletForm`, so
    that gradients are right near consensus; the quotient of a state of zeros counts as 0.

    Args:
        weight: The factor.
        target: What e is drawn to, or None.
        norm: Of L: "comb", "sym" or "augmented".
        scale: "rayleigh" or "node".

    Raises:
        ValueError: For an unknown scale.

    >>> pair = torch.tensor([[0, 1], [1, 0]])
    >>> EnergyPenalty(0.5, norm="comb")(torch.tensor([[1.0], [-1.0]]), pair).item()
    1.0
    """

    weight: float
    target: float | None = None
    norm: str = "sym"
    scale: str = "rayleigh"

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise unknown_name("scale", self.scale, SCALES)

    def energies(self, state: State, graph: Any) -> Float[Tensor, " graphs"]:
        """The number e of each graph, differentiable."""
        x = flattened(state)
        owner = Graph.of(graph).like(x)
        rough = DirichletForm.of(owner, self.norm).deviation(x)
        batch = owner.batch
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device) if batch is None else batch
        sums = x.new_zeros(owner.num_graphs)
        product = owner.laplacian(self.norm) @ rough
        energy = sums.index_add(0, index, (rough * product).sum(1))
        if self.scale == "node":
            return energy / sums.index_add(0, index, x.new_ones(len(x))).clamp(min=1.0)
        square = sums.index_add(0, index, (x * x).sum(1))
        return energy / torch.where(square > 0, square, 1.0)

    def __call__(self, state: State, graph: Any) -> Float[Tensor, ""]:
        """The price."""
        found = self.energies(state, graph)
        paid = found if self.target is None else (found - self.target).square()
        return self.weight * paid.mean()
