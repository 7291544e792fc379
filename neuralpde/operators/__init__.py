"""Linear operators on node states: sparse matrices that know what kind of matrix they are."""

from neuralpde.operators.attention import Attention, attention
from neuralpde.operators.blocks import BlockOperator
from neuralpde.operators.bundle import BundleOperator
from neuralpde.operators.identity import identity
from neuralpde.operators.laplacian import adjacency, laplacian
from neuralpde.operators.linear import Operator
from neuralpde.operators.operator import SparseOperator
from neuralpde.operators.orthogonal import orthogonal
from neuralpde.operators.pattern import Pattern
from neuralpde.operators.product import gather_dot, multiply, multiply_transposed, products
from neuralpde.operators.sheaf import sheaf_laplacian

__all__ = [
    "Attention",
    "BlockOperator",
    "BundleOperator",
    "Operator",
    "Pattern",
    "SparseOperator",
    "adjacency",
    "attention",
    "gather_dot",
    "identity",
    "laplacian",
    "multiply",
    "multiply_transposed",
    "orthogonal",
    "products",
    "sheaf_laplacian",
]
