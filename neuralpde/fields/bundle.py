"""Diffusion on flat vector bundles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuralpde.fields.constants import hold, per_graph
from neuralpde.fields.diffusion import Heat
from neuralpde.fields.field import Field, State
from neuralpde.fields.maps import Frames
from neuralpde.forms import BundleForm
from neuralpde.graph import Graph
from neuralpde.operators.bundle import BundleOperator


class BundleDiffusion(Field):
    """Heat flow on a flat vector bundle, x' = -rate O^T (L (x) I) O x.

    The state is `[nodes, stalk, channels]`. Every node has an orthogonal frame O_v, learned from x0
    and then frozen; in the frames it is heat flow on the graph, so x(t) = O^T e^(-rate t L) O x0,
    which is solved exactly: the same products as for heat, to any tolerance, at any time. As t
    grows it tends to O^T times the mean of O x0 over each component (weighted by the degree for
    "rw"); the energy is that of O x.

    One layer of a bundle network is this flow for one time, with a linear map in the frames. The
    published code sums 8 terms of Taylor's series, which grows without bound once the time exceeds
    a few units; its Laplacian is that of "sym", or of "rw" on long-range benchmarks.

    Args:
        channels: Channels of each component.
        stalk: Dims of the frames.
        bundles: Frames of each node, with an equal share of the channels each.
        frames: Maps x0 `[nodes, stalk * channels]` to orthogonal `[nodes, bundles, stalk, stalk]`;
            a module if it is learned; by default `Frames` with reflections. Called with the graph
            as well if it says so by an attribute `needs_graph`.
        norm: "sym", "rw", "comb" or "augmented"; see `Graph.laplacian`.
        rate: A number, a tensor (0-d, or one entry per graph), or an `nn.Parameter` (the time of a
            layer).
        hops: How far the default frames see.

    Raises:
        ValueError: When bundles do not divide the channels; at bind for a state of other shape and
            frames that are not orthogonal.
        TypeError: At bind, for frames of another dtype.

    References:
        Bamberger et al., Bundle Neural Networks for message diffusion on graphs, ICLR 2025,
        arXiv:2405.15540.

    >>> graph, x = Graph(torch.tensor([[0, 1], [1, 0]])), torch.tensor([[[1.0]], [[0.0]]])
    >>> field = BundleDiffusion(1, 1, frames=lambda x: torch.ones(2, 1, 1, 1)).bind(graph, x)
    >>> field(torch.tensor(0.0), x).flatten().tolist()
    [-1.0, 1.0]
    """

    batched_time = True
    rate: float | Tensor
    stalk: int

    def __init__(
        self,
        channels: int,
        stalk: int = 2,
        *,
        bundles: int = 1,
        frames: Callable[..., Tensor] | None = None,
        norm: str = "sym",
        rate: float | Tensor = 1.0,
        hops: int = 0,
    ) -> None:
        super().__init__()
        if bundles < 1 or channels % bundles:
            raise ValueError(f"{bundles} bundles do not share {channels} channels equally")
        self.channels, self.stalk, self.bundles, self.norm = channels, stalk, bundles, norm
        if frames is None:
            frames = Frames(stalk * channels, stalk, bundles, hops=hops)
        self.frames = frames
        hold(self, "rate", rate)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Freeze the frames."""
        assert self.norm is not None
        if not isinstance(x0, Tensor) or x0.shape[1:] != (self.stalk, self.channels):
            shape = tuple(x0.shape) if isinstance(x0, Tensor) else "a tuple"
            raise ValueError(
                f"x0 is {shape}; this BundleDiffusion takes [nodes, {self.stalk}, {self.channels}]"
            )
        rate = per_graph("rate", self.rate, graph.num_graphs)
        seen = (graph,) if getattr(self.frames, "needs_graph", False) else ()
        frames = self._orthogonal(self.frames(x0.flatten(1), *seen))
        self.operator = BundleOperator(frames, graph.laplacian(self.norm) * -rate)
        self.form = BundleForm(frames, graph, self.norm)
        self.dissipation = torch.as_tensor(rate, dtype=torch.float64, device=graph.device).detach()
        # The operator stands for the parameters it was computed from.
        self._modules, self._parameters = {}, {}
        vars(self).pop("frames", None)

    def inside(self) -> Heat:
        """The same flow as one sees it in the frames: heat on the graph.

        >>> BundleDiffusion(2, 2, norm="rw").inside()
        Heat(norm='rw', rate=1.0)
        """
        assert self.norm is not None
        return Heat(self.norm, self.rate)

    def _orthogonal(self, frames: Tensor) -> Tensor:
        with torch.no_grad():
            one = torch.eye(self.stalk, dtype=frames.dtype, device=frames.device)
            fits = frames.dim() in (3, 4) and frames.shape[-2:] == one.shape
            off = float((frames @ frames.mT - one).abs().amax()) if fits and len(frames) else 0.0
        if not fits or off > 1e3 * torch.finfo(frames.dtype).eps:
            raise ValueError(
                f"frames are {tuple(frames.shape)} and O O^T differs from I by {off:.2g}; give "
                f"orthogonal matrices [nodes, {self.bundles}, {self.stalk}, {self.stalk}], as "
                "neuralpde.operators.orthogonal makes them"
            )
        return frames

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, stalk={self.stalk}, bundles={self.bundles}, norm={self.norm!r}"
