"""Vector fields on graphs: short classes over few building blocks."""

from neuralpde.fields.bundle import BundleDiffusion
from neuralpde.fields.coupling import Coupling
from neuralpde.fields.diffusion import Diffusion, Heat, Source
from neuralpde.fields.field import Field, Sum
from neuralpde.fields.grand import GRAND
from neuralpde.fields.layers import Layers
from neuralpde.fields.noise import Noise
from neuralpde.fields.pinned import Pinned
from neuralpde.fields.reaction import Reaction, allen_cahn, fisher
from neuralpde.fields.sheaf import SheafDiffusion
from neuralpde.fields.wave import Wave

__all__ = [
    "GRAND",
    "BundleDiffusion",
    "Coupling",
    "Diffusion",
    "Field",
    "Heat",
    "Layers",
    "Noise",
    "Pinned",
    "Reaction",
    "SheafDiffusion",
    "Source",
    "Sum",
    "Wave",
    "allen_cahn",
    "fisher",
]
