"""Inverse problems: the weights of a heat flow from snapshots of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields import Conductances, Diffusion
from neuralpde.graph import Graph
from neuralpde.solve import solve


@dataclass(frozen=True)
class Recovery:
    """Weights that explain snapshots.

    Attributes:
        weights: Of the undirected edges, in the order of `ends`.
        ends: The nodes of each edge, `[2, edges]`.
        misfit: Root mean square of (x - observed) / noise: near 1 where the noise is explained.
        history: The objective after each evaluation.
        solves: How many there were, each with its gradient.

    >>> Recovery(torch.ones(1), torch.tensor([[0], [1]]), 1.0, (0.5,), 1).error(torch.ones(1))
    0.0
    """

    weights: Float[Tensor, " edges"]
    ends: Tensor
    misfit: float
    history: tuple[float, ...]
    solves: int

    def error(self, truth: Float[Tensor, " edges"]) -> float:
        """The relative error |w - truth| / |truth|."""
        return float((self.weights - truth).norm() / truth.norm())


def recover_weights(
    graph: Graph,
    x0: Float[Tensor, "nodes channels"],
    times: Float[Tensor, " snapshots"],
    observed: Float[Tensor, "snapshots nodes channels"],
    noise: float,
    *,
    spread: float | None = None,
    norm: str = "comb",
    iterations: int = 100,
    rtol: float = 1e-8,
) -> Recovery:
    """Find the weights w of x' = -L(w) x, x(0) = x0, whose flow passes through the snapshots.

        min over theta = log w of  sum (x(t_k) - y_k)^2 / 2 noise^2  +  sum (theta - m)^2 / 2 s^2

    by L-BFGS, with gradients through the exact solver. The first term is the likelihood of
    independent normal noise; the second, with the mean m of theta learned too and s = `spread`,
    makes up for edges along which hardly anything flowed. It starts from the weights of the graph.

    Args:
        graph: Undirected; which edges there are is known.
        x0: The first state, known.
        times: Of the snapshots, positive, rising.
        observed: The snapshots y.
        noise: Standard deviation of their noise; of data without any, of what is to be explained.
        spread: s; None for no second term.
        norm: Of the Laplacian.
        iterations: Of L-BFGS.
        rtol: Of the solves.

    Raises:
        ValueError: For noise or a spread that is not positive, and snapshots that do not fit.

    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x0, times = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([0.5]).double()
    >>> found = recover_weights(pair, x0, times, (x0 * torch.exp(-3 * times))[None], 1e-3)
    >>> found.weights.tolist()
    [1.5]
    """
    if not noise > 0 or not (spread is None or spread > 0):
        raise ValueError(f"noise is {noise} and spread {spread}; both are positive")
    if observed.shape != (len(times), *x0.shape):
        raise ValueError(
            f"observed is {tuple(observed.shape)}; {len(times)} times and x0 ask for "
            f"{(len(times), *x0.shape)}"
        )
    flow = Conductances(graph, norm)
    field = Diffusion(flow, norm)
    moments = torch.cat([times.new_zeros(1), times]).double()
    history: list[float] = []
    optimiser = torch.optim.LBFGS(
        [flow.log_weights],
        max_iter=iterations,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def residual() -> Tensor:
        x = solve(field, x0, moments, graph, rtol=rtol).x
        assert isinstance(x, Tensor)
        return (x[1:] - observed) / noise

    def closure() -> Tensor:
        optimiser.zero_grad()
        # Divided by the number of observations, so that tolerances mean the same for all sizes.
        loss = residual().square().sum() / 2
        if spread is not None:
            theta = flow.log_weights
            loss = loss + ((theta - theta.mean()) / spread).square().sum() / 2
        loss = loss / observed.numel()
        loss.backward()
        history.append(float(loss.detach()))
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        misfit = float(residual().square().mean().sqrt())
    return Recovery(flow.weights.detach(), flow.ends, misfit, tuple(history), len(history))
