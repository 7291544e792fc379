"""Linear operators on node states: sparse matrices that know what kind of matrix they are."""

from neuralpde.operators.attention import Attention, attention
from neuralpde.operators.blocks import BlockOperator
from neuralpde.operators.bundle import BundleOperator
from neuralpde.operators.channels import ChannelScaled
from neuralpde.operators.directional import directional, fiedler
from neuralpde.operators.disagreement import disagreement
from neuralpde.operators.identity import identity
from neuralpde.operators.kronecker import Kronecker
from neuralpde.operators.laplacian import adjacency, laplacian
from neuralpde.operators.linear import Operator
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.orthogonal import orthogonal
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.polynomial import Polynomial, Series, function
from neuralpde.operators.product import gather_dot, multiply, multiply_transposed, products
from neuralpde.operators.quadratic import Quadratic
from neuralpde.operators.sheaf import sheaf_laplacian
from neuralpde.operators.skew import SkewAdjoint

__all__ = [
    "Attention",
    "BlockOperator",
    "BundleOperator",
    "ChannelScaled",
    "Kronecker",
    "Operator",
    "Pattern",
    "Polynomial",
    "Quadratic",
    "Series",
    "SkewAdjoint",
    "SparseOperator",
    "adjacency",
    "attention",
    "directional",
    "disagreement",
    "fiedler",
    "function",
    "gather_dot",
    "identity",
    "laplacian",
    "multiply",
    "multiply_transposed",
    "orthogonal",
    "products",
    "sheaf_laplacian",
]
