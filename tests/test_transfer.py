"""Transfer between meshes of one space: second order where the scale is right, else none."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from analysis import transfer_error
from analysis.transfer import scaled
from neuralpde import Graph, catalogue
from neuralpde.fields import Heat, allen_cahn

F64 = torch.float64


def cells(n: int) -> Tensor:
    """Means over pairs of cells, `[n, 2n]`."""
    S = torch.zeros(n, 2 * n, dtype=F64)
    rows = torch.arange(n)
    S[rows, 2 * rows] = S[rows, 2 * rows + 1] = 0.5
    return S


def bump(n: int) -> Tensor:
    at = (torch.arange(n, dtype=F64) + 0.5) / n
    return torch.stack([torch.cos(math.pi * at) + 0.3, torch.exp(-20 * (at - 0.4) ** 2)], 1)


def order(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.parametrize("field", [Heat(), allen_cahn(0.1, 1.0)], ids=["heat", "allen-cahn"])
def test_flows_on_paths_transfer_with_second_order(field: Heat) -> None:
    errors = [
        transfer_error(
            field, scaled(catalogue.path(n), 1.0 * n**2), scaled(catalogue.path(2 * n), 4.0 * n**2),
            cells(n), bump(2 * n), 0.05, rtol=1e-9,
        )
        for n in (8, 16, 32)
    ]  # fmt: skip
    assert errors[0] < 0.03
    for p in order(errors):
        assert p == pytest.approx(2.0, abs=0.1)


def test_flows_on_grids_transfer_with_second_order() -> None:
    errors = []
    for n in (6, 12, 24):
        graphs = [scaled(catalogue.grid(m, m), 1.0 * m**2) for m in (n, 2 * n)]
        x = bump(2 * n)
        x0 = (x[:, None, :1] * x[None, :, 1:]).reshape(-1, 1)
        S = torch.kron(cells(n), cells(n))
        errors.append(transfer_error(Heat(), *graphs, S, x0, 0.02, rtol=1e-9))
    for p in order(errors):
        assert p == pytest.approx(2.0, abs=0.15)


def test_an_error_is_that_of_the_eigenvalues_on_rings() -> None:
    """A wave e^(i theta) decays by the eigenvalue of its ring, (n / pi sin(pi / n))^2 for 1."""
    x0 = torch.cos(2 * math.pi * torch.arange(32, dtype=F64) / 32)[:, None]
    rings = [scaled(catalogue.ring(n), (n / (2 * math.pi)) ** 2) for n in (16, 32)]
    found = transfer_error(Heat(), *rings, torch.arange(0, 32, 2), x0, 2.0, rtol=1e-11)
    coarse, fine = ((n / math.pi * math.sin(math.pi / n)) ** 2 for n in (16, 32))
    assert found == pytest.approx(abs(math.expm1(2.0 * (fine - coarse))), rel=1e-6)


def test_without_the_scale_of_the_space_nothing_transfers() -> None:
    for n in (8, 16, 32):
        graphs = catalogue.path(n), catalogue.path(2 * n)
        assert transfer_error(Heat(), *graphs, cells(n), bump(2 * n), 0.05 * n**2) > 0.1


def test_half_cells_at_the_ends_need_half_a_measure() -> None:
    """Nodes on the ends of an interval stand for half a cell: M^-1 L is then of second order."""

    def mesh(n: int, halves: bool) -> Graph:
        graph, h = catalogue.path(n), 1.0 / (n - 1)
        m = torch.full((n,), h, dtype=F64)
        if halves:
            m[0] = m[-1] = h / 2
        weight = torch.full((graph.edge_index.shape[1],), 1 / h, dtype=F64)
        return Graph(graph.edge_index, n, weight, node_weight=m)

    orders = {}
    for halves in (True, False):
        errors = []
        for n in (9, 17, 33):
            at = torch.linspace(0, 1, 2 * n - 1, dtype=F64)[:, None]
            x0 = torch.cos(math.pi * at) + at
            nodes = torch.arange(0, 2 * n - 1, 2)
            graphs = mesh(n, halves), mesh(2 * n - 1, halves)
            errors.append(transfer_error(Heat(), *graphs, nodes, x0, 0.1, rtol=1e-9))
        orders[halves] = order(errors)
    assert min(orders[True]) > 1.85
    assert max(orders[False]) < 1.3


def test_random_neighbours_on_a_torus_transfer_slower_than_meshes() -> None:
    points = torch.rand(1600, 2, dtype=F64, generator=torch.Generator().manual_seed(0))

    def near(n: int) -> Graph:
        k = round(0.8 * n**0.5)
        angle = 2 * math.pi * points[:n]
        flat = torch.cat([angle.cos(), angle.sin()], 1) / (2 * math.pi)
        graph = catalogue.knn(flat, k)
        # Means over discs of k points: L f tends to -k^2 / (8 pi n) times the Laplacian of f.
        return scaled(graph, 8 * math.pi * n / k**2)

    errors = []
    for n in (200, 400, 800):
        x0 = torch.cos(2 * math.pi * points[: 2 * n, :1])
        errors.append(transfer_error(Heat(), near(n), near(2 * n), torch.arange(n), x0, 0.02))
    mesh = []
    for m in (14, 20):
        x = torch.cos(2 * math.pi * torch.arange(2 * m, dtype=F64) / (2 * m))
        x0 = x[:, None].expand(-1, 2 * m).reshape(-1, 1)
        graphs = [scaled(catalogue.torus(k, k), 1.0 * k**2) for k in (m, 2 * m)]
        node = torch.arange(4 * m * m).view(2 * m, 2 * m)[::2, ::2].flatten()
        mesh.append(transfer_error(Heat(), *graphs, node, x0, 0.02))
    assert errors[2] < errors[0]
    assert errors[0] > 5 * mesh[0]  # 200 random points against 196 of a mesh
    assert errors[1] > 5 * mesh[1]  # 400 against 400
    assert math.log2(errors[0] / errors[2]) / 1.0 < 2.0  # h^2 is n^-1: 2 for a mesh


def test_samplings_must_fit() -> None:
    graph = catalogue.path(4)
    for S, rows in ((torch.arange(3), 4), (torch.ones(4, 5), 4), (torch.arange(4), 5)):
        with pytest.raises(ValueError, match="the graphs ask for"):
            transfer_error(Heat(), graph, graph, S, torch.zeros(rows, 1), 1.0)


def test_scaling_keeps_all_else() -> None:
    graph = catalogue.grid(2, 3).to(dtype=F64)
    found = scaled(graph, 3.0)
    torch.testing.assert_close(
        found.laplacian().to_dense(), 3 * graph.laplacian().to_dense(), rtol=0, atol=0
    )
    assert torch.equal(found.pos, graph.pos)
    batch = scaled(Graph.union([graph, graph]), 2.0)
    assert batch.num_graphs == 2
    areas = catalogue.sphere(1)
    assert torch.equal(scaled(areas, 2.0).node_weight, areas.node_weight)
