"""Phi functions of numbers and of operators, against multiple precision."""

import math

import mpmath
import numpy as np
import pytest
import torch
from modes import DOUBLE, EPS, chosen, dense, directed

from neuralpde import catalogue, solve
from neuralpde.fields import Diffusion, Reaction
from neuralpde.operators import products
from solvers.phi import Functions, phi


@pytest.mark.parametrize("k", [0, 1, 2])
def test_phi_is_right_to_rounding_near_zero_and_far_away(k: int) -> None:
    size = np.logspace(-12, 4, 200)
    w = np.concatenate([[0.0], -size, size[size < 500], [-0.999999, -1.0, 0.999999, 1.0]])
    with mpmath.workdps(60):
        exact = [chosen(k, value) for value in w.tolist()]
        off = [abs(mpmath.mpf(a) - b) for a, b in zip(phi(k, w).tolist(), exact, strict=True)]
        wrong = [e > 4 * EPS * abs(b) + 1e-300 for e, b in zip(off, exact, strict=True)]
    assert not any(wrong)
    assert np.isfinite(phi(k, np.array([-1e300]))).all()


@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
@pytest.mark.parametrize("reach", [1e-6, 1.0, 1e2, 1e4])
def test_the_bound_holds_whatever_the_step(norm: str, reach: float) -> None:
    graph = catalogue.lollipop(12, 25)
    A = -graph.laplacian(norm, dtype=DOUBLE)
    functions, x = Functions(A), torch.randn(37, 2, dtype=DOUBLE)
    h = np.array([-reach / A.spectrum()[0].item()])
    for k in (0, 1, 2):
        exact = dense(A, k, float(h[0]), x)
        for tail in (1e-2, 1e-4, 1e-8, 1e-12):
            degrees = functions.degrees(k, h, np.array([tail]))
            (found,) = functions(x, h, [(k, degrees)])
            off = functions.norms(found - exact) / functions.norms(x)
            assert off <= tail + 40 * EPS
            # It is no gift: a few degrees less break the bound.
            if tail == 1e-8 and degrees[0] > 20:
                (less,) = functions(x, h, [(k, degrees // 2)])
                assert functions.norms(less - exact) > tail * functions.norms(x)


def test_the_degree_grows_with_the_root_of_the_step() -> None:
    functions = Functions(-catalogue.path(5).laplacian("sym", dtype=DOUBLE))
    tail, h = np.array([1e-6]), np.array([1e2])
    for k in (0, 1, 2):
        small, large = (functions.degrees(k, scale * h, tail)[0] for scale in (1.0, 100.0))
        assert 7 < large / small < 11
        # sqrt(h Lambda log(2 / tail)), Lambda = 2.
        assert large < math.sqrt(2e4 * math.log(2 / 1e-6))


def test_several_functions_share_the_products() -> None:
    A = -catalogue.grid(5, 6).laplacian("comb", dtype=DOUBLE)
    functions, h, x = Functions(A), np.array([3.0]), torch.randn(30, 2, dtype=DOUBLE)
    wanted = [(k, functions.degrees(k, h, np.array([1e-9]))) for k in (0, 1, 2)]
    before = products.total
    found = functions(x, h, wanted)
    assert products.total - before == max(int(degrees[0]) for _, degrees in wanted)
    for (k, _), y in zip(wanted, found, strict=True):
        assert torch.allclose(y, dense(A, k, 3.0, x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("h", [0.0, 1e-9, 0.3, 40.0, 2000.0])
def test_generators_and_walks_go_by_uniformisation_with_positive_weights(h: float) -> None:
    graph = directed()
    walk = graph.adjacency("row", self_loops=1.0, dtype=DOUBLE)
    x = torch.rand(9, 2, dtype=DOUBLE)
    for A in (-graph.laplacian("rw", dtype=DOUBLE), walk):
        if A is walk and h > 100:
            continue
        functions = Functions(A)
        for k in (0, 1, 2):
            degrees = functions.degrees(k, np.array([h]), np.array([1e-10]))
            (found,) = functions(x, np.array([h]), [(k, degrees)])
            with mpmath.workdps(30):
                # phi_k of the matrix stands in the corner of an exponential.
                n = 9
                large = mpmath.zeros((k + 1) * n)
                large[:n, :n] = h * mpmath.matrix(A.to_dense().tolist())
                for block in range(k):
                    for i in range(n):
                        large[block * n + i, (block + 1) * n + i] = 1
                corner = mpmath.expm(large)[:n, k * n : (k + 1) * n]
                exact = torch.tensor((corner * mpmath.matrix(x.tolist())).tolist(), dtype=DOUBLE)
            grown = math.exp(h) if A is walk else 1.0
            assert (found - exact).abs().max() <= 2e-10 * grown * x.max()
            assert (found >= 0).all()


def test_operators_without_functions_are_refused_with_an_alternative() -> None:
    class Twisted(Diffusion):
        pass

    field = Twisted(lambda graph, x0: graph.adjacency("none")) + Reaction.allen_cahn()
    with pytest.raises(ValueError, match=r"undirected.*tsit5.*rkl2"):
        solve(field, torch.randn(9, 1, dtype=DOUBLE), 1.0, directed(), solver="etdrk2")
