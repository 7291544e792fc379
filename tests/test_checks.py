import math

import pytest
import torch

from neuralpde.graph import Graph

PAIR = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((torch.zeros(3, 2, dtype=torch.long),), {}, ValueError, r"shape \(3, 2\).*edge_index\.T"),
        ((torch.zeros(4, dtype=torch.long),), {}, ValueError, r"expected \(2, edges\)"),
        ((torch.zeros(2, 1),), {}, TypeError, r"float32.*edge_index\.long\(\)"),
        ((torch.ones(2, 1, dtype=torch.bool),), {}, TypeError, "torch.bool"),
        ((torch.tensor([[0], [-1]]),), {}, ValueError, "negative entry -1"),
        ((PAIR, 1), {}, ValueError, "names node 1, but there are 1 nodes.*num_nodes=2"),
        ((torch.zeros(2, 0),), {}, ValueError, "without nodes.*pass num_nodes="),
        (
            (PAIR, None, torch.ones(3)),
            {},
            ValueError,
            r"edge_weight has shape \(3,\), expected \(2,\)",
        ),
        ((PAIR, None, torch.ones(2, 1)), {}, ValueError, r"edge_weight has shape \(2, 1\)"),
        ((PAIR, None, torch.tensor([1, -2])), {}, ValueError, r"edge_weight\[1\].*1 -> 0 is -2"),
        ((PAIR, None, torch.tensor([math.nan, 1])), {}, ValueError, r"0 -> 1 is nan"),
        ((PAIR, None, torch.tensor([1, math.inf])), {}, ValueError, "is inf"),
        ((PAIR, None, torch.ones(2) * 1j), {}, TypeError, "complex64, expected real"),
        ((PAIR, None, torch.ones(2).requires_grad_()), {}, TypeError, r"edge_weight\.detach\(\)"),
        (
            (PAIR, 3, None, torch.tensor([0, 0])),
            {},
            ValueError,
            r"batch has shape \(2,\), expected \(3,\)",
        ),
        ((PAIR, None, None, torch.zeros(2)), {}, TypeError, r"batch\.long\(\)"),
        (
            (PAIR, 3, None, torch.tensor([0, 1, 0])),
            {},
            ValueError,
            "not sorted at node 2: 1 before 0",
        ),
        ((PAIR, None, None, torch.tensor([1, 1])), {}, ValueError, "1 graphs from 1 to 1"),
        ((PAIR, 3, None, torch.tensor([0, 0, 2])), {}, ValueError, "without gaps"),
        (
            (PAIR, None, None, torch.tensor([0, 1])),
            {},
            ValueError,
            "0 -> 1 joins graph 0 and graph 1",
        ),
        ((PAIR, 2), {"node_weight": torch.ones(3)}, ValueError, r"node_weight has shape \(3,\)"),
        ((PAIR,), {"node_weight": torch.tensor([1.0, 0.0])}, ValueError, r"node_weight\[1\] is 0"),
        (
            (PAIR,),
            {"node_weight": torch.ones(2).requires_grad_()},
            TypeError,
            "node_weight requires",
        ),
        (
            (PAIR,),
            {"pos": torch.zeros(2)},
            ValueError,
            r"pos has shape \(2,\), expected \(2, dims\)",
        ),
    ],
)
def test_inputs_that_make_no_graph_are_refused(
    arguments: tuple[object, ...], options: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Graph(*arguments, **options)
