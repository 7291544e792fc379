from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from strategies import dense

from neuralpde import data


def test_karate_is_that_of_networkx() -> None:
    reference = nx.karate_club_graph()
    club = data.load("karate")
    expected = nx.to_numpy_array(reference, weight=None)
    np.testing.assert_array_equal(dense(club.graph), expected)
    officer = [reference.nodes[node]["club"] == "Officer" for node in range(34)]
    assert club.y.tolist() == officer
    assert torch.equal(club.x, torch.eye(34))
    assert (club.num_classes, club.train_mask) == (2, None)


def test_minnesota_has_the_published_spectrum() -> None:
    graph = data.minnesota()
    matrix = dense(graph).numpy()
    eigenvalues = np.linalg.eigvalsh(np.diag(matrix.sum(1)) - matrix)
    assert graph.num_edges == 3304
    assert eigenvalues[1] == pytest.approx(8.43734e-4, rel=1e-5)
    assert eigenvalues[-1] == pytest.approx(6.87955, rel=1e-6)


def test_minnesota_unconnected_is_the_file_as_it_was() -> None:
    graph, joined = data.minnesota(connect=False), data.minnesota()
    assert (graph.num_edges, graph.components[1]) == (3303, 2)
    assert graph.edge_weight.unique(return_counts=True)[1].tolist() == [6598, 8]
    assert joined.edge_weight.unique().tolist() == [1.0]
    added = dense(joined) - (dense(graph) > 0).double()
    assert added.nonzero().tolist() == [[348, 354], [354, 348]]
    assert graph.pos[0].tolist() == [-97.207, 49.001]


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown data set 'Corra'; did you mean 'Cora'"):
        data.load("Corra")
    with pytest.raises(
        ValueError, match=r"unknown data set 'zzz'\. Known: Chameleon, CiteSeer, Cora"
    ):
        data.load("zzz")


def test_sets_without_files_say_what_they_need(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pass root=.*Planetoid/Cora/raw"):
        data.load("cora")
    with pytest.raises(
        FileNotFoundError, match=r"Planetoid/Cora/geom-gcn/raw.*datasets\.Planetoid"
    ):
        data.load("Cora", tmp_path, split="geom-gcn")
    with pytest.raises(FileNotFoundError, match=r"HeterophilousFiltered/chameleon_filtered\.npz"):
        data.load("chameleon_filtered", tmp_path)


def test_splits_a_set_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="Cora has no split 'random'; choose one of public, geom"):
        data.load("Cora", split="random")
    with pytest.raises(ValueError, match="Texas has no split 'geom-gcn'; leave split=None"):
        data.load("Texas", split="geom-gcn")


@pytest.fixture
def webkb(tmp_path: Path) -> Path:
    """A tiny Texas in the raw format: 0 -> 1 listed twice, 1 -> 0, 2 -> 1, a loop at 2."""
    raw = tmp_path / "root" / "texas" / "raw"
    raw.mkdir(parents=True)
    lines = ["node_id\tfeature\tlabel", "0\t1,0\t0", "1\t0,1\t1", "2\t1,1\t0", ""]
    (raw / "out1_node_feature_label.txt").write_text("\n".join(lines))
    edges = ["source\ttarget", "0\t1", "0\t1", "1\t0", "2\t1", "2\t2", ""]
    (raw / "out1_graph_edges.txt").write_text("\n".join(edges))
    masks = {
        f"{part}_mask": np.eye(3, dtype=np.int8)[i]
        for i, part in enumerate(("train", "val", "test"))
    }
    for split in range(10):
        np.savez(raw / f"texas_split_0.6_0.2_{split}.npz", **masks)
    return tmp_path / "root"


def test_raw_files_become_undirected_without_loops(webkb: Path, tmp_path: Path) -> None:
    texas = data.load("texas", webkb, cache=tmp_path / "cache")
    assert dense(texas.graph).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert (texas.name, texas.num_classes) == ("Texas", 2)
    assert texas.x.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert texas.val_mask.tolist() == [[False] * 10, [True] * 10, [False] * 10]


def test_direction_and_loops_are_kept_on_request(webkb: Path, tmp_path: Path) -> None:
    texas = data.load("Texas", webkb, directed=True, cache=tmp_path / "cache")
    assert texas.graph.directed
    assert dense(texas.graph).tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 1]]


def test_roots_are_never_written_to(webkb: Path, tmp_path: Path) -> None:
    nested = tmp_path / "nested"
    nested.mkdir()
    webkb.rename(nested / "WebKB")
    before = sorted(nested.rglob("*"))
    for _ in range(2):
        data.load("Texas", nested, cache=tmp_path / "cache")
    assert sorted(nested.rglob("*")) == before


def test_changed_raw_files_are_read_again(webkb: Path, tmp_path: Path) -> None:
    first = data.load("Texas", webkb, cache=tmp_path / "cache")
    edges = webkb / "texas" / "raw" / "out1_graph_edges.txt"
    edges.write_text(edges.read_text() + "2\t0\n")
    second = data.load("Texas", webkb, cache=tmp_path / "cache")
    assert (first.graph.num_edges, second.graph.num_edges) == (2, 3)


def test_the_cache_follows_the_environment(
    webkb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data.load("Texas", webkb)
    assert [p.name[:6] for p in (tmp_path / "xdg" / "neuralpde").iterdir()] == ["Texas-"]


def test_a_cache_that_cannot_be_written_gives_way(
    webkb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert data.load("Texas", webkb).graph.num_edges == 2
    assert len(list((tmp_path / "temporary").iterdir())) == 1


def test_filtered_sets_list_each_edge_once(tmp_path: Path) -> None:
    folder = tmp_path / "HeterophilousFiltered"
    folder.mkdir()
    mask = np.array([[True, False, False], [False, True, False]])
    np.savez(
        folder / "chameleon_filtered.npz",
        node_features=np.eye(3, dtype=np.float64),
        node_labels=np.array([0, 2, 1]),
        edges=np.array([[0, 1], [1, 2]]),
        train_masks=mask,
        val_masks=mask,
        test_masks=mask,
    )
    found = data.load("Chameleon_Filtered", tmp_path)
    assert found.graph.num_edges == 2
    assert not found.graph.directed
    assert found.train_mask.shape == (3, 2)
    assert (found.x.dtype, found.num_classes) == (torch.float32, 3)


@pytest.mark.parametrize("refusal", [PermissionError, OSError])
def test_where_links_are_refused_the_raw_files_are_copied_whole(
    webkb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: type[Exception]
) -> None:
    linked = data.load("texas", webkb, cache=tmp_path / "links")

    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(Path, "symlink_to", refuse)
    cache = tmp_path / "copies"
    for _ in range(2):
        copied = data.load("texas", webkb, cache=cache)
        assert torch.equal(copied.x, linked.x)
        assert torch.equal(copied.graph.edge_index, linked.graph.edge_index)
    assert not list(cache.rglob("tmp*"))
    assert not any(path.is_symlink() for path in cache.rglob("*"))
