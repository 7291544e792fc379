"""Carre-du-champ paths: noise that lies along the data instead of around every point."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from neuralpde.flows.paths import Path, Time, column

CHUNK = 2**24
"""Numbers of neighbours' coordinates that are taken apart at a time."""


@dataclass(frozen=True, eq=False)
class LocalCovariance:
    """A covariance of low rank for every data point, `Gamma_i = U_i diag(s_i^2) U_i^T`.

    Nothing of size dims x dims is ever made.

    Args:
        points: data `[points, dims]`.
        vectors: U, orthonormal columns `[points, dims, rank]`.
        deviations: s, not negative, `[points, rank]`.

    >>> points = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> along = torch.tensor([[[1.0], [0.0]], [[1.0], [0.0]]])
    >>> flat = LocalCovariance(points, along, 2 * torch.ones(2, 1))
    >>> flat.root(torch.tensor([1]), torch.tensor([[3.0, 5.0]])).tolist()
    [[6.0, 0.0]]
    """

    points: Float[Tensor, "points dims"]
    vectors: Float[Tensor, "points dims rank"]
    deviations: Float[Tensor, "points rank"]

    def __post_init__(self) -> None:
        """Check that sizes fit."""
        n, dims = self.points.shape
        rank = self.deviations.shape[-1]
        if self.vectors.shape != (n, dims, rank) or self.deviations.shape != (n, rank):
            raise ValueError(
                f"{n} points in {dims} dims, vectors {tuple(self.vectors.shape)}, deviations "
                f"{tuple(self.deviations.shape)}; give [{n}, {dims}, rank] and [{n}, rank]"
            )
        object.__setattr__(self, "_tree", cKDTree(self.points.detach().double().cpu().numpy()))

    def root(self, index: Tensor, z: Float[Tensor, "some dims"]) -> Float[Tensor, "some dims"]:
        """`Gamma_i^(1/2) z`, for one vector for each index."""
        U, s = self.vectors.to(z)[index], self.deviations.to(z)[index]
        return torch.einsum("pdr,pr->pd", U, s * torch.einsum("pdr,pd->pr", U, z))

    def index(self, x: Float[Tensor, "some dims"]) -> Tensor:
        """Which data points these are.

        Raises:
            ValueError: for one that is none of them.
        """
        tree: cKDTree = self.__dict__["_tree"]
        distance, index = tree.query(x.detach().double().cpu().numpy())
        eps = torch.finfo(x.dtype).eps
        allowed = 8 * eps * (1.0 + float(x.detach().abs().max() if x.numel() else 0.0))
        allowed *= math.sqrt(x.shape[1])
        if distance.max(initial=0.0) > allowed:
            raise ValueError(
                f"a target is {distance.max():.3g} away from the nearest data point; covariances "
                "are known at the data: pass rows of `covariance.points`"
            )
        return torch.as_tensor(index, device=x.device)


