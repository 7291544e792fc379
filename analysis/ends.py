"""The ends of a spectrum: exact for small operators, by Krylov methods for large ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex128, Float
from scipy.sparse import diags_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import Operator

SMALL = 1000
"""Nodes up to which all eigenvalues are computed."""

SEVERAL = 4
"""Eigenvalues of a large operator that are computed at each end."""

ACCURATE = 1e-9
"""Relative residual of what Krylov methods find."""

VECTORS, RESTARTS = 48, 300
"""Krylov vectors at a time, and how often they are made anew."""


@dataclass(frozen=True, eq=False)
class Extremes:
    """Eigenvalues of one operator, at least those at the ends of its spectrum.

    Attributes:
        values: Eigenvalues, complex where the operator is not self-adjoint.
        error: Absolute error of each.
        complete: Whether they are all.

    >>> extremes(Graph(torch.tensor([[0, 1], [1, 0]])).adjacency("sym")).values.tolist()
    [(-1+0j), (1+0j)]
    """

    values: Complex128[Tensor, " values"]
    error: float
    complete: bool


def extremes(A: Operator | Float[Tensor, "rows rows"]) -> Extremes:
    """The eigenvalues of an operator on one graph, or of a dense matrix.

    Up to 1000 nodes all of them. Of larger operators 4 at each end, by Lanczos' method; where the
    operator is not self-adjoint those of largest and smallest real part and of largest modulus, by
    Arnoldi's method: what lies between on the boundary of the spectrum is then not seen.

    Args:
        A: An operator that treats channels alike, or a matrix.

    Raises:
        ValueError: For a batch of graphs, and operators that mix channels; where the ends are too
            crowded for Krylov methods.

    >>> turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    >>> sorted(extremes(turn).values.imag.tolist())
    [-2.0, 2.0]
    """
    if isinstance(A, Tensor):
        return _of_matrix(A.detach().double(), bool(torch.equal(A, A.T)), A.dtype)
    if A.num_graphs > 1 or not A.separate:
        raise ValueError(
            f"{A!r}: extremes are those of one graph's operator that treats channels alike; give "
            "the operators of a batch one by one, and of a Kronecker product its two factors"
        )
    wide = A.to(torch.float64)
    root = None if A.metric is None else A.metric.double().sqrt()
    if A.num_nodes <= SMALL:
        dense = wide.to_dense().detach()
        if root is not None:
            dense = dense * root[:, None] / root
        return _of_matrix(dense, A.self_adjoint, A.dtype)
    return _by_krylov(wide, root, A.self_adjoint, torch.finfo(A.dtype).eps)


def largest(graph: Graph, norm: str) -> Float[Tensor, " graphs"]:
    """The largest eigenvalue of each graph's Laplacian, computed once.

    >>> largest(Graph(torch.tensor([[0, 1], [1, 0]])), "comb").round(decimals=9).tolist()
    [2.0]
    """
    found: Tensor = graph.remember(("largest", norm), lambda: _largest(graph, norm))
    return found


def _largest(graph: Graph, norm: str) -> Tensor:
    L = graph.laplacian(norm, dtype=torch.float64)
    bounds = L.spectrum()[1].cpu()
    matrix = L.to_scipy()
    if L.metric is not None:
        root = np.sqrt(L.metric.double().cpu().numpy())
        matrix = diags_array(root) @ matrix @ diags_array(1.0 / root)
    matrix = matrix.tocsr()
    ones = torch.ones(graph.num_nodes, dtype=torch.int64)
    sizes = [len(ones)] if graph.batch is None else torch.bincount(graph.batch.cpu()).tolist()
    found, start = [], 0
    for size, bound in zip(sizes, bounds.tolist(), strict=True):
        block = matrix[start : start + size, start : start + size]
        start += size
        if size <= SMALL:
            values = np.linalg.eigvalsh(block.toarray()) if size else np.zeros(1)
        else:
            values = _top(block, bound)
        found.append(min(max(float(values[-1]), 0.0), bound))
    return torch.tensor(found, dtype=torch.float64)


def _of_matrix(A: Tensor, symmetric: bool, dtype: torch.dtype) -> Extremes:
    if symmetric:
        values = torch.linalg.eigvalsh((A + A.T) / 2).to(torch.complex128)
    else:
        values = torch.linalg.eigvals(A)
    size = float(torch.linalg.matrix_norm(A, 2)) if A.numel() else 0.0
    return Extremes(values, 8 * len(A) ** 0.5 * torch.finfo(dtype).eps * size, True)


def _by_krylov(A: Operator, root: Tensor | None, symmetric: bool, eps: float) -> Extremes:
    count = A.num_nodes

    def multiply(v: Any) -> Any:
        x = torch.from_numpy(np.ascontiguousarray(v)).view(-1, 1)
        x = x if root is None else x / root[:, None]
        with torch.no_grad():
            y = A @ x
        return (y if root is None else y * root[:, None]).numpy()

    operator = LinearOperator((count, count), matvec=multiply, dtype=np.float64)
    told: dict[str, Any] = {
        "v0": _start(count), "ncv": VECTORS, "maxiter": RESTARTS, "tol": ACCURATE,
        "return_eigenvectors": False,
    }  # fmt: skip
    try:
        if symmetric:
            values = eigsh(operator, k=2 * SEVERAL, which="BE", **told)
        else:
            ends = [eigs(operator, k=SEVERAL, which=end, **told) for end in ("LR", "SR", "LM")]
            values = _distinct(np.concatenate(ends))
    except ArpackNoConvergence as error:
        raise ValueError(
            f"the ends of the spectrum of {A!r} are too crowded for {RESTARTS} restarts of "
            f"{VECTORS} Krylov vectors; compute its eigenvalues, eigvals(A.to_dense()), and give "
            "those"
        ) from error
    size = float(np.abs(values).max())
    noise = (8 * count**0.5 * eps + ACCURATE) * size
    return Extremes(torch.from_numpy(values.astype(np.complex128)), noise, False)


def _top(block: Any, bound: float) -> np.ndarray:
    """The largest eigenvalue, to about 1e-9 of itself; its bound where the end is too crowded."""
    try:
        # The error is the square of the residual over the gap.
        found: np.ndarray = eigsh(
            block, k=1, which="LA", v0=_start(block.shape[0]), ncv=VECTORS, maxiter=RESTARTS,
            tol=1e-6, return_eigenvectors=False,
        )  # fmt: skip
        return found
    except ArpackNoConvergence:
        return np.array([bound])


def _distinct(values: np.ndarray) -> np.ndarray:
    """Each eigenvalue once, although it may have been found from several sides."""
    kept: list[complex] = []
    for value in values.tolist():
        if all(abs(value - other) > 1e-9 * max(abs(value), 1e-300) for other in kept):
            kept.append(value)
    return np.array(kept)


def _start(size: int) -> np.ndarray:
    start: np.ndarray = np.random.default_rng(0).standard_normal(size)
    return start
