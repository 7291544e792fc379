"""check_field finds each way in which a field can break its contract, and says which."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralpde import catalogue
from neuralpde.fields import Diffusion, Field, Heat, Layers, Noise, Source, allen_cahn
from neuralpde.graph import Graph
from neuralpde.testing import check_field

GRAPH = catalogue.barbell(3, 1)


class Plain(Field):
    """A field as it should be; the broken ones spoil one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3) * 0.5)

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("row")

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.A @ x @ self.weight) - x


class NodeStatistics(Plain):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, (x - x.mean(0)) / (x.std(0) + 1.0))


class GlobalMaximum(Plain):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x - x.max())


class Counter(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return super().rest(t, x) * self.calls


class Shared(Plain):
    """Keeps what it prepares in a dict that all bindings share."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str, Tensor] = {}

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        super().prepare(graph, x0)
        self._made = self.__dict__["made"]
        self._made["first"] = x0

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x) + self._made["first"]


class Running(Plain):
    """Counts in a buffer, as batch normalisation does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        self.seen.add_(1.0)
        return super().rest(t, x)


class Numbered(Plain):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x) * torch.arange(len(x)).to(x)[:, None]


class Captured(Plain):
    """Holds its weight where nobody looks."""

    def __init__(self) -> None:
        super().__init__()
        hidden = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.f: Callable[[Tensor], Tensor] = lambda x: x * hidden.to(x)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, self.f(x))


class Private(Plain):
    """Freezes something in a private attribute, which binding does not freshen."""

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        super().prepare(graph, x0)
        self._frozen = x0 @ self.weight

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x) + self._frozen


class Upstream(Plain):
    """Overrides leaves(), naming a tensor and one that was computed from it."""

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x) + self.twice.sum() * torch.sin(x)

    def bind(self, graph: Graph, x0: Tensor) -> "Upstream":
        bound = super().bind(graph, x0)
        bound.twice = bound.weight * 2
        return bound

    def __init__(self) -> None:
        super().__init__()
        self.twice = torch.zeros(3, 3)


class Staircase(Plain):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x) * (1 + torch.floor(3 * t))


class Single(Plain):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x).double()


class Sum(Plain):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x).sum(1)


class Clock(Plain):
    batched_time = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x) * torch.sin(t.sum())


class Degree(Plain):
    """Divides by degrees, also where they are zero."""

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        super().prepare(graph, x0)
        self.degree = graph.adjacency() @ torch.ones_like(x0[:, :1])

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x) / self.degree


class Turning(Plain):
    """A complex state with a real parameter."""

    is_complex = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return -1j * (self.A @ x @ self.weight.to(x.dtype)) - 0.1 * x * x.abs()


class Modulus(Turning):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, x).abs()


class Hidden(Turning):
    """Reads its parameter behind the back of `leaves`."""

    def __init__(self) -> None:
        super().__init__()
        phase = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.turn = lambda x: x * torch.exp(1j * phase)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return super().rest(t, self.turn(x).to(x.dtype))


@pytest.mark.parametrize(
    ("field", "line"),
    [
        (NodeStatistics(), "batch independence"),
        (GlobalMaximum(), "batch independence"),
        (Counter(), r"pure function of \(t, x\)"),
        (Shared(), "two bindings know nothing"),
        (Running(), "leaves the field as it was"),
        (Numbered(), "permutation equivariance"),
        (Captured(), r"It reads a tensor of shape \(3,\), which is not among"),
        (Private(), r"It reads weight, which is not among"),
        (Upstream(), "no leaf is computed from another"),
        (Staircase(), "smooth function"),
        (Single(), "dtype follows the state"),
        (Sum(), "shape and dtype of x"),
        (Clock(), "batched_time"),
        (Degree(), "isolated nodes and empty edge sets"),
        (Modulus(), "shape and dtype of x"),
        (Hidden(), r"It reads a tensor of shape \(3,\), which is not among"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Field) else "",
)
def test_a_broken_line_is_named(field: Field, line: str) -> None:
    with pytest.raises(AssertionError, match=line):
        check_field(field, GRAPH)


@pytest.mark.parametrize(
    "field",
    [
        Plain(),
        Turning(),
        Heat("sym"),
        Heat() + Source(0.4, of_x0=True),
        Diffusion(lambda graph, x0: -graph.laplacian("rw"), norm="rw"),
        Layers([Heat(rate=nn.Parameter(torch.tensor(0.3))), allen_cahn()]),
    ],
    ids=lambda field: type(field).__name__,
)
def test_good_fields_pass(field: Field) -> None:
    check_field(field, GRAPH)
    check_field(field, Graph.union([GRAPH, catalogue.star(4)]))


def test_the_field_and_the_random_state_are_left_alone() -> None:
    field = Plain()
    before, weight = torch.get_rng_state(), field.weight.clone()
    check_field(field, GRAPH)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(field.weight, weight)
    assert field.weight.dtype == torch.float32
    assert field.weight.grad is None


def test_states_can_be_given() -> None:
    with pytest.raises(AssertionError, match="shape and dtype"):
        check_field(Sum(), GRAPH, torch.ones(7, 3))
    check_field(Heat(), GRAPH, torch.randn(7, 5, 2))


class Kinked(Plain):
    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.relu(self.A @ x @ self.weight - 0.1) - x


def test_kinks_are_let_pass_when_they_are_announced() -> None:
    check_field(Kinked(), GRAPH, smooth=False)


def test_of_a_stochastic_field_the_drift_is_checked() -> None:
    scale = nn.Parameter(torch.tensor(0.3))
    check_field(Plain() + Noise(scale), GRAPH)
    with pytest.raises(AssertionError, match="batch independence"):
        check_field(NodeStatistics() + Noise(scale), GRAPH)
    with pytest.raises(AssertionError, match="smooth function"):
        check_field(Staircase() + Noise(lambda t, x: 0.1 * x), GRAPH)


def test_a_bound_field_is_refused() -> None:
    x = torch.zeros(7, 1)
    with pytest.raises(ValueError, match="unbound"):
        check_field(Heat().bind(GRAPH, x), GRAPH)
