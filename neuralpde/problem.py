"""What is asked of a solve, checked once at the border."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad

from neuralpde.energies import DirichletForm
from neuralpde.fields.field import Field, State
from neuralpde.forms import Form
from neuralpde.graph import Graph
from neuralpde.stopping import posed
from solvers import schedules
from solvers.failure import unknown_name
from solvers.rows import Rows
from solvers.stopping import Stopping

SAVES = ("end", "steps")
ERROR_SCALES = ("state", "deviation")
GRADS = ("auto", "none", "tape", "replay", "reversible", "adjoint")
RTOL, ATOL = 1e-4, 1e-6


@dataclass
class Problem:
    """A solve, checked and bound: everything a route needs to know.

    Attributes:
        f: dx/dt as a function of time and packed state.
        field: The bound `Field`, or None for plain callables.
        name: What the field is called.
        x0: First state as a tuple of tensors.
        packed: Whether the user's state is a tuple.
        graph: The graph in the state's dtype and device, or None.
        rows: How rows belong to graphs.
        t: Save times as given, float64 and differentiable.
        times: The same as numbers, `[saved, graphs or 1]`.
        tracked: Whether the energy is measured.
    """

    f: Callable[[Tensor, Any], Any]
    field: Field | None
    name: str
    x0: tuple[Tensor, ...]
    packed: bool
    graph: Graph | None
    rows: Rows
    t: Tensor
    times: np.ndarray
    rtol: float
    atol: float
    toleranced: bool
    error_scale: str
    save: str | None
    steps: int | None
    schedule: Any
    max_steps: int
    watch: tuple[Any, ...]
    tracked: bool
    stop: Stopping | None
    grad: str
    generator: torch.Generator | None
    progress: bool
    settings: dict[str, Any]

    @property
    def fixed(self) -> bool:
        """Whether the steps are known beforehand."""
        return self.steps is not None or self.schedule is not None

    @property
    def dtype(self) -> torch.dtype:
        """The state's dtype."""
        return self.x0[0].dtype

    @property
    def eps(self) -> float:
        """Spacing of numbers near one in the state's dtype."""
        return torch.finfo(self.dtype).eps

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Tensors besides x0 through which gradients may flow."""
        if self.field is not None:
            return self.field.leaves()
        parameters = getattr(self.f, "parameters", None)
        return tuple(p for p in parameters() if p.requires_grad) if parameters else ()

    @property
    def knows_its_leaves(self) -> bool:
        """Whether `leaves` is complete; a plain function may hide tensors."""
        return isinstance(self.f, nn.Module)

    @property
    def needs_gradient(self) -> bool:
        """Whether anything known requires grad."""
        inputs = (*self.x0, *self.leaves, self.t)
        return torch.is_grad_enabled() and any(one.requires_grad for one in inputs)

    def form(self) -> Form | None:
        """The field's own quadratic form, or None without a graph."""
        if self.graph is None:
            return None
        if self.field is not None and self.field.form is not None:
            return self.field.form
        norm = None if self.field is None else self.field.norm
        return DirichletForm.of(self.graph, norm or "comb")


