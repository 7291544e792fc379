"""Chebyshev series: tolerances against eigenvalues and mpmath, gradients against the tape."""

import math

import mpmath
import pytest
import torch
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.operators import Pattern, SparseOperator
from solvers.exact import propagate

DOUBLE, SINGLE = torch.float64, torch.float32
EPS = torch.finfo(DOUBLE).eps


def undirected(edges: list[tuple[int, int]], nodes: int) -> Graph:
    forward = torch.tensor(edges).T
    return Graph(torch.cat([forward, forward.flip(0)], 1), nodes)


def lollipop_and_others() -> Graph:
    """A clique of 12 with a tail of 20, a path of 5, two isolated nodes."""
    clique = [(i, j) for i in range(12) for j in range(i)]
    tail = [(i, i + 1) for i in range(11, 31)]
    path = [(i, i + 1) for i in range(32, 36)]
    return undirected(clique + tail + path, 39)


def star(leaves: int) -> Graph:
    return undirected([(0, i) for i in range(1, leaves + 1)], leaves + 1)


def diffusion(graph: Graph, norm: str, dtype: torch.dtype = DOUBLE) -> SparseOperator:
    return -graph.laplacian(norm, dtype=dtype)


def weights_of_norm(A: SparseOperator) -> Tensor:
    metric = torch.ones(A.num_nodes, dtype=DOUBLE) if A.metric is None else A.metric
    return metric.sqrt().unsqueeze(1)


class Modes:
    """The exact solution from an eigendecomposition, its kernel set to zero to the bit."""

    def __init__(self, A: SparseOperator) -> None:
        self.root = weights_of_norm(A)
        symmetric = self.root * A.to_dense().double() / self.root.T
        self.values, self.vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        self.values[self.values.abs() < 1e-10] = 0.0

    def at(self, t: float, x: Tensor) -> Tensor:
        moved = self.vectors.T @ (self.root * x.double())
        return self.vectors @ ((t * self.values).exp().unsqueeze(1) * moved) / self.root

    def kernel(self) -> Tensor:
        vectors = self.vectors[:, self.values == 0] / self.root
        return vectors.sum(1, keepdim=True)


def error(A: SparseOperator, x: Tensor, exact: Tensor, x0: Tensor) -> float:
    """Largest error of any graph relative to max(|x0|, |x|), in the norm of the promise."""
    root = weights_of_norm(A)
    scale = max((root * x0).norm().item(), (root * exact).norm().item())
    return ((root * (x.double() - exact)).norm() / scale).item()


def ends(t: float) -> Tensor:
    return torch.tensor([0.0, t], dtype=DOUBLE)


def near_kernel(kernel: Tensor, noise: Tensor) -> Tensor:
    """A state 1e-3 away from the kernel."""
    return kernel / kernel.norm() + 1e-3 * noise / noise.norm()


@pytest.mark.parametrize("norm", ["comb", "sym", "rw", "augmented"])
@pytest.mark.parametrize("t", [1e-8, 1.0, 40.0, 1e3])
def test_the_tolerance_is_a_guarantee(norm: str, t: float) -> None:
    A = diffusion(lollipop_and_others(), norm)
    modes, reach = Modes(A), -t * A.spectrum()[0].item() / 2
    noise = torch.randn(39, 3, dtype=DOUBLE)
    for x0 in (noise, near_kernel(modes.kernel(), noise), modes.kernel()):
        exact = modes.at(t, x0)
        for rtol in (1e-3, 1e-6, 1e-10, 1e-12):
            # The reference itself knows an eigenvalue to about eps |A|.
            if rtol > 10 * (reach + 20) * EPS:
                found = propagate(A, x0, ends(t), rtol=rtol)
                assert error(A, found.x[1], exact, x0) <= rtol


