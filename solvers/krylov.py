"""Linear systems by products alone: conjugate gradients and GMRES, group by group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from solvers.groups import Groups, Matrix

Product = Callable[[Matrix], Matrix]
Flags = Bool[Tensor, " graphs"]


@dataclass
class Projection:
    """What a matrix looks like in the Krylov spaces of GMRES, one for each graph.

    Attributes:
        matrix: Hessenberg matrices, the entries below the last ones included.
        width: how many columns of them are a graph's own.

    Example:
        >>> turn = torch.tensor([[[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
        >>> Projection(turn, torch.tensor([2])).negative().tolist()  # eigenvalues 3 and -1
        [True]
    """

    matrix: Float[Tensor, "graphs below columns"]
    width: Int64[Tensor, " graphs"]

    def negative(self) -> Flags:
        """Tell which graphs show an eigenvalue with a negative real part.

        That is a Ritz value nearer to an eigenvalue than to the imaginary axis: its residual is
        smaller than its distance from there. What a space has not met it cannot show.
        """
        graphs, _, k = self.matrix.shape
        if k == 0:
            return torch.zeros(graphs, dtype=torch.bool, device=self.matrix.device)
        own = torch.arange(k, device=self.matrix.device) < self.width.unsqueeze(1)
        # Columns that are not a graph's own stand apart, with the eigenvalue 1.
        square = torch.where(own.unsqueeze(2) & own.unsqueeze(1), self.matrix[:, :k], 0.0)
        square = square + torch.diag_embed((~own).double())
        good = square.isfinite().flatten(1).all(1) & (self.width > 0)
        values, vectors = torch.linalg.eig(torch.where(good[:, None, None], square, 1.0))
        last = (self.width - 1).clamp(min=0)
        below = (
            self.matrix[torch.arange(graphs, device=self.matrix.device), last + 1, last]
            .abs()
            .unsqueeze(1)
        )
        residual = below * vectors.take_along_dim(last[:, None, None], 1)[:, 0].abs()
        shown: Flags = good & ((values.real < -residual) & (values.real < 0)).any(1)
        return shown


@dataclass
class Solved:
    """What an iteration leaves behind.

    Attributes:
        x: the solution; rows of graphs that failed hold what was reached.
        reached: which graphs got below their tolerance.
        indefinite: graphs in which a direction of no positive curvature turned up.
        residual: root mean square of the weighted residual of each graph, float64.
        products: number of products taken.
        seen: what GMRES saw of the matrix.
    """

    x: Matrix
    reached: Flags
    indefinite: Flags
    residual: Float[Tensor, " graphs"]
    products: int
    seen: list[Projection] = field(default_factory=list)


def conjugate_gradients(
    product: Product,
    b: Matrix,
    tolerance: Float[Tensor, " graphs"],
    groups: Groups,
    *,
    weight: float | Tensor = 1.0,
    preconditioner: Tensor | None = None,
    metric: Float[Tensor, " rows"] | None = None,
    limit: int = 1000,
) -> Solved:
    """Solve ``A x = b`` with A self-adjoint and positive definite in a metric.

    Every group keeps its own coefficients and stands still once ``rms(weight r) <= tolerance``,
    so that it gets what it would get alone. Inner products are ``sum_i m_i x_i y_i`` in float64.

    Args:
        product: A as a function; it maps groups to themselves.
        b: the right-hand side.
        tolerance: of each graph.
        groups: which entries are independent systems.
        weight: positive weights of the residual, broadcasting against `b`.
        preconditioner: positive numbers close to the diagonal of A; None for ones.
        metric: the weights m; None for ones.
        limit: most iterations.

    Source:
        Hestenes and Stiefel, Methods of conjugate gradients, J. Res. NBS 49 (1952), 409.

    Example:
        >>> diagonal = torch.tensor([[2.0], [4.0]])
        >>> solved = conjugate_gradients(
        ...     lambda x: diagonal * x, torch.ones(2, 1), torch.tensor([1e-6]), Groups()
        ... )
        >>> solved.x.flatten().tolist(), solved.products
        ([0.5, 0.25], 2)
    """
    scaled = _inverse(preconditioner)
    x, r = torch.zeros_like(b), b
    z = scaled(r)
    p = z
    rz = groups.dot(r, z, metric)
    size = groups.rms(r * weight)
    allowed = tolerance.unsqueeze(1)
    going = ~(size <= allowed) & size.isfinite()
    broken = torch.zeros_like(going)
    taken = 0
    while bool(going.any()) and taken < limit:
        q = product(p)
        taken += 1
        curvature = groups.dot(p, q, metric)
        broken = broken | (going & ~(curvature > 0))
        going = going & ~broken
        alpha = groups.spread(torch.where(going, rz / curvature, 0.0), p)
        x = torch.addcmul(x, alpha, p)
        r = torch.addcmul(r, alpha, q, value=-1.0)
        z = scaled(r)
        now = groups.dot(r, z, metric)
        beta = torch.where(going, now / rz, 0.0)
        rz = torch.where(going, now, rz)
        size = torch.where(going, groups.rms(r * weight), size)
        going = going & ~(size <= allowed)
        p = torch.addcmul(z, groups.spread(torch.where(going, beta, 0.0), p), p)
    return Solved(x, (size <= allowed).all(1), broken.any(1), size.amax(1), taken)


def gmres(
    product: Product,
    b: Matrix,
    tolerance: Float[Tensor, " graphs"],
    groups: Groups,
    *,
    weight: float | Tensor = 1.0,
    preconditioner: Tensor | None = None,
    restart: int = 20,
    limit: int = 200,
) -> Solved:
    """Solve ``A x = b`` for any regular A, every graph in a Krylov space of its own.

    Works with ``W A P^-1 W^-1`` for a preconditioner P and weights W, so that the residual that is
    made small is the true one, weighted, and that without P the spectrum is that of A;
    orthogonalised twice, restarted every `restart` products.

    Args:
        product: A as a function; it maps graphs to themselves.
        b: the right-hand side.
        tolerance: of each graph, on the root mean square of the weighted residual.
        groups: the graphs.
        weight: positive weights of the residual, broadcasting against `b`: root mean squares of
            weighted residuals are minimised.
        preconditioner: numbers close to the diagonal of A, not zero; None for ones.
        restart: products between restarts; so many states are kept. One more checks the result.
        limit: most products, but for those checks.

    Source:
        Saad and Schultz, SIAM J. Sci. Stat. Comput. 7 (1986), 856.

    Example:
        >>> b = torch.tensor([[3.0], [4.0]], dtype=torch.float64)
        >>> solved = gmres(lambda x: x.flip(0), b, torch.tensor([1e-9]), Groups())
        >>> solved.x.round(decimals=9).flatten().tolist(), solved.products
        ([4.0, 3.0], 3)
    """
    groups = groups.by_column(False)
    scaled = _inverse(preconditioner)
    x, r, taken = torch.zeros_like(b), b * weight, 0
    size = groups.rms(r)[:, 0]
    stuck = torch.zeros_like(size, dtype=torch.bool)
    seen: list[Projection] = []
    while True:
        going = ~(size <= tolerance) & size.isfinite() & ~stuck
        if not bool(going.any()) or taken >= limit:
            break
        space = _Space(groups, groups.only(going, r), size, tolerance)
        while bool(space.going.any()) and space.width < min(restart, limit - taken):
            space.grow(product(scaled(space.last / weight)) * weight)
        taken += space.width
        seen.append(space.projection())
        x = x + scaled(space.combination() / weight)
        before = size
        fresh = (b - product(x)) * weight
        taken += 1
        size = torch.where(going, groups.rms(fresh)[:, 0], size)
        r = groups.select(going, fresh, r)
        # Less than a tenth gained in a whole space: more of them will not help.
        stuck = stuck | (going & ~(size <= 0.9 * before))
    return Solved(x, size <= tolerance, torch.zeros_like(stuck), size, taken, seen)


class _Space:
    """Krylov spaces of all graphs, with their Hessenberg matrices kept triangular by rotations."""

    def __init__(self, groups: Groups, r: Matrix, size: Tensor, tolerance: Tensor) -> None:
        self.groups, self.tolerance = groups, tolerance
        norm = groups.dot(r, r).sqrt()
        # Root mean squares and norms differ by the root of the number of entries.
        self._unit = torch.where(norm[:, 0] > 0, size / norm[:, 0], 0.0)
        self.going = norm[:, 0] > 0
        self._basis = [r * groups.spread(_reciprocal(norm), r)]
        self._columns: list[Tensor] = []
        self._hessenberg: list[Tensor] = []
        self._rotations: list[tuple[Tensor, Tensor]] = []
        self._right = [norm[:, 0]]
        self._used = torch.zeros_like(norm[:, 0])

    @property
    def width(self) -> int:
        return len(self._columns)

    @property
    def last(self) -> Tensor:
        return self._basis[-1]

    def grow(self, w: Matrix) -> None:
        """Orthogonalise one more product, and rotate its column."""
        groups = self.groups
        column = [w.new_zeros(groups.num_graphs, dtype=torch.float64) for _ in self._basis]
        for _ in range(2):
            for i, v in enumerate(self._basis):
                h = groups.dot(w, v)
                column[i] = column[i] + h[:, 0]
                w = torch.addcmul(w, groups.spread(h, w), v, value=-1.0)
        norm = groups.dot(w, w).sqrt()
        below = norm[:, 0]
        self._hessenberg.append(torch.stack([*column, below]))
        for i, (c, s) in enumerate(self._rotations):
            column[i], column[i + 1] = (
                c * column[i] + s * column[i + 1],
                c * column[i + 1] - s * column[i],
            )
        length = torch.hypot(column[-1], below)
        safe = length > 0
        c = torch.where(safe, column[-1] / length, 1.0)
        s = torch.where(safe, below / length, 0.0)
        column[-1] = length
        self._rotations.append((c, s))
        self._columns.append(torch.stack(column))
        right = self._right[-1]
        self._right[-1:] = [c * right, -s * right]
        self._used = self._used + self.going
        self.going = self.going & safe & (self._right[-1].abs() * self._unit > self.tolerance)
        keep = self.going.unsqueeze(1)
        inverse = torch.where(keep, _reciprocal(norm), 0.0)
        self._basis.append(w * groups.spread(inverse, w))

    def projection(self) -> Projection:
        """What A looks like in the spaces."""
        size = (len(self._used), self.width + 1, self.width)
        H = torch.zeros(size, dtype=torch.float64, device=self._used.device)
        for j, column in enumerate(self._hessenberg):
            H[:, : j + 2, j] = column.T
        return Projection(H.cpu(), self._used.long().cpu())

    def combination(self) -> Tensor:
        """The element of the spaces whose residual is smallest."""
        y: list[Tensor] = [torch.zeros_like(self._used)] * self.width
        for i in reversed(range(self.width)):
            total = self._right[i]
            for j in range(i + 1, self.width):
                total = total - self._columns[j][i] * y[j]
            pivot = self._columns[i][i]
            usable = (self._used > i) & (pivot != 0)
            y[i] = torch.where(usable, total / pivot, 0.0)
        x = torch.zeros_like(self._basis[0])
        for coefficient, v in zip(y, self._basis, strict=False):
            x = torch.addcmul(x, self.groups.spread(coefficient.unsqueeze(1), v), v)
        return x


def _inverse(preconditioner: Tensor | None) -> Callable[[Tensor], Tensor]:
    if preconditioner is None:
        return lambda r: r
    inverse = preconditioner.reciprocal()
    return lambda r: r * inverse


def _reciprocal(numbers: Tensor) -> Tensor:
    return torch.where(numbers > 0, 1.0 / numbers, 0.0)
