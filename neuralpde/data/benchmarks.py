"""Benchmark sets for node classification, from raw files that are already on the disk.

`root` is a folder in torch_geometric's layout. It is only read: torch_geometric's own processed
files go to a cache folder whose `raw` links to it. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuralpde.data.embedded import factions, karate, minnesota
from neuralpde.graph import Graph
from solvers.failure import unknown_name


@dataclass(frozen=True)
class Benchmark:
    """A graph with features, labels and splits; what a set does not have is None.

    Masks are `[nodes]` for one split, `[nodes, splits]` for several fixed ones.

    >>> load("karate").num_classes
    2
    """

    name: str
    graph: Graph
    x: Float[Tensor, "nodes channels"] | None = None
    y: Int[Tensor, " nodes"] | None = None
    train_mask: Bool[Tensor, "nodes ..."] | None = None
    val_mask: Bool[Tensor, "nodes ..."] | None = None
    test_mask: Bool[Tensor, "nodes ..."] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels.

        >>> load("minnesota").num_classes
        0
        """
        return 0 if self.y is None else int(self.y.max()) + 1


@dataclass(frozen=True)
class Source:
    """Where a set lies below the root, and the torch_geometric class that reads it.

    >>> SOURCES["Texas"].raw
    'texas/raw'
    """

    collection: str
    raw: str
    argument: str
    splits: tuple[str, ...] = ()

    def dataset(self, root: Path, split: str | None) -> Any:
        """Return the single graph that torch_geometric reads below `root`, as its `Data`."""
        kind = getattr(import_module("torch_geometric.datasets"), self.collection)
        return kind(str(root), self.argument, **({"split": split} if split else {}))[0]

    def raw_of(self, split: str | None) -> str:
        """Return the folder of the raw files of a split.

        >>> SOURCES["Cora"].raw_of("geom-gcn")
        'Cora/geom-gcn/raw'
        """
        return self.raw.replace("/raw", "/geom-gcn/raw") if split == "geom-gcn" else self.raw


PLANETOID_SPLITS = ("public", "geom-gcn")
SOURCES = {
    "Cora": Source("Planetoid", "Cora/raw", "Cora", PLANETOID_SPLITS),
    "CiteSeer": Source("Planetoid", "CiteSeer/raw", "CiteSeer", PLANETOID_SPLITS),
    "PubMed": Source("Planetoid", "PubMed/raw", "PubMed", PLANETOID_SPLITS),
    "Texas": Source("WebKB", "texas/raw", "Texas"),
    "Wisconsin": Source("WebKB", "wisconsin/raw", "Wisconsin"),
    "Cornell": Source("WebKB", "cornell/raw", "Cornell"),
    "Chameleon": Source("WikipediaNetwork", "chameleon/geom_gcn/raw", "chameleon"),
    "Minesweeper": Source("HeterophilousGraphDataset", "minesweeper/raw", "Minesweeper"),
    "Photo": Source("Amazon", "Photo/raw", "Photo"),
}
FILTERED = {"chameleon_filtered": "HeterophilousFiltered/chameleon_filtered.npz"}
EMBEDDED: dict[str, Callable[[], Benchmark]] = {
    "karate": lambda: Benchmark("karate", karate(), torch.eye(34), factions()),
    "minnesota": lambda: Benchmark("minnesota", minnesota()),
}


