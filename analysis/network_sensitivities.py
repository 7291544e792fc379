"""The sensitivity of ordinary networks, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.autograd import forward_ad

from analysis.blocks import check_norm, directions, measured
from analysis.sensitivities import PROBES, WHOLE, Sensitivity, checked_sources
from analysis.tracing import layer_states


def network_sensitivity(
    model: nn.Module,
    data: Any,
    *,
    sources: Sequence[int] | Int[Tensor, " sources"] | None = None,
    probes: int | None = None,
    norm: str = "l1",
    generator: torch.Generator | None = None,
) -> Sensitivity:
    """How strongly the layers of a network depend on its input, |dx_i^(k)/dx_j|, in eval mode.

    The value at t = k is that of what layer k + 1 gets, and the last one that of what the last
    layer returns; the whole graph is used. `torch_geometric.utils.total_influence` takes the
    induced subgraph of the hops that a network reaches, whose nodes at the rim have lost
    neighbours: networks that divide by degrees then get wrong numbers there. Here one pass forwards
    for each source and channel gives all layers and all targets.

    Args:
        model: A network of torch_geometric layers.
        data: A `Data` or `Batch` with features `x`; see `analysis.trace`.
        sources: Nodes whose input is disturbed; all of them by default.
        probes: See `sensitivity`.
        norm: Of a block; "l1" is torch_geometric's.
        generator: Of the probes.

    Raises:
        ValueError: For bad sources, norms and probes, and models without message-passing layers.

    >>> from torch_geometric.data import Data
    >>> from torch_geometric.nn import GCN
    >>> data = Data(torch.ones(2, 1), torch.tensor([[0, 1], [1, 0]]))
    >>> J = network_sensitivity(GCN(1, 1, num_layers=1), data).value
    >>> (J / J.sum(1, keepdim=True)).tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]
    """
    check_norm(norm, probes)
    x = data.x.detach()
    where, channels = checked_sources(sources, len(x)), x[0].numel()
    if probes is None and norm == "fro" and channels > WHOLE:
        probes = PROBES
    given = directions(len(where), channels, probes, generator).to(x)
    norms = []
    with torch.no_grad(), forward_ad.dual_level():
        for node, those in zip(where.tolist(), given, strict=True):
            images = [_image(model, data, node, direction) for direction in those]
            layers = (torch.stack(layer, -2) for layer in zip(*images, strict=True))
            norms.append([measured(layer, norm, probes) for layer in layers])
    value, error = (
        torch.stack([torch.stack([layer[k] for layer in one]) for one in norms], 1) for k in (0, 1)
    )
    t = torch.arange(len(value), dtype=torch.float64)
    told = "" if probes is None else f", {probes} probes for each source"
    method = f"forward through the {len(t) - 1} layers of {type(model).__name__}{told}"
    return Sensitivity(t, where, value, error, norm, method)


def _image(model: nn.Module, data: Any, node: int, direction: Tensor) -> list[Tensor]:
    """The derivatives of the states of all layers along one direction at one node."""
    tangent = torch.zeros_like(data.x)
    tangent[node] = direction.view(tangent[node].shape)
    moved = copy.copy(data)
    moved.x = forward_ad.make_dual(data.x.detach(), tangent)
    pairs = [forward_ad.unpack_dual(state) for state in layer_states(model, moved, len(data.x))]
    return [
        (torch.zeros_like(pair.primal) if pair.tangent is None else pair.tangent).flatten(1)
        for pair in pairs
    ]
