"""Chebyshev series of unitary flows, e^(-i t H) of a self-adjoint H."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers.bessel import bessel_degree, rotation
from solvers.chebyshev import Chebyshev, Recurrence
from solvers.problem import Operator
from solvers.rows import Rows
from solvers.weights import Table, Weights

# A row that is summed up one number after the other may round to one side all the time. On stars of
# r nodes, where it does, r / 8 units of (z + 20) eps were seen; elsewhere hardly more than one.
OF_EACH, OF_A_TERM = 1.5, 1 / 12


class Unitary(Chebyshev):
    """Exponentials ``e^(tA)`` of ``A = -i H``, H self-adjoint, as series in a scaled H.

    With ``y = (H - mid) / half`` in [-1, 1] and ``c_k`` from :func:`~solvers.bessel.rotation` of
    ``|t| half``, ``e^(-i t H) = e^(-i t mid) sum_k i^(-k) c_k T_k(y)``, with conjugate powers of i
    for t < 0. Nothing grows or decays in either direction of time. States are complex and come as
    pairs of real columns: the terms are those of H itself, the weights complex.

    Args:
        A: the operator -i H; see ``Operator.hamiltonian``.
        rows: rows of its graphs.

    Source:
        Tal-Ezer and Kosloff, An accurate and efficient scheme for propagating the time dependent
        Schroedinger equation, J. Chem. Phys. 81 (1984), 3967.
    """

    measure = "largest modulus of the spectrum times time"
    degrees = staticmethod(bessel_degree)
    table = Table.complex

    def __init__(self, A: Operator, rows: Rows) -> None:
        assert A.hamiltonian is not None
        super().__init__(A.hamiltonian, rows)
        # No mode decays, the stiffest neither: what is wrong with it stays.
        self.roughness = OF_EACH + OF_A_TERM * A.hamiltonian.summands().cpu().numpy()

    @property
    def extent(self) -> str:
        """What the degree depends on, in words."""
        return f"unitary, {super().extent}"

    def check(self, times: Float[np.ndarray, "times graphs"]) -> None:
        """Refuse nothing: unitary flow runs both ways."""

    def reach(self, times: Float[np.ndarray, "times graphs"]) -> Float[np.ndarray, "times graphs"]:
        """Return the largest phase of each time, by which rounding is counted."""
        reach: Float[np.ndarray, "times graphs"] = np.abs(times) * np.maximum(
            np.abs(self.lo), np.abs(self.hi)
        )
        return reach

    def growth(self, times: Float[np.ndarray, "times graphs"]) -> Float[np.ndarray, "times graphs"]:
        """Return 0: norms are conserved."""
        return np.zeros_like(times)

    def weights(self, graph: int, t: float, tail: float) -> Weights:
        """Return the weights of ``T_k`` in ``e^(-i t H)``, wrong by ``tail`` at most."""
        lo, hi = float(self.lo[graph]), float(self.hi[graph])
        real = rotation(abs(t) * (hi - lo) / 2, tail)
        turn = np.array([1, -1j, -1, 1j] if t >= 0 else [1, 1j, -1, -1j])
        weights: Weights = np.exp(-0.5j * t * (hi + lo)) * turn[np.arange(len(real)) % 4] * real
        return weights

    def terms(self, dtype: torch.dtype) -> Recurrence:
        """Return the terms of the series in a working dtype."""
        return Rotation(self, dtype)


class Rotation(Recurrence):
    """The polynomials ``T_k(y) v`` of complex states, in pairs of real columns.

    Args:
        series: gives the interval that is mapped to [-1, 1].
        dtype: of the pairs.
    """

    def act(self, x: Tensor) -> Tensor:
        """Return ``-i H x``."""
        real, imaginary = _pairs(self.A @ x).unbind(2)
        return torch.stack((imaginary, -real), 2).flatten(1)

    def sums(
        self,
        v: Tensor,
        tables: Sequence[Table],
        tape: bool = False,
        out: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return ``sum_k w_k T_k(y) v`` for several tables of complex weights; see the base."""
        halves = [*tables, *(table.imaginary for table in tables if table.imaginary is not None)]
        sums = super().sums(v, halves, tape)
        real, imaginary = sums[: len(tables)], sums[len(tables) :]
        turned = [_joined(x, y) for x, y in zip(real, imaginary, strict=True)]
        if out is None:
            return turned
        return [place.copy_(x) for place, x in zip(out, turned, strict=True)]


def _pairs(x: Tensor) -> Tensor:
    return x.view(len(x), -1, 2) if x.numel() else x.view(len(x), x.shape[1] // 2, 2)


def _joined(x: Tensor, y: Tensor) -> Tensor:
    """Return ``x + i y`` of complex states in pairs of columns."""
    left, right = _pairs(x), _pairs(y)
    real, imaginary = left[..., 0] - right[..., 1], left[..., 1] + right[..., 0]
    return torch.stack((real, imaginary), 2).flatten(1)
