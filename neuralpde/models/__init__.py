"""Encoder, field, decoder: fields trained on the nodes of a graph."""

from neuralpde.models.baselines import Convolution, Convolutions
from neuralpde.models.node import NodeModel
from neuralpde.models.penalty import EnergyPenalty
from neuralpde.models.presets import PUBLISHED, chosen
from neuralpde.models.recipe import Recipe
from neuralpde.models.scores import accuracy, roc_auc
from neuralpde.models.search import best, drawn
from neuralpde.models.stack import Block, Stack
from neuralpde.models.storage import load, save
from neuralpde.models.training import Split, Trained, Training, train

__all__ = [
    "PUBLISHED",
    "Block",
    "Convolution",
    "Convolutions",
    "EnergyPenalty",
    "NodeModel",
    "Recipe",
    "Split",
    "Stack",
    "Trained",
    "Training",
    "accuracy",
    "best",
    "chosen",
    "drawn",
    "load",
    "roc_auc",
    "save",
    "train",
]
