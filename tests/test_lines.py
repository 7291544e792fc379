"""Dot products in lines, against double precision."""

import pytest
import torch

from solvers.lines import SHORT, dots, lines


@pytest.mark.parametrize("count", [1, 255, SHORT, SHORT + 1, 40_000, 40_960])
def test_lines_add_up_to_the_dot_product(count: int) -> None:
    x, y = torch.randn(2, count, generator=torch.Generator().manual_seed(0))
    wanted, size = (x.double() * y.double()).sum(), (x * y).abs().double().sum()
    assert (dots(lines(x), lines(y)).double().sum() - wanted).abs() < 1e-6 * size
    same = dots(*[lines(x)] * 2).double().sum()
    torch.testing.assert_close(same, x.double().square().sum(), rtol=1e-6, atol=0)


def test_one_large_entry_does_not_swallow_the_others() -> None:
    x = torch.ones(40_000)
    x[7] = 4096.0
    wanted = x.double().square().sum()
    assert abs(dots(lines(x), lines(x.clone())).double().sum() / wanted - 1) < 4e-6
