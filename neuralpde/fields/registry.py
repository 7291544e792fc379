"""Every field by name, with an example of it: what scripts, tables and tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.anisotropic import AnisotropicDiffusion
from neuralpde.fields.diffusion import Heat
from neuralpde.fields.field import Field, State
from neuralpde.fields.grand import GRAND
from neuralpde.fields.reaction import allen_cahn, fisher
from neuralpde.fields.transformer import TransformerFlow
from neuralpde.fields.varying import Varying
from neuralpde.fields.wave import Wave
from neuralpde.fields.wavelets import FilterBank, WaveletFilters
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


def _loosening(graph: Graph) -> Float[Tensor, "snapshots edges"]:
    """Weights that shrink to their share of the degrees at both ends, and come back."""
    w, (source, target) = graph.edge_weight, graph.edge_index
    degree = w.new_zeros(graph.num_nodes).index_add(0, target, w)
    return torch.stack([w, w / (degree[source] + degree[target]), w])


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
    "grand-sinkhorn": Entry(
        lambda channels: GRAND(channels, normalise="sinkhorn", tied=True),
        "GRAND",
        "x' = a (P(x0) x - x), rows and columns of P sum to 1",
        "Sander et al., AISTATS 2022, arXiv:2110.11773",
        "the same by a symmetric, doubly stochastic matrix: means are kept",
        20.0,
    ),
    "gad": Entry(
        lambda channels: AnisotropicDiffusion(channels, tau=torch.arange(1.0, channels + 1.0)),
        "AnisotropicDiffusion",
        "x' = -L x diag(tau)",
        "Elhag et al., 2022, arXiv:2205.00354",
        "heat with a time of its own for every channel",
        20.0,
        "patch",
    ),
    "transformer": Entry(
        lambda channels: TransformerFlow(channels),
        "TransformerFlow",
        "x' = sum_h A_h(x) x H_h",
        "Dovonon et al., 2024, arXiv:2401.04301",
        "attention with a matrix of channels: it may smooth or sharpen",
        10.0,
    ),
    "varying": Entry(
        lambda channels: Varying(_loosening, [0.0, 50.0, 100.0]),
        "Varying",
        "x' = -L(w(t)) x",
        "heat with weights that change in time",
        "heat on a graph whose hubs let go and take hold again",
        100.0,
        "patch",
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
    "wavelets": Entry(
        lambda channels: WaveletFilters(channels, FilterBank(scales=2, order=2, tol=1e-3)),
        "WaveletFilters",
        "x' = sum_j B_j act(B_j x Theta_j) - x, B_j = g(s_j L)",
        "Liu et al., WaveGC, 2024",
        "bands of frequencies, each mixed by itself",
        10.0,
    ),
}
"""The fields by the names that scripts take, in the order of the families."""
