"""Losses that a velocity and a score are learned by, from samples of a path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralpde.flows.paths import Isotropic, Path, Sample


def draw_times(
    path: Path, n: int, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, " times"]:
    """Times that are uniform between the ends of a path.

    For graphs draw one for each, and hand `times[graph.batch]` to `path.sample`.

    Args:
        path: The path.
        n: How many.
        generator: Source of randomness.
        dtype: torch's default by default.

    >>> from neuralpde.flows.paths import BrownianBridge
    >>> t = draw_times(BrownianBridge(1.0, cut=0.4), 100)
    >>> bool(((t >= 0.4) & (t <= 0.6)).all())
    True
    """
    low, high = path.ends
    device = "cpu" if generator is None else generator.device
    u = torch.rand(n, generator=generator, dtype=dtype, device=device)
    return low + (high - low) * u


@dataclass(frozen=True)
class EndWeight:
    """The weight 1 / (1 + s'(t)^2), which evens out the loss of a velocity.

    The conditional velocity holds `s' z`, of the size `sigma (1 - 2t) / 2 sqrt(t (1 - t))` for a
    Brownian bridge: without a weight a few samples near the ends make the gradient. A weight that
    depends on time alone does not move the minimum.

    Args:
        path: The path.

    >>> from neuralpde.flows.paths import BrownianBridge
    >>> EndWeight(BrownianBridge(1.0))(torch.tensor([0.2, 0.5])).tolist()  # s' = 3/4: 16 / 25
    [0.64, 1.0]
    """

    path: Isotropic

    def __call__(self, t: Float[Tensor, " times"]) -> Float[Tensor, " times"]:
        """The weights, of the shape and dtype of the times."""
        ds = self.path.coefficients(t.double()).ds
        return (1 / (1 + ds**2)).to(t.dtype)


def flow_loss(
    velocity: Float[Tensor, "points ..."],
    at: Sample,
    *,
    weight: Tensor | None = None,
    batch: Int64[Tensor, " points"] | None = None,
) -> Float[Tensor, ""]:
    """The mean squared error of a velocity, E |v(t, x_t) - u_t|^2 over the numbers of a point.

    Its minimum over all v is the marginal velocity, and the value there is the variance of u given
    x_t, which no network can take away.

    Args:
        velocity: What was predicted at `at.t`, `at.x`.
        at: A sample of the path.
        weight: For each point, or a column; see `EndWeight`.
        batch: The graph of each point: means are taken over each graph, then over graphs.

    References:
        Lipman et al., ICLR 2023, arXiv:2210.02747.

    >>> from neuralpde.flows.linear import Linear
    >>> at = Linear().sample(torch.zeros(2, 1), torch.tensor([[1.0], [3.0]]), 0.5)
    >>> flow_loss(torch.zeros(2, 1), at).item()
    5.0
    """
    return _mean_square(velocity - at.u, weight, batch)


def score_loss(
    head: Float[Tensor, "points ..."],
    at: Sample,
    *,
    weight: Tensor | None = None,
    batch: Int64[Tensor, " points"] | None = None,
) -> Float[Tensor, ""]:
    """The mean squared error of a score, as E |head + z|^2 with the noise z of the sample.

    The head stands for s(t) times the score (for any path, the square root of the covariance times
    the score), which has unit size at all times; see `Learned`.

    Args:
        head: What was predicted at `at.t`, `at.x`.
        at: A sample of a path with noise.
        weight: For each point, or a column.
        batch: The graph of each point.

    Raises:
        ValueError: For a path without noise.

    References:
        Vincent, Neural Comput. 23 (2011), 1661; Ho et al., NeurIPS 2020, arXiv:2006.11239.

    >>> from neuralpde.flows.paths import BrownianBridge
    >>> at = BrownianBridge(1.0).sample(torch.zeros(2, 1), torch.ones(2, 1), 0.5)
    >>> score_loss(-at.noise, at).item()
    0.0
    """
    if at.noise is None:
        raise ValueError("the path has no noise between its ends, and the sample no score")
    return _mean_square(head + at.noise, weight, batch)


def bridge_loss(
    heads: tuple[Float[Tensor, "points ..."], Float[Tensor, "points ..."]],
    at: Sample,
    *,
    weight: Tensor | None = None,
    batch: Int64[Tensor, " points"] | None = None,
    balance: float = 1.0,
) -> Float[Tensor, ""]:
    """The loss of both heads of a `Learned` model: `flow_loss + balance score_loss`.

    Args:
        heads: Velocity and second head, `model.heads(at.t, at.x)`.
        at: A sample of a path with noise.
        weight: Of the velocity's part alone: that of the score has the same size at all times.
        batch: The graph of each point.
        balance: Weight of the score's part.

    Raises:
        ValueError: For a path without noise.

    References:
        Tong et al., AISTATS 2024, arXiv:2307.03672, whose weighting of the score it is.

    >>> from neuralpde.flows.paths import BrownianBridge
    >>> at = BrownianBridge(1.0).sample(torch.zeros(2, 1), torch.ones(2, 1), 0.5)
    >>> bridge_loss((at.u + 1, 2 - at.noise), at, balance=0.5).item()
    3.0
    """
    velocity, head = heads
    flow = flow_loss(velocity, at, weight=weight, batch=batch)
    return flow + balance * score_loss(head, at, batch=batch)


def _mean_square(error: Tensor, weight: Tensor | None, batch: Tensor | None) -> Tensor:
    squares = error.square().reshape(len(error), -1).mean(1)
    if weight is not None:
        squares = squares * weight.reshape(-1)
    if batch is None:
        return squares.mean()
    sizes = torch.bincount(batch)
    sums = squares.new_zeros(len(sizes)).index_add(0, batch, squares)
    # A graph without nodes has no error, and does not count.
    return (sums / sizes.clamp(min=1)).sum() / (sizes > 0).sum()
