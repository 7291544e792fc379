"""Leading eigenvalues of Jacobians by products alone: what a small perturbation becomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
from torch import Tensor

from solvers.failure import unknown_name
from solvers.groups import Groups
from solvers.jacobian import Recorded, twice_differentiable

SMALL = 100
"""Numbers of a state up to which all products are taken."""

BASIS = 40
"""Vectors that Arnoldi's method keeps."""

ORDERS = {"modulus": "LM", "real": "LR"}
Linear = Callable[[Tensor], Tensor]


def derivative(f: Linear, point: Tensor, smooth: bool | None = None) -> Linear:
    """The products v -> J v of the Jacobian of a map at a point; both are real vectors.

    By differentiating twice, or by differences where the map cannot be.

    Args:
        f: The map.
        point: Where.
        smooth: Whether the map can be differentiated twice; None to find out.

    >>> derivative(lambda x: x**2, torch.tensor([1.0, 3.0]))(torch.tensor([1.0, 1.0])).tolist()
    [2.0, 6.0]
    """
    smooth = differentiable(f, point) if smooth is None else smooth
    J = _recorded(f, point, differences=not smooth)
    return lambda v: J.times(v[:, None])[:, 0].detach()


def differentiable(f: Linear, point: Tensor) -> bool:
    """Whether a map can be differentiated twice by torch.

    >>> differentiable(torch.sin, torch.ones(2)), differentiable(torch.round, torch.ones(2))
    (True, True)
    """
    return twice_differentiable(_recorded(f, point), Groups())


def _recorded(f: Linear, point: Tensor, *, differences: bool = False) -> Recorded:
    def of_column(column: Tensor) -> Tensor:
        return f(column[:, 0])[:, None]

    def count() -> None:
        """Passes are not counted here."""

    return Recorded(of_column, point.detach()[:, None], count, Groups(), differences=differences)


def leading_eigenvalue(
    product: Linear, like: Tensor, order: str = "modulus", project: Linear | None = None
) -> complex:
    """The eigenvalue of largest modulus, or of largest real part, of a linear map.

    Up to 100 numbers all products are taken; beyond, Arnoldi's method. NaN where it does not
    converge.

    Args:
        product: v -> J v on real vectors.
        like: A vector of the size, dtype and device.
        order: "modulus" or "real".
        project: A projection P of perturbations; the eigenvalue is that of P J on its range.

    >>> J = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
    >>> abs(leading_eigenvalue(lambda v: J @ v, J[0]))
    2.0
    """
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    size = like.numel()
    draw = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = draw.to(like)
    if project is None:
        apply = product
    else:
        keep = project
        start = keep(start)
        # What is projected out must not lead: there the map is made -shift.
        shift = 4 * _size(lambda v: keep(product(v)), start) if order == "real" else 0.0

        def apply(v: Tensor) -> Tensor:
            inside = keep(v)
            return keep(product(inside)) - shift * (v - inside)

    if size <= SMALL:
        columns = [apply(e) for e in torch.eye(size, dtype=like.dtype, device=like.device)]
        values = torch.linalg.eigvals(torch.stack(columns, 1).double()).cpu().numpy()
    else:
        values = _by_arnoldi(apply, start, ORDERS[order])
    if not len(values):
        return complex(np.nan)
    rank = np.abs(values) if order == "modulus" else values.real
    return complex(values[int(np.argmax(rank))])


def _size(product: Linear, v: Tensor) -> float:
    """About the modulus of the largest eigenvalue, by a few powers."""
    largest = 0.0
    for _ in range(8):
        length = float(torch.linalg.vector_norm(v))
        if length == 0.0:
            break
        v = product(v / length)
        largest = max(largest, float(torch.linalg.vector_norm(v)))
    return largest


def _by_arnoldi(apply: Linear, start: Tensor, which: str) -> np.ndarray:
    def of_array(v: np.ndarray) -> np.ndarray:
        found: np.ndarray = apply(torch.from_numpy(v).ravel().to(start)).double().cpu().numpy()
        return found

    size = len(start)
    A = LinearOperator((size, size), matvec=of_array, dtype=np.float64)
    first = start.double().cpu().numpy()
    tolerance = float(torch.finfo(start.dtype).eps) ** 0.75
    try:
        found: np.ndarray = eigs(
            A, k=2, which=which, v0=first, ncv=BASIS, tol=tolerance, return_eigenvectors=False
        )
    except ArpackNoConvergence as error:
        found = error.eigenvalues
    return found
