"""How large a sensitivity can be at most: comparison with a linear flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analysis.sensitivities import RTOL, sensitivity
from analysis.tangents import Unforced
from neuralpde.fields.field import Field
from neuralpde.operators import Operator, SparseOperator


def sensitivity_bound(
    field: Field,
    x0: Float[Tensor, "nodes ..."],
    t: float | Sequence[float] | Tensor,
    graph: Any = None,
    *,
    growth: float = 0.0,
    sources: Sequence[int] | Int[Tensor, " sources"] | None = None,
    rtol: float = RTOL,
) -> Float[Tensor, "times sources nodes"]:
    """An upper bound of |dx_i(t)/dx_j(0)| in the spectral norm, entry by entry: e^{tM}.

    For dx/dt = A x + source + r(x), A on all channels alike and r acting on each node by itself, M
    has the moduli |A_ij| off the diagonal and A_ii + growth on it, growth being the largest
    logarithmic norm of dr_i/dx_i (for r acting entry by entry: the largest slope). M has no
    negative entries off the diagonal, so that |J(t)| <= e^{tM} by comparison. It is what the bound
    c^l (S^l)_ij of layers becomes in continuous time, and it is attained by diffusion.

    Args:
        field: A first-order field with a sparse operator; what it prepares from x0 is held fixed.
        x0: First state.
        t: As in `solve`.
        graph: The graph.
        growth: Bound on the logarithmic norm of the rest; 0 for linear fields.
        sources: Nodes j; all of them by default.
        rtol: Relative tolerance to which the bound is computed.

    Raises:
        ValueError: For fields without an operator, or with one that treats channels differently.

    References:
        Di Giovanni et al., ICML 2023, arXiv:2302.02941 (layers); Coppel, Stability and Asymptotic
        Behavior of Differential Equations, 1965 (logarithmic norms).

    >>> from neuralpde import catalogue
    >>> from neuralpde.fields import AllenCahn
    >>> x0, path = torch.ones(2, 1, dtype=torch.float64), catalogue.path(2)
    >>> bound = sensitivity_bound(AllenCahn(), x0, 0.5, path, growth=1.0, sources=[0])
    >>> [round(entry, 4) for entry in bound[-1, 0].tolist()]
    [1.1276, 0.5211]
    """
    bound = field if field.is_bound else field.bind(graph, x0)
    operator = bound.operator
    if operator is None or not operator.separate or not isinstance(operator, SparseOperator):
        raise ValueError(
            f"{bound.label} has no sparse operator on nodes that treats channels alike, so that "
            "no M is known"
        )
    column = x0.new_zeros(len(x0), 1)
    with torch.no_grad():
        flow = Unforced(comparison(operator, growth)).bind(bound.graph, column)
        return sensitivity(flow, column, t, sources=sources, rtol=rtol).value


def comparison(A: SparseOperator, growth: float) -> Operator:
    """M: the moduli of A off the diagonal, A_ii + growth on it.

    >>> from neuralpde.operators import Pattern
    >>> pattern, _ = Pattern.from_edges(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), 2)
    >>> A = SparseOperator(pattern, torch.tensor([-3.0, -1.0, 2.0]))
    >>> comparison(A, 0.5).to_dense().tolist()
    [[-2.5, 1.0], [2.0, 0.5]]
    """
    pattern, values = A.pattern, A.values
    off = pattern.row != pattern.col
    if bool((values[off] >= 0).all()):
        return A.shifted(1.0, growth) if growth else A
    moduli = torch.where(off, values.abs(), values)
    M = SparseOperator(
        pattern, moduli, symmetric=A.symmetric, batch=A.batch, num_graphs=A.num_graphs
    )
    return M.shifted(1.0, growth) if growth else M
