"""What cannot be asked of a sensitivity is refused before any work."""

import pytest
import torch

from analysis import sensitivity
from neuralpde import catalogue
from neuralpde.fields import Heat
from tests.test_sensitivity import normal

BAD = {
    "a node beyond": ({"sources": [4]}, "from 0 to 3"),
    "a negative node": ({"sources": [-1]}, "from 0 to 3"),
    "no source": ({"sources": []}, "at least one"),
    "a node twice": ({"sources": [1, 1]}, "twice"),
    "no number": ({"sources": [0.5]}, "integers"),
    "an unknown norm": ({"norm": "frob"}, "fro"),
    "no probe": ({"probes": 0}, "at least 1"),
    "probes of another norm": ({"probes": 2, "norm": "l1"}, "Frobenius"),
    "a part beyond": ({"part": 1}, "parts 0 to 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_asked_is_said(name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        sensitivity(Heat(), normal(4, 1), 1.0, catalogue.path(4), **options)


def test_large_graphs_want_their_sources_named() -> None:
    with pytest.raises(ValueError, match="name"):
        sensitivity(Heat(), torch.zeros(3001, 1), 1.0, catalogue.path(3001))
