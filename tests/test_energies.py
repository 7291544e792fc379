"""The Dirichlet forms of one state against dense x'Lx, sums over edges and rounding."""

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from neuralpde import Graph, catalogue, dirichlet_energy
from neuralpde.energies import CONVENTIONS, DirichletForm
from solvers.sampled import Sampled
from tests.strategies import batches, dense, graphs, quietly

NORMS = list(CONVENTIONS)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_edges(graph: Graph, x: Tensor) -> float:
    """The sum over arcs of w |x_i - x_j|^2 / 2, arc by arc."""
    total = 0.0
    for (source, target), weight in zip(
        graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True
    ):
        total += weight * float((x[source] - x[target]).abs().square().sum()) / 2
    return total


def by_matrix(graph: Graph, x: Tensor, norm: str) -> float:
    """tr(x^H L x) with L built here."""
    A = dense(graph)
    A = A - A.diag().diag()
    d = A.sum(1)
    if norm in ("comb", "rw"):
        L = d.diag() - A
    else:
        extra = 1.0 if norm == "augmented" else 0.0
        root = torch.where(d + extra > 0, (d + extra).rsqrt(), 0.0)
        live = torch.where(d + extra > 0, 1.0, 0.0)
        L = live.diag() - root[:, None] * (A + extra * torch.eye(len(d)).double()) * root
    flat = x.reshape(len(x), -1)
    return float((flat.conj() * (L.to(flat.dtype) @ flat)).sum().real)


@settings(max_examples=40)
@given(graphs())
def test_every_form_is_its_matrix(graph: Graph) -> None:
    graph = graph.to(dtype=torch.float64)
    for shape in ((), (3,), (2, 2)):
        x = normal(graph.num_nodes, *shape)
        for norm in NORMS:
            found = dirichlet_energy(x, graph, norm=norm)
            assert found.shape == (1,)
            assert found.dtype == torch.float64
            assert float(found) == pytest.approx(by_matrix(graph, x, norm), rel=1e-11, abs=1e-11)
        assert float(dirichlet_energy(x, graph)) == pytest.approx(by_edges(graph, x), rel=1e-11)


@settings(max_examples=30)
@given(graphs(directed=True))
def test_directed_energies_are_sums_over_arcs(graph: Graph) -> None:
    graph, x = graph.to(dtype=torch.float64), normal(graph.num_nodes, 2)
    found = float(DirichletForm(graph, "comb")(x))
    assert found == pytest.approx(by_edges(graph, x), rel=1e-11, abs=1e-12)
    assert found >= 0
    assert float(DirichletForm(graph, "rw")(x)) == pytest.approx(found, rel=1e-12)
    if graph.directed:
        for norm in ("sym", "augmented"):
            with pytest.raises(ValueError, match="undirected"):
                DirichletForm(graph, norm)


@settings(max_examples=20)
@given(graphs())
def test_complex_energies_add_their_parts(graph: Graph) -> None:
    graph = graph.to(dtype=torch.float64)
    x = torch.complex(normal(graph.num_nodes, 2), normal(graph.num_nodes, 2, seed=1))
    for norm in NORMS:
        form = DirichletForm.of(graph, norm)
        assert float(form(x)) == pytest.approx(by_matrix(graph, x, norm), rel=1e-11, abs=1e-11)
        both = float(form(x.real.contiguous())) + float(form(x.imag.contiguous()))
        assert float(form(x)) == pytest.approx(both, rel=1e-11, abs=1e-12)


@settings(max_examples=20)
@given(batches())
def test_a_batch_has_the_energies_of_its_graphs(batch: Graph) -> None:
    batch, x = batch.to(dtype=torch.float64), normal(batch.num_nodes, 2)
    labels = torch.zeros(batch.num_nodes).long() if batch.batch is None else batch.batch
    for norm in NORMS:
        form = DirichletForm.of(batch, norm)
        for g in range(batch.num_graphs):
            rows = torch.nonzero(labels == g)[:, 0]
            keep = labels[batch.edge_index[0]] == g
            edges = batch.edge_index[:, keep] - rows[0]
            own = quietly(edges, len(rows), batch.edge_weight[keep]).to(dtype=torch.float64)
            want = by_matrix(own, x[rows], norm)
            assert float(form(x)[g]) == pytest.approx(want, rel=1e-11, abs=1e-11)


