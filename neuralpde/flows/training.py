"""Training of flows and bridges on fresh pairs, step by step: of points, and on a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from neuralpde.fields.field import Field
from neuralpde.flows.couplings import Coupling
from neuralpde.flows.losses import EndWeight, bridge_loss, draw_times, flow_loss
from neuralpde.flows.models import Learned
from neuralpde.flows.paths import Isotropic
from neuralpde.graph import Graph


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
    path, first = model.path, next(model.parameters())
    weight = EndWeight(path)

    def loss() -> Tensor:
        x0, x1 = (law.sample(batch, generator).to(first) for law in (source, target))
        x0, x1 = coupling(x0, x1, generator)
        at = path.sample(x0, x1, draw_times(path, batch, generator, first.dtype), generator)
        return bridge_loss(model.heads(at.t, at.x), at, weight=weight(at.t.flatten()))

    _descend(model, loss, steps, rate, progress)
    return model


def train_on_graph(
    network: Field,
    graph: Graph,
    path: Isotropic,
    source: Law,
    target: Law,
    coupling: Coupling,
    *,
    steps: int = 1000,
    batch: int = 32,
    rate: float = 5e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], object] | None = None,
) -> Field:
    """Train a network to carry states of one graph from a law to another, in place.

    A draw of a law is a whole state of the graph; pairs are pairs of states, each with its own
    time. Where the path has noise the network has two heads, and goes into `Learned`; where it has
    none, the velocity alone. For the rest see `train_bridge`.

    Args:
        network: From `[nodes, channels]` to heads times as many channels, on the graph; its times
            may be a column.
        graph: The graph, one.
        path: From the source to the target.
        source: The law at t = 0, of states `[nodes * channels]` or `[nodes, channels]`.
        target: The law at t = 1.
        coupling: Pairs of states of both.
        steps: How many.
        batch: States for each.
        rate: The first learning rate.
        generator: Of all randomness; initial weights are torch's.
        progress: Called with the step and its loss, every hundredth of all steps.

    Raises:
        ValueError: For a batch of graphs; without steps; when the loss is not finite.

    >>> from neuralpde.catalogue import ring
    >>> from neuralpde.flows import GraphNetwork, Independent, Linear, normal
    >>> law = normal(4)  # of states with one number on each of four nodes
    >>> net = GraphNetwork(1, width=4)
    >>> train_on_graph(net, ring(4), Linear(), law, law, Independent(), steps=2) is net
    True
    """
    if graph.num_graphs != 1:
        raise ValueError(f"{graph!r} is a batch: give the one graph that all states are on")
    first, nodes = next(network.parameters()), graph.num_nodes
    copies = Graph.union([graph] * batch)
    which = copies.batch
    assert which is not None
    weight = EndWeight(path) if path.noisy else None

    def states(law: Law) -> Tensor:
        return law.sample(batch, generator).to(first).reshape(batch, nodes, -1)

    # Bound once: what a network freezes for a graph must not hold its parameters.
    bound = network.bind(copies, states(source).flatten(0, 1))

    def loss() -> Tensor:
        x0, x1 = (x.flatten(0, 1) for x in coupling(states(source), states(target), generator))
        times = draw_times(path, batch, generator, first.dtype)
        at = path.sample(x0, x1, times[which], generator)
        out = bound(at.t, at.x)
        if weight is None:
            return flow_loss(out, at, batch=which)
        velocity, head = out.chunk(2, dim=-1)
        return bridge_loss((velocity, head), at, weight=weight(at.t.flatten()), batch=which)

    _descend(network, loss, steps, rate, progress)
    return network


def _descend(
    module: nn.Module,
    loss_of_batch: Callable[[], Tensor],
    steps: int,
    rate: float,
    progress: Callable[[int, float], object] | None,
) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}; train at least one")
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(1, steps + 1):
        loss = loss_of_batch()
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
