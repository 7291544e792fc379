"""Diffusion on cellular sheaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.fields.constants import hold, per_graph
from neuralpde.fields.field import Field, State
from neuralpde.fields.maps import Restrictions
from neuralpde.forms import SheafForm
from neuralpde.graph import Graph
from neuralpde.operators.blocks import BlockOperator
from neuralpde.operators.sheaf import NORMS, sheaf_laplacian
from solvers.failure import unknown_name

VARIANTS = ("linear", "frozen", "nonlinear")

PRESETS: dict[str, dict[str, Any]] = {
    "Texas": {"channels": 20, "stalk": 3, "kind": "householder"},
    "Wisconsin": {
        "channels": 32,
        "stalk": 5,
        "kind": "householder",
        "low_pass": True,
        "high_pass": True,
    },
    "Cornell": {"channels": 16, "stalk": 5, "kind": "diagonal", "low_pass": True},
    "Chameleon": {"channels": 32, "stalk": 5, "kind": "diagonal", "low_pass": True},
    "Squirrel": {"channels": 32, "stalk": 4, "kind": "householder", "low_pass": True},
}


class SheafDiffusion(Field):
    """Diffusion on a sheaf, x' = -rate L_F x, or with weights x' = -rate act(L_F (I (x) W1) x W2).

    The state is `[nodes, stalk, channels]`. Every edge compares what the maps F, learned from the
    states of its ends, make of their stalks: `x^T L_F x = sum |F_v x_v - F_u x_u|^2` before
    normalisation.

        linear     maps from x0, frozen, no weights: solved exactly, and the energy falls
        frozen     maps from x0, W1 mixes the stalk, W2 the channels
        nonlinear  the same, maps learned anew from x at every evaluation

    L_F is normalised by Cholesky factors, `C^-1 L C^-T` with `D + I = C C^T`; the papers take the
    symmetric root, which is the same linear diffusion in other frames of the stalks but meets W1
    in others. W1 starts at the identity and W2 orthogonal. Trained networks take these maps and
    weights anew for every unit of time: `Layers` of several such fields.

    The published continuous code evaluates act(-L ..) instead of -act(L ..), which for elu is
    something else: `paper=True`. Not copied: learned weights of edges, one coefficient of memory
    for each component of the stalk, and fixed components that escape the normalisation.

    Args:
        channels: Channels of each component of the stalk.
        stalk: Components of the stalk, those of `low_pass` and `high_pass` included.
        kind: Of the maps: "diagonal", "general", or orthogonal by "householder", "cayley" or
            "exponential".
        norm: "augmented", "sym" or "comb"; see `neuralpde.operators.sheaf_laplacian`.
        variant: "linear", "frozen" or "nonlinear".
        act: Applied to every entry; with weights only.
        rate: A number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        low_pass: Whether one component is that of the graph's own Laplacian.
        high_pass: Whether one is that of `D + A`.
        paper: Whether the sign stands inside `act`.

    Raises:
        ValueError: For unknown names; at bind for a state of other shape and directed graphs.
        TypeError: At bind, for a state of another dtype than the parameters.

    References:
        Bodnar et al., Neural Sheaf Diffusion, NeurIPS 2022, arXiv:2202.04579; code at
        twitter-research/neural-sheaf-diffusion.

    >>> graph, x = Graph(torch.tensor([[0, 1], [1, 0]])), torch.tensor([[[1.0]], [[0.0]]])
    >>> field = SheafDiffusion(1, 1, norm="comb").bind(graph, x)
    >>> field(torch.tensor(0.0), x).flatten().tolist()
    [-1.0, 1.0]
    """

    batched_time = True
    rate: float | Tensor
    stalk: int

    def __init__(
        self,
        channels: int,
        stalk: int = 3,
        *,
        kind: str = "householder",
        norm: str = "augmented",
        variant: str = "linear",
        act: Callable[[Tensor], Tensor] = nn.functional.elu,
        rate: float | Tensor = 1.0,
        low_pass: bool = False,
        high_pass: bool = False,
        paper: bool = False,
    ) -> None:
        super().__init__()
        for name, value, known in (("variant", variant, VARIANTS), ("norm", norm, NORMS)):
            if value not in known:
                raise unknown_name(name, value, known)
        self.channels, self.stalk, self.variant = channels, stalk, variant
        self.normalised, self.act, self.paper = norm, act, paper
        self.has_rest = variant != "linear"
        self.maps = Restrictions(
            stalk * channels, stalk, kind, low_pass=low_pass, high_pass=high_pass
        )
        hold(self, "rate", rate)
        self.laplacian: BlockOperator | None = None
        if self.has_rest:
            self.left = nn.Parameter(torch.eye(stalk))
            self.right = nn.Parameter(nn.init.orthogonal_(torch.empty(channels, channels)))

    @classmethod
    def preset(cls, dataset: str) -> dict[str, Any]:
        """Return the published settings for a data set, with weights and relearned maps.

        Time was 4 layers for Texas, 5 for Chameleon and Squirrel and 2 for the others. Stalks count
        the fixed components.

        Args:
            dataset: "Texas", "Wisconsin", "Cornell", "Chameleon" or "Squirrel".

        >>> SheafDiffusion(**SheafDiffusion.preset("Texas")).stalk
        3
        """
        if dataset not in PRESETS:
            raise unknown_name("data set", dataset, PRESETS)
        return {**PRESETS[dataset], "norm": "augmented", "variant": "nonlinear"}

    def prepare(self, graph: Graph, x0: State) -> None:
        """Freeze the maps, and all that is made of them."""
        x = self._checked(x0)
        self._factor = per_graph("rate", self.rate, graph.num_graphs)
        convention = f"sheaf, {self.normalised}: tr(x'Lx), L of the maps"
        if self.variant == "nonlinear":
            maps, norm = self.maps, self.normalised
            with torch.no_grad():
                # What the edges' ends and blocks are is found here, once.
                _built(maps, graph, x, norm, enclose=False)
            self.form = SheafForm(lambda x: _built(maps, graph, x, norm), graph, convention)
            return
        L = _built(self.maps, graph, x, self.normalised)
        frozen = L.detached()
        self.form = SheafForm(lambda x: frozen, graph, convention)
        # The Laplacian stands for the parameters it was computed from.
        self._modules = {}
        if self.variant == "frozen":
            self.laplacian = L
            return
        self.operator = L * -self._factor
        factor = torch.as_tensor(self._factor, dtype=torch.float64, device=graph.device)
        self.dissipation = factor.detach()
        self._parameters = {}

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The flow with weights."""
        L = self.laplacian
        if L is None:
            assert self.graph is not None
            L = _built(self.maps, self.graph, x, self.normalised, enclose=False)
        mixed = L @ (self.left @ x @ self.right)
        moved = self.act(-mixed) if self.paper else -self.act(mixed)
        assert self.graph is not None
        return moved * _column(self.rate, self.graph.batch, x)

    def _checked(self, x0: State) -> Tensor:
        wanted = (self.stalk, self.channels)
        if not isinstance(x0, Tensor) or x0.shape[1:] != wanted:
            shape = tuple(x0.shape) if isinstance(x0, Tensor) else "a tuple"
            raise ValueError(
                f"x0 is {shape}; this SheafDiffusion takes [nodes, {self.stalk}, {self.channels}]"
            )
        dtype = self.maps.weight.dtype
        if x0.dtype != dtype:
            raise TypeError(
                f"x0 is {x0.dtype} and the parameters of SheafDiffusion are {dtype}; convert one: "
                f"field.to({x0.dtype}) or x0.to({dtype})"
            )
        return x0

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.channels}, stalk={self.stalk}, norm={self.normalised!r}, "
            f"variant={self.variant!r}, paper={self.paper}"
        )


def _built(
    maps: Restrictions, graph: Graph, x: Tensor, norm: str, enclose: bool = True
) -> BlockOperator:
    return sheaf_laplacian(
        graph, maps(graph, x.flatten(1)), norm, orthogonal=maps.orthogonal, enclose=enclose
    )


def _column(rate: float | Tensor, batch: Tensor | None, x: Tensor) -> float | Tensor:
    if not isinstance(rate, Tensor) or not rate.dim() or batch is None:
        return rate.to(x.dtype) if isinstance(rate, Tensor) else rate
    return rate.to(x.dtype)[batch].view(-1, 1, 1)
