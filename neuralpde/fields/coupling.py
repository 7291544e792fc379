"""Any message-passing layer as a vector field."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralpde.fields.binding import shallow
from neuralpde.fields.constants import hold
from neuralpde.fields.field import Field, State
from neuralpde.graph import Graph

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

EdgeAttr = Float[Tensor, "edges dims"] | Callable[[Graph], Float[Tensor, "edges dims"]]


class Coupling(Field):
    """A graph convolution as coupling, dx/dt = act(conv(x) + skip(x)) - leak x.

    `conv` is any layer of torch_geometric, or any module called as `conv(x, edge_index)`. It gets
    `edge_weight` (the graph's weights, in the dtype of the state) and `edge_attr` where its forward
    has arguments of these names. What it does with the graph, it does at every evaluation;
    `GCNConv(..., cached=True)` is safe here and normalises once per solve.

    Args:
        conv: The layer; it maps a state to one of the same shape.
        act: A function of every entry.
        leak: Decay towards zero: a number or a 0-d tensor; an `nn.Parameter` is learned.
        skip: An affine map of every node's own state, `nn.Linear(channels, channels)`, that is
            added to what comes from the neighbours; None for none.
        edge_attr: Edge features, in the order of `graph.edge_index` (sorted by receiver, then
            sender), or a function of the graph that returns them.

    Raises:
        ValueError: When `edge_attr` is given to a layer that takes none, or the layer asks for
            more than a coupling has; at bind, when the layer or the skip does not keep the state's
            shape.

    Warns:
        UserWarning: At bind, when the graph has weights and the layer takes none.

    References:
        Poli et al., Graph Neural Ordinary Differential Equations, 2019, arXiv:1911.07532, eq. 2.
        Gong et al., Geometrically principled connections in graph neural networks, CVPR 2020,
        arXiv:2004.02658 (affine skip connections).

    >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> class Swap(nn.Module):
    ...     def forward(self, x, edge_index):
    ...         return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> Coupling(Swap(), act=torch.relu).bind(graph, x)(torch.tensor(0.0), x).flatten().tolist()
    [1.0, -1.0]
    """

    batched_time = True
    leak: float | Tensor

    def __init__(
        self,
        conv: nn.Module,
        *,
        act: Callable[[Tensor], Tensor] = torch.tanh,
        leak: float | Tensor = 1.0,
        edge_attr: EdgeAttr | None = None,
        skip: nn.Module | None = None,
    ) -> None:
        super().__init__()
        takes = inspect.signature(conv.forward).parameters
        given = {"edge_weight"} | ({"edge_attr"} if edge_attr is not None else set())
        for place, (name, argument) in enumerate(takes.items()):
            needed = argument.default is argument.empty and argument.kind not in VARIADIC
            strange = place == 1 and name != "edge_index"
            if strange or (place > 1 and needed and name not in given):
                raise ValueError(
                    f"{type(conv).__name__} asks for {name}, which a coupling does not have: its "
                    "layer is called as conv(x, edge_index), with edge_weight and edge_attr if it "
                    "takes them; wrap it in a module that gives the rest"
                )
        self.takes_weight, self.takes_attr = "edge_weight" in takes, "edge_attr" in takes
        if edge_attr is not None and not self.takes_attr:
            raise ValueError(
                f"{type(conv).__name__} takes no edge_attr; its arguments are {', '.join(takes)}"
            )
        self.conv, self.act, self.edge_attr, self.skip = conv, act, edge_attr, skip
        hold(self, "leak", leak, dims=0)

    def prepare(self, graph: Graph, x0: State) -> None:
        """Collect what the layer is told, and try it once."""
        if not isinstance(x0, Tensor) or x0.dim() < 2:
            raise ValueError("a coupling acts on one state [nodes, channels]")
        name = type(self.conv).__name__
        wanted = getattr(self.conv, "in_channels", None)
        if isinstance(wanted, int) and 0 < wanted != x0.shape[-1]:
            raise ValueError(
                f"{name} takes {wanted} channels and the state has {x0.shape[-1]}; choose "
                f"in_channels={x0.shape[-1]}, or map the state by an encoder first"
            )
        told: dict[str, Any] = {}
        if self.takes_weight:
            told["edge_weight"] = graph.edge_weight.to(x0.dtype)
        elif bool((graph.edge_weight != 1).any()) and self.edge_attr is None:
            warnings.warn(
                f"{name} takes no edge_weight, so the graph's weights play no part", stacklevel=2
            )
        if self.edge_attr is not None:
            attr = self.edge_attr(graph) if callable(self.edge_attr) else self.edge_attr
            told["edge_attr"] = attr.to(x0)
        self.told = told
        # A layer may keep what it finds out about a graph; a copy keeps it for this binding.
        self.conv = shallow(self.conv)
        with torch.no_grad():
            out = self.conv(x0, graph.edge_index, **told)
        if out.shape != x0.shape:
            raise ValueError(
                f"{name} maps a state {tuple(x0.shape)} to {tuple(out.shape)}; dx/dt has the "
                f"shape of x: choose out_channels (times heads, if they are concatenated) = "
                f"{x0.shape[-1]}"
            )
        if self.skip is not None:
            width = getattr(self.skip, "in_features", x0.shape[-1])
            with torch.no_grad():
                moved = self.skip(x0).shape if width == x0.shape[-1] else None
            if moved != x0.shape:
                raise ValueError(
                    f"the skip {self.skip} does not keep a state {tuple(x0.shape)}; give "
                    f"nn.Linear({x0.shape[-1]}, {x0.shape[-1]})"
                )

    def rest(self, t: Tensor, x: Tensor) -> Tensor:
        """The activated coupling, and the leak."""
        assert self.graph is not None
        moved: Tensor = self.conv(x, self.graph.edge_index, **self.told)
        moved = moved if self.skip is None else moved + self.skip(x)
        return self.act(moved) - self.leak * x
