"""Fields of two parts, and what tests of split methods do with them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from neuralpde import Graph, catalogue
from neuralpde.fields import Field
from solvers.flow import Flow
from solvers.methods import stepper
from solvers.rows import Rows
from solvers.stepper import Accuracy, Step
from solvers.structure import Structure


class Forced(Field):
    """x - x^3 + 0.3 sin 3t."""

    pointwise = batched_time = True

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return x - x**3 + 0.3 * torch.sin(3 * t)


class Season(Field):
    """c x cos t with c from node to node, so that it does not commute with diffusion."""

    pointwise = True

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.c = torch.linspace(0.5, 1.5, len(x0), dtype=x0.dtype).unsqueeze(1)

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        return self.c * x * torch.cos(t)


class Exchange(Field):
    """Keeps the sum over the nodes: the row of a graph's cubic differences."""

    def prepare(self, graph: Graph, x0: Tensor) -> None:
        self.A = graph.adjacency("none", dtype=x0.dtype).to_dense()

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        gap = x.unsqueeze(0) - x.unsqueeze(1)
        return (self.A.unsqueeze(2) * gap**3).sum(1)


BARBELL = catalogue.barbell(4, 4)


def slope(steps: list[int], error: Callable[[int], float]) -> float:
    errors = [error(n) for n in steps]
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def one_step(solver: str, field: Field, graph: Graph, x: Tensor, h: float) -> Step:
    bound = field.bind(graph, x)
    structure = Structure(bound.operator, bound.source, lambda t, y: (bound.rest(t, y[0]),))
    flow = Flow(lambda t, y: (bound(t, y[0]),), Rows(), x, structure)
    method = stepper(solver).begin(flow, Rows(), Accuracy())
    return method.step(flow.stages(np.array([0.0]), np.array([h])), h, (x,), (x,))
