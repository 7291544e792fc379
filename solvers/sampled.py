"""Quadratic forms of a state from dot products of its rows at the places of a sparse matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from solvers.columns import WIDTH

# A dot product of two rows costs more than its share of a sparse product unless rows are long; and
# what it saves, a second state to be written and read, counts where there are few of them.
LONG, FEW = 32, 4


class Places:
    """Dot products of rows of one matrix with rows of another, at the places of a sparse one.

    Each is summed in the precision of the entries. On the CPU nothing else in torch reads every
    entry once, writes no products down, and does not follow `torch.set_float32_matmul_precision`.

    Args:
        crow: where the places of each row begin, and the last ones end.
        col: columns of the places.
        size: numbers of rows of the two matrices.
        dtype: of the matrices.

    Example:
        >>> dots = Places(torch.tensor([0, 1]), torch.tensor([1]), (1, 2), torch.float32)
        >>> dots(torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, 6.0], [3.0, 4.0]])).tolist()
        [11.0]
    """

    def __init__(
        self,
        crow: Int[Tensor, " rows"],
        col: Int[Tensor, " places"],
        size: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        self._dots = torch.zeros(len(col), dtype=dtype, device="cpu")
        self._places = torch.sparse_csr_tensor(
            crow, col, self._dots, size, device="cpu", check_invariants=False
        )

    def __call__(self, left: Tensor, right: Tensor) -> Float[Tensor, " places"]:
        """Return them; the next call overwrites what this one returned."""
        # What was found before is multiplied by 0, and may be infinite.
        self._dots.zero_()
        torch.sparse.sampled_addmm(self._places, left, right.t(), beta=0.0, out=self._places)
        return self._dots


class Sampled:
    """Forms ``sum_e w_e <x_i, x_j>`` over the places e = (i, j) of a sparse matrix.

    They take no memory of the size of the state: what a solve has in the cache stays there.

    Args:
        crow: where the places of each row begin, and the last ones end.
        col: columns of the places.
        weights: of each form at each place, float64.
        dtype: of the states.

    Example:
        >>> crow, col = torch.tensor([0, 1, 1]), torch.tensor([1])
        >>> forms = Sampled(crow, col, torch.tensor([[2.0]]).double(), torch.float32)
        >>> forms(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        [22.0]
    """

    def __init__(
        self,
        crow: Int[Tensor, " rows"],
        col: Int[Tensor, " places"],
        weights: Float[Tensor, "forms places"],
        dtype: torch.dtype,
    ) -> None:
        rows = len(crow) - 1
        self._weights, self._dots = weights, Places(crow, col, (rows, rows), dtype)

    @staticmethod
    def suits(x: Float[Tensor, "rows columns"], places: int) -> bool:
        """Return whether forms of such a state are had faster so than by a product.

        Args:
            x: the state.
            places: number of places.

        Example:
            >>> Sampled.suits(torch.ones(9, 64), 30), Sampled.suits(torch.ones(9, 1), 30)
            (True, False)
        """
        long = LONG <= x.shape[1] <= WIDTH
        return long and places <= FEW * len(x) and x.device.type == "cpu"

    def __call__(self, x: Float[Tensor, "rows columns"]) -> list[float]:
        """Return the forms of a contiguous state."""
        found: list[float] = torch.mv(self._weights, self._dots(x, x).double()).tolist()
        return found