def pose(
    field: Any,
    x0: State,
    t: Any,
    graph: Any,
    *,
    rtol: float | None,
    atol: float | None,
    error_scale: str,
    save: str | None,
    steps: int | None,
    schedule: Any,
    max_steps: int,
    watch: Any,
    stop: Any,
    grad: str,
    generator: torch.Generator | None,
    progress: bool,
) -> Problem:
    """Check every argument of a solve and bind the field; errors come before any work."""
    if not callable(field):
        raise TypeError(f"field is {type(field).__name__}; give a Field or a callable f(t, x)")
    packed = isinstance(x0, (tuple, list))
    state = _checked_state(tuple(x0) if packed else (x0,))
    bound = isinstance(field, Field) and field.is_bound
    owner = field.graph if bound and graph is None else graph
    the_graph = None if owner is None else Graph.of(owner).like(state[0])
    if the_graph is not None:
        _check_rows(state, the_graph)
    graphs = 1 if the_graph is None else the_graph.num_graphs
    save_times = _times(t, graphs)
    save_times = save_times[[0, -1]] if save == "end" else save_times
    for name, value, known in (
        ("error_scale", error_scale, ERROR_SCALES),
        ("grad", grad, GRADS),
        ("save", save, (None, *SAVES)),
    ):
        if value not in known:
            raise unknown_name(name, value, map(str, known))
    _check_steps(steps, schedule, rtol, atol, max_steps)
    if error_scale == "deviation" and the_graph is None:
        raise ValueError("error_scale='deviation' compares with x - P x and needs a graph")
    if save == "steps" and graphs > 1:
        raise ValueError(f"save='steps' keeps one clock; this batch has {graphs} graphs")
    rtol_, atol_ = _tolerances(rtol, atol)
    if isinstance(field, nn.Module):
        _refuse_noise(field)
    first = state if packed else state[0]
    function = field.bind(the_graph, first) if isinstance(field, Field) and not bound else field
    stopping = posed(stop, the_graph, first)
    return Problem(
        function,
        function if isinstance(function, Field) else None,
        _label(field),
        state,
        packed,
        the_graph,
        Rows(None if the_graph is None else the_graph.batch, graphs),
        save_times,
        save_times.detach().numpy().reshape(len(save_times), -1),
        rtol_,
        atol_,
        rtol is not None or atol is not None,
        error_scale,
        save,
        steps,
        None if schedule is None else schedules.get(schedule),
        max_steps,
        () if watch is None else tuple(watch) if isinstance(watch, (tuple, list)) else (watch,),
        the_graph is not None and watch is not None,
        stopping,
        grad,
        generator,
        progress,
        {
            "field": _label(field),
            "rtol": rtol_,
            "atol": atol_,
            "error_scale": error_scale,
            "steps": steps,
            "schedule": None if schedule is None else repr(schedules.get(schedule)),
            "max_steps": max_steps,
            "stop": None if stopping is None else [str(one) for one in stopping.conditions],
            "dtype": str(state[0].dtype).removeprefix("torch."),
            "device": str(state[0].device),
        },
    )


def _label(field: Any) -> str:
    """What a field or a callable is called."""
    named = getattr(field, "label", None) or getattr(field, "__name__", None)
    return str(named or type(field).__name__)


def _checked_state(parts: tuple[Any, ...]) -> tuple[Tensor, ...]:
    if not parts:
        raise ValueError("x0 is an empty tuple; give at least one tensor")
    for part in parts:
        if not isinstance(part, Tensor):
            raise TypeError(f"x0 is {type(part).__name__}; give a tensor or a tuple of tensors")
        if is_functorch_wrapped_tensor(part) or forward_ad.unpack_dual(part).tangent is not None:
            raise TypeError(
                "x0 comes from a transform (torch.func.grad, jvp, vmap, ...) or carries a tangent; "
                "solve is differentiated by backward() and torch.autograd.grad, and takes many "
                "states as columns or as a batch of graphs"
            )
        if not (part.is_floating_point() or part.is_complex()):
            raise TypeError(
                f"x0 is {part.dtype}; a state changes continuously, so give x0.float() or "
                "x0.double()"
            )
        # A sum is ten times cheaper than a look at every entry, and it is finite only if they are.
        if not bool(part.sum().isfinite()) and not bool(part.isfinite().all()):
            bad = (~part.isfinite()).reshape(part.shape[0] if part.dim() else 1, -1).any(1)
            where = int(torch.nonzero(bad)[0])
            raise ValueError(
                f"x0 holds nan or inf in {int(bad.sum())} of {len(bad)} rows (first: row {where})"
            )
    kinds = {(part.dtype, part.device) for part in parts}
    if len(kinds) > 1:
        raise TypeError(f"the parts of x0 differ in dtype or device: {kinds}; convert them first")
    return parts


def _check_rows(state: tuple[Tensor, ...], graph: Graph) -> None:
    for part in state:
        rows = part.shape[0] if part.dim() else 0
        if rows != graph.num_nodes:
            raise ValueError(
                f"x0 has shape {tuple(part.shape)} but the graph has {graph.num_nodes} nodes; "
                f"x0.shape[0] must be {graph.num_nodes}"
                + (" (is the graph missing num_nodes=?)" if rows > graph.num_nodes else "")
            )


