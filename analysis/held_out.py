"""Samples of states against a day that the model never saw, by their Dirichlet energies."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.distances import wasserstein
from neuralpde.graph import Graph


@dataclass(frozen=True)
class HeldOut:
    """How far samples are from states that were held out, and how far the training states are.

    Attributes:
        samples: The distance W1 between the energies of samples and held-out states.
        training: W1 between those of training and held-out states.
        between: W1 between those of samples and training states.

    >>> HeldOut(3.0, 2.0, 0.5).ratio
    1.5
    """

    samples: float
    training: float
    between: float

    @property
    def ratio(self) -> float:
        """The first over the second: 1 for samples that are as far as the training states."""
        return self.samples / self.training


def held_out(
    graph: Graph,
    samples: Float[Tensor, "samples nodes"],
    training: Float[Tensor, "seen nodes"],
    held: Float[Tensor, "unseen nodes"],
) -> HeldOut:
    """Judge samples by the law of their Dirichlet energies x'Lx.

    Args:
        graph: The graph, undirected.
        samples: States that a model made.
        training: States that it was trained on.
        held: States that it was not.

    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> states = [torch.tensor([[0.0, x]]) for x in (3.0, 2.0, 1.0)]  # energies 9, 4, 1
    >>> held_out(pair, *states)
    HeldOut(samples=8.0, training=3.0, between=5.0)
    """
    made, seen, unseen = (state_energies(graph, x) for x in (samples, training, held))
    return HeldOut(
        energy_distance(made, unseen), energy_distance(seen, unseen), energy_distance(made, seen)
    )


def state_energies(graph: Graph, states: Float[Tensor, "states nodes"]) -> Float[Tensor, " states"]:
    """The Dirichlet energy x'Lx of every state, in double precision.

    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> state_energies(pair, torch.tensor([[0.0, 3.0], [1.0, 1.0]])).tolist()
    [9.0, 0.0]
    """
    columns = states.double().T
    # L does not see the mean, but rounding does.
    columns = columns - columns.mean(0)
    L = graph.laplacian("comb", dtype=torch.float64)
    return (columns * (L @ columns)).sum(0)


def energy_distance(x: Float[Tensor, " samples"], y: Float[Tensor, " others"]) -> float:
    """The distance W1 of two samples of numbers, which need not be of one size.

    Both are repeated to the least common multiple of their sizes, which changes no law.

    Raises:
        ValueError: For an empty sample.

    >>> energy_distance(torch.tensor([0.0, 1.0]), torch.tensor([2.0]))
    1.5
    """
    if len(x) == 0 or len(y) == 0:
        raise ValueError(f"samples of {len(x)} and {len(y)} numbers; give at least one each")
    size = lcm(len(x), len(y))
    first, second = (v.repeat_interleave(size // len(v))[:, None] for v in (x, y))
    return wasserstein(first, second, order=1)
