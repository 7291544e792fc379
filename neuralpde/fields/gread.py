"""GREAD: diffusion and reaction, the blurring-sharpening one among them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralpde.fields.constants import hold
from neuralpde.fields.field import Field, State
from neuralpde.fields.grand import GRAND
from neuralpde.fields.presets import Preset, preset
from neuralpde.graph import Graph
from neuralpde.operators import Quadratic, SparseOperator
from solvers.failure import unknown_name

POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "f": lambda x: x * (1.0 - x),
    "ac": lambda x: x * (1.0 - x * x),
    "z": lambda x: x * x * (1.0 - x),
}
REACTIONS = ("bs", *POINTWISE, "st")


class GREAD(Field):
    """Reaction-diffusion of features, x' = a (A x - x) + b r(x).

        bs   r = (A - A^2) x    blurring-sharpening: A x less a second blur
        f    r = x (1 - x)      Fisher
        ac   r = x (1 - x^2)    Allen-Cahn
        z    r = x^2 (1 - x)    Zeldovich
        st   r = x(0)           source

    A is frozen at the start. With "bs" and "st" the field is linear: `bs` has the symbol
    `-a l + b l (1 - l)` along an eigenvector of I - A with eigenvalue l, so that it sharpens where
    `b (1 - l) > a`; it is solved exactly where A is self-adjoint (`Heat`), `st` wherever the
    diffusion alone is. With the others solvers see a (A - I) x and a rest that acts entry by entry;
    over the receiver "f" and "z" keep states in [0, 1] and "ac" in [-1, 1], for a, b >= 0.

    The published code freezes A as well and takes a = sigmoid(alpha); b is sigmoid(beta), or, in
    its best settings, one unconstrained number per channel (`per_channel`), uniform in [-1, 1] at
    first. Its filter-bank reactions are not here: with their signs as coded they are (I + A) x and
    (2 I + A) x, growth and no filters.

    Args:
        channels: Channels of the state `[nodes, channels]`.
        reaction: "bs", "f", "ac", "z" or "st".
        diffusion: A linear field A - I; by default `GRAND(channels, rate=1.0)`, attention of the
            first state. `Heat("rw")`, `Heat("sym")` and `Heat("augmented")` have the A of the
            random walk, of the normalised adjacency and of that with self-loops.
        rate: a: None for the learned sigmoid(alpha), or a number, or an `nn.Parameter`.
        strength: b: None for a learned one, or a number, a tensor `[channels]`, or an
            `nn.Parameter`.
        per_channel: Whether the learned b is one number per channel.

    Raises:
        ValueError: For an unknown reaction; at bind for a state of other shape, or a diffusion
            that is not linear.

    References:
        J. Choi, S. Hong, N. Park, S.-B. Cho, GREAD: Graph neural reaction-diffusion networks, ICML
        2023, arXiv:2211.14208; code at jeongwhanchoi/GREAD.

    >>> from neuralpde.fields.diffusion import Heat
    >>> x = torch.tensor([[1.0], [0.0]])
    >>> field = GREAD(1, diffusion=Heat("rw"), rate=1.0, strength=1.0)
    >>> bound = field.bind(torch.tensor([[0, 1], [1, 0]]), x)
    >>> bound(torch.tensor(0.0), x).flatten().tolist()
    [-2.0, 2.0]
    """

    batched_time = True
    pointwise = True
    given_rate: float | Tensor
    given_strength: float | Tensor

    def __init__(
        self,
        channels: int,
        reaction: str = "bs",
        *,
        diffusion: Field | None = None,
        rate: float | Tensor | None = None,
        strength: float | Tensor | None = None,
        per_channel: bool = False,
    ) -> None:
        super().__init__()
        if reaction not in REACTIONS:
            raise unknown_name("reaction", reaction, REACTIONS)
        self.channels, self.reaction = channels, reaction
        self.has_rest = reaction in POINTWISE
        self.diffusion = GRAND(channels, rate=1.0) if diffusion is None else diffusion
        self.alpha = nn.Parameter(torch.zeros(())) if rate is None else None
        hold(self, "given_rate", 1.0 if rate is None else rate, dims=0)
        # Unconstrained where there is one per channel, as published.
        self.beta = nn.Parameter(torch.zeros(())) if strength is None and not per_channel else None
        if per_channel and strength is None:
            strength = nn.Parameter(torch.empty(channels).uniform_(-1.0, 1.0))
        hold(self, "given_strength", 1.0 if strength is None else strength)

    @classmethod
    def preset(cls, name: str) -> Preset:
        """Look up the published settings of GREAD-BS on a data set.

        "Cora", "Citeseer", "Texas", "Wisconsin", "Cornell", "Film", "Squirrel" and "Chameleon".
        `channels` is in the settings where it is published.

        Raises:
            ValueError: For other names.

        >>> GREAD.preset("Citeseer").steps, GREAD.preset("Cora").settings["channels"]
        (10, 64)
        """
        return preset(PRESETS, name)

    @property
    def rate(self) -> float | Tensor:
        """The factor a."""
        return self.given_rate if self.alpha is None else self.alpha.sigmoid()

    @property
    def strength(self) -> float | Tensor:
        """The factor b."""
        return self.given_strength if self.beta is None else self.beta.sigmoid()

    def prepare(self, graph: Graph, x0: State) -> None:
        """Take S = A - I from the diffusion; linear reactions become part of the operator."""
        shape = tuple(x0.shape) if isinstance(x0, Tensor) else None
        if not isinstance(x0, Tensor) or x0.dim() < 2 or x0.shape[-1] != self.channels:
            raise ValueError(
                f"x0 is {shape or 'a tuple'}; this GREAD takes [nodes, {self.channels}]"
            )
        S = self.diffusion.operator
        linear = self.diffusion.affine and self.diffusion.source is None
        if not isinstance(S, SparseOperator) or not linear:
            raise ValueError(
                f"{self.diffusion.label} is not A x - x with a fixed matrix A; GREAD takes "
                'Heat("rw"), or a GRAND whose variant is "linear", without a source'
            )
        self.norm, a, b = self.diffusion.norm, self.rate, self.strength
        # A - A^2 = -S - S^2, whose rows sum to zero without a difference of ones.
        self.operator = Quadratic(S, 0.0, a - b, -b) if self.reaction == "bs" else S * a
        if self.reaction == "st":
            self.source = b * x0
        self._modules = {}
        kept = ("beta", "given_strength") if self.has_rest else ()
        self._parameters = {
            name: self._parameters[name] for name in kept if name in self._parameters
        }

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The pointwise reaction."""
        return self.strength * POINTWISE[self.reaction](x)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.channels}, reaction={self.reaction!r}"


def _best(
    solver: str, end: float, step: float, channels: int | None = None, **training: float
) -> Preset:
    settings = {"reaction": "bs", "per_channel": True}
    known = settings if channels is None else {"channels": channels, **settings}
    return Preset(known, solver, end, step, training)


PRESETS = {
    "Cora": _best("rk4", 3.790, 0.5, 64, learning_rate=0.0114, weight_decay=0.00801),
    "Citeseer": _best("rk4", 2.037, 0.2, 128, learning_rate=0.00295),
    "Texas": _best("euler", 1.461, 1.0, 128),
    "Wisconsin": _best("rk4", 1.746, 0.25, 256),
    "Cornell": _best("rk4", 0.1156, 0.2),
    "Film": _best("rk4", 0.307, 0.1),
    "Squirrel": _best("euler", 5.697, 0.75, 256),
    "Chameleon": _best("euler", 1.944, 1.5),
}
"""Best settings of the published code."""
