"""The energy of a field's own form: of a sheaf, a bundle, or the Laplacian it flows by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from analysis.energies import rounding
from analysis.measures import Measure
from neuralpde.energies import DirichletForm
from neuralpde.fields import Field
from neuralpde.forms import Form
from neuralpde.graph import Graph


@dataclass(frozen=True)
class FormEnergy(Measure):
    """The energy E(x) = tr(x^T L x) of any quadratic form, such as that of a sheaf.

    With a sheaf it is the sum over edges of |F_v x_v - F_u x_u|^2, in the frames of its
    normalisation; a sheaf of identities has the form "sym" in each channel.

    Args:
        form: A `SheafForm`, a `BundleForm` or a `DirichletForm`; it knows its graph.
        relative: Whether it is divided by |x|^2.
        name: Name of its series.

    >>> from neuralpde.forms import SheafForm
    >>> from neuralpde.operators import sheaf_laplacian
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> L = sheaf_laplacian(graph, torch.tensor([[1.0], [2.0]]))
    >>> energy = FormEnergy(SheafForm(lambda x: L, graph, "sheaf"))
    >>> energy(torch.tensor([[[3.0]], [[1.0]]]), graph).item()
    1.0
    """

    form: Form
    relative: bool = False
    name: str = "form energy"

    @classmethod
    def of(cls, field: Field, graph: Any, x0: Tensor, *, relative: bool = False) -> Self:
        """The energy of a field's own form.

        Args:
            field: A field; it is bound if it is not.
            graph: The graph.
            x0: The first state.
            relative: Whether it is divided by |x|^2.
        """
        where = Graph.of(graph).like(x0)
        bound = field if field.is_bound else field.bind(where, x0)
        return cls(bound.form or DirichletForm.of(where, bound.norm or "comb"), relative)

    @property
    def convention(self) -> str:
        """The formula in words."""
        return self.form.convention + (", over |x|^2" if self.relative else "")

    def value(self, x: Tensor, graph: Graph) -> Tensor:
        """The energy per graph, without gradients."""
        parts = self.form.parts(x)
        if not self.relative:
            return parts.energy
        return torch.where(parts.square > 0, parts.energy / parts.square, torch.nan)

    def floor(self, x: Tensor, graph: Graph, value: Tensor) -> Tensor:
        """What rounding of the form and of the state leaves."""
        parts = self.form.parts(x)
        error = rounding(parts, self.form.largest.to(parts.energy), x.dtype)
        return (
            error / torch.where(parts.square > 0, parts.square, torch.nan)
            if self.relative
            else error
        )