@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
@pytest.mark.parametrize("t", [1.0, 1e3])
def test_the_smallest_possible_tolerance_is_kept_on_a_hub(norm: str, t: float) -> None:
    # Eigenvalues of the star with n leaves: 0, 1, n + 1 (comb); 0, 1, 2 (sym, rw).
    n, A = 200, diffusion(star(200), norm)
    top = n + 1.0 if norm == "comb" else 2.0
    degree = torch.ones(n + 1, 1, dtype=DOUBLE)
    degree[0] = n
    flat = torch.ones_like(degree) if norm != "sym" else degree.sqrt()
    metric = weights_of_norm(A) ** 2
    high = torch.ones_like(degree) if norm == "comb" else (degree**0.5 if norm == "sym" else flat)
    high = high.clone()
    high[0] *= -n if norm == "comb" else -1.0

    def exact(x: Tensor) -> Tensor:
        part = [v * (metric * v * x).sum(0) / (metric * v * v).sum(0) for v in (flat, high)]
        return part[0] + math.exp(-top * t) * part[1] + math.exp(-t) * (x - part[0] - part[1])

    floor = 4 * (t * -A.spectrum()[0].item() / 2 + 20) * EPS
    noise = torch.randn(n + 1, 2, dtype=DOUBLE)
    for x0 in (noise, near_kernel(flat, noise)):
        found = propagate(A, x0, ends(t), rtol=1.01 * floor)
        assert error(A, found.x[1], exact(x0), x0) <= 1.01 * floor


def test_tolerances_near_rounding_are_kept_in_multiple_precision() -> None:
    A = diffusion(undirected([(0, 1), (1, 2), (2, 3), (0, 2)], 5), "sym")
    x0 = near_kernel(Modes(A).kernel(), torch.randn(5, 1, dtype=DOUBLE))
    for t in (0.3, 30.0, 900.0):
        with mpmath.workdps(50):
            matrix = mpmath.expm(mpmath.matrix(A.to_dense().tolist()) * t)
            exact = matrix * mpmath.matrix(x0.tolist())
            for rtol in (1e-12, 4.1 * (t + 20) * EPS):
                found = propagate(A, x0, ends(t), rtol=rtol).x[1]
                off = mpmath.norm(mpmath.matrix(found.tolist()) - exact)
                assert off <= rtol * mpmath.norm(mpmath.matrix(x0.tolist()))


@pytest.mark.parametrize("norm", ["comb", "sym", "rw"])
@pytest.mark.parametrize("t", [1e-8, 1.0, 40.0, 1e3])
def test_single_precision_states_keep_the_tolerance_too(norm: str, t: float) -> None:
    A = diffusion(lollipop_and_others(), norm)
    modes, noise = Modes(A), torch.randn(39, 3, dtype=DOUBLE)
    for x0 in (noise.float(), near_kernel(modes.kernel(), noise).float()):
        exact = modes.at(t, x0)
        for rtol in (1e-3, 1e-4, 1e-5, 1e-6):
            found = propagate(A, x0, ends(t), rtol=rtol)
            assert found.x.dtype is SINGLE
            assert error(A, found.x[1], exact, x0) <= rtol


def test_the_reason_says_what_was_done() -> None:
    A, x0 = diffusion(star(5), "sym"), torch.randn(6, 1)
    plain = propagate(A, x0, ends(18.3), rtol=1e-4)
    assert f"degree {plain.degree} (z = 18.3" in plain.reason
    assert "Frobenius" in plain.reason
    assert "float64" not in plain.reason
    strict = propagate(A, x0, ends(18.3), rtol=1e-9).reason
    assert "in float64" in strict
    assert "rounded to torch.float32" in strict
    walk = propagate(diffusion(star(5), "rw"), x0, ends(1), rtol=1e-4)
    assert "weighted by the metric" in walk.reason


def test_tolerances_below_rounding_are_refused_with_the_smallest_possible_one() -> None:
    A, x0 = diffusion(star(5), "sym"), torch.randn(6, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"smallest possible rtol is 9\.2e-13") as refusal:
        propagate(A, x0, ends(1e3), rtol=9e-13)
    propagate(A, x0, ends(1e3), rtol=float(str(refusal.value).split()[-1]))


