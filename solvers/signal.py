"""Signals: functions of time through values that were measured at some times."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from solvers.failure import unknown_name
from solvers.interpolation import hermite

KINDS = ("linear", "cubic")


class Signal(nn.Module):
    """A function of time with `u(times[k]) = values[k]`.

        linear  straight lines between the knots
        cubic   Hermite cubics whose slope at a knot is the difference quotient of the interval
                before it (of the first interval at the first knot): continuously differentiable

    Both are local: `u(t)` knows no value later than the end of its own interval. Before the first
    and after the last knot the signal keeps its end values.

    Where straight lines meet (or cubics, in the second derivative), a step of high order loses its
    order unless it ends there; fixed steps end at the times of `grid`.

    Args:
        times: `[knots]`, rising, at least two; kept in float64.
        values: `[knots, ...]`, also with gradients; an `nn.Parameter` is learned.
        kind: "linear" or "cubic".

    Raises:
        ValueError: For times that do not rise, values of another number or that are not finite
            (fill in what is missing first), and unknown kinds.

    Source:
        Kidger, Morrill, Foster, Lyons, NeurIPS 2020, arXiv:2005.08926; for the choice of
        slopes Morrill, Kidger, Yang, Lyons, 2021, arXiv:2106.11028.

    Example:
        >>> u = Signal([0.0, 1.0, 3.0], torch.tensor([0.0, 2.0, 2.0]))
        >>> [u(torch.tensor(t)).item() for t in (0.5, 2.0, 7.0)]
        [1.0, 2.0, 2.0]
    """

    times: Tensor
    values: Tensor

    def __init__(
        self, times: Any, values: Float[Tensor, "knots ..."], kind: str = "linear"
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        knots = torch.as_tensor(times, dtype=torch.float64).detach()
        rising = knots.dim() == 1 and len(knots) > 1 and bool((knots.diff() > 0).all())
        if not (rising and bool(knots.isfinite().all())):
            raise ValueError(
                f"times have shape {tuple(knots.shape)}; a signal needs [knots], at least two "
                "finite times that rise"
            )
        if values.dim() == 0 or len(values) != len(knots):
            raise ValueError(
                f"values have shape {tuple(values.shape)} for {len(knots)} times; give one for "
                "each, along the first axis"
            )
        if not bool(values.detach().isfinite().all()):
            raise ValueError("values hold nan or inf; fill in what is missing, or drop its times")
        # As buffers the times would follow casts of a field to single precision.
        self.times, self.kind = knots, kind
        if isinstance(values, nn.Parameter) or values.requires_grad:
            self.values = values
        else:
            self.register_buffer("values", values, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """The value at time `t`, 0-d; for `t` of shape `[rows, 1]`, row i of it at time `t_i`."""
        knots = self.times.to(self.values.device)
        at = t.reshape(-1).double()
        k = torch.searchsorted(knots, at.detach(), right=True).sub(1).clamp(0, len(knots) - 2)
        width = knots[k + 1] - knots[k]
        theta = ((at - knots[k]) / width).clamp(0.0, 1.0)
        left, right = self._values(k, t), self._values(k + 1, t)
        theta, width = (self._factor(one, t) for one in (theta, width))
        if self.kind == "linear":
            return torch.lerp(left, right, theta)
        rise = (right - left) / width
        past = (k - 1).clamp(min=0)
        last = torch.where(k > 0, knots[k] - knots[past], 1.0)
        before = (left - self._values(past, t)) / self._factor(last, t)
        before = torch.where(self._factor((k > 0).double(), t) > 0, before, rise)
        return hermite(theta, width, (left,), (before,), (right,), (rise,))[0]

    def grid(self, start: float, end: float) -> Float[Tensor, " times"]:
        """The times from `start` to `end` with the knots between them, for a solve in fixed steps.

        >>> Signal([0.0, 1.0, 3.0], torch.zeros(3)).grid(2.0, 0.5).tolist()
        [2.0, 1.0, 0.5]
        """
        low, high = sorted((float(start), float(end)))
        knots = self.times.cpu()
        inside = knots[(knots > low) & (knots < high)]
        ends = torch.tensor([low, high], dtype=torch.float64, device="cpu")
        grid = torch.cat([ends[:1], inside, ends[1:]])
        return grid if start <= end else grid.flip(0)

    def like(self, x: Tensor) -> Signal:
        """Return the signal in the dtype and on the device of a state.

        >>> Signal([0.0, 1.0], torch.zeros(2)).like(torch.zeros(1).double()).values.dtype
        torch.float64
        """
        return self._with(self.values.to(x.device, x.dtype))

    def relabelled(self, order: Tensor) -> Signal:
        """Return the signal whose row `k` is row `order[k]` of this one; one row stays for all.

        >>> u = Signal([0.0, 1.0], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> u.relabelled(torch.tensor([1, 0])).values.tolist()
        [[2.0, 1.0], [4.0, 3.0]]
        """
        if self.values.dim() < 2 or self.values.shape[1] == 1:
            return self
        return self._with(self.values.index_select(1, order.to(self.values.device)))

    def _with(self, values: Tensor) -> Signal:
        other = copy.copy(self)
        for name in ("_parameters", "_buffers"):
            other.__dict__[name] = {k: v for k, v in vars(self)[name].items() if k != "values"}
        other.values = values
        other.times = self.times.to(values.device)
        return other

    def _values(self, k: Tensor, t: Tensor) -> Tensor:
        if t.dim() == 0:
            return self.values.index_select(0, k)[0]
        if self.values.dim() == 1:
            return self.values[k]
        row = torch.arange(len(k), device=k.device) if self.values.shape[1] > 1 else 0 * k
        return self.values[k, row]

    def _factor(self, number: Tensor, t: Tensor) -> Tensor:
        """A number for each row, as it multiplies values there."""
        number = number.to(self.values.real.dtype)
        return number[0] if t.dim() == 0 else number.view(-1, *[1] * (self.values.dim() - 2))

    def extra_repr(self) -> str:
        """The interval, the shape and the kind."""
        first, last = self.times[0].item(), self.times[-1].item()
        shape = tuple(self.values.shape[1:])
        return f"{len(self.times)} times from {first:g} to {last:g}, {shape}, {self.kind!r}"
