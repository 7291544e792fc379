"""Linear operators on node states: sparse matrices that know what kind of matrix they are."""

from neuralpde.operators.attention import Attention, attention
from neuralpde.operators.channels import ChannelScaled
from neuralpde.operators.directional import directional, fiedler
from neuralpde.operators.identity import identity
from neuralpde.operators.laplacian import adjacency, laplacian
from neuralpde.operators.linear import Operator
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.polynomial import Polynomial, Series, function
from neuralpde.operators.product import gather_dot, multiply, multiply_transposed, products

__all__ = [
    "Attention",
    "ChannelScaled",
    "Operator",
    "Pattern",
    "Polynomial",
    "Series",
    "SparseOperator",
    "adjacency",
    "attention",
    "directional",
    "fiedler",
    "function",
    "gather_dot",
    "identity",
    "laplacian",
    "multiply",
    "multiply_transposed",
    "products",
]
