"""Graphs with a name: families with known spectra, random and neighbour graphs, surfaces."""

from neuralpde.catalogue.families import (
    barbell,
    bipartite,
    complete,
    grid,
    hypercube,
    lollipop,
    path,
    ring,
    star,
    torus,
    tree,
)
from neuralpde.catalogue.naming import named
from neuralpde.catalogue.samples import knn, random_pairs, sbm
from neuralpde.catalogue.spectra import eigenvalues
from neuralpde.catalogue.surfaces import sphere, torus_surface

__all__ = [
    "barbell",
    "bipartite",
    "complete",
    "eigenvalues",
    "grid",
    "hypercube",
    "knn",
    "lollipop",
    "named",
    "path",
    "random_pairs",
    "ring",
    "sbm",
    "sphere",
    "star",
    "torus",
    "torus_surface",
    "tree",
]
