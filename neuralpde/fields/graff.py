"""GRAFF: graph convolutions as the gradient flow of an energy with attraction and repulsion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.channel_weights import SymmetricWeights
from neuralpde.fields.field import Field, State
from neuralpde.fields.presets import Preset, preset
from neuralpde.graph import Graph
from neuralpde.operators import Kronecker, Operator
from solvers.rows import Rows


class GRAFF(Field):
    """Gradient flow with mixed channels, x' = A x W - x Omega - x(0) W~.

    A is the normalised adjacency D^(-1/2) (A + s I) D^(-1/2), W symmetric, Omega diagonal. It
    descends its `lyapunov` functional

        E(x) = 1/2 sum_i <x_i, Omega x_i> - 1/2 sum_ij A_ij <x_i, W x_j> + sum_i <x_i, W~^T x_i(0)>

    whose W attracts neighbours along eigenvectors with positive eigenvalues and repels them along
    the others: the mode of an eigenvector of W (w) and one of I - A (lambda) has the factor
    `exp(t (w (1 - lambda) - omega))` where Omega is a multiple of the identity. So the flow may
    smooth (the Rayleigh quotient of the "sym" form tends to 0) or sharpen (it tends to the largest
    lambda), and states may grow: look at `traj["rayleigh"]` rather than at the raw energy.

    Without `act` the field is linear and solved exactly. With it, x' = act(-grad E), which still
    descends E where `s act(s) >= 0`, as for relu and tanh.

    The published code has a scalar b x(0) for the source, through which no gradient passes
    (`paper=True` does so). Not copied: batch normalisation of the slope, whose layers sat in a
    python list, so that they were never trained and used the statistics of the test batch, and
    weights that depend on the number of the step (use `Layers`).

    Args:
        channels: Channels of the state `[nodes, channels]`.
        weights: Style of W: "sum", "prod", "neg_prod", "diag" or "diag_dom"; see
            `SymmetricWeights`. A number of the style starts uniform in [-1, 1].
        external: Whether there is Omega, learned, uniform in [-1, 1] at first.
        source: Whether there is W~, learned, zero at first.
        act: None, or a function of every entry.
        self_loops: s.
        paper: Whether the source is that of the published code.

    Raises:
        ValueError: For an unknown style, negative self_loops; at bind for a directed graph, or a
            state of other shape.
        TypeError: At bind, for a state of another dtype than the parameters.

    References:
        F. Di Giovanni, J. Rowbottom, B. Chamberlain, T. Markovich, M. Bronstein, Understanding
        convolution on graphs via energies, TMLR 2023, arXiv:2206.10991; code at
        JRowbottomGit/graff.

    >>> x = torch.tensor([[1.0], [3.0]])
    >>> field = GRAFF(1, "diag", external=False)
    >>> _ = field.weights.offset.data.fill_(2.0)
    >>> bound = field.bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> bound(torch.tensor(0.0), x).flatten().tolist(), bound.lyapunov(x).tolist()
    ([6.0, 2.0], [-6.0])
    """

    norm = "sym"
    batched_time = True

    def __init__(
        self,
        channels: int,
        weights: str = "diag_dom",
        *,
        external: bool = True,
        source: bool = False,
        act: Callable[[Tensor], Tensor] | None = None,
        self_loops: float = 0.0,
        paper: bool = False,
    ) -> None:
        super().__init__()
        if not self_loops >= 0:
            raise ValueError(f"self_loops is {self_loops}; weights are not negative")
        self.channels, self.act, self.self_loops = channels, act, float(self_loops)
        self.paper, self.has_rest = paper, act is not None
        self.weights = SymmetricWeights(channels, weights)
        self.omega = nn.Parameter(torch.empty(channels).uniform_(-1.0, 1.0)) if external else None
        shape = () if paper else (channels, channels)
        self.inflow = nn.Parameter(torch.zeros(shape)) if source else None

    @classmethod
    def preset(cls, name: str) -> Preset:
        """Look up the published settings of the linear model on a data set.

        "Cora", "Citeseer", "Pubmed", "Texas", "Wisconsin", "Cornell", "Film", "Chameleon" and
        "Squirrel" (there with layerwise batch normalisation, which a field has not); 48/32/20 per
        cent splits. Texas, Wisconsin and Cornell have an MLP as encoder.

        Raises:
            ValueError: For other names.

        >>> GRAFF.preset("Cora").end, GRAFF(**GRAFF.preset("Cora").settings).channels
        (3.0, 64)
        """
        return preset(PRESETS, name)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build the operator and the source; they stand for the parameters."""
        x0 = self._checked(x0)
        A = graph.adjacency("sym", self_loops=self.self_loops)
        flow: Operator = Kronecker(A, self.weights())
        if self.omega is not None:
            flow = flow - Kronecker.identity(A, self.omega)
        drive = None
        if self.inflow is not None:
            drive = self.inflow * x0.detach() if self.paper else -(x0 @ self.inflow)
        self.flow, self.drive = flow, drive
        if self.act is None:
            self.operator, self.source = flow, drive
        del self._modules["weights"]
        self._parameters = {}

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The activated slope."""
        assert self.act is not None
        slope = self.flow @ x
        return self.act(slope if self.drive is None else slope + self.drive)

    def lyapunov(self, x: Float[Tensor, "nodes channels"]) -> Float[Tensor, " graphs"]:
        """The energy E of each graph, float64."""
        graph = self.graph
        if graph is None:
            raise ValueError("the energy of GRAFF needs a graph: bind the field first")
        slope = (self.flow @ x).double() / 2
        if self.drive is not None:
            slope = slope + self.drive
        return -Rows(graph.batch, graph.num_graphs).sums((x * slope,))

    def _checked(self, x0: State) -> Tensor:
        if not isinstance(x0, Tensor) or x0.dim() != 2 or x0.shape[1] != self.channels:
            shape = tuple(x0.shape) if isinstance(x0, Tensor) else "a tuple"
            raise ValueError(f"x0 is {shape}; this GRAFF takes [nodes, {self.channels}]")
        dtype = next(self.parameters()).dtype
        if x0.dtype != dtype:
            raise TypeError(
                f"x0 is {x0.dtype} and the parameters of GRAFF are {dtype}; convert one: "
                f"field.to({x0.dtype}) or x0.to({dtype})"
            )
        return x0

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, self_loops={self.self_loops:g}, paper={self.paper}"


def _linear(
    style: str, end: float, step: float, channels: int, numbers: tuple[float, ...], **other: bool
) -> Preset:
    names = ("learning_rate", "weight_decay", "dropout", "input_dropout")
    settings = {"channels": channels, "weights": style, "external": True, "source": True}
    return Preset(
        {**settings, **other, "paper": True},
        "euler",
        end,
        step,
        dict(zip(names, numbers, strict=True)),
    )


PRESETS = {
    "Cora": _linear("diag", 3.0, 0.25, 64, (0.00261, 0.04125, 0.3386, 0.5294)),
    "Citeseer": _linear("diag", 2.0, 0.5, 64, (1.17e-4, 0.02737, 0.2224, 0.5129)),
    "Pubmed": _linear("diag", 2.552, 0.5, 64, (0.00394, 3.348e-4, 0.4232, 0.412)),
    "Texas": _linear("diag", 2.985, 0.5, 256, (0.004, 0.0089, 0.3293, 0.3936)),
    "Wisconsin": _linear("diag", 2.099, 0.5, 256, (0.002908, 0.03178, 0.3717, 0.3674)),
    "Cornell": _linear("diag", 2.008, 1.0, 256, (0.002105, 0.01838, 0.2978, 0.4421)),
    "Film": _linear("diag", 1.541, 1.0, 64, (0.002602, 0.01299, 0.4847, 0.4191)),
    "Chameleon": _linear("diag_dom", 3.194, 1.0, 64, (0.001411, 4.295e-4, 0.3674, 0.4327)),
    "Squirrel": _linear(
        "diag_dom", 3.275, 1.0, 128, (0.0027, 0.0006, 0.159, 0.349), external=False, source=False
    ),
}
"""From graff_params.py of the published code."""