def load(
    name: str,
    root: str | Path | None = None,
    *,
    directed: bool = False,
    split: str | None = None,
    cache: str | Path | None = None,
) -> Benchmark:
    """Return a benchmark set; undirected and without self-loops unless `directed`.

    Args:
        name: Cora, CiteSeer, PubMed, Texas, Wisconsin, Cornell, Chameleon, chameleon_filtered,
            Minesweeper, Photo, or one that needs no files: karate, minnesota. Case is ignored.
        root: folder in torch_geometric's layout, with or without a folder for each class
            (`root/Planetoid/Cora/raw` or `root/Cora/raw`); never written to.
        directed: keep the direction and the self-loops of the raw files (those of karate,
            minnesota and chameleon_filtered have none).
        split: "public" (default) or "geom-gcn" (ten splits) for Cora, CiteSeer and PubMed.
        cache: where torch_geometric may write its processed files; by default
            `$XDG_CACHE_HOME/neuralpde` or `~/.cache/neuralpde`, a new temporary folder where that
            cannot be written.

    Raises:
        ValueError: the name or the split is unknown, or no root is given.
        FileNotFoundError: the raw files are not below the root.

    >>> load("Karate").graph
    Graph(34 nodes, 78 undirected edges, 1 component)
    """
    names = {known.lower(): known for known in (*EMBEDDED, *SOURCES, *FILTERED)}
    if name.lower() not in names:
        raise unknown_name("data set", name, names.values())
    name = names[name.lower()]
    splits = SOURCES[name].splits if name in SOURCES else ()
    if split is not None and split not in splits:
        raise ValueError(
            f"{name} has no split {split!r}; "
            + (f"choose one of {', '.join(splits)}" if splits else "leave split=None")
        )
    if name in EMBEDDED:
        return EMBEDDED[name]()
    if root is None:
        raise ValueError(
            f"{name} does not come with the package: pass root=, a folder in torch_geometric's "
            f"layout that holds {_place(name, split)}"
        )
    found = _found(name, Path(root), split)
    if name in FILTERED:
        return _filtered(name, found)
    data = SOURCES[name].dataset(_writable(name, found, split, cache), split)
    masks = [getattr(data, f"{part}_mask", None) for part in ("train", "val", "test")]
    graph = _graph(data.edge_index, len(data.x), directed)
    return Benchmark(name, graph, data.x, data.y, *masks)


def _graph(edge_index: Tensor, num_nodes: int, directed: bool) -> Graph:
    if not directed:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    # A line that a raw file repeats is no heavier edge.
    return Graph(edge_index.unique(dim=1), num_nodes)


def _place(name: str, split: str | None) -> str:
    if name in FILTERED:
        return FILTERED[name]
    return f"{SOURCES[name].collection}/{SOURCES[name].raw_of(split)}"


def _found(name: str, root: Path, split: str | None) -> Path:
    place = Path(_place(name, split))
    for candidate in (root / place, root / place.relative_to(place.parts[0])):
        if candidate.exists():
            return candidate.resolve()
    kind = SOURCES[name].collection if name in SOURCES else None
    hint = f"torch_geometric.datasets.{kind} downloads them" if kind else "copy the file there"
    raise FileNotFoundError(f"no raw files of {name} at {root / place}: {hint}")


def _filtered(name: str, path: Path) -> Benchmark:
    with np.load(path) as stored:
        z = {key: torch.from_numpy(stored[key]) for key in stored}
    masks = [z[f"{part}_masks"].bool().T.contiguous() for part in ("train", "val", "test")]
    graph = _graph(z["edges"].T, len(z["node_labels"]), directed=False)
    return Benchmark(name, graph, z["node_features"].float(), z["node_labels"].long(), *masks)


def _writable(name: str, raw: Path, split: str | None, cache: str | Path | None) -> Path:
    """Return a root below the cache whose raw folder is a link to `raw`."""
    # The key changes with the raw files, so that no stale processed file is ever read.
    stamp = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(raw.iterdir())]
    key = hashlib.sha256(repr((str(raw), stamp)).encode()).hexdigest()[:12]
    root = _cache_folder(cache) / f"{name}-{key}"
    link = root / SOURCES[name].raw_of(split)
    link.parent.mkdir(parents=True, exist_ok=True)
    _lead(link, raw)
    return root


def _lead(link: Path, raw: Path) -> None:
    """Make a link to `raw`, or a copy where the file system or the account allows no links."""
    try:
        link.symlink_to(raw, target_is_directory=True)
    except FileExistsError:
        return
    except OSError:
        # Moved into place whole: another process may read it as soon as it is there.
        with tempfile.TemporaryDirectory(dir=link.parent) as folder:
            copy = shutil.copytree(raw, Path(folder) / raw.name)
            try:
                copy.rename(link)
            except OSError:
                if not link.exists():
                    raise


def _cache_folder(cache: str | Path | None) -> Path:
    if cache is not None:
        return Path(cache)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuralpde"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        # A name of its own: the processed files are unpickled, so nobody may have put them there.
        return Path(tempfile.mkdtemp(prefix="neuralpde-"))
