"""Distances between two samples of a law."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
CHUNK = 2048


def median_bandwidths(
    reference: Float[Tensor, "samples dims"], scales: Sequence[float] = SCALES
) -> tuple[float, ...]:
    """Bandwidths of kernels: multiples of the median distance within a reference sample.

    They belong to the reference, so that one kernel judges all samples that are compared with it.

    Args:
        reference: at least two different points; the first 2,000 are used.
        scales: the multiples.

    Raises:
        ValueError: where the median distance is zero, or there are fewer than two points.

    References:
        Gretton et al., A kernel two-sample test, JMLR 13 (2012), section 8.

    >>> median_bandwidths(torch.tensor([[0.0], [3.0]]), scales=(1.0, 2.0))
    (3.0, 6.0)
    """
    points = _matrix(reference)[:2000]
    if len(points) < 2 or not bool((pairs := torch.pdist(points)).median() > 0):
        raise ValueError(
            f"the median distance within a reference of {len(points)} points is zero; give at "
            "least two different points"
        )
    return tuple(float(scale * pairs.median()) for scale in scales)


def mmd2(
    x: Float[Tensor, "samples dims"],
    y: Float[Tensor, "others dims"],
    bandwidths: Sequence[float],
) -> float:
    """The squared maximum mean discrepancy, unbiased: it may be negative.

    With k(x, y) the mean over bandwidths b of exp(-|x - y|^2 / (2 b^2))::

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j)

    Args:
        x: a sample, at least two points.
        y: another.
        bandwidths: of the kernels, from `median_bandwidths` of the reference.

    Raises:
        ValueError: for samples of other shapes, too few points, or bandwidths that are not
            positive.

    References:
        Gretton et al., A kernel two-sample test, JMLR 13 (2012), lemma 6.

    >>> x, y = torch.tensor([[0.0], [0.0]]), torch.tensor([[0.0], [0.0]])
    >>> mmd2(x, y, [1.0])
    0.0
    >>> far = torch.tensor([[1e3], [1e3]])
    >>> mmd2(x, far, [1.0])
    2.0
    """
    x, y = _matrix(x), _matrix(y)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"samples are {tuple(x.shape)} and {tuple(y.shape)}; give points of one dimension, at "
            "least two each"
        )
    if not bandwidths or min(bandwidths) <= 0:
        raise ValueError(f"bandwidths are {tuple(bandwidths)}; give positive ones")
    n, m = len(x), len(y)
    own_x = (_kernel_sum(x, x, bandwidths) - n) / (n * (n - 1))
    own_y = (_kernel_sum(y, y, bandwidths) - m) / (m * (m - 1))
    return own_x + own_y - 2 * _kernel_sum(x, y, bandwidths) / (n * m)


def wasserstein(
    x: Float[Tensor, "samples dims"], y: Float[Tensor, "samples dims"], order: int = 2
) -> float:
    """The Wasserstein distance of two samples of one size, exact.

    `W_p = (min over pairings mean |x_i - y_pi(i)|^p)^(1/p)`, by an assignment; in one dimension by
    sorting.

    Args:
        x: a sample.
        y: another with as many points.
        order: p, 1 or 2.

    Raises:
        ValueError: for samples of other shapes, or another order.

    References:
        Peyre and Cuturi, Computational optimal transport, 2019, arXiv:1803.00567, propositions 2.1
        and remark 2.28.

    >>> wasserstein(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]]))
    2.0
    """
    x, y = _matrix(x), _matrix(y)
    if x.shape != y.shape:
        raise ValueError(f"samples are {tuple(x.shape)} and {tuple(y.shape)}; give equal sizes")
    if order not in (1, 2):
        raise ValueError(f"order={order}; it is 1 or 2")
    if x.shape[1] == 1:
        distance = (x.flatten().sort().values - y.flatten().sort().values).abs()
    else:
        from scipy.optimize import linear_sum_assignment

        cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        rows, columns = linear_sum_assignment(cost.pow(order).cpu().numpy())
        distance = cost[torch.as_tensor(rows), torch.as_tensor(columns)]
    return float(distance.pow(order).mean() ** (1 / order))


def _kernel_sum(x: Tensor, y: Tensor, bandwidths: Sequence[float]) -> float:
    """The sum of the kernel over all pairs, by rows, so that no large matrix is held."""
    total = 0.0
    widest = sorted(bandwidths, reverse=True)
    for rows in x.split(CHUNK):
        # Differences, not products: near points would lose all digits.
        square = torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
        kernel, before = square, 0.0
        for b in widest:
            if before == 2 * b:
                # A fourth power is quicker than an exponential.
                kernel = kernel.square_().square_()
            else:
                kernel = torch.exp(square / (-2 * b * b))
            total, before = total + float(kernel.sum()), b
    return total / len(bandwidths)


def _matrix(x: Tensor) -> Tensor:
    return x.detach().double().reshape(len(x), -1)
