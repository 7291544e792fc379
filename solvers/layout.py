"""A state as one real matrix: what linear algebra works on."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from solvers.rows import State


class Layout:
    """How the parts of a state lie side by side in one real matrix ``[rows, entries]``.

    Parts that share their leading axis keep it, and their other axes are flattened next to each
    other. Parts that do not (possible for one graph only) become one long column. A complex entry
    is two real ones, so that what is solved is real whether or not the field is holomorphic.

    Args:
        x: a state.

    Attributes:
        rowwise: whether row ``i`` of the matrix is row ``i`` of the state.

    Example:
        >>> layout = Layout((torch.ones(2, 3), torch.zeros(2)))
        >>> layout.pack((torch.ones(2, 3), torch.zeros(2)))
        tensor([[1., 1., 1., 0.],
                [1., 1., 1., 0.]])
    """

    def __init__(self, x: State) -> None:
        self.shapes = [part.shape for part in x]
        self.complex, self.dtype = x[0].is_complex(), x[0].dtype
        heads = {shape[0] if shape else None for shape in self.shapes}
        self.rowwise = len(heads) == 1 and None not in heads

    def pack(self, x: State) -> Float[Tensor, "rows entries"]:
        """Lay the parts side by side; differentiable.

        Args:
            x: parts of the shapes this layout was made for.
        """
        real = [torch.view_as_real(part.resolve_conj()) if self.complex else part for part in x]
        if not self.rowwise:
            return torch.cat([part.reshape(-1) for part in real]).unsqueeze(1)
        flat = [part.reshape(shape[0], -1) for part, shape in zip(real, self.shapes, strict=True)]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)

    def unpack(self, matrix: Float[Tensor, "rows entries"]) -> State:
        """Take the parts out of a matrix; differentiable.

        Args:
            matrix: from `pack`, or like it.

        Example:
            >>> layout = Layout((torch.tensor([1 + 2j]),))
            >>> layout.unpack(torch.tensor([[3.0, 4.0]]))
            (tensor([3.+4.j]),)
        """
        axis = 1 if self.rowwise else 0
        widths = [self._width(shape) for shape in self.shapes]
        return tuple(
            self._part(piece, shape)
            for piece, shape in zip(matrix.split(widths, dim=axis), self.shapes, strict=True)
        )

    def column(self, values: float | Tensor) -> float | Tensor:
        """Bring one number per row into a column that multiplies the matrix."""
        if isinstance(values, Tensor) and values.dim():
            return values.reshape(-1, 1)
        return values

    def _width(self, shape: torch.Size) -> int:
        entries = shape[1:] if self.rowwise else shape
        return math.prod(entries) * (2 if self.complex else 1)

    def _part(self, piece: Tensor, shape: torch.Size) -> Tensor:
        if self.complex:
            return torch.view_as_complex(piece.reshape(*shape, 2).contiguous())
        return piece.reshape(shape)
