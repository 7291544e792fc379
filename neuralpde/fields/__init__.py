"""Vector fields on graphs: short classes over few building blocks."""

from neuralpde.fields.anisotropic import AnisotropicDiffusion
from neuralpde.fields.coupling import Coupling
from neuralpde.fields.diffusion import Diffusion, Heat, Source
from neuralpde.fields.field import Field, Sum
from neuralpde.fields.grand import GRAND
from neuralpde.fields.layers import Layers
from neuralpde.fields.noise import Noise
from neuralpde.fields.pinned import Pinned
from neuralpde.fields.reaction import Reaction, allen_cahn, fisher
from neuralpde.fields.transformer import TransformerFlow
from neuralpde.fields.varying import Varying
from neuralpde.fields.wave import Wave
from neuralpde.fields.wavelets import FilterBank, WaveletFilters

__all__ = [
    "GRAND",
    "AnisotropicDiffusion",
    "Coupling",
    "Diffusion",
    "Field",
    "FilterBank",
    "Heat",
    "Layers",
    "Noise",
    "Pinned",
    "Reaction",
    "Source",
    "Sum",
    "TransformerFlow",
    "Varying",
    "Wave",
    "WaveletFilters",
    "allen_cahn",
    "fisher",
]
