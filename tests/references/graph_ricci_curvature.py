"""Write the reference values of GraphRicciCurvature that tests/test_curvature_peers.py reads.

It wants an environment of its own (networkit, POT); edges of Cora are a csv of pairs of nodes.

    python -m venv peers && peers/bin/pip install GraphRicciCurvature==0.6.1
    peers/bin/pip install --no-deps --target old GraphRicciCurvature==0.5.3.2
    peers/bin/python tests/references/graph_ricci_curvature.py cora.csv values.json
    PYTHONPATH=old peers/bin/python tests/references/graph_ricci_curvature.py --old values.json
"""

import argparse
import json
import random
from importlib.metadata import version
from pathlib import Path


def graphs() -> dict:
    """Small graphs of many kinds."""
    import networkx as nx

    return {
        "karate": nx.Graph(nx.karate_club_graph().edges),
        "blocks": nx.stochastic_block_model([20, 20], [[0.3, 0.04], [0.04, 0.3]], seed=1),
        "barbell": nx.barbell_graph(5, 1),
        "grid": nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 5)),
        "tree": nx.balanced_tree(3, 2),
        "wheel": nx.wheel_graph(8),
        "Petersen": nx.petersen_graph(),
    }


def ollivier(graph, alpha: float, pairs: list | None = None) -> list[float]:
    """Ollivier's curvature with idleness alpha."""
    from GraphRicciCurvature.OllivierRicci import OllivierRicci

    done = OllivierRicci(graph, alpha=alpha, method="OTD", proc=1, verbose="ERROR")
    if pairs is not None:
        found = done.compute_ricci_curvature_edges(pairs)
        return [float(found[pair] if pair in found else found[pair[::-1]]) for pair in pairs]
    done.compute_ricci_curvature()
    return [float(done.G.edges[edge]["ricciCurvature"]) for edge in graph.edges]


def forman(graph, method: str) -> list[float]:
    """Forman's curvature, "1d" or "augmented"."""
    from GraphRicciCurvature.FormanRicci import FormanRicci

    done = FormanRicci(graph, method=method, verbose="ERROR")
    done.compute_ricci_curvature()
    return [float(done.G.edges[edge]["formanCurvature"]) for edge in graph.edges]


def weighted_triangle() -> dict:
    """Lengths 10, 1, 1: the long edge is no shortest path between its ends."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_weighted_edges_from([(0, 1, 10.0), (1, 2, 1.0), (0, 2, 1.0)])
    return dict(zip(map(str, graph.edges), ollivier(graph, 0.5), strict=True))


def main() -> None:
    """Write all values, or add those of an old release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", action="store_true")
    parser.add_argument("files", nargs="+", type=Path)
    asked = parser.parse_args()
    out = asked.files[-1]
    if asked.old:
        values = json.loads(out.read_text())
        values["weighted triangle, 0.5.3.2"] = weighted_triangle()
    else:
        import networkx as nx

        values = {"version": version("GraphRicciCurvature"), "graphs": {}}
        for name, graph in graphs().items():
            values["graphs"][name] = {
                "edges": [list(edge) for edge in graph.edges],
                "ollivier 0": ollivier(graph, 0.0),
                "ollivier 0.5": ollivier(graph, 0.5),
                "forman": forman(graph, "1d"),
                "augmented": forman(graph, "augmented"),
            }
        lines = asked.files[0].read_text().split()
        cora = nx.Graph([tuple(map(int, line.split(","))) for line in lines])
        pairs = random.Random(0).sample(sorted(tuple(sorted(edge)) for edge in cora.edges), 100)
        values["Cora"] = {"edges": pairs, "ollivier 0.5": ollivier(cora, 0.5, pairs)}
        values["weighted triangle"] = weighted_triangle()
    out.write_text(json.dumps(values, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
