"""Every field by name, with an example of it: what scripts, tables and tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.bundle import BundleDiffusion
from neuralpde.fields.diffusion import Heat
from neuralpde.fields.field import Field, State
from neuralpde.fields.grand import GRAND
from neuralpde.fields.reaction import allen_cahn, fisher
from neuralpde.fields.sheaf import SheafDiffusion
from neuralpde.fields.wave import Wave
from neuralpde.graph import Graph


@dataclass(frozen=True)
class Entry:
    """One field with the settings of its example.

    Attributes:
        make: Makes the field for a number of channels; weights are drawn by torch's generator.
        name: The public name of the class or function.
        equation: As in the papers.
        paper: Authors, venue, arXiv id.
        shows: What its picture is known for.
        end: An end time at which that can be seen.
        start: Kind of first state: "noise" (normal), "patch" (one on some nodes, else zero) or
            "signs" (small noise around zero).
        channels: Channels of the example; None where any number does.
        smooth: Whether f has no kinks.
        steps: Steps of a fixed grid, for fields that need one (stochastic ones).
    """

    make: Callable[[int], Field]
    name: str
    equation: str
    paper: str
    shows: str
    end: float
    start: str = "noise"
    channels: int | None = None
    smooth: bool = True
    steps: int | None = None


def first_state(field: Field, graph: Graph, x: Float[Tensor, "nodes channels"]) -> State:
    """Bring a state `[nodes, channels]` into the form that the field takes.

    Stalks repeat the state along their axis, second order adds zero velocities.

    >>> x = torch.ones(2, 3)
    >>> [tuple(part.shape) for part in first_state(Wave(), Graph(torch.zeros(2, 0).long(), 2), x)]
    [(2, 3), (2, 3)]
    """
    if field.is_complex:
        x = torch.complex(x, torch.zeros_like(x))
    if field.stalk is not None:
        x = x[:, None, :].expand(-1, field.stalk, -1).contiguous()
    return (x, torch.zeros_like(x)) if field.order == 2 else x


FIELDS: dict[str, Entry] = {
    "heat": Entry(
        lambda channels: Heat(),
        "Heat",
        "x' = -L x",
        "Fourier 1822; on graphs: Kondor and Lafferty, ICML 2002",
        "heat spreads and evens out",
        200.0,
        "patch",
    ),
    "grand": Entry(
        lambda channels: GRAND(channels),
        "GRAND",
        "x' = a (A(x0) x - x) + b x0",
        "Chamberlain et al., ICML 2021, arXiv:2106.10934",
        "features average along attention",
        20.0,
    ),
    "grand-nonlinear": Entry(
        lambda channels: GRAND(channels, variant="nonlinear"),
        "GRAND",
        "x' = a (A(x) x - x) + b x0",
        "Chamberlain et al., ICML 2021, arXiv:2106.10934",
        "the same, attention following the state",
        20.0,
    ),
    "sheaf": Entry(
        lambda channels: SheafDiffusion(channels, 2),
        "SheafDiffusion",
        "x' = -L_F x",
        "Bodnar et al., NeurIPS 2022, arXiv:2202.04579",
        "stalks agree along edges through learned maps, not with each other",
        20.0,
    ),
    "sheaf-nonlinear": Entry(
        lambda channels: SheafDiffusion(channels, 2, variant="nonlinear"),
        "SheafDiffusion",
        "x' = -elu(L_F(x) (I (x) W1) x W2)",
        "Bodnar et al., NeurIPS 2022, arXiv:2202.04579",
        "the same, maps following the state and weights mixing it",
        2.0,
        smooth=False,
    ),
    "bundle": Entry(
        lambda channels: BundleDiffusion(channels, 2),
        "BundleDiffusion",
        "x' = -O^T (L (x) I) O x",
        "Bamberger et al., ICLR 2025, arXiv:2405.15540",
        "heat flow in the frames of the nodes: no consensus in sight, yet one in the frames",
        20.0,
    ),
    "wave": Entry(
        lambda channels: Wave(),
        "Wave",
        "x'' = -c^2 L x - damping x'",
        "Friedman and Tillich, Pacific J. Math. 216 (2004)",
        "a front runs over the graph and comes back",
        30.0,
        "patch",
    ),
    "allen-cahn": Entry(
        lambda channels: allen_cahn(),
        "allen_cahn",
        "x' = -d L x + r (x - x^3)",
        "Allen and Cahn, Acta Metall. 27 (1979), 1085",
        "phases -1 and 1 separate",
        15.0,
        "signs",
    ),
    "fisher": Entry(
        lambda channels: fisher(),
        "fisher",
        "x' = -d L x + r x (1 - x)",
        "Fisher, Ann. Eugenics 7 (1937), 355",
        "a front of growth",
        15.0,
        "patch",
    ),
}
"""The fields by the names that scripts take, in the order of the families."""
