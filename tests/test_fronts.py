"""Work against precision: interpolation between points, and who is ahead."""

import math

import numpy as np
import pytest

from analysis.fronts import ahead, least_work


def line(order: float, cost: float) -> list[tuple[float, float]]:
    """Five points of a method whose error is (cost / work)^order, from coarse to fine."""
    return [((cost / work) ** order, work) for work in (10.0, 30.0, 100.0, 300.0, 1000.0)]


@pytest.mark.parametrize("error", [0.3, 1e-2, 3e-4])
def test_between_points_of_a_power_law_the_law_holds(error: float) -> None:
    points = line(2.0, 8.0)[::-1]
    assert least_work({"heun": points}, error) == pytest.approx(8 * error**-0.5, rel=1e-12)


def test_the_cheapest_solver_counts() -> None:
    low, high = line(1.0, 2.0), line(4.0, 30.0)
    for error in np.logspace(-1, -5, 9):
        both = least_work({"euler": low, "rk4": high}, error)
        assert both == min(least_work({"euler": low}, error), least_work({"rk4": high}, error))


def test_a_detour_is_no_cost() -> None:
    # The coarse point costs more than the fine one, which serves for it as well.
    points = {"odd": [(1e-2, 50.0), (1e-4, 20.0), (1e-6, 80.0)]}
    assert least_work(points, 1e-2) == least_work(points, 0.5) == pytest.approx(20.0, rel=1e-12)


def test_beyond_the_finest_point_there_is_nothing() -> None:
    assert math.isinf(least_work({"heun": line(2.0, 8.0)}, 1e-5))
    assert math.isinf(least_work({}, 1.0))


def test_peers_are_ahead_by_more_than_the_margin_only() -> None:
    mine = {"heun": line(2.0, 8.0)}
    theirs = {"quick": [(1e-2, 75.0), (1e-2, 79.0)], "precise": [(1e-7, 5e5)]}
    found = ahead(mine, theirs)
    assert [(name, work) for name, _, work, _ in found] == [("quick", 75.0), ("precise", 5e5)]
    assert found[0][3] == pytest.approx(80.0, rel=1e-12)
    assert ahead(mine, {"quick": [(1e-2, 75.0)]}, margin=1.1) == []
