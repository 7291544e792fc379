"""The Laplacian bridge: diffusion on a graph with noise, tied down at both ends."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.energies import DirichletForm
from neuralpde.flows.hyperbolic import drag, excess, gain, pull, share, variance
from neuralpde.flows.paths import Path, Time
from neuralpde.flows.spectral import Function, Modes, Polynomials, Spectral, TraceEstimate
from neuralpde.graph import Graph
from neuralpde.operators import SparseOperator
from solvers.failure import unknown_name
from solvers.rows import Rows

SMALL = 512
"""Nodes up to which eigenvectors are cheaper than polynomials, decomposition included."""

ROUTES = ("auto", "modes", "polynomials")


class LaplacianBridge(Path):
    """The bridge of graph diffusion `dx = -c L x dt + sigma dW` between two states of a graph.

    The law of x_t given x0 and x1 is normal; in an eigenmode of L with eigenvalue lambda, and
    `a = c lambda`, `s = 1 - t`,

        mean      [sinh(a s) x0 + sinh(a t) x1] / sinh a
        variance  sigma^2 sinh(a t) sinh(a s) / (a sinh a)
        velocity  a x1 / (2 sinh a s) - a x0 / (2 sinh a t) + a [coth(a t) - coth(a s)] x / 2
        score     a [x0 / sinh(a t) + x1 / sinh(a s) - (coth(a t) + coth(a s)) x] / sigma^2
        entropy   d/dt H(x_t | x0, x1) = sum over modes of a [coth(a t) - coth(a s)] / 2, a channel

    and a = 0 is the Brownian bridge: constants on a component know nothing of the graph. The
    entropy changes within 1 / a of the ends: the graph's spectrum says where time matters.

    States are `[nodes, ...]`. Samples are cheapest as channels, which a sparse product runs over
    once: `[nodes, samples]`, or `[nodes, channels, samples]`; ends may have one column for all,
    `[nodes, 1]`. In a batch of graphs times may be `[nodes]`, one for each graph: `t[graph.batch]`.

    Args:
        graph: undirected, without `node_weight` (white noise belongs to a symmetric Laplacian).
        rate: c, not negative.
        sigma: noise, positive.
        norm: of L: "comb", "sym" or "augmented".
        cut: distance of the first and the last time from the ends, where velocities are infinite.
        route: "modes" finds eigenvectors, "polynomials" needs none; "auto" takes modes up to 512
            nodes.
        tol: error of the polynomials relative to the largest value of the function they stand for.
        probes: random vectors for the traces of polynomials; with as many as there are nodes traces
            are exact.
        seed: of the random vectors.

    Raises:
        ValueError: for a directed graph, one with `node_weight`, norm "rw", numbers out of range,
            or an unknown route.

    References:
        The conditional law of an Ornstein-Uhlenbeck process, mode by mode; C. Donati-Martin, The
        bridge problem for Gaussian diffusions. On topological domains Schroedinger bridges between
        distributions: M. Yang, Topological Schroedinger bridge matching, ICLR 2025,
        arXiv:2504.04799.

    >>> from neuralpde import catalogue
    >>> bridge = LaplacianBridge(catalogue.path(2), rate=2.0)
    >>> x0, x1 = torch.tensor([[1.0], [1.0]]).double(), torch.tensor([[1.0], [-1.0]]).double()
    >>> bridge.mean(0.5, x0, x1).flatten().tolist()  # 1/2 and sinh(2) / sinh(4) = 1 / (2 cosh 2)
    [0.632901, 0.367099]
    """

    def __init__(
        self,
        graph: Graph,
        rate: float = 1.0,
        sigma: float = 1.0,
        *,
        norm: str = "comb",
        cut: float = 1e-3,
        route: str = "auto",
        tol: float = 1e-12,
        probes: int = 64,
        seed: int = 0,
    ) -> None:
        if route not in ROUTES:
            raise unknown_name("route", route, ROUTES)
        if not (math.isfinite(rate) and rate >= 0 and sigma > 0 and 0 < cut < 0.5):
            raise ValueError(
                f"rate={rate}, sigma={sigma}, cut={cut}: the rate must not be negative, sigma must "
                "be positive and cut between 0 and 1/2"
            )
        self.graph, self.rate, self.sigma = Graph.of(graph), float(rate), float(sigma)
        self.norm, self.cut = norm, cut
        self.L: SparseOperator = self.graph.laplacian(norm, dtype=torch.float64)
        if not self.L.symmetric:
            raise ValueError(
                f'the "{norm}" Laplacian of {self.graph!r} is not symmetric, and white noise does '
                'not fit it: use graph.undirected(reduce="max"), no node_weight, and norm="comb" '
                'or "sym"'
            )
        if route == "auto":
            route = "modes" if self.graph.num_nodes <= SMALL else "polynomials"
        self.functions: Spectral = (
            Modes(self.L)
            if route == "modes"
            else Polynomials(self.L, tol=tol, probes=probes, seed=seed)
        )

    def __repr__(self) -> str:
        return (
            f"LaplacianBridge({self.graph!r}, rate={self.rate:g}, sigma={self.sigma:g}, "
            f"norm={self.norm!r}, cut={self.cut:g}, route={self.functions.name!r})"
        )

    @property
    def ends(self) -> tuple[float, float]:
        """The times `cut` and `1 - cut`."""
        return self.cut, 1 - self.cut

    def mean(self, t: Time, x0: Tensor, x1: Tensor) -> Tensor:
        """The mean of x_t, for any t in [0, 1]."""
        return self._sum(t, (lambda a, t: share(a, 1 - t), x0), (share, x1))

    def spread(self, t: Time, z: Tensor) -> Tensor:
        """The symmetric square root of the covariance of x_t, applied to z."""
        return self.sigma * self._sum(t, (lambda a, t: variance(a, t).sqrt(), z))

    def velocity(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The conditional velocity: the mean of `forward` and `backward`."""
        return self._sum(
            t,
            (gain, x),
            (lambda a, t: -pull(a, t) / 2, x0),
            (lambda a, t: pull(a, 1 - t) / 2, x1),
        )

    def score(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The conditional score: `(forward - backward) / sigma^2`."""
        found = self._sum(
            t,
            (lambda a, t: -drag(a, t) - drag(a, 1 - t), x),
            (pull, x0),
            (lambda a, t: pull(a, 1 - t), x1),
        )
        return found / self.sigma**2

    def control(self, t: Time, x: Tensor, x1: Tensor) -> Tensor:
        """The drift `sigma^2 grad log h(t, x)` that leads diffusion to x1, h(t, x) = p(x1 | x_t).

        Finite from t = 0 on: the bridge that starts in x0 is `dx = (-c L x + control) dt + sigma
        dW`.
        """
        return self._sum(
            t, (lambda a, t: -2 * excess(a, 1 - t), x), (lambda a, t: pull(a, 1 - t), x1)
        )

    def forward(self, t: Time, x: Tensor, x1: Tensor) -> Tensor:
        """The drift `a [x1 / sinh(a s) - coth(a s) x]` of the bridge in rising time."""
        return self._sum(t, (lambda a, t: -drag(a, 1 - t), x), (lambda a, t: pull(a, 1 - t), x1))

    def backward(self, t: Time, x: Tensor, x0: Tensor) -> Tensor:
        """The drift `a [coth(a t) x - x0 / sinh(a t)]` of the bridge in falling time, from x1."""
        return self._sum(t, (drag, x), (lambda a, t: -pull(a, t), x0))

    def variance(self, t: float) -> Float[Tensor, " nodes"]:
        """The variance of every node, in every channel, float64: `nodes / 64` recurrences.

        >>> from neuralpde import catalogue
        >>> LaplacianBridge(catalogue.path(2), rate=0.0, sigma=2.0).variance(0.5).tolist()
        [1.0, 1.0]
        """
        time = torch.as_tensor(t, dtype=torch.float64)
        return self.sigma**2 * self.functions.diagonal(self._scaled(variance), time)

    def total_variance(self, t: Float[Tensor, " times"]) -> TraceEstimate:
        """The trace of the covariance of each graph, E |x_t - m_t|^2 a channel.

        >>> from neuralpde import catalogue
        >>> bridge = LaplacianBridge(catalogue.path(2), rate=0.0, sigma=2.0)
        >>> bridge.total_variance(torch.tensor([0.5])).value.tolist()
        [[2.0]]
        """
        found = self._traces(variance, t)
        return TraceEstimate(self.sigma**2 * found.value, self.sigma**2 * found.error)

    def rates(self, t: Float[Tensor, " times"]) -> TraceEstimate:
        """The entropy rates d/dt H(x_t | x0, x1) of each graph, a channel; nats.

        >>> from neuralpde import catalogue
        >>> bridge = LaplacianBridge(catalogue.path(2), rate=0.0)
        >>> bridge.rates(torch.tensor([0.25])).value.tolist()  # Brownian: 2 nodes, 4/3 each
        [[2.666667]]
        """
        return self._traces(gain, t)

    def entropy(self, t: Float[Tensor, " times"]) -> TraceEstimate:
        """The entropies H(x_t | x0, x1) of each graph, a channel, `log det(2 pi e V_t) / 2`; nats.

        >>> from neuralpde import catalogue
        >>> bridge = LaplacianBridge(catalogue.path(2), rate=0.0, sigma=2.0)  # variance 1 at 1/2
        >>> bridge.entropy(torch.tensor([0.5])).value.item() / math.log(2 * math.pi * math.e)
        1.0
        """
        size = math.log(2 * math.pi * math.e * self.sigma**2) / 2
        found = self._traces(lambda a, t: variance(a, t).log() / 2, t)
        nodes = self.L.graphs.reduced(torch.ones_like(self.L.diagonal()), "sum")
        return TraceEstimate(found.value + size * nodes.to(found.value), found.error)

    def energy(
        self,
        t: Float[Tensor, " times"],
        x0: Float[Tensor, "nodes ..."],
        x1: Float[Tensor, "nodes ..."],
    ) -> TraceEstimate:
        """The expected Dirichlet energy of each graph, channels added, in the bridge's own norm.

        `E x_t^T L x_t = m_t^T L m_t + sigma^2 sum_k lambda_k var_k(t)` for every channel.

        Args:
            t: times in [0, 1].
            x0: source.
            x1: target, of the same shape.

        >>> from neuralpde import catalogue
        >>> bridge, x = LaplacianBridge(catalogue.path(2), rate=0.0), torch.tensor([[0.0], [1.0]])
        >>> bridge.energy(torch.tensor([0.0, 0.5]), x, x).value.flatten().tolist()  # 1 + 2 / 4
        [1.0, 1.5]
        """
        form = DirichletForm(self.graph.like(x0), self.norm)
        channels = x0[0].numel()
        noise = self.functions.traces(lambda s, t: s * variance(self.rate * s, t), t.double())
        size = self.sigma**2 * channels
        smooth = torch.stack([form(self.mean(time, x0, x1)).double() for time in t])
        return TraceEstimate(smooth.to(noise.value) + size * noise.value, size * noise.error)

    def energy_deviation(
        self,
        t: Float[Tensor, " times"],
        x0: Float[Tensor, "nodes ..."],
        x1: Float[Tensor, "nodes ..."],
    ) -> Float[Tensor, "times graphs"]:
        """The standard deviation of the energy of one sample, channels added.

        `Var x^T L x = 2 tr (L V)^2 + 4 m^T L V L m` for every channel.

        Args:
            t: times in [0, 1].
            x0: source.
            x1: target, of the same shape.

        >>> from neuralpde import catalogue
        >>> bridge, x = LaplacianBridge(catalogue.path(2), rate=0.0), torch.zeros(2, 1)
        >>> bridge.energy_deviation(torch.tensor([0.5]), x, x).item() ** 2  # 2 (2 / 4)^2
        0.5
        """
        c, size = self.rate, self.sigma**2
        square = self.functions.traces(lambda s, t: (s * variance(c * s, t)) ** 2, t.double())
        L, rows = self.L.to(x0.dtype, x0.device), Rows(self.graph.batch, self.graph.num_graphs)
        slopes = [self.spread(time, L @ self.mean(time, x0, x1)).square() for time in t]
        along = torch.stack([rows.sums((slope,)) for slope in slopes]).to(square.value)
        channels = x0[0].numel()
        return (2 * channels * size**2 * square.value + 4 * along).clamp(min=0.0).sqrt()

    def entropy_rate(self, t: Float[Tensor, " times"], dim: int) -> Float[Tensor, " times"]:
        """The entropy rate of a state of `dim = nodes x channels` numbers, over all graphs.

        Raises:
            ValueError: for numbers that make no whole channels.
        """
        channels, left = divmod(dim, self.graph.num_nodes)
        if left:
            raise ValueError(
                f"dim={dim} is no multiple of {self.graph.num_nodes} nodes; give nodes x channels"
            )
        return channels * self.rates(t).value.sum(1)

    def _sum(self, t: Time, *terms: tuple[Function, Tensor]) -> Tensor:
        device = terms[0][1].device
        times = torch.as_tensor(t, dtype=torch.float64, device=device).detach()
        if times.dim():
            self._check(times)
        return self.functions.combined([(self._scaled(f), z) for f, z in terms], times)

    def _check(self, t: Tensor) -> None:
        graphs = self.L.graphs
        if t.shape != (self.graph.num_nodes,):
            raise ValueError(
                f"times are {tuple(t.shape)}; give one, or node times [{self.graph.num_nodes}] of "
                "one per graph: times[graph.batch]"
            )
        times = t.to(graphs.device)
        if not torch.equal(graphs.reduced(times, "amin"), graphs.reduced(times, "amax")):
            raise ValueError(
                "times differ within a graph, whose nodes are one state; give one, or one per "
                "graph: times[graph.batch]"
            )

    def _traces(self, f: Function, t: Tensor) -> TraceEstimate:
        return self.functions.traces(self._scaled(f), t.double())

    def _scaled(self, f: Function) -> Function:
        return lambda s, t: f(self.rate * s, t)
