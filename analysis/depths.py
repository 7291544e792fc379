"""What a trained network says of nodes, and what its state is like, along time or depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from analysis.energies import Norm, Rayleigh
from analysis.ranks import EffectiveRank
from analysis.tracing import layer_states
from neuralpde.graph import Graph
from neuralpde.models import NodeModel, accuracy
from neuralpde.models.states import flattened

LARGEST = math.log10(torch.finfo(torch.float32).max)


@dataclass(frozen=True)
class Depth:
    """A state and what is made of it.

    Attributes:
        depth: Time, or number of layers.
        accuracy: Of the nodes asked for.
        rayleigh: tr(x^T L x) / |x|^2 of "sym"; NaN for a state of zeros or one that is not finite.
        norm: log10 |x|, of states beyond the range of the numbers `inf`.
        rank: The effective rank.

    >>> Depth(4.0, 0.5, 0.1, 39.0, 2.0).overflows
    True
    """

    depth: float
    accuracy: float
    rayleigh: float
    norm: float
    rank: float

    @property
    def overflows(self) -> bool:
        """Whether single precision cannot hold the norm."""
        return not self.norm < LARGEST


def depth_of(
    depth: float,
    state: Float[Tensor, "nodes channels"],
    out: Float[Tensor, "nodes classes"],
    y: Int[Tensor, " nodes"],
    graph: Any,
    nodes: Bool[Tensor, " nodes"],
) -> Depth:
    """Measure a state, however large, and the output that was made of it.

    Args:
        depth: Where it is.
        state: The state.
        out: Scores of the classes.
        y: Classes.
        graph: The graph, one.
        nodes: Those whose accuracy is taken.

    >>> pair, y = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1])
    >>> x = torch.tensor([[1e200], [-1e200]], dtype=torch.float64)
    >>> depth_of(1.0, x, torch.eye(2), y, pair, y >= 0)
    Depth(depth=1.0, accuracy=1.0, rayleigh=2.0, norm=200.150514997832, rank=1.0)
    """
    right = accuracy(out[nodes], y[nodes])
    top = float(state.abs().max())
    if not math.isfinite(top):
        return Depth(depth, right, math.nan, math.inf, math.nan)
    if top == 0.0:
        return Depth(depth, right, math.nan, -math.inf, math.nan)
    # Squares of the state itself may be out of range.
    unit = state / top
    size, rough, rank = (
        float(measure(unit, graph)) for measure in (Norm(), Rayleigh("sym"), EffectiveRank())
    )
    return Depth(depth, right, rough, math.log10(size) + math.log10(top), rank)


def along(
    model: NodeModel,
    x: Float[Tensor, "nodes inputs"],
    y: Int[Tensor, " nodes"],
    graph: Any,
    nodes: Bool[Tensor, " nodes"],
    times: Sequence[float],
) -> list[Depth]:
    """Read a trained model at times before and beyond its end, in double precision.

    The model is not changed. Where it takes fixed steps, their size is that of training.

    Args:
        model: The model.
        x: Features.
        y: Classes.
        graph: The graph.
        nodes: Those whose accuracy is taken.
        times: Rising from 0 or later, at least one of them after 0.

    >>> from neuralpde.fields import Heat
    >>> model = NodeModel(nn.Identity(), Heat("sym"), nn.Identity(), channels=2)
    >>> pair, y = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1])
    >>> [round(one.rayleigh, 4) for one in along(model, torch.eye(2), y, pair, y >= 0, (0, 1))]
    [1.0, 0.036]
    """
    wide = deepcopy(model).double().eval()
    owner = Graph.of(graph).like(x.double())
    kept = [0.0, *(float(t) for t in times if t > 0)]
    found = wide.trajectory(x.double(), owner, kept).x
    states = list(zip(*found, strict=True) if isinstance(found, tuple) else found)
    wanted = [(t, state) for t, state in zip(kept, states, strict=True) if t in set(times)]
    with torch.no_grad():
        return [
            depth_of(t, flattened(state), wide.read(state), y, owner, nodes) for t, state in wanted
        ]


def last_of(
    model: nn.Module,
    depth: float,
    x: Float[Tensor, "nodes inputs"],
    y: Int[Tensor, " nodes"],
    graph: Any,
    nodes: Bool[Tensor, " nodes"],
) -> Depth:
    """Read a trained model at its end: of a flow the last state, of layers what the last one gets.

    Args:
        model: A `NodeModel`, or layers of torch_geometric such as `Convolutions`.
        depth: Number of layers, or the end time.
        x: Features.
        y: Classes.
        graph: The graph.
        nodes: Those whose accuracy is taken.

    >>> from neuralpde.models import Convolutions
    >>> pair, y = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1])
    >>> last_of(Convolutions("gcn", 2, 4, 2, layers=3), 3, torch.eye(2), y, pair, y >= 0).depth
    3
    """
    owner = Graph.of(graph).like(x)
    model.eval()
    with torch.no_grad():
        if isinstance(model, NodeModel):
            whole = model.last(x, owner)
            return depth_of(depth, flattened(whole), model.read(whole), y, owner, nodes)
        told = SimpleNamespace(x=x, graph=owner)
        state = layer_states(model, told, len(x))[-2]
        return depth_of(depth, state, model(x, owner), y, owner, nodes)
