"""Training of bridges: the loss of both heads on fresh pairs, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from neuralpde.flows.couplings import Coupling
from neuralpde.flows.losses import EndWeight, bridge_loss, draw_times
from neuralpde.flows.models import Learned


class Law(Protocol):
    """What points can be drawn from."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points."""


def train_bridge(
    model: Learned,
    source: Law,
    target: Law,
    coupling: Coupling,
    *,
    steps: int = 5000,
    batch: int = 512,
    rate: float = 2e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], object] | None = None,
) -> Learned:
    """Train velocity and score of a bridge between two laws, in place.

    Every step draws fresh points of both laws, pairs them, and takes one step of Adam down
    `bridge_loss` with the weights `EndWeight`; the rate falls to zero along half a cosine, which
    leaves less of the gradients' noise in the weights than a constant one.

    Args:
        model: The model; its path says between which times it is trained.
        source: The law at t = 0.
        target: The law at t = 1.
        coupling: Pairs of both.
        steps: How many.
        batch: Pairs for each.
        rate: The first learning rate.
        generator: Of all randomness; initial weights are torch's.
        progress: Called with the step and its loss, every hundredth of all steps.

    Raises:
        ValueError: Without steps, or when the loss is not finite.

    References:
        Tong et al., Simulation-free Schroedinger bridges via score and flow matching, AISTATS
        2024, arXiv:2307.03672.

    >>> from neuralpde.flows import MLP, BrownianBridge, Independent, normal
    >>> model = Learned(MLP(1, heads=2, width=8), BrownianBridge(1.0), sigma=1.0)
    >>> train_bridge(model, normal(1), normal(1), Independent(), steps=2) is model
    True
    """
    if steps < 1:
        raise ValueError(f"steps={steps}; train at least one")
    path, first = model.path, next(model.parameters())
    weight = EndWeight(path)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(1, steps + 1):
        x0, x1 = (law.sample(batch, generator).to(first) for law in (source, target))
        x0, x1 = coupling(x0, x1, generator)
        at = path.sample(x0, x1, draw_times(path, batch, generator, first.dtype), generator)
        loss = bridge_loss(model.heads(at.t, at.x), at, weight=weight(at.t.flatten()))
        if not bool(loss.isfinite()):
            raise ValueError(
                f"the loss is {float(loss.detach())} at step {step}: take a smaller rate"
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
        if progress is not None and step % max(1, steps // 100) == 0:
            progress(step, float(loss.detach()))
    return model
