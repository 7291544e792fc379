"""Vector fields on graphs: short classes over few building blocks."""

from neuralpde.fields.antisymmetric import AntiSymmetricDGN
from neuralpde.fields.coupling import Coupling
from neuralpde.fields.diffusion import Diffusion, Heat, Source
from neuralpde.fields.field import Field, Sum
from neuralpde.fields.grand import GRAND
from neuralpde.fields.kuramoto import Kuramoto, order_parameter
from neuralpde.fields.layers import Layers
from neuralpde.fields.noise import Noise
from neuralpde.fields.oscillator import GraphCON, Oscillator
from neuralpde.fields.pinned import Pinned
from neuralpde.fields.reaction import Reaction, allen_cahn, fisher
from neuralpde.fields.schroedinger import Schroedinger
from neuralpde.fields.wave import Wave

__all__ = [
    "GRAND",
    "AntiSymmetricDGN",
    "Coupling",
    "Diffusion",
    "Field",
    "GraphCON",
    "Heat",
    "Kuramoto",
    "Layers",
    "Noise",
    "Oscillator",
    "Pinned",
    "Reaction",
    "Schroedinger",
    "Source",
    "Sum",
    "Wave",
    "allen_cahn",
    "fisher",
    "order_parameter",
]
