"""The layers of any torch_geometric model as a trajectory."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from neuralpde.graph import Graph
from neuralpde.tracking import layered
from solvers.trajectory import Trajectory


def trace(model: nn.Module, data: Any, *, norm: str = "comb", output: bool = False) -> Trajectory:
    """Run a network on a graph and return what its message-passing layers see, layer by layer.

    The state at t = k is what layer k + 1 gets (after activation and normalisation), and the last
    one what the last layer returns. Narrow layers are filled up with channels of zeros, which
    change no energy, norm, direction or rank. The model runs in eval mode, without gradients, and
    is left in the mode it was in.

    Args:
        model: A network of torch_geometric layers.
        data: A `Data` or `Batch`; the model's `forward` gets its attributes by their names, or the
            whole where it takes one argument called `data` or `batch`.
        norm: Dirichlet form of `traj.energy`; "augmented" is the one that GCN's propagation
            descends.
        output: Whether the last state is what the model returns, its last activation included,
            instead of what its last layer does.

    Raises:
        ValueError: When the model has no message-passing layers, none of them acts on the nodes of
            this graph, or `output` is asked of a model that returns no state of them.

    >>> from torch_geometric.data import Data
    >>> from torch_geometric.nn import GCN
    >>> data = Data(torch.randn(3, 4), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    >>> trace(GCN(4, 8, num_layers=5), data).x.shape
    torch.Size([6, 3, 8])
    """
    graph = Graph.of(data)
    with torch.no_grad():
        states = layer_states(model, data, graph.num_nodes, output=output)
    return layered(_widened(states), graph, norm, type(model).__name__)


def layer_states(model: nn.Module, data: Any, nodes: int, *, output: bool = False) -> list[Tensor]:
    """What each message-passing layer gets, and what the last one returns; in eval mode.

    Arguments and errors are those of `trace`; layers that act on another number of nodes do not
    count. Derivatives are kept.

    >>> from torch_geometric.data import Data
    >>> from torch_geometric.nn import GCN
    >>> data = Data(torch.randn(3, 4), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    >>> [state.shape[1] for state in layer_states(GCN(4, 8, num_layers=3), data, 3)]
    [4, 8, 8, 8]
    """
    from torch_geometric.nn import MessagePassing

    layers = [part for part in model.modules() if isinstance(part, MessagePassing)]
    inner = {id(part) for layer in layers for part in layer.modules() if part is not layer}
    layers = [layer for layer in layers if id(layer) not in inner]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no message-passing layer to trace")
    states: list[Tensor] = []
    last: list[Tensor] = []

    def note(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        x = arguments[0] if arguments else named.get("x")
        result = out[0] if isinstance(out, tuple) else out
        # A pair (x_source, x_target) of a layer between two sets of nodes.
        x = x[0] if isinstance(x, tuple) else x
        if not (isinstance(x, Tensor) and isinstance(result, Tensor)):
            return
        if len(x) == len(result) == nodes:
            # Copies, as what comes next may write into them.
            states.append(x.clone())
            last[:] = [result.clone()]

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        out = model(**_arguments(model, data))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if not states:
        raise ValueError(
            f"no layer of {type(model).__name__} acts on the {nodes} nodes of this graph"
        )
    if output:
        if not isinstance(out, Tensor) or len(out) != nodes:
            raise ValueError(
                f"{type(model).__name__} returns no state of the {nodes} nodes: leave output=False"
            )
        last = [out]
    return states + last


def _arguments(model: nn.Module, data: Any) -> dict[str, Any]:
    """What the model's forward takes, out of the data, by name."""
    takes = inspect.signature(model.forward).parameters
    whole = [name for name in takes if name in ("data", "batch_data")]
    if whole or list(takes) == ["batch"]:
        return {(whole or ["batch"])[0]: data}
    told = {}
    for name, argument in takes.items():
        value = getattr(data, name, None)
        if value is not None:
            told[name] = value
        elif argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD:
            raise ValueError(
                f"{type(model).__name__} asks for {name}, which the data do not have: set "
                f"data.{name}, or wrap the model in a module that gives it"
            )
    return told


def _widened(states: list[Tensor]) -> Tensor:
    """All states side by side, `[layers, nodes, channels]`, narrow ones filled up with zeros."""
    flat = [state.reshape(len(state), -1) for state in states]
    width = max(state.shape[1] for state in flat)
    return torch.stack([nn.functional.pad(x, (0, width - x.shape[1])) for x in flat])
