"""Coupled oscillators: any first-order coupling as a force, with springs and friction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.constants import hold
from neuralpde.fields.coupling import Coupling
from neuralpde.fields.field import Field, State
from neuralpde.fields.mixing import Mixing
from neuralpde.graph import Graph
from solvers.failure import unknown_name
from solvers.rows import Rows

Pair = tuple[Tensor, Tensor]


class Oscillator(Field):
    """Oscillators on the nodes, x'' = F(t, x) - gamma x - alpha x', coupled by F.

    The state is the pair `(x, v)`. Where F is linear, F = S x with S self-adjoint, each eigenvalue
    mu of S has the modes s^2 + alpha s + gamma - mu = 0, which grow where mu > gamma: with a
    row-stochastic S and its constant mode mu = 1 the default gamma = 1 is exactly marginal. The
    energy `lyapunov`, |v|^2 / 2 + gamma |x|^2 / 2 - <x, S x> / 2, falls at the rate alpha |v|^2.
    The flow shrinks volumes by e^(-alpha n t), n the number of entries of x, whatever F is.

    Args:
        coupling: F: a field of first order (`Heat()`, `Kuramoto()`, a sum), or a graph convolution
            as `Coupling` takes it, then without activation and leak.
        stiffness: gamma: a number or a 0-d tensor; an `nn.Parameter` is learned.
        damping: alpha, likewise.

    Raises:
        ValueError: For numbers that are not finite, or a coupling of second order.
        TypeError: At bind, for a state that is no pair.

    References:
        Rusch et al., Graph-coupled oscillator networks, ICML 2022, arXiv:2202.02296. With
        `Kuramoto()`: the swing equation, Filatrella et al., Eur. Phys. J. B 61 (2008), 485.

    >>> from neuralpde.fields.diffusion import Heat
    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> x, v = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [0.0]])
    >>> field = Oscillator(Heat(), stiffness=3.0, damping=0.5).bind(graph, (x, v))
    >>> [part.flatten().tolist() for part in field(torch.tensor(0.0), (x, v))]
    [[2.0, 0.0], [-5.0, 1.0]]
    >>> field.lyapunov((x, v)).tolist()
    [4.0]
    """

    order = 2
    gamma: float | Tensor

    def __init__(
        self,
        coupling: nn.Module,
        stiffness: float | Tensor = 1.0,
        damping: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(coupling, Field):
            coupling = Coupling(coupling, act=_same, leak=0.0)
        if coupling.order != 1 or coupling.pieces is not None:
            raise ValueError(
                f"{coupling.label} cannot couple oscillators: give a field of first order, and a "
                "piecewise one piece by piece"
            )
        self.coupling: Any = coupling
        self.is_complex = coupling.is_complex
        if hasattr(coupling, "channels"):
            self.channels = coupling.channels
        hold(self, "gamma", stiffness, dims=0)
        hold(self, "damping", damping, dims=0)

    def inner_state(self, x0: State) -> State:
        """The coupling sees positions alone."""
        if not isinstance(x0, tuple) or len(x0) != 2:
            raise TypeError("the state of oscillators is the pair (x, v) of position and velocity")
        return x0[0]

    def prepare(self, graph: Graph, x0: State) -> None:
        """Note the linear force S - gamma where the coupling is linear."""
        coupling = self.coupling
        self.norm, self.batched_time = coupling.norm, coupling.batched_time
        linear = coupling.affine and coupling.source is None
        if linear and type(self).pull is Oscillator.pull:
            self.stiffness = coupling.operator.shifted(1.0, -self.gamma)
            # The operator stands for what it was made of.
            self._modules = {}
            self._parameters = {k: v for k, v in self._parameters.items() if k == "damping"}
        if self.stiffness is None or not self.stiffness.self_adjoint:
            self.lyapunov = None

    def pull(self, t: Tensor, x: Tensor) -> Tensor:
        """The coupling F(t, x)."""
        pull: Tensor = self.coupling(t, x)
        return pull

    def force(self, t: Tensor, x: Tensor) -> Tensor:
        """The coupling and the springs, F(t, x) - gamma x."""
        if self.stiffness is not None:
            return self.stiffness @ x
        return self.pull(t, x) - self.gamma * x

    def _energy(self, x: Pair) -> Float[Tensor, " graphs"]:
        K = self.stiffness
        assert K is not None
        position, velocity = x
        both = (velocity.abs().square() - (position.conj() * (K @ position)).real) / 2
        if K.metric is not None:
            both = both * K.metric.to(both.dtype).view(-1, *[1] * (both.dim() - 1))
        return Rows(K.batch, K.num_graphs).sums((both,))

    # None where there is no such energy: `prepare` finds out.
    lyapunov: Any = _energy

    def extra_repr(self) -> str:
        """The numbers."""
        return f"stiffness={self.gamma!r}, damping={self.damping!r}"


class GraphCON(Oscillator):
    """Graph-coupled oscillators, x'' = act(F(x) + R x) - gamma x - alpha x'.

    The published network is `solver="graphcon"` with as many steps as layers, of size 1, from
    x = v = the encoded features: v <- v + h (force - alpha v), x <- x + h v. Each step shrinks
    volumes by (1 - alpha h)^n, n the number of entries of x. `leapfrog` and `kick_drift_damp` are
    of order 2 at the same cost.

    The published code differs in places: its `Leapfrog` kicks the second time with the old
    position, which is of order 1; its runs on heterophilous graphs have alpha = gamma = 0, so that
    nothing swings; those on homophilous ones have no activation, alpha = gamma = 1, and a learned
    share of the first state mixed into x' and v' that this field leaves out. Dropout between steps
    is no part of a field. With a residual, one variant subtracts the layer's own linear map from
    the coupling; give such a layer as `coupling`.

    Args:
        channels: Channels of the state.
        coupling: F, a graph convolution or a field of first order; by default that of Kipf and
            Welling, D~^-1/2 (A + I) D~^-1/2 x W^T.
        act: A function of every entry.
        stiffness: gamma: a number or a 0-d tensor; an `nn.Parameter` is learned.
        damping: alpha, likewise.
        residual: Whether to add a learned R x inside the activation.

    References:
        Rusch et al., Graph-coupled oscillator networks, ICML 2022, arXiv:2202.02296.

    >>> field = GraphCON(1, act=torch.relu)
    >>> field.coupling.weight.data.fill_(1.0).tolist()
    [[1.0]]
    >>> x, v = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [0.0]])
    >>> field = field.bind(torch.tensor([[0, 1], [1, 0]]), (x, v))
    >>> [part.flatten().tolist() for part in field(torch.tensor(0.0), (x, v))]
    [[0.5, 0.0], [0.5, -1.0]]
    """

    PUBLISHED: ClassVar[dict[str, dict[str, float]]] = {
        "MNIST superpixels, GCN": {"stiffness": 0.841, "damping": 1.396},
        "MNIST superpixels, GAT": {"stiffness": 0.348, "damping": 0.972},
        "ZINC": {"stiffness": 1.115, "damping": 0.215},
        "WebKB": {"stiffness": 0.0, "damping": 0.0},
    }
    lyapunov = None

    def __init__(
        self,
        channels: int,
        coupling: nn.Module | None = None,
        act: Callable[[Tensor], Tensor] = torch.relu,
        stiffness: float | Tensor = 1.0,
        damping: float | Tensor = 1.0,
        *,
        residual: bool = False,
    ) -> None:
        super().__init__(Mixing(channels) if coupling is None else coupling, stiffness, damping)
        self.channels, self.act = channels, act
        self.residual = nn.Linear(channels, channels, bias=False) if residual else None

    @classmethod
    def preset(cls, name: str) -> dict[str, float]:
        """Return the published numbers for a benchmark, as keyword arguments.

        The layers, steps of size 1, were 10 and 14 on superpixels, 22 on ZINC, 1 or 2 on WebKB.

        Raises:
            ValueError: For an unknown benchmark.

        >>> GraphCON(4, **GraphCON.preset("ZINC")).damping
        0.215
        """
        if name not in cls.PUBLISHED:
            raise unknown_name("preset", name, cls.PUBLISHED)
        return dict(cls.PUBLISHED[name])

    def pull(self, t: Tensor, x: Tensor) -> Tensor:
        """The activated coupling."""
        pull = super().pull(t, x)
        return self.act(pull if self.residual is None else pull + self.residual(x))


def _same(x: Tensor) -> Tensor:
    return x
