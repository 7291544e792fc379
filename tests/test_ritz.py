"""Bases of Krylov spaces, and bounds of the error against the error itself."""

import numpy as np
import pytest
import torch
from modes import DOUBLE, GRAPHS, Modes
from torch import Tensor

from neuralpde.operators import SparseOperator
from solvers.basis import Basis
from solvers.ritz import Ritz
from solvers.rows import Rows


def grown(A: SparseOperator, v: Tensor, size: int, x: Tensor | None = None) -> tuple[Basis, Ritz]:
    """A basis of one column, decomposed; with x the basis of an affine equation's slope v at x."""
    basis = Basis(A, Rows(), v, np.ones(1))
    for _ in range(size):
        basis.grow()
    diagonal, beside = basis.tridiagonal()
    top = A.spectrum()[1].item()
    ritz = Ritz.of(diagonal[:, 0, 0], beside[:, 0, 0], float(basis.size[0, 0]), top)
    if x is not None:
        ritz.origin, ritz.along = Modes(A).size(x).item(), basis.along(x)[:, 0, 0]
    return basis, ritz


@pytest.mark.parametrize("graph", ["preferential", "lollipop", "path"])
def test_saads_bound_is_one_and_the_residual_at_the_end_is_none(graph: str) -> None:
    A = -GRAPHS[graph].laplacian("comb", dtype=DOUBLE)
    x, misled = torch.randn(A.num_nodes, 1, dtype=DOUBLE), []
    for size in (2, 4, 8, 16, 32):
        basis, ritz = grown(A, x, size)
        for t in (0.1, 1.0, 10.0, 100.0):
            time = np.array([t])
            found = basis.combined(ritz.coefficients(time)[None, None])[0]
            error = (found - Modes(A).at(t, x)).norm().item()
            bound = float(ritz.bound(time)[0])
            assert error <= bound + 1e-13 * (1 + t)
            # Not wasteful where it matters.
            if 1e-10 < bound < 1e-2 and t <= 1:
                assert bound < 100 * error
            last = (np.exp(t * ritz.values) * ritz.vectors[0]) @ ritz.vectors[-1]
            residual = ritz.size * ritz.beyond * abs(last) * t
            misled.append(error > 2 * residual + 1e-12 * (1 + t))
    assert any(misled)


def test_the_bound_and_the_norm_of_affine_solutions_are_right() -> None:
    A = -GRAPHS["lollipop"].laplacian("rw", dtype=DOUBLE)
    modes = Modes(A)
    x, b = torch.randn(2, 50, 1, dtype=DOUBLE).unbind()
    extended = torch.zeros(51, 51, dtype=DOUBLE)
    extended[:50, :50], extended[:50, 50:] = A.to_dense(), b
    for size in (2, 5, 9):
        basis, ritz = grown(A, A @ x + b, size, x)
        for t in (0.5, 5.0, 80.0):
            time = np.array([t])
            found = x + basis.combined(ritz.coefficients(time)[None, None])[0]
            flow = torch.linalg.matrix_exp(t * extended)
            exact = flow[:50, :50] @ x + flow[:50, 50:]
            error, bound = modes.size(found - exact).item(), float(ritz.bound(time)[0])
            assert error <= bound + 1e-12
            assert bound < 30 * error + 1e-10
            assert ritz.norms(time)[0] == pytest.approx(modes.size(found).item(), rel=1e-12)


def test_the_basis_is_orthonormal_to_rounding() -> None:
    # Where converged eigenvalues would spoil it without orthogonalising against all vectors.
    for norm in ("comb", "rw"):
        A = -GRAPHS["preferential"].laplacian(norm, dtype=DOUBLE)
        basis, _ = grown(A, torch.randn(150, 1, dtype=DOUBLE), 90)
        V = basis.combined(np.eye(90)[None, None])[:, :, 0] * Modes(A).root.T
        assert torch.allclose(V @ V.T, torch.eye(90, dtype=DOUBLE), rtol=0, atol=1e-13)
