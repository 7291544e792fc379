"""Linear-quadratic network games: players that move towards their best response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.constants import hold, per_graph, spend
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph
from neuralpde.operators import Operator
from solvers.rows import Rows

Network = Callable[[Graph, Any], Operator]

DENSE = 100
"""Eigenvalues of smaller networks are found by a dense solver."""

MARGIN = 1e-9
"""An eigenvalue this close to 1 is one that is 1."""


class BestResponse(Field):
    """Best-response dynamics of a linear-quadratic network game, x' = b + beta G x - x.

    Player i chooses an action x_i and is paid `b_i x_i - x_i^2 / 2 + beta x_i sum_j G_ij x_j`. The
    best answer to the others is `b_i + beta sum_j G_ij x_j`, and all move towards theirs. With
    beta > 0 actions are strategic complements, with beta < 0 substitutes. The field is affine, and
    exact on undirected graphs. Channels are games of their own on one network.

    The Nash equilibrium `x* = (I - beta G)^-1 b` is where `steady_state` gets if every eigenvalue
    of beta G has a real part below 1: for complements `beta rho(G) < 1`, rho(G) the spectral
    radius. Beyond that actions grow without end; `amplification` tells, and `steady_state`
    refuses. Gradients through `steady_state` reach b, beta and a learned network, so that the
    network can be found from equilibria that were observed.

    With `nonnegative` actions are not negative, `x' = max(0, b + beta G x) - x`, which has a kink
    where a player stops to play. For substitutes on an undirected graph the equilibrium is unique
    if `|beta| |lambda_min(G)| < 1`; else there may be several, and the start decides.

    Args:
        benefit: b: a number, a tensor that broadcasts against the state (`[nodes, 1]` for players
            that differ), or an `nn.Parameter`.
        beta: A number, a tensor (0-d, or one entry per graph), or an `nn.Parameter`.
        network: Maps the graph and the first state to the operator G, as `EdgeWeights` does; the
            adjacency matrix with the weights of the graph by default.
        nonnegative: Whether actions are not negative.

    Raises:
        ValueError: For numbers that are not finite, or tensors that do not fit.

    References:
        Ballester, Calvo-Armengol, Zenou, Who's who in networks, Econometrica 74 (2006), 1403;
        Bramoulle, Kranton, D'Amours, Strategic interaction and networks, Am. Econ. Rev. 104
        (2014), 898, for substitutes and the potential; Leng, Dong, Wu, Pentland, Learning quadratic
        games on networks, ICML 2020, arXiv:1811.08790, for the inverse problem.

    >>> graph, x0 = Graph(torch.tensor([[0, 1], [1, 0]])), torch.zeros(2, 1)
    >>> field = BestResponse(1.0, beta=0.5).bind(graph, x0)
    >>> field(torch.tensor(0.0), x0).flatten().tolist()
    [1.0, 1.0]
    >>> field(torch.tensor(0.0), x0 + 2.0).flatten().tolist()  # x* = 1 / (1 - 1/2)
    [0.0, 0.0]
    """

    batched_time = True
    benefit: float | Tensor
    beta: float | Tensor
    network: Any
    pull: Operator

    def __init__(
        self,
        benefit: float | Tensor = 1.0,
        beta: float | Tensor = 0.1,
        network: Network | nn.Module | None = None,
        *,
        nonnegative: bool = False,
    ) -> None:
        super().__init__()
        hold(self, "benefit", benefit, dims=None)
        hold(self, "beta", beta)
        self.network, self.nonnegative = network, nonnegative
        self.has_rest = nonnegative

    def prepare(self, graph: Graph, x0: State) -> None:
        """Build beta G - I and b."""
        if not isinstance(x0, Tensor):
            raise TypeError("the state of a game is one tensor of actions")
        build, self.network = self.network, None
        G = graph.adjacency() if build is None else build(graph, x0)
        beta = per_graph("beta", self.beta, graph.num_graphs)
        benefit = torch.as_tensor(self.benefit, dtype=x0.dtype, device=x0.device)
        if self.nonnegative:
            self.pull, self.b = G * beta, benefit.expand_as(x0)
        else:
            self.operator, self.source = G.shifted(beta, -1.0), benefit.expand_as(x0).clone()
        spend(self, "benefit", "beta")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """With actions that are not negative: the best answer minus the action."""
        return torch.relu(self.pull @ x + self.b) - x

    def amplification(self) -> float:
        """Largest real part of an eigenvalue of beta G, over all graphs: below 1 the game settles.

        Raises:
            ValueError: Before binding.

        >>> pair = torch.tensor([[0, 1], [1, 0]])
        >>> BestResponse(beta=-0.5).bind(pair, torch.zeros(2, 1).double()).amplification()
        0.5
        """
        return _rightmost(self._others())

    def unsettled(self) -> str | None:
        """Why the flow has no steady state, or None where there is one or nothing is known."""
        others = self._others()
        if self.nonnegative and not (others.tags.nonnegative and bool((self.b > 0).all())):
            # Players may stop to play, and only the flow shows who does.
            return None
        if bool((others.bound() < 1 - MARGIN).all()):
            return None
        grown = _rightmost(others)
        if grown < 1 - MARGIN:
            return None
        return (
            f"has no equilibrium that best responses reach: beta G has an eigenvalue of real part "
            f"{grown:.6g}, and they settle below 1. Multiply beta by less than {1 / grown:.4g}, "
            "normalise the network, or (for substitutes) say nonnegative=True"
        )

    def lyapunov(self, x: Tensor) -> Float[Tensor, " graphs"]:
        """Minus the potential, `|x|^2 / 2 - beta x^T G x / 2 - b^T x`, of each graph, float64.

        Without `nonnegative` the field is its gradient flow; with it, it falls from any x >= 0.

        Raises:
            ValueError: Before binding, and for networks that are not symmetric.
        """
        others, b = self._others(), self.b if self.nonnegative else self.source
        if not others.symmetric:
            raise ValueError(
                "a game on a network that is not symmetric has no such potential; use "
                'graph.undirected(reduce="max"), or adjacency("sym")'
            )
        graph = self.graph
        assert graph is not None
        assert b is not None
        return Rows(graph.batch, graph.num_graphs).sums((x * (x / 2 - others @ x / 2 - b),))

    def relabelled(self, order: Tensor) -> BestResponse:
        """Return the same game on a graph whose node `k` was node `order[k]` before."""
        benefit = self.benefit
        if isinstance(benefit, Tensor) and benefit.dim() > 1 and len(benefit) > 1:
            benefit = benefit[order]
        return BestResponse(benefit, self.beta, self.network, nonnegative=self.nonnegative)

    def _others(self) -> Operator:
        """Beta G, what the others do to a player."""
        if not self.is_bound:
            raise ValueError("a game is played on a graph: call field.bind(graph, x0) first")
        if self.operator is None:
            return self.pull
        return self.operator.shifted(1.0, 1.0)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"benefit={self.benefit!r}, beta={self.beta!r}, nonnegative={self.nonnegative}"


def _rightmost(A: Operator) -> float:
    """Largest real part of an eigenvalue."""
    A = A.to(torch.float64, "cpu")
    n = A.num_nodes
    with torch.no_grad():
        if n <= DENSE:
            return float(torch.linalg.eigvals(A.to_dense()).real.max())
        from scipy.sparse.linalg import LinearOperator, eigs, eigsh

        def times(x: np.ndarray) -> np.ndarray:
            product: np.ndarray = (A @ torch.from_numpy(x.reshape(n, 1))).numpy().ravel()
            return product

        start = torch.randn(
            n, dtype=torch.float64, generator=torch.Generator().manual_seed(0), device="cpu"
        )
        find, which = (eigsh, "LA") if A.symmetric else (eigs, "LR")
        matrix = LinearOperator((n, n), times, dtype=np.float64)
        found = find(matrix, 1, which=which, v0=start.numpy(), return_eigenvectors=False, tol=1e-10)
        return float(found.real.max())
