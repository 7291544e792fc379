"""Encoder, field and decoder as one module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields import Field
from neuralpde.fields.field import State
from neuralpde.graph import Graph
from neuralpde.models.states import flattened, opened, width
from neuralpde.solve import solve
from solvers.schedules import Schedule
from solvers.trajectory import Trajectory

BATCH_STATISTICS = nn.modules.batchnorm._BatchNorm
DROPOUT = nn.modules.dropout._DropoutNd


class NodeModel(nn.Module):
    """A field between an encoder and a decoder, for numbers or classes of nodes.

        x0 = encoder(features),   dx/dt = f(t, x) on [0, T],   out = decoder(x(T))

    The encoder maps features to `[nodes, model.width]`, which is taken for the first state: as it
    is, as `[nodes, stalk, channels]`, as the position of an oscillator whose velocity is zero, or
    as the real part of a complex state. The decoder sees the last state, made `[nodes, readout]`
    (positions only; real and imaginary parts side by side). Whatever is random or depends on the
    batch (dropout, batch normalisation) belongs into these two: a field must be a function of
    (t, x), or no solver can follow it, and such a field is refused here.

    The end time T is a number, or learned as exp(s), s a parameter. Its gradient is the slope at
    the end, <dl/dx(T), f(T, x(T))>: exact for exact solves, up to the tolerance for adaptive ones;
    with `steps` it is right to the order of the method, and is not the derivative of the discrete
    state, whose steps all grow with T.

    Args:
        encoder: Maps `[nodes, inputs]` to `[nodes, width]`.
        field: The field, or `Layers` of fields; `width(field, channels)` tells how wide it is.
        decoder: Maps `[nodes, readout]` to `[nodes, outputs]`.
        channels: Channels of the state where the field does not say.
        end: T, or where it is learned its first value.
        learned_end: Whether T is learned.
        velocity: Of oscillators at first: "zero", or "position" as in GraphCON's code.
        solver: As in `solve`; "auto" chooses by structure.
        steps: Fixed steps, or None for tolerances.
        schedule: Where the steps are.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        error_scale: As in `solve`.
        grad: As in `solve`; how gradients are computed while training.
        max_steps: As in `solve`.

    Raises:
        ValueError: For an end that is not positive, a field with dropout or batch normalisation, a
            field whose channels are neither declared nor given, and an unknown velocity.

    >>> from neuralpde.fields import Heat
    >>> model = NodeModel(nn.Identity(), Heat(), nn.Identity(), channels=1, end=50.0)
    >>> model(torch.tensor([[0.0], [2.0]]), torch.tensor([[0, 1], [1, 0]])).flatten().tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        encoder: nn.Module,
        field: Field,
        decoder: nn.Module,
        *,
        channels: int | None = None,
        end: float = 1.0,
        learned_end: bool = False,
        velocity: str = "zero",
        solver: Any = "auto",
        steps: int | None = None,
        schedule: Schedule | str | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        error_scale: str = "state",
        grad: str = "auto",
        max_steps: int = 10_000,
    ) -> None:
        super().__init__()
        if velocity not in ("zero", "position"):
            raise ValueError(f"velocity is {velocity!r}; give 'zero' or 'position'")
        _refuse_randomness(field)
        self.encoder, self.field, self.decoder = encoder, field, decoder
        self.width, self.velocity = width(field, channels), velocity
        self._end = _positive(end)
        start = torch.tensor(math.log(self._end), dtype=torch.float64)
        self.log_end = nn.Parameter(start) if learned_end else None
        self.solver, self.steps, self.schedule = solver, steps, schedule
        self.rtol, self.atol, self.error_scale = rtol, atol, error_scale
        self.grad, self.max_steps = grad, max_steps

    @property
    def end(self) -> Float[Tensor, ""]:
        """The end time T, float64."""
        if self.log_end is None:
            return torch.tensor(self._end, dtype=torch.float64)
        return self.log_end.double().exp()

    @end.setter
    def end(self, end: float) -> None:
        """Move the end; the size of fixed steps is kept.

        Raises:
            ValueError: For an end that is learned, or not positive.
        """
        if self.log_end is not None:
            raise ValueError("this end is learned: it is exp(log_end), a parameter")
        before, self._end = self._end, _positive(end)
        if self.steps is not None:
            self.steps = max(1, round(self.steps * self._end / before))

    def first(self, x: Float[Tensor, "nodes inputs"]) -> State:
        """The first state that the encoder makes of features.

        Raises:
            ValueError: When the encoder's width is not the field's.
        """
        hidden = self.encoder(x)
        if hidden.dim() != 2 or hidden.shape[1] != self.width:
            raise ValueError(
                f"the encoder gives {tuple(hidden.shape)}; the field {self.field.label} takes "
                f"[nodes, {self.width}]"
            )
        return opened(self.field, hidden, self.velocity)

    def last(
        self,
        x: Float[Tensor, "nodes inputs"],
        graph: Any,
        generator: torch.Generator | None = None,
    ) -> State:
        """The state at T, from which the decoder reads."""
        found: State = self._solved(
            x, graph, self.end, save="end", watch=None, generator=generator
        ).final
        return found

    def read(self, state: State) -> Float[Tensor, "nodes outputs"]:
        """What the decoder makes of a state."""
        out: Tensor = self.decoder(flattened(state))
        return out

    def forward(
        self,
        x: Float[Tensor, "nodes inputs"],
        graph: Any,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "nodes outputs"]:
        """The output for features on a graph.

        Args:
            x: Features.
            graph: A `Graph`, a torch_geometric `Data` or an `edge_index`.
            generator: Source of the noise of stochastic fields.
        """
        return self.read(self.last(x, graph, generator))

    def trajectory(
        self,
        x: Float[Tensor, "nodes inputs"],
        graph: Any,
        t: Any = None,
        *,
        save: str | None = None,
        watch: Any = (),
        generator: torch.Generator | None = None,
    ) -> Trajectory:
        """The solve as it is in eval mode, without gradients, with its energy.

        The mode of the model is what it was before, and so are the statistics of batch
        normalisation: it may be called at any time during training, and changes nothing.

        Args:
            x: Features.
            graph: The graph.
            t: As in `solve`, by default the model's own end; may go on beyond it. With `steps` the
                size of the steps is kept: as many more are taken as the interval is longer.
            save: As in `solve`.
            watch: As in `solve`.
            generator: Source of the noise of stochastic fields.
        """
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.no_grad():
                end = self.end if t is None else t
                return self._solved(x, graph, end, save=save, watch=watch, generator=generator)
        finally:
            for module, mode in modes.items():
                module.training = mode

    def readings(
        self, x: Float[Tensor, "nodes inputs"], graph: Any, times: Sequence[float]
    ) -> list[Float[Tensor, "nodes outputs"]]:
        """The outputs at several times of one solve in eval mode, without gradients.

        Args:
            x: Features.
            graph: The graph.
            times: Rising, the first of them after 0.

        >>> from neuralpde.fields import Heat
        >>> model = NodeModel(nn.Identity(), Heat(), nn.Identity(), channels=1)
        >>> pair = torch.tensor([[0, 1], [1, 0]])
        >>> [out[0].item() for out in model.readings(torch.tensor([[0.0], [2.0]]), pair, [50, 60])]
        [1.0, 1.0]
        """
        found = self.trajectory(x, graph, [0.0, *times]).x
        states: list[State] = list(zip(*found, strict=True) if isinstance(found, tuple) else found)
        with torch.no_grad():
            return [self.read(state) for state in states[1:]]

    def _solved(
        self,
        x: Tensor,
        graph: Any,
        t: Any,
        *,
        save: str | None,
        watch: Any,
        generator: torch.Generator | None,
    ) -> Trajectory:
        steps = self.steps
        if steps is not None:
            times = torch.as_tensor(t, dtype=torch.float64).detach()
            span = times.abs() if times.dim() == 0 else (times[-1] - times[0]).abs().max()
            steps = max(1, round(steps * float(span) / float(self.end.detach())))
        return solve(
            self.field,
            self.first(x),
            t,
            Graph.of(graph),
            solver=self.solver,
            steps=steps,
            schedule=self.schedule,
            rtol=self.rtol,
            atol=self.atol,
            error_scale=self.error_scale,
            watch=watch,
            save=save,
            grad=self.grad,
            generator=generator,
            max_steps=self.max_steps,
        )


def _positive(end: float) -> float:
    if not 0.0 < end < math.inf:
        raise ValueError(f"end is {end}; give a positive, finite time")
    return float(end)


def _refuse_randomness(field: Field) -> None:
    for name, part in field.named_modules():
        rate = getattr(part, "dropout", None)
        noisy = isinstance(part, DROPOUT) and part.p > 0
        noisy = noisy or (isinstance(rate, float) and rate > 0)
        if noisy or isinstance(part, BATCH_STATISTICS):
            what = "dropout" if noisy else "batch normalisation"
            raise ValueError(
                f"the field contains {what} ({name}: {type(part).__name__}); a field is a function "
                "of (t, x) while the model trains too, so put it into the encoder, the decoder, or "
                "an encoder of your own"
            )
