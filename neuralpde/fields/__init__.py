"""Vector fields on graphs: short classes over few building blocks."""

from neuralpde.fields.allen_cahn import AllenCahn, allen_cahn
from neuralpde.fields.anisotropic import AnisotropicDiffusion
from neuralpde.fields.antisymmetric import AntiSymmetricDGN
from neuralpde.fields.best_response import BestResponse
from neuralpde.fields.bundle import BundleDiffusion
from neuralpde.fields.channel_weights import SymmetricWeights
from neuralpde.fields.conductances import Conductances
from neuralpde.fields.controlled import ControlledDiffusion, time_then_space
from neuralpde.fields.coupling import Coupling
from neuralpde.fields.diffusion import Diffusion, Heat, Source
from neuralpde.fields.edge_weights import EdgeWeights
from neuralpde.fields.field import Field, Sum
from neuralpde.fields.gated import Gated, GradientGating
from neuralpde.fields.gradient_flow import GradientFlow
from neuralpde.fields.graff import GRAFF
from neuralpde.fields.grand import GRAND
from neuralpde.fields.gread import GREAD
from neuralpde.fields.kuramoto import Kuramoto, order_parameter
from neuralpde.fields.langevin import DoubleWell, Langevin
from neuralpde.fields.layers import Layers
from neuralpde.fields.noise import Noise
from neuralpde.fields.ornstein_uhlenbeck import OrnsteinUhlenbeck
from neuralpde.fields.oscillator import GraphCON, Oscillator
from neuralpde.fields.pinned import Pinned
from neuralpde.fields.reaction import Reaction, fisher
from neuralpde.fields.schroedinger import Schroedinger
from neuralpde.fields.sheaf import SheafDiffusion
from neuralpde.fields.transformer import TransformerFlow
from neuralpde.fields.varying import Varying
from neuralpde.fields.wave import Wave
from neuralpde.fields.wavelets import FilterBank, WaveletFilters

__all__ = [
    "GRAFF",
    "GRAND",
    "GREAD",
    "AllenCahn",
    "AnisotropicDiffusion",
    "AntiSymmetricDGN",
    "BestResponse",
    "BundleDiffusion",
    "Conductances",
    "ControlledDiffusion",
    "Coupling",
    "Diffusion",
    "DoubleWell",
    "EdgeWeights",
    "Field",
    "FilterBank",
    "Gated",
    "GradientFlow",
    "GradientGating",
    "GraphCON",
    "Heat",
    "Kuramoto",
    "Langevin",
    "Layers",
    "Noise",
    "OrnsteinUhlenbeck",
    "Oscillator",
    "Pinned",
    "Reaction",
    "Schroedinger",
    "SheafDiffusion",
    "Source",
    "Sum",
    "SymmetricWeights",
    "TransformerFlow",
    "Varying",
    "Wave",
    "WaveletFilters",
    "allen_cahn",
    "fisher",
    "order_parameter",
    "time_then_space",
]
