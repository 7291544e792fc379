"""Norms of the blocks of a Jacobian, whole or known from random directions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from solvers.failure import unknown_name

Norm = Callable[[Tensor, int], Tensor]


def frobenius(J: Tensor, copies: int) -> Tensor:
    """The root of the sum of squares.

    >>> frobenius(torch.tensor([[3.0, 4.0]]), 1).item()
    5.0
    """
    found: Tensor = torch.linalg.vector_norm(J, dim=(-2, -1)) * math.sqrt(copies)
    return found


def spectral(J: Tensor, copies: int) -> Tensor:
    """The largest singular value.

    >>> spectral(torch.tensor([[3.0, 0.0], [0.0, -4.0]]), 7).item()
    4.0
    """
    if min(J.shape[-2:]) == 1:
        return frobenius(J, 1)
    found: Tensor = torch.linalg.svdvals(J)[..., 0]
    return found


def l1(J: Tensor, copies: int) -> Tensor:
    """The sum of moduli.

    >>> l1(torch.tensor([[3.0, -4.0]]), 2).item()
    14.0
    """
    return J.abs().sum((-2, -1)) * copies


NORMS: dict[str, Norm] = {"fro": frobenius, "spectral": spectral, "l1": l1}
"""Norms of a block B, or of the block diagonal matrix of so many copies of B."""


ORDERS = {"fro": 2.0, "spectral": torch.inf, "l1": 1.0}
"""The same of a diagonal block, as orders of vector norms."""


def check_norm(norm: str, probes: int | None) -> None:
    """Refuse unknown norms, and those that probes do not tell.

    Raises:
        ValueError: Names what there is.

    >>> check_norm("fro", 4)
    """
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    if probes is not None and probes < 1:
        raise ValueError(f"probes is {probes}; give at least 1, or None for whole blocks")
    if probes is not None and norm != "fro":
        raise ValueError(f"probes tell the Frobenius norm only, not {norm!r}; leave out probes")


def directions(
    sources: int, channels: int, probes: int | None, generator: torch.Generator | None
) -> Float[Tensor, "sources tangents channels"]:
    """Unit vectors of all channels, or so many vectors of random signs for each source.

    >>> directions(1, 2, None, None).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    if probes is None:
        return torch.eye(channels, dtype=torch.float64).expand(sources, -1, -1)
    device = "cpu" if generator is None else generator.device
    signs = torch.randint(2, (sources, probes, channels), generator=generator, device=device)
    return signs.cpu().double() * 2 - 1


def measured(
    J: Inexact[Tensor, "*some tangents channels"],
    norm: str,
    probes: int | None,
    copies: int = 1,
    *,
    diagonal: bool = False,
) -> tuple[Float[Tensor, "*some"], Float[Tensor, "*some"]]:
    """The norms of blocks, and their standard errors.

    The mean of |J g|^2 over random signs g is |J|_F^2 on average. Its standard error is that of the
    sample; that of one probe is not known, so its bound sqrt(2) |J|_F^2 is taken, which blocks of
    rank one come near.

    Args:
        J: Blocks, transposed: the images of unit vectors or of probes.
        norm: Its name.
        probes: How many probes; None for whole blocks.
        copies: How often the block stands on the diagonal of the whole one.
        diagonal: Whether J is the diagonal of a block, `[*some, 1, channels]`.

    >>> J = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    >>> [one.item() for one in measured(J, "fro", 2)]
    [5.0, 0.0]
    """
    J = J.to(torch.complex128 if J.is_complex() else torch.float64)
    if diagonal:
        value = torch.linalg.vector_norm(J, ORDERS[norm], dim=(-2, -1))
        return value, torch.zeros_like(value)
    if probes is None:
        value = NORMS[norm](J, copies)
        return value, torch.zeros_like(value)
    squares = J.abs().square().sum(-1)
    square = squares.mean(-1)
    value = square.sqrt()
    spread = math.sqrt(2.0) * square if probes == 1 else squares.std(-1) / math.sqrt(probes)
    return value, torch.where(value > 0, spread / (2 * value), 0.0)
