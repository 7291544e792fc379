"""The Ornstein-Uhlenbeck process on a graph: diffusion, a pull, and white noise."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.constants import hold, per_graph, spend
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from solvers.exact import propagate
from solvers.noise import NoiseTerm

EPS = torch.finfo(torch.float64).eps

RTOL = 1e-12
"""Relative error of means, where double precision can hold it."""


class OrnsteinUhlenbeck(Field):
    """The graph Ornstein-Uhlenbeck process, dX = -(c L + k I) (X - m) dt + s dW.

    Its drift is affine and its noise additive, so X(t) is normal with, from a fixed x0,

        mean        m + e^(-tA) (x0 - m),   A = c L + k I
        covariance  int_0^t e^(-rA) Q e^(-rA^T) dr,   Q = s s^T

    which for one s and symmetric A = U diag(a) U^T is `U diag(s^2 (1 - e^(-2at)) / 2a) U^T`, with
    `s^2 t` where a = 0: without a pull the mean over each component moves like Brownian motion and
    there is no stationary law, but differences settle: the expected Dirichlet energy of a channel
    tends to `s^2 (n - components) / 2c` (norms "comb" and "sym").

    Args:
        rate: c: a number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        norm: "comb", "rw", "sym" or "augmented"; see `Graph.laplacian`.
        scale: s, as in `Noise`: a number, or a tensor that broadcasts against the state.
        pull: k: a number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        centre: m: a number, or a tensor that broadcasts against the state.

    Raises:
        ValueError: For numbers that are not finite, or tensors that do not fit.

    References:
        Gardiner, Handbook of stochastic methods, 4th edition 2009, section 4.4.6.

    >>> graph, x0 = Graph(torch.tensor([[0, 1], [1, 0]])), torch.tensor([[3.0], [1.0]]).double()
    >>> field = OrnsteinUhlenbeck(scale=2.0).bind(graph, x0)
    >>> field(torch.tensor(0.0), x0).flatten().tolist()
    [-2.0, 2.0]
    >>> field.mean(50.0, x0).flatten().tolist()
    [2.0, 2.0]
    >>> field.covariance(50.0).tolist()  # s^2 t / 2 in the mean, s^2 / 8 = 1/2 in the difference
    [[100.5, 99.5], [99.5, 100.5]]
    """

    batched_time = True
    rate: float | Tensor
    scale: float | Tensor
    pull: float | Tensor
    centre: float | Tensor

    def __init__(
        self,
        rate: float | Tensor = 1.0,
        norm: str = "comb",
        scale: float | Tensor = 1.0,
        pull: float | Tensor = 0.0,
        centre: float | Tensor = 0.0,
    ) -> None:
        super().__init__()
        self.norm = norm
        hold(self, "rate", rate)
        hold(self, "scale", scale, dims=None)
        hold(self, "pull", pull)
        hold(self, "centre", centre, dims=None)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build -(c L + k I), and (c L + k I) m."""
        assert self.norm is not None
        if not isinstance(x0, Tensor):
            raise TypeError("the state of an Ornstein-Uhlenbeck process is one tensor")
        rate = per_graph("rate", self.rate, graph.num_graphs)
        pull = per_graph("pull", self.pull, graph.num_graphs)
        self.operator = graph.laplacian(self.norm).shifted(-rate, -pull)
        if isinstance(self.centre, Tensor) or self.centre:
            centre = torch.as_tensor(self.centre, dtype=x0.dtype, device=x0.device)
            self.source = -(self.operator @ centre.expand_as(x0).contiguous())
        self.shape = x0.shape
        spend(self, "rate", "pull", "centre")

    def inherited_noise(self) -> NoiseTerm:
        """The noise s dW."""
        return NoiseTerm(self.scale)

    def mean(self, t: float, x0: Float[Tensor, "nodes ..."]) -> Float[Tensor, "nodes ..."]:
        """The mean at time `t` of paths that start in x0, by the exact solver: for any graph.

        Args:
            t: Not negative.
            x0: Where all paths start.

        Raises:
            ValueError: Before binding; on a directed graph with a pull, where no exact solver goes.
        """
        A = self._bound().operator
        assert A is not None
        z = t * float(A.bound().max()) / 2
        # Twice what the exact solver refuses to promise.
        rtol = max(RTOL, 8 * (z + 20) * EPS)
        source = None if self.source is None else self.source.expand_as(x0)
        times = torch.tensor([0.0, t], dtype=torch.float64, device="cpu")
        return propagate(A, x0, times, rtol=rtol, source=source).x[-1]

    def covariance(self, t: float, channel: int = 0) -> Float[Tensor, "nodes nodes"]:
        """The covariance of a channel at time `t`, by eigenvectors of the dense matrix, float64.

        Args:
            t: Not negative; infinite for the stationary law.
            channel: Which one, where `scale` differs between channels.

        Raises:
            ValueError: Before binding, on a directed graph, and for infinite times without a pull.

        >>> field = OrnsteinUhlenbeck(pull=0.5, scale=torch.tensor([[1.0], [2.0]]))
        >>> bound = field.bind(torch.tensor([[0, 1], [1, 0]]), torch.zeros(2, 1))
        >>> bound.covariance(math.inf).round(decimals=3).tolist()
        [[1.0, 1.0], [1.0, 2.0]]
        """
        operator = self._bound().operator
        assert operator is not None
        if not operator.self_adjoint:
            raise ValueError(
                "the covariance is found by eigenvectors, which a directed graph may lack; use "
                'graph.undirected(reduce="max")'
            )
        matrix = -operator.to(torch.float64).to_dense().detach()
        root = matrix.new_ones(len(matrix))
        if operator.metric is not None:
            root = operator.metric.sqrt()
        # Self-adjoint in the metric: root A / root is symmetric, up to rounding.
        symmetric = root[:, None] * matrix / root
        a, U = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        a = torch.where(a.abs() <= len(a) * EPS * a.abs().max(), 0.0, a)
        if math.isinf(t) and not bool((a > 0).all()):
            raise ValueError(
                "without a pull towards the centre there is no stationary law: constants move like "
                "Brownian motion; give pull=, or a finite time"
            )
        s = torch.as_tensor(self.scale, dtype=torch.float64).detach().expand(self.shape)
        spread = (s.reshape(len(a), -1)[:, channel] * root)[:, None] * U
        sums = a[:, None] + a
        safe = torch.where(sums > 0, sums, 1.0)
        growth = torch.where(sums > 0, -torch.expm1(-safe * t) / safe, t)
        back = U / root[:, None]
        found: Tensor = back @ (spread.T @ spread * growth) @ back.T
        return found

    def _bound(self) -> OrnsteinUhlenbeck:
        if not self.is_bound:
            raise ValueError("moments need the graph: call field.bind(graph, x0) first")
        return self

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"rate={self.rate!r}, norm={self.norm!r}, scale={self.scale!r}, pull={self.pull!r}, "
            f"centre={self.centre!r}"
        )
