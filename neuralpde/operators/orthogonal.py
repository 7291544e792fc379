"""Orthogonal matrices from unconstrained numbers, many at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.failure import unknown_name


def orthogonal(
    numbers: Float[Tensor, "many numbers"], dims: int, by: str = "householder"
) -> Float[Tensor, "many dims dims"]:
    """Return an orthogonal matrix for each row of `dims (dims - 1) / 2` numbers.

        householder   H_1 ... H_d,  H_k = I - 2 v v^T / |v|^2,  v = (0, .., 1, numbers); det (-1)^d
        cayley        (I - S)^-1 (I + S),  S skew; det 1, no eigenvalue -1
        exponential   e^S; det 1

    Products `Q^T R` of two matrices of one kind are rotations in each case.

    Args:
        numbers: any real numbers; zeros give `-I` by reflections, else `I`.
        dims: rows of each matrix.
        by: "householder", "cayley" or "exponential".

    Raises:
        ValueError: the name is unknown or the count of numbers is another.

    References:
        Bodnar et al., Neural Sheaf Diffusion, NeurIPS 2022, arXiv:2202.04579. Their code's
        skew matrices are made of d (d + 1) / 2 numbers, of which the d diagonal ones cancel.

    >>> orthogonal(torch.zeros(1, 1), 2, "cayley").tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    if by not in WAYS:
        raise unknown_name("parametrisation", by, WAYS)
    if numbers.dim() != 2 or numbers.shape[1] != dims * (dims - 1) // 2:
        raise ValueError(
            f"numbers are {tuple(numbers.shape)}; matrices of {dims} dims take [many, "
            f"{dims * (dims - 1) // 2}]"
        )
    found: Tensor = WAYS[by](numbers, dims)
    return found


def _householder(numbers: Tensor, dims: int) -> Tensor:
    # Entries of all matrices lie side by side: every operation runs over one long vector.
    columns = iter(numbers.T)
    below = [[next(columns) for _ in range(k)] for k in range(dims)]
    one = numbers.new_ones(len(numbers))
    Q: list[list[Tensor]] = []
    for tail in below:
        # H diag(1, Q), one dimension larger than Q.
        size = range(len(Q))
        scale = 2.0 / (1.0 + sum(v.square() for v in tail))
        images = [
            sum((v * row[b] for v, row in zip(tail, Q, strict=True)), 0.0 * one) for b in size
        ]
        first = [one - scale, *(-scale * image for image in images)]
        Q = [
            first,
            *(
                [-scale * v, *(row[b] - scale * v * images[b] for b in size)]
                for v, row in zip(tail, Q, strict=True)
            ),
        ]
    entries = torch.stack([entry for row in Q for entry in row])
    return entries.view(dims, dims, -1).movedim(-1, 0)


def _skew(numbers: Tensor, dims: int) -> Tensor:
    low = torch.tril_indices(dims, dims, -1, device=numbers.device)
    lower = numbers.new_zeros(len(numbers), dims, dims)
    lower = lower.index_put(
        (torch.arange(len(numbers), device=numbers.device)[:, None], *low), numbers
    )
    return lower - lower.mT


def _cayley(numbers: Tensor, dims: int) -> Tensor:
    S, one = _skew(numbers, dims), torch.eye(dims, dtype=numbers.dtype, device=numbers.device)
    solved: Tensor = torch.linalg.solve(one - S, one + S)
    return solved


def _exponential(numbers: Tensor, dims: int) -> Tensor:
    found: Tensor = torch.linalg.matrix_exp(_skew(numbers, dims))
    return found


WAYS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "householder": _householder,
    "cayley": _cayley,
    "exponential": _exponential,
}