def test_backward_diffusion_is_refused_and_growth_is_not() -> None:
    A, x0 = diffusion(star(5), "comb"), torch.randn(6, 2, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"backward diffusion.*e\^6"):
        propagate(A, x0, torch.tensor([0.0, -1.0]), rtol=1e-4)
    with pytest.raises(ValueError, match="backward diffusion"):
        propagate(star(5).laplacian("comb", dtype=DOUBLE), x0, ends(1.0), rtol=1e-4)
    # An adjacency has modes that grow and modes that decay, in both directions of time.
    B = star(5).adjacency("none", dtype=DOUBLE)
    for t in (3.0, -3.0):
        for rtol in (1e-3, 1e-9):
            found = propagate(B, x0, ends(t), rtol=rtol)
            assert error(B, found.x[1], Modes(B).at(t, x0), x0) <= rtol


def test_growth_is_judged_by_the_state_it_leads_to() -> None:
    B = star(5).adjacency("sym", dtype=DOUBLE)
    top = torch.tensor([5.0, 1, 1, 1, 1, 1], dtype=DOUBLE).sqrt().unsqueeze(1)
    # Rounding grows as much as the state does: by e^18 = 6.6e7.
    found = propagate(B, top, ends(18.0), rtol=1e-9)
    assert torch.allclose(found.x[1], math.exp(18) * top, rtol=1e-9)
    fading = torch.tensor([-math.sqrt(5), 1, 1, 1, 1, 1], dtype=DOUBLE).unsqueeze(1)
    with pytest.raises(ValueError, match="smallest possible rtol"):
        propagate(B, fading, ends(18.0), rtol=1e-9)
    with pytest.raises(ValueError, match="shorter time"):
        propagate(B, fading, ends(50.0), rtol=1e-9)


def test_operators_without_a_spectrum_to_speak_of() -> None:
    x0 = torch.randn(4, 2, dtype=DOUBLE)
    empty = diffusion(Graph(torch.zeros(2, 0, dtype=torch.int64), 4), "sym")
    assert torch.equal(propagate(empty, x0, ends(5.0), rtol=1e-9).x[1], x0)
    scaled = SparseOperator(
        Pattern.identity(4),
        torch.full((4,), 0.5, dtype=DOUBLE),
        symmetric=True,
        enclosure=(0.5, 0.5),
    )
    found = propagate(scaled, x0, ends(2.0), rtol=1e-12).x[1]
    assert torch.allclose(found, math.e * x0, rtol=1e-12)


def test_a_wrong_enclosure_is_noticed() -> None:
    L = star(5).laplacian("comb", dtype=DOUBLE)
    wrong = SparseOperator(L.pattern, -L.values, symmetric=True, enclosure=(-3.0, 0.0))
    with pytest.raises(ArithmeticError, match="correct its enclosure"):
        propagate(wrong, torch.randn(6, 1, dtype=DOUBLE), ends(10.0), rtol=1e-6)