def local_covariance(
    points: Float[Tensor, "points dims"],
    *,
    neighbours: int = 256,
    bandwidth: int = 8,
    rank: int = 8,
    gamma: float = 1.0,
    c_max: float = math.inf,
) -> LocalCovariance:
    """Estimate the covariance of the data around every point, by the carre du champ of a kernel.

        w_ij ~ exp(-|x_i - x_j|^2 / (eps_i eps_j)),  sum_j w_ij = 1,  m_i = sum_j w_ij x_j
        Gamma_i = gamma c_i sum_j w_ij (x_j - m_i)(x_j - m_i)^T
        c_i = min(d_i^2 / 9, c_max^2) / lambda_1

    over the nearest neighbours j of i, i itself left out; eps_i is the distance of the neighbour
    number `bandwidth`, d_i that of the nearest, lambda_1 the largest eigenvalue of the sum. The
    `rank` largest eigenpairs are kept: three deviations along the first reach the nearest
    neighbour. They are the singular pairs of `sqrt(w_ij) (x_j - m_i)`.

    Which neighbour d_i is the distance of, the sources at hand leave open; the nearest is our
    reading. A public port leaves the factor d_i^2 / 9 out and squares squared distances.

    Args:
        points: data, no point more often than `bandwidth` times.
        neighbours: how many; fewer, with a warning, where there are no more points.
        bandwidth: the neighbour that says how dense the data are; likewise.
        rank: eigenpairs kept, at most what neighbours and dims allow.
        gamma: scale of all covariances.
        c_max: largest deviation, before gamma.

    Raises:
        ValueError: for fewer than three points, points that coincide, numbers out of range.

    References:
        J. Bamberger, I. Jones et al., Carre du champ flow matching, 2025, arXiv:2510.05930,
        appendix E; neighbours and bandwidths as in I. Jones, Diffusion geometry, 2024,
        arXiv:2405.10858.

    >>> line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]).double()
    >>> found = local_covariance(line, neighbours=3, bandwidth=1, rank=1)
    >>> found.vectors[1].abs().flatten().tolist(), found.deviations[1].tolist()
    ([1.0, 0.0], [0.333333])
    """
    n, dims = points.shape
    numbers = {"neighbours": neighbours, "bandwidth": bandwidth, "rank": rank}
    if min(numbers.values()) < 1 or not (gamma >= 0 and c_max > 0) or n < 3:
        raise ValueError(
            f"{n} points, {numbers}, gamma={gamma}, c_max={c_max}: at least three points and one "
            "neighbour are needed, gamma must not be negative, c_max positive"
        )
    if not bool(points.isfinite().all()):
        raise ValueError("points have entries that are NaN or infinite")
    k = min(neighbours, n - 1)
    if k < neighbours or bandwidth > k:
        warnings.warn(
            f"{n} points have {n - 1} neighbours each: neighbours={k} instead of {neighbours}, "
            f"bandwidth={min(bandwidth, k)} instead of {bandwidth}",
            stacklevel=2,
        )
    x = points.detach().double().cpu()
    distance, index = _nearest(x, k)
    eps = distance[:, min(bandwidth, k) - 1]
    if not bool((distance[:, 0] > 0).all()):
        raise ValueError(
            f"{int((distance[:, 0] == 0).sum())} points coincide with another one, which leaves no "
            "room for a covariance; drop duplicates: torch.unique(points, dim=0)"
        )
    # Normalised as a softmax: weights of points far away may all underflow.
    w = torch.softmax(-distance.square() / (eps.unsqueeze(1) * eps[index]), 1)
    kept = min(rank, k, dims)
    vectors, sizes = x.new_empty(n, dims, kept), x.new_empty(n, kept)
    for part in torch.arange(n).split(max(CHUNK // (k * dims), 1)):
        near, own = x[index[part]], w[part].unsqueeze(2)
        centred = own.sqrt() * (near - (own * near).sum(1, keepdim=True))
        _, s, V = torch.linalg.svd(centred, full_matrices=False)
        vectors[part], sizes[part] = V[:, :kept].transpose(1, 2), s[:, :kept]
    largest = (distance[:, 0] / 3).clamp(max=c_max) * math.sqrt(gamma)
    first = torch.where(sizes[:, 0] > 0, sizes[:, 0], 1.0)
    deviations = sizes * (largest / first).unsqueeze(1)
    return LocalCovariance(points.detach(), vectors.to(points), deviations.to(points))


def _nearest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and numbers of the k nearest other points, `[points, k]`."""
    found = cKDTree(x.numpy()).query(x.numpy(), k + 1)
    distance, index = (torch.from_numpy(part) for part in found)
    # Where points coincide, a point need not be the first of its own neighbours.
    own = index == torch.arange(len(x)).unsqueeze(1)
    own[~own.any(1), -1] = True
    return distance[~own].view(-1, k), index[~own].view(-1, k)


class CarreDuChamp(Path):
    """The path `x_t = t x1 + Sigma_t^(1/2) x0`, `Sigma_t^(1/2) = (1 - t) I + t Gamma(x1)^(1/2)`.

    The displacement interpolation between N(0, I) and N(x1, Gamma(x1)): the source is standard
    normal, and x0 is the noise of the path. Its velocity is `x1 + (Gamma^(1/2) - I) x0`. With
    Gamma = 0 it is the straight path `(1 - t) x0 + t x1` of flow matching; with Gamma = sigma^2 I
    that of Lipman et al. with sigma_min = sigma.

    Given both ends x_t is known, so the path is not `noisy`. Score and entropy rate are those of
    x_t given the target alone, N(t x1, Sigma_t); the entropy rate is a mean over the data.

    Args:
        covariance: Gamma at every data point, see `local_covariance`; targets are data points.

    References:
        J. Bamberger, I. Jones et al., Carre du champ flow matching, 2025, arXiv:2510.05930.

    >>> points = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    >>> along = torch.tensor([[[1.0], [0.0]], [[1.0], [0.0]]])
    >>> path = CarreDuChamp(LocalCovariance(points, along, 0.5 * torch.ones(2, 1)))
    >>> at = path.sample(torch.tensor([[2.0, 2.0]]), points[1:], 0.5)
    >>> at.x.tolist(), at.u.tolist()
    ([[3.5, 1.0]], [[3.0, -2.0]])
    """

    def __init__(self, covariance: LocalCovariance) -> None:
        self.covariance = covariance

    @property
    def noisy(self) -> bool:
        """False: x0 is all the noise there is."""
        return False

    def mean(self, t: Time, x0: Tensor, x1: Tensor) -> Tensor:
        """The point x_t."""
        time = self._times(t, x0)
        return time * x1 + (1 - time) * x0 + time * self._root(x1, x0)

    def spread(self, t: Time, z: Tensor) -> Tensor:
        """Nothing: both ends tell x_t."""
        return torch.zeros_like(z)

    def velocity(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The velocity `x1 + (Gamma^(1/2) - I) x0`, the same all along."""
        return x1 - x0 + self._root(x1, x0)

    def score(self, t: Time, x: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """The score of x_t given x1, `-Sigma_t^-1 (x - t x1)`; infinite at t = 1."""
        time = self._times(t, x)
        off, index = (x - time * x1).reshape(len(x), -1), self._index(x1)
        U, s = (part.to(x)[index] for part in (self.covariance.vectors, self.covariance.deviations))
        flat = self._times(t, off)
        own = torch.einsum("pdr,pd->pr", U, off)
        inside = 1 / (1 - flat + flat * s).square() - 1 / (1 - flat).square()
        found = off / (1 - flat).square() + torch.einsum("pdr,pr->pd", U, inside * own)
        return -found.view_as(x)

    def entropy_rate(self, t: Float[Tensor, " times"], dim: int) -> Float[Tensor, " times"]:
        """The rate of H(x_t | x1), `sum_k (s_k - 1) / (1 - t + t s_k)`, a mean over the data.

        Raises:
            ValueError: for another `dim` than that of the data.
        """
        dims, rank = self.covariance.vectors.shape[1:]
        if dim != dims:
            raise ValueError(f"dim={dim}; the data have {dims}")
        s, time = self.covariance.deviations.double().cpu(), t.double().cpu()[:, None, None]
        along = ((s - 1) / (1 - time + time * s)).sum(2).mean(1)
        return (along - (dims - rank) / (1 - t.double().cpu())).to(t.device)

    def _times(self, t: Time, x: Tensor) -> Tensor:
        return column(torch.as_tensor(t, dtype=x.dtype, device=x.device), x)

    def _index(self, x1: Tensor) -> Tensor:
        return self.covariance.index(x1.reshape(len(x1), -1))

    def _root(self, x1: Tensor, z: Tensor) -> Tensor:
        flat = self.covariance.root(self._index(x1), z.reshape(len(z), -1))
        return flat.view_as(z)