@settings(max_examples=30)
@given(graphs())
def test_what_is_left_of_a_state_has_no_part_in_the_kernel(graph: Graph) -> None:
    graph, x = graph.to(dtype=torch.float64), normal(graph.num_nodes, 2)
    for norm in NORMS:
        form = DirichletForm.of(graph, norm)
        left = form.deviation(x)
        L = graph.laplacian(norm).to_dense()
        values, vectors = torch.linalg.eigh(L if norm != "rw" else graph.laplacian().to_dense())
        kernel = vectors[:, values < 1e-10]
        if norm != "rw":
            torch.testing.assert_close(left, x - kernel @ (kernel.T @ x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(L @ left, L @ x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(form.deviation(left), left, rtol=1e-9, atol=1e-11)
        parts = form.parts(x)
        weight = 1.0 if form.mass is None else form.mass[:, None]
        assert float(parts.square) == pytest.approx(float((weight * x**2).sum()), rel=1e-11)
        assert float(parts.deviation) == pytest.approx(
            float((weight * left**2).sum()), rel=1e-10, abs=1e-12
        )


def test_random_walk_diffusion_keeps_the_degree_weighted_mean() -> None:
    graph, x = catalogue.star(6).to(dtype=torch.float64), normal(6, 1)
    form, degree = DirichletForm(graph, "rw"), graph.degree
    mean = (degree[:, None] * x).sum() / degree.sum()
    torch.testing.assert_close(form.deviation(x), x - mean)


def test_a_node_measure_weights_the_norm_and_not_the_energy() -> None:
    mass = torch.tensor([1.0, 5.0, 0.5, 2.0], dtype=torch.float64)
    ring = catalogue.ring(4)
    graph = Graph(ring.edge_index, node_weight=mass).to(dtype=torch.float64)
    x = normal(4, 2)
    parts = DirichletForm(graph, "comb").parts(x)
    assert float(parts.energy) == pytest.approx(by_edges(ring, x), rel=1e-12)
    assert float(parts.square) == pytest.approx(float((mass[:, None] * x**2).sum()), rel=1e-12)
    mean = (mass[:, None] * x).sum(0) / mass.sum()
    torch.testing.assert_close(DirichletForm(graph, "comb").deviation(x), x - mean)


FAMILY = [
    catalogue.grid(9, 9), catalogue.star(60), catalogue.ring(50), catalogue.barbell(8, 3),
    Graph.union([catalogue.path(20), catalogue.complete(9), catalogue.path(1)]),
]  # fmt: skip


@pytest.mark.parametrize("graph", FAMILY, ids=["grid", "star", "ring", "barbell", "batch"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("columns", [4, 40])
def test_single_precision_holds_near_consensus(graph: Graph, norm: str, columns: int) -> None:
    double = graph.to(dtype=torch.float64)
    form = DirichletForm.of(double, norm)
    single = DirichletForm.of(graph.to(dtype=torch.float32), norm)
    level = form.kernel if norm in ("sym", "augmented") else torch.ones(graph.num_nodes)
    x = (level.double()[:, None] * (1 + 1e-6 * normal(graph.num_nodes, columns))).float()
    # The same state in both precisions: only the evaluation is compared.
    true, found = form(x.double()), single(x)
    alive = true > 1e-13
    assert alive.any()
    if norm in ("comb", "rw"):
        torch.testing.assert_close(found[alive], true[alive], rtol=1e-2, atol=0)
    else:
        # The kernel itself is rounded: eps of it, against a signal of 1e-6.
        torch.testing.assert_close(found[alive], true[alive], rtol=0.1, atol=0)
    far = 1 + 1e-2 * normal(graph.num_nodes, columns).float()
    torch.testing.assert_close(single(far), form(far.double()), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_in_single(dtype: torch.dtype) -> None:
    graph = catalogue.grid(5, 5)
    x = normal(25, 3).to(dtype)
    for norm in NORMS:
        found = dirichlet_energy(x, graph, norm=norm)
        want = by_matrix(graph, x.double(), norm)
        assert float(found) == pytest.approx(want, rel=1e-5)


@settings(max_examples=20)
@given(graphs(min_nodes=2))
def test_energies_are_never_negative(graph: Graph) -> None:
    for dtype in (torch.float32, torch.float64):
        own = graph.to(dtype=dtype)
        for norm in NORMS:
            form = DirichletForm.of(own, norm)
            level = form.kernel[:, None] * 1e3
            random = [normal(graph.num_nodes, columns).to(dtype) for columns in (2, 40)]
            for x in (*random, level, level.repeat(1, 40)):
                parts = form.parts(x)
                assert float(parts.energy) >= -1e-3 * torch.finfo(dtype).eps * float(parts.square)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sampled_looks_are_those_of_products(
    norm: str, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mass = torch.linspace(0.5, 2.0, 44) if weighted and norm == "comb" else None
    ring, grid = catalogue.ring(20), catalogue.grid(4, 6)
    edges = torch.cat([ring.edge_index, grid.edge_index + 20], 1)
    graph = Graph(edges, 44, node_weight=mass)
    double = DirichletForm.of(graph.to(dtype=torch.float64), norm)
    level = double.kernel[:, None].float()
    for share in (0.0, 0.9, 1.1, 30.0):
        x = double.deviation(normal(44, 64)).float()
        # The kernel has two vectors of length one: |P x|^2 is `share` times the rest.
        size = float(double.parts(x.double()).deviation)
        x = x + level * (share * size / (2 * 64)) ** 0.5
        true, sizes = double.parts(x.double()), []
        form = DirichletForm(graph, norm)
        looks = [form.look(x)]
        assert form._sampled is not None
        # A state far from consensus is not copied.
        assert (form._kept is None) == (share < 1.0)
        looks.append(form.look(x, near=True))
        assert form._kept is not None
        monkeypatch.setattr(Sampled, "suits", staticmethod(lambda x, places: False))
        form = DirichletForm(graph, norm)
        looks.append(form.look(x))
        assert form._sampled is None
        monkeypatch.undo()
        for look in looks:
            sizes.append(float(look.kernel / look.square))
            torch.testing.assert_close(look.energy, true.energy, rtol=1e-6, atol=0)
            torch.testing.assert_close(look.square, true.square, rtol=1e-6, atol=0)
            torch.testing.assert_close(look.deviation, true.deviation, rtol=1e-5, atol=0)
        assert sizes == pytest.approx(sizes[:1] * 3, abs=1e-6)


def test_a_state_off_the_kernel_may_be_thought_near_it() -> None:
    form = DirichletForm(catalogue.ring(8), "comb")
    x = torch.tensor([1.0, -1.0] * 4)[:, None].expand(8, 32).contiguous()
    look = form.look(x, near=True)
    assert form._kept is not None
    assert (look.energy.item(), look.square.item(), look.kernel.item()) == (1024.0, 256.0, 0.0)


def test_one_form_reads_states_of_every_kind_in_turn() -> None:
    form = DirichletForm(catalogue.grid(6, 7), "sym")
    fresh = [DirichletForm(catalogue.grid(6, 7), "sym") for _ in range(6)]
    wide = normal(42, 40)
    states = [wide.float(), wide, wide[:, :3].float(), 1e30 * wide.float(), wide.float(), wide]
    for x, other in zip(states, fresh, strict=True):
        torch.testing.assert_close(form.look(x).energy, other.look(x).energy, equal_nan=True)
        torch.testing.assert_close(form.parts(x).energy, other.parts(x).energy)


@settings(max_examples=20)
@given(graphs(min_nodes=2))
def test_a_known_slope_stands_for_the_product(graph: Graph) -> None:
    graph, x = graph.to(dtype=torch.float64), normal(graph.num_nodes, 3)
    for norm in ("comb", "rw", "sym", "augmented"):
        form = DirichletForm.of(graph, norm)
        slope = -(graph.laplacian(norm) @ x)
        weight = 1.0 if form.mass is None else form.mass[:, None]
        found = form.parts(x, slope * weight).energy
        torch.testing.assert_close(found, form(x), rtol=1e-9, atol=1e-10)


@settings(max_examples=12)
@given(graphs(min_nodes=2, connected=True))
def test_the_energy_has_the_gradient_2Lx(graph: Graph) -> None:
    assume(graph.num_edges > 0)
    graph = graph.to(dtype=torch.float64)
    x = normal(graph.num_nodes, 2).requires_grad_()
    for norm in NORMS:
        assert torch.autograd.gradcheck(lambda x, norm=norm: dirichlet_energy(x, graph, norm), x)
        (found,) = torch.autograd.grad(dirichlet_energy(x, graph, norm).sum(), x)
        L = graph.laplacian("comb" if norm == "rw" else norm)
        torch.testing.assert_close(found, 2 * (L @ x.detach()), rtol=1e-9, atol=1e-9)
    z = torch.complex(normal(graph.num_nodes, 1), normal(graph.num_nodes, 1, seed=4))
    assert torch.autograd.gradcheck(lambda z: dirichlet_energy(z, graph), z.requires_grad_())


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(ValueError, match="unknown norm 'combi'; did you mean 'comb'"):
        dirichlet_energy(torch.ones(3, 1), catalogue.path(3), norm="combi")


def test_the_convention_says_which_matrix() -> None:
    graph = catalogue.path(3)
    texts = [DirichletForm.of(graph, norm).convention for norm in NORMS]
    assert len(set(texts)) == len(texts)
    for norm, text in zip(NORMS, texts, strict=True):
        assert "tr(x'Lx)" in text
        assert text.startswith("comb" if norm == "rw" else norm)
    assert DirichletForm.of(graph, "sym") is DirichletForm.of(graph, "sym")


def test_a_tuple_state_has_the_energy_of_its_first_part() -> None:
    graph, x = catalogue.ring(5).to(dtype=torch.float64), normal(5, 2)
    assert float(DirichletForm.of(graph)((x, 7 * x))) == pytest.approx(by_edges(graph, x))
