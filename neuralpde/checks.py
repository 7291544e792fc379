"""What comes from outside, and what it must be before a Graph is built on it.

Each function returns its argument in the form a `Graph` keeps (int64 indices, float64 weights,
one device) or raises, saying what came, what is allowed and what to do.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

# Plain `Tensor` throughout: a runtime type checker must not answer before these messages do.


def checked_edges(edge_index: Tensor) -> Tensor:
    """Return `edge_index` as int64 `[2, edges]` without negative entries.

    Raises:
        TypeError: it does not hold integers.
        ValueError: it has another shape, or a negative entry.

    >>> checked_edges(torch.tensor([[0], [1]], dtype=torch.int32)).dtype
    torch.int64
    """
    edge_index = as_given(edge_index)
    if edge_index.numel() == 0 and edge_index.dim() == 2 and len(edge_index) == 2:
        return edge_index.long()
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        hint = "; transpose it: edge_index.T" if edge_index.shape[1:] == (2,) else ""
        raise ValueError(
            f"edge_index has shape {tuple(edge_index.shape)}, expected (2, edges): row 0 sends, "
            f"row 1 receives{hint}"
        )
    if edge_index.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(
            f"edge_index has dtype {edge_index.dtype}, expected integers: pass edge_index.long()"
        )
    edge_index = edge_index.long()
    if int(edge_index.min()) < 0:
        raise ValueError(
            f"edge_index has the negative entry {int(edge_index.min())}; nodes are numbered from "
            "0, remove padding before"
        )
    return edge_index


def checked_count(edge_index: Tensor, num_nodes: int | None, known: int | None) -> int:
    """Return the number of nodes: as given, else as known otherwise, else the largest index + 1.

    Raises:
        ValueError: there are no nodes, or fewer than `edge_index` names.

    >>> checked_count(torch.tensor([[0], [4]]), None, None)
    5
    """
    needed = int(edge_index.max()) + 1 if edge_index.numel() else 0
    if num_nodes is not None:
        count = operator.index(num_nodes)
    else:
        count = needed if known is None else known
    if count < needed:
        raise ValueError(
            f"edge_index names node {needed - 1}, but there are {count} nodes, numbered 0 to "
            f"{count - 1}; pass num_nodes={needed} or more, or drop those edges"
        )
    if count == 0:
        raise ValueError(
            "a graph without nodes: there are no edges to count them by; pass num_nodes="
        )
    return count


def checked_weight(weight: Tensor | None, edge_index: Tensor) -> tuple[Tensor, float]:
    """Return float64 weights `[edges]`, 1 by default, and the relative rounding they came with.

    Raises:
        TypeError: the weights are complex, or require gradients.
        ValueError: their number is wrong, or one is negative, infinite or NaN.

    >>> checked_weight(None, torch.tensor([[0], [1]]))[0].tolist()
    [1.0]
    """
    edges = edge_index.shape[1]
    if weight is None:
        ones = torch.ones(edges, dtype=torch.float64, device=edge_index.device)
        return ones, 8 * torch.finfo(torch.float64).eps
    weight = as_given(weight)
    _refuse_parameters("edge_weight", weight)
    if weight.shape != (edges,):
        raise ValueError(
            f"edge_weight has shape {tuple(weight.shape)}, expected ({edges},): one number for "
            "each column of edge_index"
        )
    kind = weight.dtype if weight.dtype.is_floating_point else torch.float64
    weight = weight.to(edge_index.device, torch.float64)
    bad = ~(torch.isfinite(weight) & (weight >= 0))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        source, target = edge_index[:, first].tolist()
        raise ValueError(
            f"edge_weight[{first}] of the edge {source} -> {target} is {weight[first].item()}; "
            "weights are conductances, finite and at least 0: clean them, or put signs into a field"
        )
    return weight, 8 * torch.finfo(kind).eps


def checked_batch(
    batch: Tensor | None, edge_index: Tensor, num_nodes: int
) -> tuple[Tensor | None, int]:
    """Return the int64 graph number of each node, None for one graph, and the number of graphs.

    Raises:
        TypeError: it does not hold integers.
        ValueError: its length is wrong, it is not sorted from 0 without gaps, or an edge joins
            two graphs.

    >>> checked_batch(torch.tensor([0, 0, 1]), torch.tensor([[0], [1]]), 3)[1]
    2
    """
    if batch is None:
        return None, 1
    batch = torch.as_tensor(batch, device=edge_index.device)
    if batch.shape != (num_nodes,):
        raise ValueError(
            f"batch has shape {tuple(batch.shape)}, expected ({num_nodes},): the graph of each node"
        )
    if batch.dtype.is_floating_point or batch.dtype.is_complex or batch.dtype == torch.bool:
        raise TypeError(f"batch has dtype {batch.dtype}, expected integers: pass batch.long()")
    batch = batch.long()
    steps = batch.diff()
    if bool((steps < 0).any()):
        node = int((steps < 0).nonzero()[0]) + 1
        raise ValueError(
            f"batch is not sorted at node {node}: {int(batch[node - 1])} before "
            f"{int(batch[node])}; order the nodes by graph (torch.sort(batch, stable=True) gives "
            "the order)"
        )
    if int(batch[0]) != 0 or bool((steps > 1).any()):
        present = batch.unique().tolist()
        raise ValueError(
            f"batch numbers {len(present)} graphs from {present[0]} to {present[-1]}; they count "
            "0, 1, 2, ... without gaps, for every graph has a node: renumber them with "
            "batch.unique(return_inverse=True)[1]"
        )
    crossing = batch[edge_index[0]] != batch[edge_index[1]]
    if bool(crossing.any()):
        source, target = edge_index[:, int(crossing.nonzero()[0])].tolist()
        raise ValueError(
            f"the edge {source} -> {target} joins graph {int(batch[source])} and graph "
            f"{int(batch[target])} of the batch; graphs of a batch share no edges: drop it, or "
            "pass no batch"
        )
    count = int(batch[-1]) + 1
    return (batch, count) if count > 1 else (None, 1)


def checked_measure(measure: Tensor | None, num_nodes: int, like: Tensor) -> Tensor | None:
    """Return the node weights in float64 on the device of `like`.

    Raises:
        TypeError: they require gradients.
        ValueError: their number is wrong, or one is not positive and finite.

    >>> checked_measure(torch.tensor([1, 2]), 2, torch.zeros(1)).tolist()
    [1.0, 2.0]
    """
    if measure is None:
        return None
    measure = as_given(measure)
    _refuse_parameters("node_weight", measure)
    if measure.shape != (num_nodes,):
        raise ValueError(
            f"node_weight has shape {tuple(measure.shape)}, expected ({num_nodes},): one number "
            "for each node"
        )
    measure = measure.to(like.device, torch.float64)
    bad = ~(torch.isfinite(measure) & (measure > 0))
    if bool(bad.any()):
        node = int(bad.nonzero()[0])
        raise ValueError(
            f"node_weight[{node}] is {measure[node].item()}; a measure is finite and positive, for "
            "the generator divides by it"
        )
    return measure


def checked_pos(pos: Tensor | None, num_nodes: int, like: Tensor) -> Tensor | None:
    """Return the coordinates on the device of `like`.

    Raises:
        ValueError: they are not `[nodes, dims]`.

    >>> checked_pos(torch.zeros(3, 2), 3, torch.zeros(1)).shape
    torch.Size([3, 2])
    """
    if pos is None:
        return None
    pos = torch.as_tensor(pos, device=like.device)
    if pos.dim() != 2 or pos.shape[0] != num_nodes:
        raise ValueError(f"pos has shape {tuple(pos.shape)}, expected ({num_nodes}, dims)")
    return pos


def checked_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the real dtype that operators on a state of `dtype` have.

    Raises:
        TypeError: it is neither floating nor complex.

    >>> checked_dtype(torch.complex128)
    torch.float64
    """
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(
            f"operators have no form in {dtype}; states are floating or complex: pass "
            "x.to(torch.float64)"
        )
    return dtype.to_real()


def _refuse_parameters(name: str, weight: Tensor) -> None:
    if weight.is_complex():
        raise TypeError(f"{name} has dtype {weight.dtype}, expected real numbers")
    if weight.requires_grad:
        raise TypeError(
            f"{name} requires gradients, but a Graph holds constants: pass {name}.detach(), or "
            "build an operator on graph.pattern whose values are the parameters"
        )


def as_given(values: Any) -> Tensor:
    """Return a tensor where it is, whatever the default device; make one of anything else.

    >>> with torch.device("meta"):
    ...     as_given(torch.ones(1, device="cpu")).device.type
    'cpu'
    """
    return values if isinstance(values, Tensor) else torch.as_tensor(values)
