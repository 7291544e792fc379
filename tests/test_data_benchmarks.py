import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from analysis import ollivier
from neuralpde.data import Benchmark, load

REFERENCE = Path(__file__).parent / "references" / "graph_ricci_curvature.json"

# Nodes, columns undirected and loop-free, features, classes, components; the README beside the
# data has them.
COUNTS = {
    "Cora": (2708, 10556, 1433, 7, 78),
    "PubMed": (19717, 88648, 500, 3, 1),
    "Texas": (183, 558, 1703, 5, 1),
    "Wisconsin": (251, 900, 1703, 5, 1),
    "Cornell": (183, 554, 1703, 5, 1),
    "Chameleon": (2277, 62742, 2325, 5, 1),
    "Minesweeper": (10000, 78804, 7, 2, 1),
    "Photo": (7650, 238162, 745, 8, 136),
    "chameleon_filtered": (890, 17708, 2325, 5, 1),
}
DIRECTED = {"Texas": 325, "Wisconsin": 515, "Cornell": 298, "Chameleon": 36101}
ENERGIES = {  # tr(X'LX), tr(X'L_sym X), |X|^2, largest degree
    "Cora": (160963, 41590.435039, 49216, 168),
    "PubMed": (10879.058609, 2655.324607, 3203.670958, 171),
    "Texas": (35169, 11841.048039, 15266, 104),
    "Wisconsin": (65974, 18230.908341, 24057, 122),
    "Cornell": (38579, 13537.976241, 17240, 94),
    "Chameleon": (971700, 28681.815541, 29157, 732),
    "Minesweeper": (52564, 6671.442864, 10000, 8),
    "Photo": (37760830, 1003174.406312, 1979909, 1434),
}
SPLITS = {
    "Cora": (140, 500, 1000),
    "PubMed": (60, 500, 1000),
    "Texas": (87, 59, 37),
    "Cornell": (87, 59, 37),
    "Wisconsin": (120, 80, 51),
    "Chameleon": (1092, 729, 456),
    "Minesweeper": (5000, 2500, 2500),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def sizes(benchmark: Benchmark) -> list[list[int]]:
    masks = (benchmark.train_mask, benchmark.val_mask, benchmark.test_mask)
    return [mask.view(len(mask), -1).sum(0).tolist() for mask in masks]


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name: str, data_root: Path, cache: Path) -> None:
    found = load(name, data_root, cache=cache)
    nodes, columns, features, classes, components = COUNTS[name]
    graph = found.graph
    assert (graph.num_nodes, graph.edge_index.shape[1]) == (nodes, columns)
    assert (graph.num_edges, graph.num_self_loops, graph.directed) == (columns // 2, 0, False)
    assert found.x.shape == (nodes, features)
    assert found.num_classes == classes
    assert graph.components[1] == components
    assert graph.edge_weight.unique().tolist() == [1.0]


@pytest.mark.parametrize("name", DIRECTED)
def test_raw_directions_are_there_on_request(name: str, data_root: Path, cache: Path) -> None:
    graph = load(name, data_root, directed=True, cache=cache).graph
    assert graph.directed
    assert graph.num_edges + graph.num_self_loops == DIRECTED[name]
    assert graph.num_self_loops > 0


@pytest.mark.parametrize("name", ENERGIES)
def test_dirichlet_energies_are_the_reference_ones(name: str, data_root: Path, cache: Path) -> None:
    found = load(name, data_root, cache=cache)
    comb, sym, square, degree = ENERGIES[name]
    x = found.x.double()
    graph = found.graph.like(x)
    source, target = found.graph.edge_index.numpy()
    adjacency = scipy.sparse.coo_array(
        (np.ones(len(source)), (target, source)), (graph.num_nodes, graph.num_nodes)
    ).tocsr()
    for norm, reference in (("comb", comb), ("sym", sym)):
        laplacian = scipy.sparse.csgraph.laplacian(adjacency, normed=norm == "sym")
        ours = float((x * (graph.laplacian(norm) @ x)).sum())
        theirs = float((x.numpy() * (laplacian @ x.numpy())).sum())
        assert ours == pytest.approx(theirs, rel=1e-11)
        assert ours == pytest.approx(reference, rel=1e-10, abs=1e-6)
    assert float((x**2).sum()) == pytest.approx(square, rel=1e-9)
    assert graph.degree.max() == degree


@pytest.mark.parametrize("name", SPLITS)
def test_splits_have_the_published_sizes(name: str, data_root: Path, cache: Path) -> None:
    found = sizes(load(name, data_root, cache=cache))
    assert [set(counts) for counts in found] == [{size} for size in SPLITS[name]]


@pytest.mark.parametrize(
    ("name", "expected"), [("Cora", (1192, 796, 497)), ("PubMed", (9463, 6310, 3944))]
)
def test_ten_splits_of_planetoid_sets(
    name: str, expected: tuple[int, int, int], data_root: Path, cache: Path
) -> None:
    found = load(name, data_root, split="geom-gcn", cache=cache)
    assert sizes(found) == [[size] * 10 for size in expected]


def test_photo_has_no_splits(data_root: Path, cache: Path) -> None:
    photo = load("photo", data_root, cache=cache)
    assert (photo.train_mask, photo.val_mask, photo.test_mask) == (None, None, None)


def test_embedded_minnesota_is_the_file(data_root: Path) -> None:
    graph = load("minnesota").graph
    with np.load(data_root / "geometric" / "minnesota.npz") as z:
        pairs = {*map(tuple, z["edge_index"].T.tolist()), (348, 354), (354, 348)}
        assert {*map(tuple, graph.edge_index.T.tolist())} == pairs
        assert torch.equal(graph.pos, torch.from_numpy(z["pos"]))


def test_ollivier_on_cora_is_that_of_graph_ricci_curvature(data_root: Path, cache: Path) -> None:
    known = json.loads(REFERENCE.read_text())["Cora"]
    edges = torch.tensor(known["edges"]).T
    found = ollivier(load("Cora", data_root, cache=cache).graph, edges)
    expected = torch.tensor(known["ollivier 0.5"], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
