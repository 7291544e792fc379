"""Unitary flows e^(-i t H): the tolerance against eigenvalues, batches, both ways, gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from neuralpde import Graph, catalogue
from neuralpde.operators import Operator, Pattern, SkewAdjoint, SparseOperator, products
from solvers.exact import propagate

DOUBLE, COMPLEX = torch.float64, torch.complex128
EPS = torch.finfo(DOUBLE).eps
GRAPHS = [
    catalogue.lollipop(6, 9),
    catalogue.star(40),
    Graph(torch.zeros(2, 0, dtype=torch.int64), 3),
    catalogue.ring(12),
]
BATCH = Graph.union(GRAPHS)


def hamiltonian(graph: Graph, norm: str, shift: float = 0.0) -> SparseOperator:
    return graph.laplacian(norm, dtype=DOUBLE).shifted(1.3, shift)


def root(H: Operator) -> Tensor:
    metric = torch.ones(H.num_nodes, dtype=DOUBLE) if H.metric is None else H.metric
    return metric.sqrt().unsqueeze(1)


class Modes:
    """The exact flow from an eigendecomposition."""

    def __init__(self, H: Operator) -> None:
        self.root = root(H)
        symmetric = self.root * H.to_dense() / self.root.T
        self.values, self.vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)

    def at(self, t: float, x: Tensor) -> Tensor:
        moved = self.vectors.T.to(COMPLEX) @ (self.root * x.to(COMPLEX))
        turned = torch.exp(-1j * t * self.values).unsqueeze(1) * moved
        return self.vectors.to(COMPLEX) @ turned / self.root


def ends(t: float) -> Tensor:
    return torch.tensor([0.0, t], dtype=DOUBLE)


def normal(nodes: int, channels: int = 2, dtype: torch.dtype = COMPLEX) -> Tensor:
    return torch.randn(nodes, channels, dtype=dtype)


@pytest.mark.parametrize("norm", ["comb", "rw", "sym"])
@pytest.mark.parametrize("shift", [0.0, -2.0, 40.0])
def test_the_tolerance_is_a_guarantee_in_both_directions_of_time(norm: str, shift: float) -> None:
    H = hamiltonian(GRAPHS[0], norm, shift)
    modes, x0 = Modes(H), normal(15)
    for t in (1e-3, 1.0, -18.3, 1e3):
        exact = modes.at(t, x0)
        for rtol in (1e-3, 1e-6, 1e-10):
            found = propagate(SkewAdjoint(H), x0, ends(t), rtol=rtol)
            off = (modes.root * (found.x[1] - exact)).norm()
            # The reference itself knows an eigenvalue to about eps |H|.
            slack = 4 * abs(t) * float(H.bound()) * EPS
            assert off <= (rtol + slack) * (modes.root * x0).norm(), (t, rtol)


@pytest.mark.parametrize("norm", ["comb", "sym"])
def test_the_smallest_possible_tolerance_is_kept_on_the_stiffest_modes(norm: str) -> None:
    # Of the star with n leaves: n + 1 (comb) and 2 (sym); of n nodes all joined: n and n / (n - 1).
    for n, graph in ((199, catalogue.star(200)), (9, catalogue.complete(9))):
        H = graph.laplacian(norm, dtype=DOUBLE)
        star = n == 199
        top = (n + 1.0 if star else n) if norm == "comb" else (2.0 if star else n / (n - 1))
        x0 = torch.ones(graph.num_nodes, 1, dtype=COMPLEX)
        x0[0] = -(n**0.5 if norm == "sym" else n) if star else 1.0 - n
        for t in (0.5, 30.0, 30.0 if star else 1e3):
            with pytest.raises(ValueError, match="smallest possible rtol") as refusal:
                propagate(SkewAdjoint(H), x0, ends(t), rtol=1e-17)
            rtol = float(str(refusal.value).split()[-1])
            found = propagate(SkewAdjoint(H), x0, ends(t), rtol=rtol).x[1]
            exact = complex(np.exp(-1j * (t * top))) * x0
            assert (found - exact).norm() <= rtol * x0.norm()


def test_single_precision_keeps_the_tolerance_on_a_hub() -> None:
    n = 300
    H = catalogue.star(n + 1).laplacian("comb", dtype=DOUBLE)
    x0 = torch.ones(n + 1, 1, dtype=torch.complex64)
    x0[0] = -n
    for z in (1.0, 30.0, 400.0):
        for rtol in (1e-1, 1e-2, 1e-3, 1e-5):
            found = propagate(SkewAdjoint(H), x0, ends(z / (n + 1)), rtol=rtol)
            assert found.x.dtype is torch.complex64
            exact = complex(np.exp(-1j * z)) * x0.to(COMPLEX)
            slack = 2 * torch.finfo(torch.float32).eps
            assert (found.x[1] - exact).norm() <= (rtol + slack) * x0.norm()


def test_norms_and_energies_are_conserved_and_backwards_returns() -> None:
    H = hamiltonian(GRAPHS[0], "rw", 0.7)
    x0, weight = normal(15), root(H)
    there = propagate(SkewAdjoint(H), x0, ends(50.0), rtol=1e-11).x[1]
    back = propagate(SkewAdjoint(H), there, ends(-50.0), rtol=1e-11).x[1]

    def energy(x: Tensor) -> float:
        return float((weight**2 * x.conj() * (H @ x)).real.sum())

    assert (there - x0).norm() > 0.5 * x0.norm()
    assert float((weight * there).norm()) == pytest.approx(float((weight * x0).norm()), rel=1e-10)
    assert energy(there) == pytest.approx(energy(x0), rel=1e-9)
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-9)


OWN_TIMES = torch.tensor([0.0, 0.3, 1.0, 1.1, 9.0], dtype=DOUBLE)[:, None] * torch.tensor(
    [1.0, -0.2, 3.0, -10.0], dtype=DOUBLE
)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.complex64, 1e-3), (COMPLEX, 1e-8)])
@pytest.mark.parametrize("channels", [1, 3, 20])
def test_a_batch_gives_bit_for_bit_what_its_graphs_give_alone(
    dtype: torch.dtype, rtol: float, channels: int
) -> None:
    x0 = normal(BATCH.num_nodes, channels, dtype)
    for norm in ("comb", "rw"):
        for times in (OWN_TIMES, torch.tensor([0.0, -1.0, -9.0], dtype=DOUBLE)):
            A = SkewAdjoint(hamiltonian(BATCH, norm))
            together, start = propagate(A, x0, times, rtol=rtol).x, 0
            for i, graph in enumerate(GRAPHS):
                own = slice(start, start := start + graph.num_nodes)
                alone = propagate(
                    SkewAdjoint(hamiltonian(graph, norm)),
                    x0[own],
                    times[:, i] if times.dim() == 2 else times,
                    rtol=rtol,
                ).x
                assert torch.equal(together[:, own], alone)


def test_many_saved_times_keep_the_tolerance_and_are_counted() -> None:
    H = hamiltonian(GRAPHS[0], "comb")
    modes, x0 = Modes(H), normal(15)
    times = torch.linspace(0, -60, 121, dtype=DOUBLE)
    before = products.total
    found = propagate(SkewAdjoint(H), x0, times, rtol=1e-8)
    assert products.total - before == found.products
    for t, x in zip(times.tolist(), found.x, strict=True):
        assert (x - modes.at(t, x0)).norm() <= 1e-8 * x0.norm()


@pytest.mark.parametrize("shape", [(), (2, 3), (0,), (40,)])
def test_any_trailing_shape_is_a_state(shape: tuple[int, ...]) -> None:
    H = hamiltonian(GRAPHS[0], "sym")
    x0 = torch.randn(15, *shape, dtype=COMPLEX)
    x = propagate(SkewAdjoint(H), x0, torch.tensor([0.0, 0.5, 3.0]), rtol=1e-10).x
    flow = torch.linalg.matrix_exp(-3j * H.to_dense())
    assert x.shape == (3, 15, *shape)
    torch.testing.assert_close(x[2], torch.tensordot(flow, x0, 1), rtol=0, atol=1e-8)


def rebuilt(like: SparseOperator, values: Tensor) -> SkewAdjoint:
    return SkewAdjoint(SparseOperator.tagged(like.pattern, values, like.tags, like.graphs))


@pytest.mark.parametrize("grad", ["auto", "tape"])
def test_gradients_of_everything_are_exact(grad: str) -> None:
    H = hamiltonian(catalogue.path(4), "rw", 0.4)
    t = torch.tensor([0.4, -1.1, 2.0], dtype=DOUBLE, requires_grad=True)

    def solve(values: Tensor, x: Tensor, t: Tensor) -> Tensor:
        moved = torch.cat([torch.zeros(1, dtype=DOUBLE), t])
        return propagate(rebuilt(H, values), x, moved, rtol=1e-10, grad=grad).x

    inputs = (H.values.detach().requires_grad_(), normal(4, 1).requires_grad_(), t)
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-6, fast_mode=True)
    if grad == "tape":
        assert torch.autograd.gradgradcheck(solve, inputs, atol=1e-5, fast_mode=True)


def test_gradients_at_high_degree_are_those_of_the_tape() -> None:
    H, x0 = hamiltonian(GRAPHS[0], "comb"), normal(15)
    found = []
    for grad in ("tape", "auto"):
        values, x = H.values.detach().requires_grad_(), x0.clone().requires_grad_()
        run = propagate(rebuilt(H, values), x, ends(60.0), rtol=1e-6, grad=grad)
        assert run.degree > 250
        found.append(torch.autograd.grad((run.x[1] * x0).imag.sum(), (values, x)))
    for ours, tape in zip(*found, strict=True):
        torch.testing.assert_close(ours, tape, rtol=1e-8, atol=1e-8 * float(tape.abs().max()))


def test_a_multiple_of_the_identity_turns_all_states_by_one_phase() -> None:
    values = torch.full((4,), 0.5, dtype=DOUBLE)
    H = SparseOperator(Pattern.identity(4), values, symmetric=True, enclosure=(0.5, 0.5))
    x0 = normal(4)
    found = propagate(SkewAdjoint(H), x0, ends(7.0), rtol=1e-12).x[1]
    torch.testing.assert_close(found, complex(np.exp(-3.5j)) * x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("complex x0", {"x0": torch.ones(15, 1, dtype=DOUBLE)}),
        ("no source", {"source": torch.ones(15, 1, dtype=COMPLEX)}),
        ("lanczos is for real", {"method": "lanczos"}),
        ("uniformisation is for real", {"method": "uniformisation"}),
    ],
)
def test_what_unitary_flows_do_not_take_is_refused(words: str, changes: dict[str, object]) -> None:
    A = SkewAdjoint(hamiltonian(GRAPHS[0], "comb"))
    given = {"x0": torch.ones(15, 1, dtype=COMPLEX), "times": ends(1.0), "rtol": 1e-4} | changes
    with pytest.raises(ValueError, match=words):
        propagate(A, **given)


def test_the_reason_says_that_the_flow_is_unitary() -> None:
    found = propagate(SkewAdjoint(hamiltonian(GRAPHS[0], "rw")), normal(15), ends(1.0), rtol=1e-4)
    assert "unitary, spectrum in [0, 2.6]" in found.reason
    assert "weighted by the metric" in found.reason
    assert found.method == "chebyshev"