def problem(nodes: int = 6) -> tuple[SparseOperator, Tensor, Tensor]:
    """A metric operator with gradients, a state, and a source."""
    L = undirected([(0, 1), (1, 2), (2, 3), (3, 0), (1, 3)], nodes).laplacian("rw", dtype=DOUBLE)
    x, b = torch.randn(2, nodes, 1, dtype=DOUBLE).unbind()
    return L, x.requires_grad_(), b.requires_grad_()


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Counts the states that autograd keeps."""

    def __init__(self, shape: torch.Size) -> None:
        self.count = 0

        def pack(tensor: Tensor) -> Tensor:
            self.count += tensor.shape == shape
            return tensor

        super().__init__(pack, lambda tensor: tensor)


def rebuilt(like: SparseOperator, values: Tensor) -> SparseOperator:
    return SparseOperator.tagged(like.pattern, values, like.tags, like.graphs)


@pytest.mark.parametrize("grad", ["auto", "tape"])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_gradients_of_everything_are_exact(grad: str, shift: float) -> None:
    A, x, b = problem()
    A = (-A).shifted(1.0, shift)
    t = torch.tensor([0.0, 0.4, 1.1, 5.0], dtype=DOUBLE, requires_grad=True)

    def solve(values: Tensor, x: Tensor, b: Tensor, t: Tensor) -> Tensor:
        moved = torch.cat([torch.zeros(1, dtype=DOUBLE), t[1:]])
        return propagate(rebuilt(A, values), x, moved, rtol=1e-10, source=b, grad=grad).x

    inputs = (A.values.detach().requires_grad_(), x, b, t)
    assert torch.autograd.gradcheck(solve, inputs, atol=1e-7, fast_mode=grad == "tape")


def test_the_tape_can_be_differentiated_twice() -> None:
    A, x, b = problem(4)
    t = torch.tensor([0.4, 1.1], dtype=DOUBLE, requires_grad=True)

    def solve(values: Tensor, x: Tensor, b: Tensor, t: Tensor) -> Tensor:
        moved = torch.cat([torch.zeros(1, dtype=DOUBLE), t])
        return propagate(rebuilt(A, values), x, moved, rtol=1e-10, source=b, grad="tape").x

    inputs = ((-A).values.detach().requires_grad_(), x, b, t)
    A = -A
    assert torch.autograd.gradgradcheck(solve, inputs, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize(("dtype", "near"), [(DOUBLE, 1e-9), (SINGLE, 1e-3)])
def test_gradients_at_high_degree_are_those_of_the_tape_in_constant_memory(
    dtype: torch.dtype, near: float
) -> None:
    L = lollipop_and_others().laplacian("comb", dtype=DOUBLE)
    x0, kept, gradients = torch.randn(39, 2).to(dtype), [], []
    for grad, t in (("tape", 800.0), ("auto", 800.0), ("auto", 8.0)):
        values = (-L).values.detach().to(dtype).requires_grad_()
        saved = Saved(x0.shape)
        with saved:
            found = propagate(rebuilt(-L, values), x0, ends(t), rtol=1e-3, grad=grad)
        (gradient,) = torch.autograd.grad((found.x[1] ** 2).sum(), values)
        gradients.append(gradient.double())
        kept.append(saved.count)
        assert t < 800 or found.degree > 300
    assert (gradients[0] - gradients[1]).norm() <= near * gradients[0].norm()
    assert kept[1] == kept[2] < kept[0] / 50


def test_gradients_in_a_batch_are_those_of_its_graphs() -> None:
    graphs = [star(4), lollipop_and_others()]
    batch = Graph.union(graphs)
    t = torch.tensor([[0.0, 0.0], [1.0, 7.0], [2.0, 50.0]], dtype=DOUBLE, requires_grad=True)
    x0 = torch.randn(batch.num_nodes, 2, dtype=DOUBLE, requires_grad=True)
    g = torch.randn(3, *x0.shape, dtype=DOUBLE)
    A = diffusion(batch, "comb")
    values = A.values.detach().requires_grad_()
    found = propagate(rebuilt(A, values), x0, t, rtol=1e-9).x
    gt, gx, gv = torch.autograd.grad((found * g).sum(), (t, x0, values))
    nodes = entries = 0
    for i, graph in enumerate(graphs):
        own = diffusion(graph, "comb")
        v = own.values.detach().requires_grad_()
        rows = slice(nodes, nodes + graph.num_nodes)
        alone = propagate(rebuilt(own, v), x0[rows], t[:, i], rtol=1e-9).x
        ht, hx, hv = torch.autograd.grad((alone * g[:, rows]).sum(), (t, x0, v))
        assert torch.allclose(gt[1:, i], ht[1:, i], rtol=1e-8, atol=1e-12)
        assert torch.allclose(gx[rows], hx[rows], rtol=1e-8, atol=1e-12)
        assert torch.allclose(gv[entries : entries + len(v)], hv, rtol=1e-6, atol=1e-9)
        nodes, entries = rows.stop, entries + len(v)
