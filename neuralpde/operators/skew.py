"""Minus i times a self-adjoint operator: what generates unitary flows."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from neuralpde.operators.graphs import Scalar
from neuralpde.operators.linear import Operator
from neuralpde.operators.tags import Tags


class SkewAdjoint(Operator):
    """The operator `A = -i H` with a real self-adjoint H; it acts on complex states.

    Its flow `e^(tA)` conserves norms, in the metric of H, and runs both ways in time. Real
    multiples and sums of such operators are such operators; `dtype`, `tensors`, `norms` are those
    of H.

    Args:
        hamiltonian: H.

    Raises:
        ValueError: H is not known to be self-adjoint.

    >>> from neuralpde.operators import Pattern, SparseOperator
    >>> H = SparseOperator(Pattern.identity(1), torch.tensor([2.0]), symmetric=True)
    >>> (SkewAdjoint(H) @ torch.tensor([3.0 + 1.0j])).tolist()
    [(2-6j)]
    """

    def __init__(self, hamiltonian: Operator) -> None:
        if not hamiltonian.self_adjoint:
            raise ValueError(
                "-i H generates a unitary flow where H is self-adjoint, and this one is not known "
                'to be: build it on an undirected graph (graph.undirected(reduce="max"))'
            )
        H = hamiltonian
        super().__init__(H.num_nodes, H.dtype, Tags(H.tags.eps), H.graphs)
        self.hamiltonian: Operator = H

    def __matmul__(self, x: Complex[Tensor, "nodes ..."]) -> Complex[Tensor, "nodes ..."]:
        if not x.is_complex():
            raise TypeError(
                f"-i H turns states into complex ones and this one is {x.dtype}: use "
                f"x.to({x.dtype.to_complex()})"
            )
        return -1j * (self.hamiltonian @ x)

    @property
    def T(self) -> SkewAdjoint:
        """The transposed operator, without conjugation: `-i H^T`."""
        return SkewAdjoint(self.hamiltonian.T)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those of H."""
        return self.hamiltonian.tensors

    def gradients(
        self, g: Complex[Tensor, "nodes ..."], x: Complex[Tensor, "nodes ..."]
    ) -> tuple[Tensor, ...]:
        """Return `d Re<g, A x> / d` each of `tensors`."""
        return self.hamiltonian.gradients(1j * g, x)

    def fresh(self) -> SkewAdjoint:
        """Return the operator on views of its tensors."""
        return SkewAdjoint(self.hamiltonian.fresh())

    def to(
        self, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> SkewAdjoint:
        """Return the operator with H in another real dtype or on another device."""
        moved = self.hamiltonian.to(dtype, device)
        return self if moved is self.hamiltonian else SkewAdjoint(moved)

    def diagonal(self) -> Complex[Tensor, " nodes"]:
        """Return the diagonal entries, imaginary, without gradients."""
        return -1j * self.hamiltonian.diagonal()

    def norms(self) -> tuple[Float[Tensor, " graphs"], Float[Tensor, " graphs"]]:
        """Return upper bounds of the largest row sum and column sum of moduli."""
        return self.hamiltonian.norms()

    def summands(self) -> Float[Tensor, " graphs"]:
        """Return the most numbers that a product adds up for one entry of each graph."""
        return self.hamiltonian.summands()

    def bound(self) -> Float[Tensor, " graphs"]:
        """Return a guaranteed bound on the modulus of every eigenvalue of each graph, float64."""
        return self.hamiltonian.bound()

    def to_dense(self) -> Complex[Tensor, "nodes nodes"]:
        """Return the matrix `-i H`."""
        return -1j * self.hamiltonian.to_dense()

    def __mul__(self, scale: Scalar) -> SkewAdjoint:
        return SkewAdjoint(self.hamiltonian * scale)

    def __add__(self, other: Operator) -> Operator:
        if other.hamiltonian is None:
            return super().__add__(other)
        total = self.hamiltonian + other.hamiltonian
        return SkewAdjoint(total) if total.self_adjoint else super().__add__(other)
