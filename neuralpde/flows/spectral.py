"""Functions of a symmetric operator that depend on time: by eigenmodes, or by polynomials.

Both kinds act on states, `sum_j f_j(L, t) z_j`, and give traces and diagonals. Times may differ
between the graphs of a batch, `[nodes]` with one time per graph: a function of a block-diagonal
operator acts block by block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.operators import SparseOperator
from solvers.interpolant import interpolant

Function = Callable[[Tensor, Tensor], Tensor]
"""f(eigenvalues, t), entry by entry, for arguments that broadcast, in float64."""

Terms = Sequence[tuple[Function, Tensor]]

BLOCK = 64
"""Columns of the identity that are multiplied at a time."""

EXACT = 3
"""Moments that are known exactly: traces of 1, L and L^2."""


class TraceEstimate(NamedTuple):
    """A number for each time and graph, with the standard error of what was sampled.

    Attributes:
        value: float64 `[times, graphs]`.
        error: standard error; 0 where nothing was sampled.

    >>> TraceEstimate(torch.ones(1, 1), torch.zeros(1, 1)).value.item()
    1.0
    """

    value: Float[Tensor, "times graphs"]
    error: Float[Tensor, "times graphs"]


class Spectral(Protocol):
    """What a bridge asks of its operator."""

    name: str

    def combined(self, terms: Terms, t: Tensor) -> Tensor:
        """The sum of `f_j(L, t) z_j`; states of fewer columns broadcast."""

    def traces(self, f: Function, t: Float[Tensor, " times"]) -> TraceEstimate:
        """The traces of `f(L, t)` over the nodes of each graph."""

    def diagonal(self, f: Function, t: Tensor) -> Float[Tensor, " nodes"]:
        """The diagonal of `f(L, t)`, float64."""


class Modes:
    """Functions of an operator through its eigenvectors, found graph by graph.

    Args:
        L: symmetric; its eigenvectors take `nodes^2` numbers.

    Attributes:
        values: eigenvalues, those of each graph where its nodes are.
        vectors: eigenvectors, as columns.

    >>> from neuralpde import catalogue
    >>> modes = Modes(catalogue.path(2).laplacian(dtype=torch.float64))
    >>> modes.traces(lambda s, t: s * t, torch.tensor([3.0]).double()).value.tolist()
    [[6.0]]
    """

    name = "modes"

    def __init__(self, L: SparseOperator) -> None:
        matrix = L.to(torch.float64).to_dense().detach()
        self.values, self.vectors = matrix.new_zeros(len(matrix)), torch.zeros_like(matrix)
        self.batch, self.num_graphs = L.batch, L.num_graphs
        counts = [len(matrix)] if self.batch is None else torch.bincount(self.batch).tolist()
        start = 0
        for count in counts:
            own = slice(start, start + count)
            a, U = torch.linalg.eigh(matrix[own, own])
            rounding = count * torch.finfo(a.dtype).eps * a.abs().max()
            self.values[own], self.vectors[own, own] = torch.where(a.abs() <= rounding, 0.0, a), U
            start += count

    def combined(self, terms: Terms, t: Tensor) -> Tensor:
        """The sum of `f_j(L, t) z_j`."""
        return _summed(terms, lambda alike: self._of_one_shape(alike, t))

    def _of_one_shape(self, terms: Terms, t: Tensor) -> Tensor:
        first = terms[0][1]
        values, U = self.values.to(first.device), self.vectors.to(first)
        parts = [
            f(values, t).to(first).unsqueeze(1) * (U.T @ z.reshape(len(z), -1)) for f, z in terms
        ]
        return (U @ torch.stack(parts).sum(0)).view_as(first)

    def traces(self, f: Function, t: Float[Tensor, " times"]) -> TraceEstimate:
        """The sums over eigenvalues, exact."""
        found = f(self.values, t.to(self.values).unsqueeze(1))
        index = torch.zeros(found.shape[1], dtype=torch.int64, device=found.device)
        totals = found.new_zeros(len(t), self.num_graphs)
        totals = totals.index_add(1, index if self.batch is None else self.batch, found)
        return TraceEstimate(totals, torch.zeros_like(totals))

    def diagonal(self, f: Function, t: Tensor) -> Float[Tensor, " nodes"]:
        """The diagonal of `f(L, t)`."""
        return self.vectors.square() @ f(self.values, t.to(self.values))


class Polynomials:
    """Functions of an operator as Chebyshev series of products, without an eigendecomposition.

    Each function is interpolated on the enclosure of the spectrum to `tol` of its largest value,
    see `solvers.interpolant`; Clenshaw's recurrence then sums several functions of several states
    for the products of one. Traces come from the moments `tr T_k` of a few random signs, the first
    three of them exact, with the standard error over the signs; from all unit vectors and without
    an error where there are no more nodes than probes. Moments are taken once, for all times.

    Args:
        L: symmetric.
        tol: relative error of the functions; in single precision at least its rounding.
        probes: random sign vectors for traces.
        seed: of the signs.

    >>> from neuralpde import catalogue
    >>> series = Polynomials(catalogue.path(2).laplacian(dtype=torch.float64))
    >>> x, t = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor(2.0).double()
    >>> series.combined([(lambda s, t: torch.exp(-s * t), x)], t).flatten().tolist()  # e^-4
    [0.018316, -0.018316]
    """

    name = "polynomials"

    def __init__(
        self, L: SparseOperator, tol: float = 1e-12, probes: int = 64, seed: int = 0
    ) -> None:
        lo, hi = L.spectrum()
        self.L, self.tol, self.probes, self.seed = L.to(torch.float64), tol, probes, seed
        self.lo, self.hi = float(lo.min()), float(hi.max())
        self.half, self.middle = (self.hi - self.lo) / 2, (self.hi + self.lo) / 2
        # On an interval of one point y is 1.
        scale, shift = (2 / self.half, -2 * self.middle / self.half) if self.half else (0.0, 2.0)
        self._twice = {(torch.float64, self.L.device): self.L.shifted(scale, shift)}
        self._moments = torch.empty(0)
        index = torch.arange(L.num_nodes, device=L.device)
        self._first = L.graphs.reduced(index.double(), "amin").long()

    def combined(self, terms: Terms, t: Tensor) -> Tensor:
        """The sum of `f_j(L, t) z_j`: one recurrence for all terms of one shape."""
        times = self._of_graphs(t)

        def alike(part: Terms) -> Tensor:
            first = part[0][1]
            c = self._coefficients([f for f, _ in part], times, torch.finfo(first.dtype).eps)
            return self._clenshaw(c, [z for _, z in part])

        return _summed(terms, alike)

    def traces(self, f: Function, t: Float[Tensor, " times"]) -> TraceEstimate:
        """The traces from the moments of the probes."""
        c = self._coefficients([f], t.double().cpu().unsqueeze(1), 0.0)[0]
        moments, known = self._traced(c.shape[1]), self._known()
        if self._complete:
            value = torch.tensordot(c, moments[: c.shape[1], :, 0], 1)
            return TraceEstimate(value, torch.zeros_like(value))
        sampled = torch.tensordot(c[:, EXACT:], moments[EXACT : c.shape[1]], 1)
        value = c[:, :EXACT] @ known[: c.shape[1]] + sampled.mean(2)
        return TraceEstimate(value, sampled.std(2) / math.sqrt(self.probes))

    def diagonal(self, f: Function, t: Tensor) -> Float[Tensor, " nodes"]:
        """The diagonal of `f(L, t)` from unit vectors: `nodes / 64` recurrences."""
        found = torch.empty(self.L.num_nodes, dtype=torch.float64, device=self.L.device)
        for nodes, units in self._units():
            found[nodes] = self.combined([(f, units)], t)[nodes, torch.arange(len(nodes))]
        return found

    def degree(self, f: Function, t: float) -> int:
        """The degree that a function takes at one time, in double precision.

        >>> from neuralpde import catalogue
        >>> Polynomials(catalogue.path(2).laplacian()).degree(lambda s, t: s * t, 1.0)
        1
        """
        time = torch.tensor(t, dtype=torch.float64)
        return self._coefficients([f], time, 0.0).shape[-1] - 1

    def _of_graphs(self, t: Tensor) -> Tensor:
        """One time, or one for each graph in a column."""
        if not t.dim():
            return t.cpu()
        return (t[self._first] if self.L.num_graphs > 1 else t[:1]).cpu().unsqueeze(1)

    def _coefficients(self, functions: list[Function], t: Tensor, eps: float) -> Tensor:
        """Chebyshev coefficients `[functions, degrees]`, or `[functions, times, degrees]`."""

        def values(s: Tensor) -> Tensor:
            return torch.stack([f(s, t) for f in functions])

        grid = torch.linspace(self.lo, self.hi, 33, dtype=torch.float64)
        peak = values(grid).abs().amax(-1, keepdim=True)
        peak = torch.where(peak > 0, peak, 1.0)
        tol = max(self.tol, eps / 8)
        return (
            interpolant(lambda s: values(s) / peak, self.lo, self.hi, tol=tol).coefficients * peak
        )

    def _doubled(self, like: Tensor) -> SparseOperator:
        """The operator 2 y in the dtype and on the device of a state."""
        key = like.dtype, like.device
        if key not in self._twice:
            master = next(iter(self._twice.values()))
            self._twice[key] = master.to(like.dtype, like.device)
        return self._twice[key]

    def _clenshaw(self, c: Tensor, states: list[Tensor]) -> Tensor:
        first = states[0]
        twice = self._doubled(first)
        z = [state.reshape(len(state), -1) for state in states]
        taped = torch.is_grad_enabled() and any(state.requires_grad for state in states)
        last, after = torch.zeros_like(z[0]), torch.zeros_like(z[0])
        for k in range(c.shape[-1] - 1, -1, -1):
            alpha = 1.0 if k else 0.5
            if taped:
                image = alpha * (twice @ last) - after
            else:
                image = twice.addmm_(after, last, alpha=alpha, beta=-1.0)
            for weight, state in zip(c[..., k], z, strict=True):
                image = self._plus(image, weight, state, taped)
            last, after = image, last
        return last.view_as(first)

    def _plus(self, y: Tensor, weight: Tensor, z: Tensor, taped: bool) -> Tensor:
        if weight.numel() == 1:
            return torch.add(y, z, alpha=float(weight), out=None if taped else y)
        batch = self.L.batch
        assert batch is not None
        factor = weight.to(z)[batch.to(z.device)].unsqueeze(1)
        return torch.addcmul(y, factor, z, out=None if taped else y)

    @property
    def _complete(self) -> bool:
        return self.L.num_nodes <= self.probes

    def _units(self) -> list[tuple[Tensor, Tensor]]:
        """Unit vectors, some columns at a time."""
        n, device = self.L.num_nodes, self.L.device
        blocks = []
        for nodes in torch.arange(n, device=device).split(BLOCK):
            units = torch.zeros(n, len(nodes), dtype=torch.float64, device=device)
            blocks.append((nodes, units.scatter(0, nodes.unsqueeze(0), 1.0)))
        return blocks

    def _known(self) -> Float[Tensor, "moments graphs"]:
        """The exact traces of T_0, T_1 and T_2."""
        y = self._doubled(torch.empty(0, dtype=torch.float64, device=self.L.device))
        graphs = y.graphs
        squares = y.values.new_zeros(y.num_nodes).index_add(0, y.pattern.row, y.values.square())
        one, first, second = (
            graphs.reduced(part, "sum")
            for part in (torch.ones_like(squares), y.diagonal() / 2, squares / 4)
        )
        return torch.stack([one, first, 2 * second - one]).cpu()

    @torch.no_grad()
    def _traced(self, count: int) -> Float[Tensor, "moments graphs probes"]:
        """The moments `<z, T_k z>` of every probe, at least so many."""
        if len(self._moments) >= count:
            return self._moments
        n, device = self.L.num_nodes, self.L.device
        if self._complete:
            blocks = [self._of(units, count).sum(2, keepdim=True) for _, units in self._units()]
            self._moments = torch.stack(blocks).sum(0)
        else:
            rng = torch.Generator().manual_seed(self.seed)
            signs = 2.0 * torch.randint(2, (n, self.probes), generator=rng).double() - 1.0
            self._moments = self._of(signs.to(device), count)
        return self._moments

    def _of(self, z: Tensor, count: int) -> Tensor:
        """Moments of columns from half as many products: `T_2k = 2 T_k^2 - 1`, and the like."""
        twice, batch = self._doubled(z), self.L.batch

        def inner(x: Tensor, y: Tensor) -> Tensor:
            if batch is None:
                return (x * y).sum(0, keepdim=True)
            return x.new_zeros(self.L.num_graphs, x.shape[1]).index_add(0, batch, x * y)

        before, last = z, 0.5 * (twice @ z)
        found = [inner(z, z), inner(z, last)]
        while len(found) < count:
            found.append(2 * inner(last, last) - found[0])
            before, last = last, twice @ last - before
            found.append(2 * inner(last, before) - found[1])
        return torch.stack(found).cpu()


def _summed(terms: Terms, of_one_shape: Callable[[Terms], Tensor]) -> Tensor:
    """Sum over groups of states of one shape, which broadcast against each other."""
    groups: dict[torch.Size, list[tuple[Function, Tensor]]] = {}
    for f, z in terms:
        groups.setdefault(z.shape, []).append((f, z))
    total: Tensor | None = None
    for group in groups.values():
        part = of_one_shape(group)
        total = part if total is None else total + part
    assert total is not None
    return total
