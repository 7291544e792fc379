"""Blocks known from random probes: right on average, with the error that they tell."""

import math

import pytest
import torch

from analysis import sensitivity
from neuralpde import catalogue
from neuralpde.fields import GRAFF, AllenCahn, Heat
from tests.test_sensitivity import double, normal


def test_probes_are_right_on_average_within_their_errors() -> None:
    field, graph, x0 = double(lambda: GRAFF(3)), catalogue.path(3), normal(3, 3)
    whole = sensitivity(field, x0, 1.0, graph, sources=[0]).value[-1, 0]
    seed, many = torch.Generator().manual_seed(0), 400
    probed = sensitivity(field, x0, 1.0, graph, sources=[0], probes=many, generator=seed)
    gap = (probed.value[-1, 0].square() - whole.square()).abs()
    error = 2 * probed.value[-1, 0] * probed.error[-1, 0]
    assert bool((gap <= 3.5 * error + 1e-4).all())
    assert bool((error[:2] > 0).all())
    assert bool((error <= 1.5 * math.sqrt(2 / many) * whole.square()).all())
    assert f"{many} probes" in probed.method


@pytest.mark.slow
def test_standard_errors_are_the_spread_of_repeated_probes() -> None:
    field, graph, x0 = double(lambda: GRAFF(4)), catalogue.path(3), normal(3, 4)
    seed = torch.Generator().manual_seed(0)
    runs = [
        sensitivity(field, x0, 1.0, graph, sources=[0], probes=8, generator=seed) for _ in range(60)
    ]
    spread = torch.stack([run.value[-1, 0] for run in runs]).std(0)
    told = torch.stack([run.error[-1, 0] for run in runs]).mean(0)
    torch.testing.assert_close(told, spread, rtol=0.3, atol=1e-6)
    assert 0 < runs[0].relative_error < 0.5


def test_one_probe_tells_a_bound() -> None:
    field, graph, x0 = double(lambda: GRAFF(4)), catalogue.path(3), normal(3, 4)
    found = sensitivity(field, x0, 1.0, graph, sources=[0], probes=1)
    torch.testing.assert_close(found.error, found.value / math.sqrt(2))


def test_wide_states_are_probed_unless_channels_are_alike() -> None:
    graph, x0 = catalogue.path(3), normal(3, 12)
    wide = sensitivity(double(lambda: GRAFF(12)), x0, 0.1, graph, sources=[0])
    assert "4 probes" in wide.method
    for field in (Heat(), AllenCahn()):
        assert "probes" not in sensitivity(field, x0, 0.1, graph, sources=[0], probes=2).method
    exact = sensitivity(double(lambda: GRAFF(12)), x0, 0.1, graph, sources=[0], norm="l1")
    assert not exact.error.any()
