"""Gradient flows of any energy of a state on a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.field import Field

Energy = Callable[[Any, Any], Tensor]


class GradientFlow(Field):
    """The gradient flow of an energy, dx/dt = -grad E(x), by automatic differentiation.

    E falls along it, dE/dt = -|dx/dt|^2, and it is the field's `lyapunov` functional. Where E is
    twice differentiable in autograd's eyes, gradients flow through solves as through any field
    (but not through `torch.compile`, which has no double backward, unless E gives its slope).

    Args:
        energy: E as a function of the state `[nodes, channels]` and the bound graph (None without
            one), which returns one number per graph, or a number for one graph. The energy of a
            graph depends on its own nodes alone. An `nn.Module` where it has parameters. Where it
            has a method `slope(x, graph)`, that is dE/dx, and nothing is differentiated.
        norm: Which Dirichlet form is this field's own; see `Field.norm`.

    Raises:
        ValueError: When E does not depend on the state; from `lyapunov`, when there are several
            graphs and one number.

    References:
        L. Ambrosio, N. Gigli, G. Savare, Gradient flows, 2nd edition 2008, section 1.3.

    >>> x = torch.tensor([[1.0], [-3.0]])
    >>> field = GradientFlow(lambda x, graph: (x**4).sum() / 4).bind(None, x)
    >>> field(torch.tensor(0.0), x).flatten().tolist(), field.lyapunov(x).tolist()
    ([-1.0, 27.0], [20.5])
    """

    batched_time = True

    def __init__(self, energy: Energy, norm: str | None = None) -> None:
        super().__init__()
        self.energy, self.norm = energy, norm

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """Minus the gradient."""
        if hasattr(self.energy, "slope"):
            slope: Tensor = self.energy.slope(x, self.graph)
            return -slope
        tracked = torch.is_grad_enabled()
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            value = self.energy(at, self.graph).sum()
            if not value.requires_grad:
                raise ValueError(
                    "the energy does not depend on the state as autograd sees it: compute it from "
                    "x by differentiable operations, without detach() and no_grad()"
                )
            (gradient,) = torch.autograd.grad(value, at, create_graph=tracked)
        return -gradient

    def lyapunov(self, x: Float[Tensor, "nodes ..."]) -> Float[Tensor, " graphs"]:
        """The energy of each graph, float64."""
        value = self.energy(x, self.graph).double()
        graphs = 1 if self.graph is None else self.graph.num_graphs
        if value.shape not in ((graphs,), ()) or (value.dim() == 0 and graphs > 1):
            raise ValueError(
                f"the energy has shape {tuple(value.shape)} and there are {graphs} graphs; return "
                "one number for each: sum over nodes with index_add at graph.batch"
            )
        return value.reshape(graphs)