def _times(t: Any, graphs: int) -> Tensor:
    times = t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=torch.float64, device="cpu")
    if times.is_complex():
        raise TypeError("t is complex; times are real")
    times = times.to("cpu", torch.float64)
    if times.dim() == 0:
        times = torch.stack([torch.zeros_like(times), times])
    if times.dim() > 2 or len(times) < 2:
        raise ValueError(
            f"t has shape {tuple(times.shape)}; give a number T, a pair, a 1-D tensor of at least "
            "two save times, or [saved, graphs]"
        )
    if times.dim() == 2 and times.shape[1] != graphs:
        raise ValueError(
            f"t has {times.shape[1]} columns for {graphs} graphs; [saved, graphs] gives every "
            "graph its own times"
        )
    numbers = times.detach().numpy()
    if not np.isfinite(numbers).all():
        raise ValueError("t holds nan or inf; an infinite time is a steady state: use stop=")
    steps = np.diff(numbers, axis=0)
    if (steps > 0).any() and (steps < 0).any():
        raise ValueError("t must increase or decrease throughout; sort the save times")
    return times


def _check_steps(
    steps: int | None, schedule: Any, rtol: float | None, atol: float | None, max_steps: int
) -> None:
    if max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}; at least 1 is needed")
    if schedule is not None:
        schedules.get(schedule)
        if steps is None and not hasattr(schedule, "times"):
            raise ValueError("a schedule places steps=n points; give steps too")
    if steps is None and schedule is None:
        return
    if steps is not None and (steps < 1 or int(steps) != steps):
        raise ValueError(f"steps is {steps}; give a whole number of at least 1")
    if rtol is not None or atol is not None:
        raise ValueError(
            "steps= (or schedule=) fixes the steps beforehand, rtol= and atol= adapt them: give one"
        )


def _tolerances(rtol: float | None, atol: float | None) -> tuple[float, float]:
    rtol_ = RTOL if rtol is None else float(rtol)
    atol_ = ATOL if atol is None else float(atol)
    if not (rtol_ >= 0 and atol_ >= 0 and rtol_ + atol_ > 0) or rtol_ >= 1:
        raise ValueError(
            f"rtol={rtol_:g}, atol={atol_:g}; needed are 0 <= rtol < 1, atol >= 0, not both zero"
        )
    return rtol_, atol_


def check_resolution(problem: Problem) -> None:
    """Refuse tolerances that step control cannot see in the state's dtype.

    Raises:
        ValueError: For rtol below 2 eps; below 50 eps a warning says that rounding will show.
    """
    rtol, eps, dtype = problem.rtol, problem.eps, str(problem.dtype).removeprefix("torch.")
    if rtol < 2 * eps and not (rtol == 0 and problem.atol > 0):
        raise ValueError(
            f"rtol={rtol:g} is below what {dtype} can hold (2 eps = {2 * eps:.2g}); use "
            + (
                f"at least {50 * eps:.2g}, or x0.double()"
                if eps < 1e-4
                else "x0.float(), or steps="
            )
        )
    if rtol < 50 * eps and rtol > 0:
        warnings.warn(
            f"rtol={rtol:g} is near the rounding of {dtype} (eps = {eps:.2g}): steps may be "
            "rejected for rounding; consider x0.double()",
            stacklevel=4,
        )


def _refuse_noise(module: nn.Module) -> None:
    """A field must be a function of (t, x): no dropout, no batch statistics."""
    for name, part in module.named_modules():
        kind = type(part).__name__
        noisy = isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0
        noisy = noisy or (isinstance(getattr(part, "dropout", None), float) and part.dropout > 0)
        statistics = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if part.training and (noisy or statistics):
            what = "dropout" if noisy else "batch normalisation"
            raise ValueError(
                f"the field contains {what} in training mode ({name or 'itself'}: {kind}), so it "
                "is not a function of (t, x) and no solver can follow it; call .eval() on it, or "
                "move it into the encoder or between two solves"
            )
