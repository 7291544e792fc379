"""What a model is made of, as plain settings that json can hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import nn

from neuralpde.fields import (
    GRAFF,
    GRAND,
    GREAD,
    AntiSymmetricDGN,
    BundleDiffusion,
    Coupling,
    Field,
    GradientGating,
    GraphCON,
    Layers,
    SheafDiffusion,
    TransformerFlow,
)
from neuralpde.fields.registry import FIELDS
from neuralpde.models.baselines import KINDS, Convolutions, mixing
from neuralpde.models.node import NodeModel
from neuralpde.models.residual import Residual
from neuralpde.models.sparse import SparseInput
from neuralpde.models.stack import Block, Stack
from neuralpde.models.states import readout, width
from solvers.failure import unknown_name


def _gated(channels: int, p: float = 2.5, aggregate: str = "mean", own_gate: bool = False) -> Field:
    """G2-GraphSAGE with the aggregate, exponent and gate of the published code."""
    # torch_geometric takes seconds to import.
    sage: Any = import_module("torch_geometric.nn").SAGEConv
    made = [Coupling(sage(channels, channels), act=torch.relu, leak=1.0) for _ in "fg"]
    return GradientGating(made[0], p, aggregate, made[1] if own_gate else None)


TRAINABLE: dict[str, Callable[..., Field]] = {
    "grand": GRAND,
    "grand-nonlinear": lambda channels, **options: GRAND(channels, variant="nonlinear", **options),
    "graff": GRAFF,
    "graphcon": GraphCON,
    "g2": _gated,
    "sheaf": SheafDiffusion,
    "bundle": BundleDiffusion,
    "gread": GREAD,
    "adgn": AntiSymmetricDGN,
    "transformer": TransformerFlow,
}
"""Fields with settings of their own, as they are trained; others are those of the registry."""

MODELS = (*TRAINABLE, *(name for name in FIELDS if name not in TRAINABLE), *KINDS)
"""All names that a recipe takes: fields, and networks to compare with."""

ACTS = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "none": nn.Identity,
}


@dataclass(frozen=True)
class Recipe:
    """A model for nodes in numbers and names; `build` makes it.

        encoder   dropout, linear, (batch norm), then per further layer: act, dropout, linear
                  or, with `encoder_residual`, dropout, x + linear(act(x)), and dropout at the end
        decoder   act, dropout, linear

    With `stacked` it is a `Stack` of blocks with a norm, dropout, linear maps and a residual
    each: every layer's field flows for the time `end` from a state of its own, or every layer is
    one convolution ("mlp": none). The frames of "bundle" go around the linear maps too, which makes
    layers of a bundle network. Its decoder is a norm and a linear map.

    Attributes:
        model: A field ("grand", "graff", "graphcon", "g2", "sheaf", "bundle", any of
            `neuralpde.fields.registry.FIELDS`) or a network ("mlp", "gcn", "gat", "sage").
        inputs: Channels of the features.
        outputs: Classes, or numbers to predict.
        channels: Channels of the state, or of the layers of a network.
        options: Keyword arguments of the field, as json holds them.
        layers: Fields with weights of their own, one after the other (`Layers`); or the layers of
            a network; or the blocks of a stack.
        stacked: Whether the layers are residual blocks.
        separate: Whether, in blocks, a node's own numbers stand beside the mixed ones.
        end: End time, of a stack that of every block; learned with `learned_end`.
        encoder_layers: Linear layers of the encoder.
        encoder_residual: Whether those after the first are added to what they read.
        encoder_act: Whether the encoder ends with the activation.
        batch_norm: Whether the encoder ends with batch normalisation.
        act: "relu", "elu", "gelu", "tanh" or "none".
        input_dropout: Of the features.
        dropout: Before every other linear layer.
        velocity: As in `NodeModel`, and so are those below.

    Raises:
        ValueError: For an unknown model or activation, options of a field that takes none, and
            `separate` without `stacked`.

    >>> Recipe("heat", inputs=3, outputs=2, channels=8).build().width
    8
    """

    model: str
    inputs: int
    outputs: int
    channels: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    layers: int = 1
    stacked: bool = False
    separate: bool = False
    end: float = 1.0
    learned_end: bool = False
    encoder_layers: int = 1
    encoder_residual: bool = False
    encoder_act: bool = False
    batch_norm: bool = False
    act: str = "relu"
    input_dropout: float = 0.5
    dropout: float = 0.5
    velocity: str = "zero"
    solver: str = "auto"
    steps: int | None = None
    schedule: str | None = None
    rtol: float | None = None
    atol: float | None = None
    grad: str = "auto"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise unknown_name("model", self.model, MODELS)
        if self.act not in ACTS:
            raise unknown_name("act", self.act, ACTS)
        if self.options and self.model not in TRAINABLE and self.model not in KINDS:
            raise ValueError(
                f"options are {self.options}, and {self.model} takes none; those that do are "
                f"{', '.join(TRAINABLE)}"
            )
        if self.separate and not self.stacked:
            raise ValueError("separate=True is for the blocks of a stack: set stacked=True too")
        if self.layers < 1 or self.encoder_layers < 1:
            raise ValueError(
                f"layers is {self.layers} and encoder_layers {self.encoder_layers}; at least 1 each"
            )
        if self.encoder_residual and self.encoder_layers == 1:
            raise ValueError(
                "encoder_residual=True is for the layers of the encoder after the first: set "
                "encoder_layers to 2 or more"
            )

    def build(self) -> nn.Module:
        """The model, with fresh weights from torch's generator."""
        if self.stacked:
            blocks = [self._block() for _ in range(self.layers)]
            wide = blocks[0].width
            decoder = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, self.outputs))
            return Stack(self._encoder(wide), blocks, decoder)
        if self.model in KINDS:
            return Convolutions(
                self.model,
                self.inputs,
                self.channels,
                self.outputs,
                self.layers,
                dropout=self.dropout,
                input_dropout=self.input_dropout,
                **self.options,
            )
        fields = [self._field() for _ in range(self.layers)]
        flow = fields[0] if self.layers == 1 else Layers(fields)
        decoder = nn.Sequential(
            ACTS[self.act](),
            nn.Dropout(self.dropout),
            nn.Linear(readout(flow, self.channels), self.outputs),
        )
        encoder = self._encoder(width(flow, self.channels))
        return self._flow(encoder, flow, decoder, self.channels)

    def _flow(
        self, encoder: nn.Module, flow: Field, decoder: nn.Module, channels: int
    ) -> NodeModel:
        return NodeModel(
            encoder,
            flow,
            decoder,
            channels=channels,
            end=self.end,
            learned_end=self.learned_end,
            velocity=self.velocity,
            solver=self.solver,
            steps=self.steps,
            schedule=self.schedule,
            rtol=self.rtol,
            atol=self.atol,
            grad=self.grad,
        )

    def _block(self) -> Block:
        wide = seen = self.channels
        frames: nn.Module | None = None
        mix: nn.Module | None
        if self.model in KINDS:
            mix = mixing(self.model, self.channels, **self.options)
        else:
            field, channels = self._field(), self.channels
            wide, seen = width(field, channels), readout(field, channels)
            if hasattr(field, "inside"):
                # Rows of the whole width: the frames stand around them.
                frames, field, channels = field.frames, field.inside(), wide
            mix = self._flow(nn.Identity(), field, nn.Identity(), channels)
        return Block(
            wide,
            mix,
            mixed=seen,
            frames=frames,
            separate=self.separate,
            act=ACTS[self.act](),
            dropout=self.dropout,
        )

    def _field(self) -> Field:
        if self.model not in TRAINABLE:
            return FIELDS[self.model].make(self.channels)
        make = TRAINABLE[self.model]
        known = inspect.signature(make).parameters
        free = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
        for name in self.options:
            if not free and name not in known:
                raise unknown_name(f"option of {self.model}", name, list(known)[1:])
        return make(self.channels, **self.options)

    def _encoder(self, hidden: int) -> nn.Sequential:
        parts: list[nn.Module] = [
            SparseInput(nn.Linear(self.inputs, hidden), self.input_dropout),
        ]
        for _ in range(self.encoder_layers - 1):
            act, linear = ACTS[self.act](), nn.Linear(hidden, hidden)
            if self.encoder_residual:
                parts += [nn.Dropout(self.dropout), Residual(nn.Sequential(act, linear))]
            else:
                parts += [act, nn.Dropout(self.dropout), linear]
        if self.encoder_residual:
            parts.append(nn.Dropout(self.dropout))
        if self.encoder_act:
            parts.append(ACTS[self.act]())
        if self.batch_norm:
            parts.append(nn.BatchNorm1d(hidden))
        return nn.Sequential(*parts)

    def settings(self) -> dict[str, Any]:
        """The recipe as json holds it; `Recipe(**settings)` is the recipe again.

        `encoder_residual` is left out where it is False, so that rows of ledgers that were written
        before there was such a thing stay those of the same recipe.

        >>> recipe = Recipe("heat", 3, 2, end=2.0)
        >>> Recipe(**recipe.settings()) == recipe
        True
        """
        settings = asdict(self)
        if not self.encoder_residual:
            del settings["encoder_residual"]
        return settings
