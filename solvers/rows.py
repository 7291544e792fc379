"""How the leading axis of a state splits into the graphs of a batch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from solvers.lines import SHORT, dots, lines
from solvers.masks import every, some

State = tuple[Tensor, ...]
"""What every solver advances: the parts of a state, sharing their leading axis in a batch."""

# Longer single-precision sums than this are taken in double precision from the start.
LONGEST_SINGLE_SUM = 1024


class Rows:
    """The rows of each graph, and reductions over them in double precision.

    Row ``i`` of every part belongs to graph ``batch[i]``. Without a ``batch`` there is one graph
    and its state may have any shape, 0-d included.

    Args:
        batch: graph of each row, sorted, or None for one graph.
        num_graphs: number of graphs; trailing graphs may have no rows.

    Attributes:
        batch: as given; None where there is one graph.
        num_graphs: as given.

    Raises:
        ValueError: for a batch that is missing, not sorted, not int64, or out of range.

    Example:
        >>> rows = Rows(torch.tensor([0, 0, 1]), 2)
        >>> rows.mean_square((torch.tensor([3.0, 1.0, 2.0]),)).tolist()
        [5.0, 4.0]
    """

    def __init__(self, batch: Int64[Tensor, " rows"] | None = None, num_graphs: int = 1) -> None:
        if num_graphs < 1:
            raise ValueError(f"num_graphs is {num_graphs}; a state has at least one graph")
        if batch is None:
            if num_graphs > 1:
                raise ValueError(
                    f"{num_graphs} graphs but no batch; give the graph of each row (int64, sorted)"
                )
        else:
            _check_batch(batch, num_graphs)
        self.num_graphs = num_graphs
        self.batch = batch if num_graphs > 1 else None
        self._nodes = (
            None if self.batch is None else torch.bincount(self.batch, minlength=num_graphs)
        )

    def sums(self, parts: State) -> Float[Tensor, " graphs"]:
        """Sum all entries of each graph, accumulated in float64.

        Args:
            parts: real tensors, ``[rows, ...]`` each.

        Returns:
            One float64 sum per graph, all parts together.

        Example:
            >>> Rows().sums((torch.ones(3, 2), torch.tensor(4.0))).tolist()
            [10.0]
        """
        if self.batch is None:
            total = [part.sum(dtype=torch.float64).view(1) for part in parts]
            return total[0] if len(total) == 1 else torch.stack(total).sum(0)
        return self._per_graph([_matrix(part).sum(1, dtype=torch.float64) for part in parts])

    def mean_square(self, parts: State) -> Float[Tensor, " graphs"]:
        """Average |entry|^2 over all entries of each graph.

        ``m_g = sum_parts sum_{i in g} |x_i|^2 / number of entries``; moduli for complex parts.
        Each row, or of one graph each line of a few hundred entries, is reduced in its own
        precision, and these are added in float64: relative error below 5e-6 for float32 without
        a float64 copy of the state.

        Args:
            parts: real or complex tensors, ``[rows, ...]`` each.

        Returns:
            One float64 mean per graph; NaN where an entry is NaN, 0 for a graph without entries.

        Example:
            >>> Rows().mean_square((torch.tensor([[3.0, 4.0]]), torch.tensor([1j]))).item()
            8.666666666666666
        """
        if self._nodes is None:
            total = [_squares(part) for part in parts]
            count = max(sum(part.numel() for part in parts), 1)
            return (total[0] if len(total) == 1 else torch.stack(total).sum(0)) / count
        squares = self._per_graph([_row_norms(part).double().square() for part in parts])
        width = sum(part.shape[1:].numel() for part in parts)
        return squares / (self._nodes * width).clamp(min=1)

    def mean_squares(self, parts: State) -> Float[np.ndarray, " graphs"]:
        """Return :meth:`mean_square` without gradient, as numbers of the host.

        Example:
            >>> Rows().mean_squares((torch.tensor([[3.0, 4.0]]),))
            array([12.5])
        """
        parts = tuple([part.detach() for part in parts])
        if self._nodes is not None:
            return self.mean_square(parts).cpu().numpy()
        total, count = 0.0, 0
        for part in parts:
            total, count = total + _square(part), count + part.numel()
        return np.array([total / max(count, 1)])

    def entries(self, part: Tensor) -> Float[Tensor, " graphs"]:
        """Count the entries of each graph, as float64 numbers of the host.

        Example:
            >>> Rows(torch.tensor([0, 0, 1]), 2).entries(torch.ones(3, 5)).tolist()
            [10.0, 5.0]
        """
        if self._nodes is None:
            return torch.tensor([part.numel()], dtype=torch.float64, device="cpu")
        return self._nodes.cpu().double() * part.shape[1:].numel()

    def spread(self, values: Float[np.ndarray, " graphs"], like: Tensor) -> float | Tensor:
        """Give each row the value of its graph.

        Args:
            values: one number per graph.
            like: a part of the state.

        Returns:
            A float for one graph; otherwise ``[rows, 1, ..., 1]`` in the real dtype and on the
            device of ``like``, ready to multiply it.

        Example:
            >>> Rows(torch.tensor([0, 0, 1]), 2).spread(np.array([5.0, 7.0]), torch.ones(3, 2))
            tensor([[5.],
                    [5.],
                    [7.]])
        """
        if self.batch is None:
            return float(values[0])
        per_graph = torch.as_tensor(values, device=like.device).to(like.dtype.to_real())
        return per_graph[self.batch].view(-1, *[1] * (like.dim() - 1))

    def select(self, mask: Bool[np.ndarray, " graphs"], yes: State, no: State) -> State:
        """Take the rows of the graphs in ``mask`` from ``yes`` and the others from ``no``.

        Args:
            mask: one truth value per graph.
            yes: parts of a state.
            no: parts of the same shapes.

        Returns:
            ``yes`` itself if all graphs are in the mask, ``no`` itself if none is, else new parts.

        Example:
            >>> rows = Rows(torch.tensor([0, 0, 1]), 2)
            >>> x, y = (torch.zeros(3),), (torch.ones(3),)
            >>> rows.select(np.array([True, False]), x, y)
            (tensor([0., 0., 1.]),)
        """
        if every(mask):
            return yes
        if self.batch is None or not some(mask):
            return no
        taken = torch.as_tensor(mask, device=self.batch.device)[self.batch]
        return tuple(
            torch.where(taken.view(-1, *[1] * (new.dim() - 1)), new, old)
            for new, old in zip(yes, no, strict=True)
        )

    def _per_graph(self, columns: list[Tensor]) -> Tensor:
        assert self.batch is not None
        total = columns[0].new_zeros(self.num_graphs)
        for column in columns:
            total = total.index_add(0, self.batch, column)
        return total


def _check_batch(batch: Tensor, num_graphs: int) -> None:
    if batch.dtype != torch.int64 or batch.dim() != 1:
        raise ValueError(
            f"batch is {batch.dtype} of shape {tuple(batch.shape)}; give the graph of each row as "
            "a 1-D int64 tensor"
        )
    if len(batch) and (batch[0] < 0 or batch[-1] >= num_graphs or (batch.diff() < 0).any()):
        raise ValueError(
            f"batch must be sorted and lie in 0..{num_graphs - 1}; sort the rows by graph, or "
            "give num_graphs = batch.max() + 1"
        )


def _matrix(part: Tensor) -> Tensor:
    return part.flatten(1) if part.dim() > 1 else part.reshape(-1, 1)


def _squares(part: Tensor) -> Float[Tensor, " one"]:
    """The sum of |entry|^2, float64."""
    real = torch.view_as_real(part.resolve_conj()) if part.is_complex() else part
    entries = lines(real.contiguous())
    return dots(entries, entries).sum(0, True, dtype=torch.float64)


def _square(part: Tensor) -> float:
    """The same as a number of the host, in as few calls as there can be."""
    if part.numel() > SHORT or part.is_complex():
        return _squares(part).item()
    entries = part.reshape(-1)
    return torch.dot(entries, entries).item()


def _row_norms(part: Tensor) -> Tensor:
    matrix = _matrix(part)
    if matrix.shape[1] == 1:
        return matrix.squeeze(1).abs()
    wide = matrix.shape[1] > LONGEST_SINGLE_SUM
    double = torch.complex128 if part.is_complex() else torch.float64
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=1, dtype=double if wide else None)
    return norms
