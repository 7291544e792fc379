"""Gradients of implicit stages by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from solvers.groups import Groups, Matrix
from solvers.jacobian import Jacobian, Recorded
from solvers.resolvent import Resolvent

EXACT = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Residual of the adjoint system relative to its right-hand side; a gradient has no tolerance."""


@dataclass(frozen=True)
class Stage:
    """A stage that was solved: ``y = right + s f(y)``.

    Attributes:
        field: f at the stage's time.
        linearised: gives the Jacobian at a point, where it is known better than by recording.
        scale: s, a number or one per row.
        groups: the graphs.
        moving: graphs whose s is not zero.
        symmetric: which graphs have symmetric Jacobians, by a test.
    """

    field: Callable[[Matrix], Matrix]
    linearised: Callable[[Matrix], Jacobian] | None
    scale: float | Tensor
    groups: Groups
    moving: Bool[Tensor, " graphs"]
    symmetric: Bool[Tensor, " graphs"]


def attach(stage: Stage, right: Matrix, y: Matrix) -> Matrix:
    """Return y as a function of `right` and of all that the field depends on, if of anything.

    ``dy = (I - s J)^-1 (d right + s df)``: one evaluation of the field is recorded at y, and the
    way back solves ``(I - s J)^T lambda = g`` with the machinery of the step itself.

    Args:
        stage: the equation.
        right: what is known of the stage.
        y: its solution.

    Raises:
        RuntimeError: on the way back, when the linear system cannot be solved; at a second
            derivative, which is not offered.

    Example:
        >>> a = torch.tensor([[3.0]], requires_grad=True)
        >>> yes = torch.tensor([True])
        >>> stage = Stage(lambda y: -a * y, None, 1.0, Groups(), yes, yes)
        >>> y = attach(stage, torch.tensor([[8.0]]), torch.tensor([[2.0]]))  # y = 8 / (1 + a)
        >>> torch.autograd.grad(y.sum(), a)[0].item()
        -0.5
    """
    if not right.requires_grad and not stage.field(y.detach()).requires_grad:
        # The point of a recording requires a gradient, so that afterwards nobody could tell.
        return y
    at = y.detach().requires_grad_()
    value = stage.field(at)
    solution: Any = _Solution
    attached: Tensor = solution.apply((stage, at, value), y, right, value)
    return attached


class _Solution(torch.autograd.Function):
    """The identity on y, with the derivative of the equation that y solves."""

    @staticmethod
    def forward(ctx: Any, known: Any, y: Tensor, right: Tensor, value: Tensor) -> Tensor:
        attached = y.clone()
        ctx.known = known
        ctx.save_for_backward(attached)
        return attached

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, None, Tensor, Tensor]:
        stage, at, value = ctx.known
        with torch.no_grad():
            x = _adjoint(stage, at, value, g)
        if torch.is_grad_enabled():
            x = _first_derivative(x, g, *ctx.saved_tensors)
        return None, None, x, stage.scale * x


def _adjoint(stage: Stage, at: Tensor, value: Tensor, g: Tensor) -> Tensor:
    if stage.linearised is not None:
        jacobian = stage.linearised(at)
    else:
        jacobian = Recorded.of(at, value, lambda: None)
    resolvent = Resolvent(jacobian, stage.scale, stage.groups, stage.symmetric, transposed=True)
    tolerance = EXACT[g.dtype] * stage.groups.rms(g)[:, 0]
    found = resolvent.solve(g, tolerance, active=stage.moving)
    if not bool(found.reached.all()):
        residual = float((found.residual / tolerance).nan_to_num().max()) * EXACT[g.dtype]
        raise RuntimeError(
            "the adjoint system of an implicit step could not be solved: relative residual "
            f"{residual:.2g}; take smaller steps (a smaller rtol, or more steps)"
        )
    return stage.groups.select(stage.moving, found.x, g)


def _first_derivative(x: Tensor, *roots: Tensor) -> Tensor:
    once: Any = _Once
    marked: Tensor = once.apply(x, *roots)
    return marked


class _Once(torch.autograd.Function):
    """The identity on x, which depends on its roots in a way that is not offered.

    `torch.autograd.function.once_differentiable` raises only when all leaves are asked for.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *roots: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> None:
        raise RuntimeError(
            "implicit steps have no second derivative: their gradient solves a linear system that "
            "is not recorded. Use an explicit method such as 'tsit5', or drop create_graph=True"
        )
