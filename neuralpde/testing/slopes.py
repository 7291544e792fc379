"""What must hold of single evaluations of a field."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from neuralpde.graph import Graph
from neuralpde.testing.subject import Subject, doubled, mapped, parts, started


def shape(s: Subject) -> None:
    """dx/dt has the shape and the dtype of x."""
    slope = s.slope()
    pairs = list(zip(parts(slope), parts(s.x0), strict=False))
    same = len(parts(slope)) == len(parts(s.x0)) and isinstance(slope, tuple) == isinstance(
        s.x0, tuple
    )
    if not same or any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        got, wanted = (
            ", ".join(f"{p.dtype} {tuple(p.shape)}" for p in parts(x)) for x in (slope, s.x0)
        )
        raise s.fail(
            "dx/dt has the shape and dtype of x",
            f"For {wanted} it returned {got}.",
            "Return one slope per part of the state, made from x and the bound operators.",
        )


def purity(s: Subject) -> None:
    """Two calls agree, and two bindings are independent."""
    line = "a bound field is a pure function of (t, x)"
    mend = "Draw nothing at random and keep nothing from call to call; freeze things in prepare."
    before = copy.deepcopy(s.field.state_dict())
    bound, other = s.field.bind(s.graph, s.x0), mapped(s.x0, lambda part: part.flip(0) * 2 + 1)
    with torch.no_grad():
        first = bound(s.time, s.x0)
        bound(s.time, other)
        s.compare(first, bound(s.time, s.x0), 0.0, line, "Two equal calls differ", mend)
        s.field.bind(relabelled(s.graph, shuffled(s.graph)), started(s.field, other))
        again = bound(s.time, s.x0)
    s.compare(
        first,
        again,
        0.0,
        "two bindings know nothing of each other",
        "A second binding changed the first",
        "In prepare set attributes of self, do not change lists, dicts or modules in place.",
    )
    unchanged(s, before, "binding and calling it")


def unchanged(s: Subject, before: dict[str, Any], what: str) -> None:
    """The state_dict is what it was."""
    after = s.field.state_dict()
    if before.keys() != after.keys() or any(not torch.equal(before[k], after[k]) for k in before):
        raise s.fail(
            "a solve leaves the field as it was",
            f"Its state_dict changed by {what}.",
            "Write to no parameter or buffer; batch statistics belong outside of a field.",
        )


def equivariance(s: Subject) -> None:
    """Relabelled nodes get relabelled slopes."""
    order = shuffled(s.graph)
    relabel = getattr(s.field, "relabelled", None)
    field = s.field if relabel is None else relabel(order)
    other = s.slope(relabelled(s.graph, order), mapped(s.x0, lambda part: part[order]), field)
    s.compare(
        mapped(s.slope(), lambda part: part[order]),
        other,
        1e-9,
        "relabelled nodes give relabelled slopes (permutation equivariance)",
        "They differ",
        "Let nothing depend on node numbers; a field that names nodes gives relabelled(order).",
    )


def batches(s: Subject) -> None:
    """A graph of a batch gets the slope that it gets alone."""
    nodes = s.graph.num_nodes
    neighbour = mapped(s.x0, lambda part: 5.0 * part.flip(0) + 3.0)
    both = tuple(torch.cat(pair) for pair in zip(parts(s.x0), parts(neighbour), strict=True))
    x = both if isinstance(s.x0, tuple) else both[0]
    union = Graph.union([s.graph, s.graph])
    got = mapped(s.slope(union, x), lambda part: part[:nodes])
    s.compare(
        s.slope(),
        got,
        1e-9,
        "a graph of a batch gets what it gets alone (batch independence)",
        "Beside another graph its slope changes",
        "Take means, norms and maxima over each node's neighbours or each graph (graph.batch), "
        "never over all rows; batch normalisation belongs outside of a field.",
    )


def clocks(s: Subject) -> None:
    """Fields with `batched_time` take a time for each node."""
    if not s.field.bind(s.graph, s.x0).batched_time:
        return
    times = s.time.expand(s.graph.num_nodes, 1)
    with torch.no_grad():
        got = s.field.bind(s.graph, s.x0)(times, s.x0)
    s.compare(
        s.slope(),
        got,
        1e-12,
        "batched_time = True promises that t may have shape [nodes, 1]",
        "With equal times for all nodes the slope changes",
        "Leave batched_time False, or use t so that it broadcasts against x.",
    )


def bare_graphs(s: Subject) -> None:
    """Graphs without edges and isolated nodes give finite slopes."""
    edges = s.graph.edge_index
    empty = Graph(edges[:, :0], s.graph.num_nodes).to(dtype=torch.float64)
    lonely = Graph(edges, s.graph.num_nodes + 1, s.graph.edge_weight).to(dtype=torch.float64)
    grown = mapped(s.x0, lambda part: torch.cat([part, part[:1]]))
    cases = (("without edges", empty, s.x0), ("with an isolated node", lonely, grown))
    for name, graph, x in cases:
        if not all(bool(part.isfinite().all()) for part in parts(s.slope(graph, x))):
            raise s.fail(
                "isolated nodes and empty edge sets are legal",
                f"On a graph {name} dx/dt holds nan or inf.",
                "Divide by sums over neighbours only where they are not zero.",
            )


def precision(s: Subject) -> None:
    """float32 agrees with float64, and stays float32."""
    single = copy.deepcopy(s.field).float()
    x = mapped(s.x0, lambda part: part.to(torch.complex64 if part.is_complex() else torch.float32))
    with torch.no_grad():
        slope = single.bind(s.graph.to(dtype=torch.float32), x)(s.time.float(), x)
    pairs = zip(parts(slope), parts(x), strict=True)
    wrong = [str(got.dtype) for got, asked in pairs if got.dtype != asked.dtype]
    line, mend = "dtype follows the state", "Make constants with x.new_tensor or .to(x)."
    if wrong:
        raise s.fail(line, f"For a float32 state it returned {wrong[0]}.", mend)
    wide = mapped(slope, doubled)
    s.compare(s.slope(), wide, 1e-3, line, "In float32 and in float64 slopes differ", mend)


def shuffled(graph: Graph) -> Tensor:
    """A relabelling within each graph, so that batches stay sorted."""
    shuffled = torch.randperm(graph.num_nodes)
    if graph.batch is None:
        return shuffled
    return shuffled[torch.argsort(graph.batch[shuffled], stable=True)]


def relabelled(graph: Graph, order: Tensor) -> Graph:
    """The graph whose node k is node order[k] of the given one."""
    inverse = torch.argsort(order)
    return Graph(
        inverse[graph.edge_index],
        graph.num_nodes,
        graph.edge_weight,
        graph.batch,
        node_weight=None if graph.node_weight is None else graph.node_weight[order],
        pos=None if graph.pos is None else graph.pos[order],
    ).to(dtype=graph.dtype)
