"""A field inside a step as linear algebra sees it: a map of matrices with a Jacobian."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.flow import Stages
from solvers.groups import Groups, Matrix
from solvers.implicit_gradient import Stage
from solvers.jacobian import Jacobian, Recorded, Split
from solvers.layout import Layout

Nodes = Float[Tensor, " graphs"]


class MatrixField:
    """The field at nodes c of a step, as a function of the state laid out as a matrix.

    Every evaluation and every product with the Jacobian counts as one evaluation in `nfe`: each
    costs a pass through the field.

    Args:
        f: the field inside the step.
        layout: how states are laid out.
        groups: the graphs.
        differences: whether the Jacobian has to be taken by differences.

    Example:
        >>> import numpy as np
        >>> from solvers.flow import Flow
        >>> from solvers.rows import Rows
        >>> x = (torch.tensor([1.0, 2.0]),)
        >>> f = Flow(lambda t, x: (t * x[0],), Rows(), x[0]).stages(np.zeros(1), np.ones(1))
        >>> field = MatrixField(f, Layout(x), Groups())
        >>> field.value(torch.tensor([0.5]), torch.tensor([[4.0], [6.0]])).flatten().tolist()
        [2.0, 3.0]
    """

    def __init__(
        self, f: Stages, layout: Layout, groups: Groups, *, differences: bool = False
    ) -> None:
        self._f, self._layout, self._groups = f, layout, groups
        self._differences = differences

    @property
    def linear(self) -> bool:
        """Whether the field is known to be an operator and a source."""
        known = self._f.flow.structure
        return self.splits and known.rest is None

    @property
    def splits(self) -> bool:
        """Whether the Jacobian is known to be an operator and a diagonal."""
        known, layout = self._f.flow.structure, self._layout
        return (
            known.operator is not None
            and known.operator.hamiltonian is None
            and known.pointwise
            and layout.rowwise
            and len(layout.shapes) == 1
            # A function of a complex number has no diagonal of real derivatives.
            and not (layout.complex and known.rest is not None)
        )

    def value(self, c: Nodes, y: Matrix) -> Matrix:
        """The field at nodes c and state y."""
        self._count()
        return self._at(self._time(c), y)

    def linearised(self, c: Nodes, y: Matrix) -> Jacobian:
        """The Jacobian there, with the value."""
        time, layout, known = self._time(c), self._layout, self._f.flow.structure
        if not self.splits:
            return Recorded(
                lambda y: self._at(time, y),
                y,
                self._count,
                self._groups,
                differences=self._differences,
            )
        assert known.operator is not None
        rest, source = known.rest, None
        if known.source is not None:
            source = layout.pack((known.source.detach().to(layout.dtype).expand(layout.shapes[0]),))

        def reaction(y: Tensor) -> Tensor:
            assert rest is not None
            return layout.pack(rest(time, layout.unpack(y)))

        act = None if rest is None else reaction
        return Split(known.operator, source, act, y, self._count)

    def stage(
        self,
        c: float,
        scale: float | Tensor,
        moving: Bool[Tensor, " graphs"],
        symmetric: Bool[Tensor, " graphs"],
    ) -> Stage:
        """What a gradient has to know of the stage at node c; nothing it does is counted.

        Args:
            c: the node.
            scale: the factor of the field in the stage's equation.
            moving: graphs where that is not zero.
            symmetric: which graphs have symmetric Jacobians, by a test.
        """
        nodes = torch.full(symmetric.shape, c, dtype=torch.float64, device=symmetric.device)
        time = self._time(nodes)
        field: Any = self.linearised if self.splits else None
        return Stage(
            lambda y: self._at(time, y),
            None if field is None else lambda y: field(nodes, y),
            scale,
            self._groups,
            moving,
            symmetric,
        )

    def _count(self) -> None:
        self._f.flow.nfe += 1

    def _time(self, c: Tensor) -> Tensor:
        nodes = c.cpu().numpy()
        # Graphs on one clock see the latest of their nodes.
        return self._f.time(nodes if len(self._f.t) > 1 else nodes.max())

    def _at(self, time: Tensor, y: Matrix) -> Matrix:
        layout = self._layout
        return layout.pack(self._f.flow.field(time, layout.unpack(y)))
