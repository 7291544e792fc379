"""Every field by name, with an example of it: what scripts, tables and tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralpde.fields.allen_cahn import AllenCahn
from neuralpde.fields.anisotropic import AnisotropicDiffusion
from neuralpde.fields.antisymmetric import AntiSymmetricDGN
from neuralpde.fields.best_response import BestResponse
from neuralpde.fields.bundle import BundleDiffusion
from neuralpde.fields.controlled import ControlledDiffusion
from neuralpde.fields.diffusion import Heat
from neuralpde.fields.field import Field, State
from neuralpde.fields.gated import GradientGating
from neuralpde.fields.graff import GRAFF
from neuralpde.fields.grand import GRAND
from neuralpde.fields.gread import GREAD
from neuralpde.fields.kuramoto import Kuramoto
from neuralpde.fields.langevin import DoubleWell, Langevin
from neuralpde.fields.ornstein_uhlenbeck import OrnsteinUhlenbeck
from neuralpde.fields.oscillator import GraphCON
from neuralpde.fields.reaction import fisher
from neuralpde.fields.schroedinger import Schroedinger
from neuralpde.fields.sheaf import SheafDiffusion
from neuralpde.fields.transformer import TransformerFlow
from neuralpde.fields.varying import Varying
from neuralpde.fields.wave import Wave
from neuralpde.fields.wavelets import FilterBank, WaveletFilters
from neuralpde.graph import Graph
from solvers.signal import Signal


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
        view: What a picture shows of the state: "value", "modulus" or "phase".
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
    view: str = "value"


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


def _tide(graph: Graph, x0: State) -> Signal:
    """Every node is driven up and down, with its degree for a strength."""
    first = x0[0] if isinstance(x0, tuple) else x0
    times = torch.linspace(0.0, 40.0, 41, dtype=torch.float64)
    tide = torch.sin(2 * torch.pi * times / 10.0).to(first)
    return Signal(times, tide.view(-1, 1, 1) * graph.degree.to(first).view(1, -1, 1), "cubic")


def _repelling(channels: int) -> GRAFF:
    """W with eigenvalues of 0 or below, and nothing else."""
    return GRAFF(channels, "neg_prod", external=False)


def _swinging(channels: int) -> GraphCON:
    """W = I, so that no pair of channels drives another."""
    field = GraphCON(channels, act=torch.tanh, stiffness=1.5, damping=0.1)
    field.coupling.weight.data = torch.eye(channels)
    return field


def _following(channels: int) -> SheafDiffusion:
    """W2 = I, so that the flow goes down."""
    field = SheafDiffusion(channels, 2, variant="nonlinear")
    field.right.data = torch.eye(channels)
    return field


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
    "sheaf": Entry(
        lambda channels: SheafDiffusion(channels, 2),
        "SheafDiffusion",
        "x' = -L_F x",
        "Bodnar et al., NeurIPS 2022, arXiv:2202.04579",
        "stalks agree along edges through learned maps, not with each other",
        20.0,
    ),
    "sheaf-nonlinear": Entry(
        _following,
        "SheafDiffusion",
        "x' = -elu(L_F(x) (I (x) W1) x W2)",
        "Bodnar et al., NeurIPS 2022, arXiv:2202.04579",
        "the same with maps that follow the state: their energy falls, the norm stays",
        20.0,
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
    "graphcon": Entry(
        _swinging,
        "GraphCON",
        "x'' = act(A x W^T) - gamma x - alpha x'",
        "Rusch et al., ICML 2022, arXiv:2202.02296",
        "features swing and die out by damping, not by smoothing: the Rayleigh quotient stays up",
        30.0,
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
    "kuramoto": Entry(
        lambda channels: Kuramoto(lambda graph, x0: x0, coupling=4.0, norm="row"),
        "Kuramoto",
        "theta_i' = omega_i + K sum_j a_ij sin(theta_j - theta_i)",
        "Kuramoto 1984; on graphs: Nguyen et al., AISTATS 2024, arXiv:2311.03260",
        "neighbours fall into step: into one rhythm, not into one phase",
        20.0,
        view="phase",
    ),
    "schroedinger": Entry(
        lambda channels: Schroedinger(),
        "Schroedinger",
        "psi' = -i (rate L + V) psi",
        "Schroedinger 1926; on graphs: Farhi and Gutmann, Phys. Rev. A 58 (1998), 915",
        "a wave packet spreads and never fades: norm and energy stay",
        30.0,
        "patch",
        view="modulus",
    ),
    "g2": Entry(
        lambda channels: GradientGating(Heat("rw")),
        "GradientGating",
        "x' = tau(x) (F(x) - x), tau_ik = tanh(sum_j |x_jk - x_ik|^p)",
        "Rusch et al., ICLR 2023, arXiv:2210.00513",
        "neighbours approach each other ever more slowly, like t^(-1/p)",
        50.0,
    ),
    "graff": Entry(
        _repelling,
        "GRAFF",
        "x' = A x W - x Omega",
        "Di Giovanni et al., TMLR 2023, arXiv:2206.10991",
        "repulsion along negative eigenvalues of W sharpens: the Rayleigh quotient rises",
        6.0,
    ),
    "allen-cahn": Entry(
        lambda channels: AllenCahn(),
        "AllenCahn",
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
    "gread-bs": Entry(
        lambda channels: GREAD(channels, diffusion=Heat("sym"), rate=0.3, strength=1.0),
        "GREAD",
        "x' = a (A x - x) + b (A - A^2) x",
        "Choi et al., ICML 2023, arXiv:2211.14208",
        "rough modes blur while smooth ones sharpen: those with l < 1 - a / b grow",
        10.0,
    ),
    "gread-z": Entry(
        lambda channels: GREAD(channels, "z", diffusion=Heat("rw"), rate=0.2, strength=2.0),
        "GREAD",
        "x' = a (A x - x) + b x^2 (1 - x)",
        "Choi et al., ICML 2023, arXiv:2211.14208",
        "a flame front: what is small stays small until it is heated",
        30.0,
        "patch",
    ),
    "adgn": Entry(
        lambda channels: AntiSymmetricDGN(channels, Heat("sym", rate=0.05), 0.0, bias=False),
        "AntiSymmetricDGN",
        "x' = act((W - W^T - gamma I) x + A x V^T + b)",
        "Gravina et al., ICLR 2023, arXiv:2210.09789",
        "channels turn instead of fading; what is lost, the weak heat flow smooths",
        10.0,
    ),
    "ornstein-uhlenbeck": Entry(
        lambda channels: OrnsteinUhlenbeck(scale=0.3, pull=0.05),
        "OrnsteinUhlenbeck",
        "dX = -(c L + k I) (X - m) dt + s dW",
        "Uhlenbeck and Ornstein, Phys. Rev. 36 (1930), 823",
        "a patch is forgotten, and differences settle at the level of the noise",
        20.0,
        "patch",
        steps=400,
    ),
    "langevin": Entry(
        lambda channels: Langevin(DoubleWell(0.5, 2.0), temperature=0.05),
        "Langevin",
        "dX = -grad E(X) dt + sqrt(2 T) dW",
        "Langevin, C. R. Acad. Sci. 146 (1908), 530",
        "noise leaves the barrier between two wells; phases form and jump",
        20.0,
        "signs",
        steps=800,
    ),
    "best-response": Entry(
        lambda channels: BestResponse(
            1.0, beta=0.85, network=lambda graph, x0: graph.adjacency("col")
        ),
        "BestResponse",
        "x' = b + beta G x - x",
        "Ballester, Calvo-Armengol and Zenou, Econometrica 74 (2006), 1403",
        "actions settle at the players' centrality; with columns of G summing to 1, PageRank",
        30.0,
        "patch",
    ),
    "controlled": Entry(
        lambda channels: ControlledDiffusion(_tide, decay=0.2),
        "ControlledDiffusion",
        "x' = -rate L x - decay x + u(t)",
        "Kidger et al., NeurIPS 2020, arXiv:2005.08926",
        "a signal comes in at hubs; their neighbours follow later and less",
        40.0,
        "signs",
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
