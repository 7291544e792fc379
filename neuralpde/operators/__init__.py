"""Linear operators on node states: sparse matrices that know what kind of matrix they are."""

from neuralpde.operators.attention import Attention, attention
from neuralpde.operators.base import Combination, Operator
from neuralpde.operators.graphs import Graphs, Scalar
from neuralpde.operators.laplacian import adjacency, laplacian
from neuralpde.operators.operator import SparseOperator, identity
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.product import gather_dot, multiply, multiply_transposed, products
from neuralpde.operators.tags import Enclosure, Tags

__all__ = [
    "Attention",
    "Combination",
    "Enclosure",
    "Graphs",
    "Operator",
    "Pattern",
    "Scalar",
    "SparseOperator",
    "Tags",
    "adjacency",
    "attention",
    "gather_dot",
    "identity",
    "laplacian",
    "multiply",
    "multiply_transposed",
    "products",
]
