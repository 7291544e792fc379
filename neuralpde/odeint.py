"""torchdiffeq's three functions on our solvers: existing code changes one import.

What differs, and why:

- `rk4` is the classical rule (torchdiffeq's is the 3/8 rule), of the same order and cost.
- A fixed grid always contains the saved times; torchdiffeq interpolates between its steps.
- `odeint_adjoint` solves no adjoint equation. It replays the stored steps, so its gradients are
  those of `odeint` to rounding, in memory that grows like the square root of the steps.
- A solve that breaks down raises `SolveFailed`, which says where and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.events import first_event
from neuralpde.fields.field import Field, State
from neuralpde.options import ADAPTIVE, FIXED, checked_options, grid_of, number
from neuralpde.solve import solve
from solvers.failure import unknown_name

UNBOUNDED = 2**31 - 1
CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")

Function = Callable[[Tensor, Any], Any]


def odeint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Function | None = None,
) -> Any:
    """Solve dy/dt = func(t, y), y(t[0]) = y0, with gradients through the steps.

    Args:
        func: Any callable, a module or a bound field.
        y0: A tensor or a tuple of tensors.
        t: Times `[T]`, increasing or decreasing; may require grad.
        rtol: Relative tolerance; what y0's dtype cannot show is raised to 50 eps (6e-6 in
            float32).
        atol: Absolute tolerance.
        method: One of torchdiffeq's names, or "tsit5"; "dopri5" by default.
        options: `max_num_steps` for adaptive methods; `step_size` or `grid_constructor` for fixed
            ones, whose grid is `t` otherwise.
        event_fn: Ends the solve where `event_fn(t, y)` changes sign; `t` then has two entries, of
            which the second gives the direction. See `odeint_event`.

    Returns:
        The solution `[T, ...]`, a tuple of them for a tuple; with `event_fn` the pair
        (event time, solution `[2, ...]`).

    Raises:
        ValueError: For unknown methods and options, with the nearest name.
        SolveFailed: When the solve breaks down.

    >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> y = odeint(lambda t, y: -y, torch.ones(1, dtype=torch.float64), t)
    >>> round(y[-1].item(), 6)
    0.367879
    """
    return _run(func, y0, t, rtol, atol, method, options, event_fn, "tape")


def odeint_adjoint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Function | None = None,
    adjoint_rtol: float | None = None,
    adjoint_atol: float | None = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """Solve like `odeint`, in little memory: gradients by replaying the stored steps.

    No adjoint equation is solved, so the gradient is that of the numbers returned, to rounding,
    and does not blow up for diffusion.

    Args:
        func: A module or a bound field; another callable needs `adjoint_params`.
        y0: As in `odeint`, like everything up to `event_fn`.
        t: As above.
        rtol: As above.
        atol: As above.
        method: As above.
        options: As above.
        event_fn: As above.
        adjoint_rtol: Without meaning here; leave it out, like the next three.
        adjoint_atol: See `adjoint_rtol`.
        adjoint_method: See `adjoint_rtol`.
        adjoint_options: See `adjoint_rtol`.
        adjoint_params: The tensors besides y0 and t that receive gradients; by default the
            module's parameters, or the field's leaves.

    Raises:
        ValueError: For arguments about an adjoint equation, and as `odeint`.

    >>> decay = nn.Linear(1, 1, bias=False).double()
    >>> t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> y = odeint_adjoint(lambda t, y: -decay(y), torch.ones(1).double(), t,
    ...                    adjoint_params=decay.parameters())
    >>> y[-1].sum().backward()
    >>> bool(torch.isclose(decay.weight.grad.sum(), -y[-1].detach().sum()))
    True
    """
    given = {
        "adjoint_rtol": adjoint_rtol,
        "adjoint_atol": adjoint_atol,
        "adjoint_method": adjoint_method,
        "adjoint_options": adjoint_options,
    }
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise ValueError(
            f"{', '.join(named)} would control the solve of an adjoint equation; here the stored "
            "steps are replayed instead, to rounding. Leave them out, or use solve(..., "
            "solver='torchdiffeq:dopri5', grad='adjoint')"
        )
    if adjoint_params is None:
        if not isinstance(func, nn.Module):
            raise ValueError(
                f"func is {type(func).__name__}, no nn.Module, so nobody knows what it depends "
                "on: give adjoint_params (an empty tuple if there is nothing), or use odeint"
            )
        leaves = func.leaves() if isinstance(func, Field) else tuple(func.parameters())
    else:
        leaves = tuple(adjoint_params)
    module = _Module(func, leaves)
    return _run(module, y0, t, rtol, atol, method, options, event_fn, "replay")


def odeint_event(
    func: Function,
    y0: State,
    t0: Tensor,
    *,
    event_fn: Function,
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """Solve until `event_fn(t, y)` changes sign; the event time is differentiable.

    The root g(t*, y(t*)) = 0 is bracketed by a step, which is taken again so that it ends there,
    to 4 ulp of t. Gradients are those of the implicit function: dt* = -dg / (dg/dt + dg/dy f),
    through y0, t0, the parameters of func and those of event_fn.

    Args:
        func: As in `odeint`.
        y0: First state.
        t0: First time, a tensor of one number.
        event_fn: Any number of entries; the first one to change sign ends the solve. One that is
            zero at the start counts from its first sign on. One that changes sign twice within a
            step is not seen.
        reverse_time: Whether to go backwards.
        odeint_interface: `odeint` or `odeint_adjoint` of this module.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        method: "dopri5", "tsit5", "dopri8", "bosh3" or "adaptive_heun".
        options: `max_num_steps`, 20,000 by default.
        adjoint_params: For `odeint_adjoint`; the parameters of event_fn need not be among them.

    Returns:
        The event time and the solution `[2, ...]` at the start and at the event.

    Raises:
        RuntimeError: When no event comes.
        ValueError: For gradients of an event that is only grazed, dg/dt = 0.

    >>> y0, t0 = torch.zeros(1, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    >>> when, _ = odeint_event(lambda t, y: 2 + 0 * y, y0, t0, event_fn=lambda t, y: y - 1)
    >>> round(when.item(), 12)
    0.5
    """
    if odeint_interface not in (odeint, odeint_adjoint):
        raise ValueError(
            "odeint_interface is neither odeint nor odeint_adjoint of neuralpde.odeint; another "
            "library's solver goes with its own odeint_event"
        )
    start = t0.reshape(1)
    t = torch.cat([start, start.detach() + (-1.0 if reverse_time else 1.0)])
    extra: dict[str, Any] = {}
    if adjoint_params is not None:
        if odeint_interface is odeint:
            raise ValueError("adjoint_params go with odeint_interface=odeint_adjoint; leave it out")
        extra["adjoint_params"] = adjoint_params
    return odeint_interface(
        func,
        y0,
        t,
        rtol=rtol,
        atol=atol,
        method=method,
        options=options,
        event_fn=event_fn,
        **extra,
    )


def _run(
    func: Function,
    y0: State,
    t: Tensor,
    rtol: float,
    atol: float,
    method: str | None,
    options: Mapping[str, Any] | None,
    event_fn: Function | None,
    grad: str,
) -> Any:
    method = "dopri5" if method is None else method
    if method not in (*ADAPTIVE, *FIXED):
        raise unknown_name("method", method, (*ADAPTIVE, *FIXED))
    _check_callbacks(func)
    _check_noise(func.func if isinstance(func, _Module) else func)
    if t.dim() != 1 or (event_fn is not None and len(t) != 2):
        expected = "[T]" if event_fn is None else "[2] (start, and any time on the way) for events"
        raise ValueError(f"t has shape {tuple(t.shape)}; give times {expected}")
    fixed = method in FIXED
    known = checked_options(method, dict(options or {}))
    solver = FIXED[method] if fixed else ADAPTIVE[method]
    parts = y0 if isinstance(y0, tuple) else (y0,)
    finest = 50 * torch.finfo(parts[0].dtype).eps
    rtol, atol = max(number("rtol", rtol), finest), number("atol", atol)
    call = func if isinstance(func, _Module) else _Module(func, ())
    if event_fn is not None:
        return first_event(
            call,
            y0,
            t,
            event_fn,
            solver=solver,
            grad=grad,
            rtol=rtol,
            atol=atol,
            max_steps=known.get("max_num_steps"),
        )
    if len(t) == 1:
        alone = tuple(part[None] for part in parts)
        return alone if isinstance(y0, tuple) else alone[0]
    if ":" in solver and grad == "replay":
        raise ValueError(
            f"odeint_adjoint replays the steps of our own solvers, and {method!r} is not among "
            "them; use 'dopri5', 'tsit5', 'dopri8', 'bosh3', 'adaptive_heun', 'euler', "
            "'midpoint', 'heun2' or 'rk4', or odeint"
        )
    if not fixed:
        limit = int(known.get("max_num_steps", UNBOUNDED))
        found = solve(call, y0, t, solver=solver, rtol=rtol, atol=atol, grad=grad, max_steps=limit)
        return found.x
    grid = grid_of(func, y0, t, known)
    count = 1 if grid is None else len(grid.times) - 1
    return solve(
        call, y0, t, solver=solver, schedule=grid, steps=count, grad=grad, max_steps=UNBOUNDED
    ).x


class _Module(nn.Module):
    """Any callable as a module whose parameters are exactly these; its energy is not measured."""

    def __init__(self, func: Function, leaves: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.func = func
        self._leaves = leaves

    def forward(self, t: Tensor, y: Any) -> Any:
        """dy/dt."""
        return self.func(t, y)

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """The tensors that receive gradients when steps are replayed."""
        return iter(self._leaves)


def _check_callbacks(func: Function) -> None:
    found = [name for name in CALLBACKS if hasattr(func, name)]
    if found:
        raise ValueError(
            f"func has {', '.join(found)}, which would never be called here; use solve(..., "
            "watch=...) to look at accepted steps"
        )


def _check_noise(func: Function) -> None:
    if isinstance(func, Field) and func.noise is not None:
        raise ValueError(
            f"{func.label} is stochastic, and an ordinary differential equation would leave out "
            "its noise: use solve(..., steps=n), or torchsde.sdeint(bound_field, ...)"
        )
