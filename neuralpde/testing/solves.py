"""What must hold of solves with a field, and of gradients through them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.fields.field import State
from neuralpde.solve import solve
from neuralpde.testing.slopes import unchanged
from neuralpde.testing.subject import Subject, distance, mapped, parts

KINKS = 1e-2
"""Agreement of direct and adjoint gradients that is asked of fields with kinks."""


def frontier(s: Subject) -> None:
    """Walk from a slope towards its inputs; nothing may lie behind it but x and the leaves."""
    bound = s.field.bind(s.graph, s.x0)
    x = mapped(s.x0, lambda part: part.detach().clone().requires_grad_())
    slope = bound(s.time, x)
    known = {id(one) for one in (*bound.leaves(), *parts(x))}
    stops = {one.grad_fn for one in bound.leaves() if one.grad_fn is not None}
    for leaf in bound.leaves():
        behind = () if leaf.grad_fn is None else leaf.grad_fn.next_functions
        for node in _walk([up for up, _ in behind], stops):
            if node in stops or id(getattr(node, "variable", None)) in known:
                raise s.fail(
                    "no leaf is computed from another",
                    f"A tensor of shape {tuple(leaf.shape)} is; an adjoint would count it twice.",
                    "Prepare in prepare(graph, x0) and leave bind and leaves as they are.",
                )
    names = {id(p): name for name, p in s.field.named_parameters()}
    reached = _walk([part.grad_fn for part in parts(slope)], stops)
    inputs = [node.variable for node in reached if hasattr(node, "variable")]
    found = [one for one in inputs if id(one) not in known]
    if found:
        what = ", ".join(names.get(id(p), f"a tensor of shape {tuple(p.shape)}") for p in found)
        raise s.fail(
            "leaves() are all the tensors that f depends on",
            f"It reads {what}, which is not among them, so an adjoint would drop its gradient.",
            "Hold every tensor as an attribute or parameter of the field, not in a closure, a "
            "private attribute or an object of your own.",
        )


def _walk(starts: list[Any], stops: set[Any]) -> Iterator[Any]:
    """The nodes of the autograd graph behind some of them, not looking behind `stops`."""
    seen: set[Any] = set()
    stack = [node for node in starts if node is not None]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            if node not in stops:
                stack += [up for up, _ in node.next_functions if up is not None]


def gradients(s: Subject) -> None:
    """Recorded, replayed and adjoint gradients agree."""
    parameters = [p for p in s.field.parameters() if p.requires_grad]
    steps = _steps(s)

    def taken(how: Callable[[State], Any]) -> tuple[Tensor, ...]:
        x = mapped(s.x0, lambda part: part.detach().clone().requires_grad_())
        loss = torch.stack([_functional(part) for part in parts(how(x))]).sum()
        wanted = (*parts(x), *parameters)
        grads: tuple[Tensor | None, ...] = torch.autograd.grad(loss, wanted, allow_unused=True)
        return tuple(
            torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads, strict=True)
        )

    def on_a_grid(grad: str) -> Callable[[State], Any]:
        return lambda x: (
            solve(s.solved, x, s.end, s.graph, solver="heun", steps=steps, grad=grad).final
        )

    mend = "Bound fields hold fresh tensors only; override prepare, not bind or leaves."
    s.compare(
        taken(on_a_grid("tape")),
        taken(on_a_grid("replay")),
        s.rtol,
        "replayed steps give the gradients of recorded ones",
        "Gradients differ",
        mend,
    )
    s.compare(
        taken(lambda x: _by_torchdiffeq(s, x, adjoint=False)),
        taken(lambda x: _by_torchdiffeq(s, x, adjoint=True)),
        s.rtol if s.smooth else KINKS,
        "adjoint gradients agree with direct ones",
        "Gradients of torchdiffeq's odeint and odeint_adjoint differ",
        mend + " A field with kinks (relu, maxima) is checked with smooth=False.",
    )


def _functional(part: Tensor) -> Tensor:
    """A fixed number made of a state that treats no entry, and no phase, like another."""
    weights = torch.cos(torch.arange(part.numel(), dtype=torch.float64)).view(part.shape)
    size = (weights * part).abs().square().sum()
    return size + (weights * part.imag).sum() if part.is_complex() else size


class Real(nn.Module):
    """A bound field on complex states as one on pairs of real numbers.

    torchdiffeq's adjoint carries the state and the gradients of parameters in one vector, of one
    dtype: complex states with real parameters need this form.
    """

    def __init__(self, bound: nn.Module) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, t: Tensor, x: State) -> Any:
        """The slope, in pairs."""
        return mapped(self.bound(t, mapped(x, _complex)), _pairs)


def _pairs(x: Tensor) -> Tensor:
    # Not a view: torchdiffeq cuts gradients where no complex number begins.
    return torch.stack((x.real, x.imag), -1)


def _complex(pairs: Tensor) -> Tensor:
    return torch.complex(pairs[..., 0], pairs[..., 1])


def _by_torchdiffeq(s: Subject, x: State, *, adjoint: bool) -> Any:
    import torchdiffeq

    bound: Any = s.field.bind(s.graph, x)
    t = torch.tensor([0.0, s.end], dtype=torch.float64)
    tight: dict[str, Any] = {"rtol": s.rtol * 1e-3, "atol": s.rtol * 1e-4, "method": "dopri5"}
    if adjoint:
        tight["adjoint_params"] = bound.leaves()
    odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    if parts(x)[0].is_complex():
        pairs = odeint(Real(bound), mapped(x, _pairs), t, **tight)
        return mapped(pairs, lambda part: _complex(part[-1]))
    return mapped(odeint(bound, x, t, **tight), lambda part: part[-1])


def convergence(s: Subject) -> None:
    """The second-order method heun shows order 2."""
    steps = _steps(s)
    with torch.no_grad():
        ends = [
            solve(s.solved, s.x0, s.end, s.graph, solver="heun", steps=n).final
            for n in (steps, 2 * steps, 4 * steps)
        ]
    coarse, fine = distance(ends[1], ends[0]), distance(ends[2], ends[1])
    order = math.log2(coarse / fine) if fine > 0 else math.inf
    if coarse > 1e-11 and not order > 1.5:
        raise s.fail(
            "f is a smooth function of (t, x)",
            f"With {steps}, {2 * steps} and {4 * steps} steps heun shows order {order:.2f} "
            "instead of 2.",
            "Look for weights indexed by int(t), thresholds, and times that are rounded.",
        )


def no_trace(s: Subject) -> None:
    """A solve leaves the field as it was."""
    before = copy.deepcopy(s.field.state_dict())
    with torch.no_grad():
        solve(s.solved, s.x0, s.end, s.graph, rtol=1e-3)
    unchanged(s, before, "a solve")


def _steps(s: Subject) -> int:
    """Steps that resolve the fastest motion: a power iteration on differences of f."""
    bound = s.field.bind(s.graph, s.x0)
    x, rate = parts(s.x0), 0.0
    with torch.no_grad():
        f0 = parts(bound(s.time, s.x0))
        direction = tuple(torch.randn_like(part) for part in x)
        for _ in range(6):
            size = math.sqrt(sum(float(d.abs().square().sum()) for d in direction)) or 1.0
            moved = tuple(p + 1e-6 / size * d for p, d in zip(x, direction, strict=True))
            f1 = parts(bound(s.time, moved if isinstance(s.x0, tuple) else moved[0]))
            direction = tuple((b - a) / 1e-6 for a, b in zip(f0, f1, strict=True))
            rate = math.sqrt(sum(float(d.abs().square().sum()) for d in direction))
    return max(16, math.ceil(4 * abs(s.end) * rate))
