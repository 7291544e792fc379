"""Steady states F(x) = 0: Newton's iteration without matrices, and their implicit gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from solvers.groups import Groups, Matrix
from solvers.jacobian import Jacobian, looks_symmetric
from solvers.krylov import Solved, conjugate_gradients, gmres

Flags = Bool[Tensor, " graphs"]

NEWTON_STEPS = 30
HALVINGS = 8
FORCING = 1e-6
"""Linear systems are never solved more precisely: the next iteration sees to the rest."""
PRODUCTS = 2000
"""Most products with the Jacobian in one linear system."""

RESTART = 60
"""States that GMRES keeps: it solves any regular system of so many unknowns in one go."""


@dataclass(frozen=True)
class Balance:
    """What F(x) = 0 says of a field, on states laid out as matrices.

    Attributes:
        value: F.
        linearised: The Jacobian at a point, with F there.
        groups: The graphs, each a system of its own.

    Example:
        >>> from solvers.jacobian import Recorded
        >>> def f(x):
        ...     return 4.0 - x * x
        >>> balance = Balance(f, lambda x: Recorded(f, x, lambda: None), Groups())
        >>> found = balance.polished(torch.tensor([[1.5]], dtype=torch.float64), 1e-12)
        >>> round(found.x.item(), 12), bool(found.reached.all())
        (2.0, True)
    """

    value: Callable[[Matrix], Matrix]
    linearised: Callable[[Matrix], Jacobian]
    groups: Groups

    def polished(self, x: Matrix, tolerance: float) -> Polished:
        """Improve x by Newton's method until corrections are small against it, graph by graph.

        ``J d = -F(x)``, ``x <- x + d``, with d halved while that does not lower |F|. A graph is
        done when ``rms(d) <= tolerance rms(x)``. The linear systems are solved the better the
        faster |F| falls (Eisenstat and Walker, SIAM J. Sci. Comput. 17 (1996), choice 2).

        Args:
            x: The state to begin with.
            tolerance: Relative error that is asked for.
        """
        groups = self.groups
        reached = torch.zeros(groups.num_graphs, dtype=torch.bool, device=x.device)
        regular = ~reached
        size: Tensor | None = None
        forcing = torch.full_like(reached, 1e-3, dtype=torch.float64)
        steps = 0
        while steps < NEWTON_STEPS:
            steps += 1
            jacobian = self.linearised(x)
            now = groups.rms(jacobian.value)[:, 0]
            if size is not None:
                forcing = (0.9 * (now / size).square()).clamp(FORCING, 1e-3)
            size = now
            reached = reached | (now == 0)
            if bool(reached.all()):
                break
            aim = torch.where(reached, torch.inf, forcing * size)
            found = inverse(jacobian, -jacobian.value, aim, groups)
            regular = found.residual <= 0.5 * size
            d = groups.only(~reached & regular, found.x)
            small = groups.rms(d)[:, 0] <= tolerance * groups.rms(x)[:, 0]
            x = self._lowered(x, d, size)
            reached = reached | (small & regular)
            if bool((reached | ~regular).all()):
                break
        assert size is not None
        return Polished(x, reached, regular, groups.rms(self.value(x))[:, 0], steps)

    def _lowered(self, x: Matrix, d: Matrix, size: Tensor) -> Matrix:
        """The state moved by d, or by as much of it as lowers |F|."""
        groups = self.groups
        share = torch.ones_like(size)
        # Near the root |F| is all rounding: a small correction is taken as it is.
        large = groups.rms(d)[:, 0] > torch.finfo(x.dtype).eps ** 0.5 * groups.rms(x)[:, 0]
        for _ in range(HALVINGS):
            moved = x + groups.spread(share.unsqueeze(1), d) * d
            after = groups.rms(self.value(moved))[:, 0]
            worse = large & ~(after < size)
            if not bool(worse.any()):
                break
            share = torch.where(worse, share / 2, share)
        return moved

    def judged(self, x: Matrix) -> tuple[Flags, Flags]:
        """Tell which graphs have a Jacobian that can be inverted, and in which x is a saddle.

        One random system is solved. Its right-hand side knows all directions: with a kernel there
        is no solution, or an absurdly long one. A saddle is seen where J is symmetric, as a
        direction that grows.
        """
        groups = self.groups
        jacobian = self.linearised(x)
        generator = torch.Generator().manual_seed(0)
        b = torch.randn(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(x)
        size, length = groups.rms(b)[:, 0], groups.rms(jacobian.times(b))[:, 0]
        # One direction among n holds about 1/sqrt(n) of it.
        entries = x.shape[1] * (x.shape[0] if groups.rows is None else groups.rows[:, 0])
        many = torch.as_tensor(entries, dtype=torch.float64, device=size.device)
        aim = size * (many.rsqrt() / 10).to(size)
        found = inverse(jacobian, b, aim, groups)
        stretched = groups.rms(found.x)[:, 0] * length
        bound = torch.finfo(x.dtype).eps ** -0.75 * size.square()
        return found.reached & (stretched <= bound), found.indefinite

    def attached(self, x: Matrix) -> Matrix:
        """X as a function of all that the field depends on: ``dx = -J^-1 dF`` at F(x) = 0.

        One evaluation is recorded; the way back solves ``J^T lambda = -g``.

        Args:
            x: The steady state, detached.

        Raises:
            RuntimeError: On the way back, when the system cannot be solved, and at a second
                derivative, which is not offered.
        """
        with torch.enable_grad():
            value = self.value(x.detach())
        if not value.requires_grad:
            return x
        held: Any = _Held
        attached: Tensor = held.apply(self, x.detach(), value)
        return attached


@dataclass(frozen=True)
class Polished:
    """What Newton's method found.

    Attributes:
        x: The state.
        reached: Which graphs got there.
        regular: Which graphs had a linear system that could be solved.
        residual: Root mean square of F per graph.
        steps: Iterations.
    """

    x: Matrix
    reached: Flags
    regular: Flags
    residual: Float[Tensor, " graphs"]
    steps: int


class _Held(torch.autograd.Function):
    """The identity on a steady state x, with the derivative of F(x) = 0."""

    @staticmethod
    def forward(ctx: Any, balance: Balance, x: Tensor, value: Tensor) -> Tensor:
        ctx.balance = balance
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "steady states can be differentiated once; create_graph=True asks for more"
            )
        (x,), (g,) = ctx.saved_tensors, grads
        groups = ctx.balance.groups
        size = groups.rms(g)[:, 0]
        precise = 1e4 * torch.finfo(g.dtype).eps
        found = inverse(ctx.balance.linearised(x), -g, precise * size, groups, transposed=True)
        if not bool(found.reached.all()):
            worst = float((found.residual / size).nan_to_num().max())
            raise RuntimeError(
                "the adjoint system J^T lambda = -g at the steady state could not be solved: "
                f"relative residual {worst:.2g} after {found.products} products; the Jacobian is "
                "nearly singular there"
            )
        return None, None, found.x


def inverse(
    jacobian: Jacobian,
    b: Matrix,
    tolerance: Float[Tensor, " graphs"],
    groups: Groups,
    *,
    transposed: bool = False,
) -> Solved:
    """Solve ``J x = b``, or ``J^T x = b``: by conjugate gradients where -J is self-adjoint.

    Where they meet a direction that grows (`indefinite`), or are of no use, by GMRES.

    Args:
        jacobian: J.
        b: The right-hand side.
        tolerance: For the root mean square of the residual of each graph.
        groups: The graphs.
        transposed: Whether J^T is meant.

    Example:
        >>> from solvers.jacobian import Recorded
        >>> J = Recorded(lambda x: x.flip(0) - 3.0 * x, torch.ones(2, 1), lambda: None)
        >>> found = inverse(J, torch.ones(2, 1), torch.tensor([1e-6]), Groups())
        >>> found.x.flatten().tolist(), found.products
        ([-0.5, -0.5], 1)
    """
    symmetric, limit = jacobian.symmetric, min(PRODUCTS, 5 * b.numel() + 20)
    if symmetric is None:
        symmetric = bool(looks_symmetric(jacobian, groups).all())
    diagonal = None if jacobian.diagonal is None else -jacobian.diagonal
    grows = torch.zeros(groups.num_graphs, dtype=torch.bool, device=b.device)
    if symmetric:
        usable = diagonal is not None and bool((diagonal > 0).all())
        metric = jacobian.metric
        found = conjugate_gradients(
            lambda v: -(jacobian.transposed(v) if transposed else jacobian.times(v)),
            -b,
            tolerance,
            groups.by_column(jacobian.separate),
            preconditioner=diagonal if usable else None,
            metric=metric.reciprocal() if transposed and metric is not None else metric,
            limit=limit,
        )
        if bool(found.reached.all()):
            return found
        grows = found.indefinite
    usable = diagonal is not None and bool((diagonal != 0).all())
    found = gmres(
        lambda v: -(jacobian.transposed(v) if transposed else jacobian.times(v)),
        -b,
        tolerance,
        groups,
        preconditioner=diagonal if usable else None,
        restart=RESTART,
        limit=limit,
    )
    return replace(found, indefinite=grows)
