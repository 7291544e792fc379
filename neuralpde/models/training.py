"""Training on the nodes of one graph, stopped early by validation alone."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuralpde.data import Benchmark
from neuralpde.graph import Graph
from neuralpde.models.node import NodeModel
from neuralpde.models.penalty import EnergyPenalty
from neuralpde.models.scores import SCORES
from solvers.failure import unknown_name

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
}


@dataclass(frozen=True)
class Split:
    """Which nodes a model learns from, is chosen on, and is judged by.

    Attributes:
        train: Mask of the nodes whose labels the loss sees.
        val: Mask of those that decide when to stop, and between models.
        test: Mask of those that are looked at once, at the end.

    >>> one = torch.eye(3, dtype=torch.bool)
    >>> Split(*one).val.tolist()
    [False, True, False]
    """

    train: Bool[Tensor, " nodes"]
    val: Bool[Tensor, " nodes"]
    test: Bool[Tensor, " nodes"]

    def __post_init__(self) -> None:
        counts = self.train.long() + self.val.long() + self.test.long()
        if int(counts.max()) > 1:
            raise ValueError(f"{int((counts > 1).sum())} nodes stand in two parts of the split")
        for name, mask in (("train", self.train), ("val", self.val), ("test", self.test)):
            if not bool(mask.any()):
                raise ValueError(f"the part {name!r} of the split is empty")

    @classmethod
    def fixed(cls, data: Benchmark, index: int = 0) -> Split:
        """A split that comes with the data; sets with one only have index 0.

        Raises:
            ValueError: For data without splits, and an index that they do not have.
        """
        masks = (data.train_mask, data.val_mask, data.test_mask)
        if any(mask is None for mask in masks):
            raise ValueError(f"{data.name} comes without splits; use Split.random")
        wide = [mask.view(len(mask), -1) for mask in masks if mask is not None]
        if not 0 <= index < wide[0].shape[1]:
            raise ValueError(f"{data.name} has {wide[0].shape[1]} splits; there is no {index}")
        return cls(*(mask[:, index].bool() for mask in wide))

    @classmethod
    def random(cls, y: Tensor, seed: int, shares: tuple[float, float] = (0.48, 0.32)) -> Split:
        """A split drawn class by class.

        Args:
            y: Labels.
            seed: Fixes the draw.
            shares: Of training and validation; the rest is for the test.

        >>> split = Split.random(torch.tensor([0, 1]).repeat(50), seed=0)
        >>> split.train.sum().item(), split.val.sum().item(), split.test.sum().item()
        (48, 32, 20)
        """
        generator = torch.Generator().manual_seed(seed)
        masks = torch.zeros(3, len(y), dtype=torch.bool)
        for label in y.unique().tolist():
            nodes = torch.nonzero(y == label).flatten()
            nodes = nodes[torch.randperm(len(nodes), generator=generator)]
            first, second = (round(share * len(nodes)) for share in (shares[0], sum(shares)))
            for mask, part in zip(masks, nodes.tensor_split([first, second]), strict=True):
                mask[part] = True
        return cls(*masks)


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        learning_rate: Of the optimiser.
        weight_decay: Of the optimiser, on all parameters.
        optimiser: "adam", "adamw", "adamax" or "rmsprop".
        epochs: At most.
        patience: Epochs without a better validation score before it stops.
        score: What is compared on validation: "accuracy", "auc" or, for regression, "error" (the
            mean square, with its sign turned).
        penalty: A price on the energy of the last state; of fields only.
        watch: Every how many epochs the Rayleigh quotient of the last state is noted; 0 for never.
        ends: Rising times at which validation reads the state as well, of fields whose end is not
            learned. Epoch and end with the best score are kept together, as GRAND's code does;
            the loss is that of the model's own end.

    Raises:
        ValueError: For unknown names, and ends that do not rise from above 0.

    >>> Training(epochs=10).score
    'accuracy'
    """

    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    optimiser: str = "adam"
    epochs: int = 300
    patience: int = 100
    score: str = "accuracy"
    penalty: EnergyPenalty | None = None
    watch: int = 0
    ends: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # As json holds them they are a list.
        object.__setattr__(self, "ends", tuple(self.ends))
        if any(b <= a for a, b in pairwise((0.0, *self.ends))):
            raise ValueError(f"ends are {list(self.ends)}; give rising times after 0")
        if self.optimiser not in OPTIMISERS:
            raise unknown_name("optimiser", self.optimiser, OPTIMISERS)
        if self.score not in (*SCORES, "error"):
            raise unknown_name("score", self.score, (*SCORES, "error"))


@dataclass
class Trained:
    """What came out; the model holds the weights of the best epoch.

    Attributes:
        epoch: The best on validation; the first of equals.
        epochs: How many were run.
        train: Score on the training nodes, at that epoch.
        val: On validation.
        test: On the test nodes, looked at once.
        seconds: Of training.
        history: Rows of `epoch`, `loss`, `val` and, where they were watched, `rayleigh` or `end`,
            the best of the ends.

    >>> Trained(3, 5, 1.0, 0.9, 0.8, 0.1).epoch
    3
    """

    epoch: int
    epochs: int
    train: float
    val: float
    test: float
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    model: nn.Module,
    x: Float[Tensor, "nodes inputs"],
    y: Tensor,
    graph: Any,
    split: Split,
    training: Training | None = None,
    report: Callable[[int, float, float], object] | None = None,
) -> Trained:
    """Train a model in place; early stopping sees validation alone, and the test part waits.

    The loss is the cross entropy of classes (integers `y`), or the mean square of numbers
    `[nodes, outputs]`, on the training nodes, with the price of the energy added. Of epochs with
    the same validation score the one with the smaller validation loss is better.

    Args:
        model: `NodeModel`, `Convolutions`, or any module called as `model(x, graph)`.
        x: Features.
        y: Classes, or numbers.
        graph: The graph.
        split: The parts.
        training: Settings.
        report: Called with epoch, loss and validation score.

    Raises:
        ValueError: For a penalty with a model that has no state, a score that does not fit `y`,
            ends of a model that has none to choose.

    >>> from neuralpde import data
    >>> from neuralpde.models import Recipe
    >>> club, _ = data.load("karate"), torch.manual_seed(0)
    >>> model = Recipe("grand", 34, 2, 8, end=4.0).build()
    >>> found = train(model, club.x, club.y, club.graph, Split.random(club.y, 0),
    ...               Training(epochs=60))
    >>> found.train
    1.0
    """
    training = training or Training()
    classes = not y.is_floating_point()
    if classes == (training.score == "error"):
        raise ValueError(
            f"score is {training.score!r} and y is {y.dtype}; use 'error' for numbers, 'accuracy' "
            "or 'auc' for classes"
        )
    flow = model if isinstance(model, NodeModel) else None
    if flow is None and (training.penalty is not None or training.watch):
        raise ValueError(f"{type(model).__name__} has no state whose energy could be taken")
    ends = _ends(training, model)
    owner = Graph.of(graph).like(x)
    judge = _Judge(y, training.score)
    optimiser = OPTIMISERS[training.optimiser](
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    best, kept = (-float("inf"), -float("inf")), deepcopy(model.state_dict())
    best_end = None
    history: list[dict[str, float]] = []
    started, epoch, chosen = clock.perf_counter(), 0, 0
    for epoch in range(1, training.epochs + 1):
        model.train()
        optimiser.zero_grad()
        if flow is None or training.penalty is None:
            loss = judge.loss(model(x, owner), split.train)
        else:
            state = flow.last(x, owner)
            loss = judge.loss(flow.read(state), split.train) + training.penalty(state, owner)
        loss.backward()
        optimiser.step()
        model.eval()
        with torch.no_grad():
            outs = flow.readings(x, owner, ends) if flow and ends else [model(x, owner)]
        marks = [(judge.score(o, split.val), -float(judge.loss(o, split.val))) for o in outs]
        mark = max(marks)
        row = {"epoch": float(epoch), "loss": float(loss.detach()), "val": mark[0]}
        if ends:
            row["end"] = ends[marks.index(mark)]
        if flow is not None and training.watch and epoch % training.watch == 0:
            row["rayleigh"] = float(flow.trajectory(x, owner)["rayleigh"].y[-1])
        history.append(row)
        if report is not None:
            report(epoch, row["loss"], mark[0])
        if mark > best:
            best, chosen, kept = mark, epoch, deepcopy(model.state_dict())
            best_end = row.get("end")
        elif epoch - chosen >= training.patience:
            break
    seconds = clock.perf_counter() - started
    model.load_state_dict(kept)
    if flow is not None and best_end is not None:
        flow.end = best_end
    model.eval()
    with torch.no_grad():
        out = model(x, owner)
    known, seen, kept_back = (judge.score(out, m) for m in (split.train, split.val, split.test))
    return Trained(chosen, epoch, known, seen, kept_back, seconds, history)


def _ends(training: Training, model: nn.Module) -> tuple[float, ...]:
    """All times at which validation reads, the model's own among them; none for its own alone."""
    if not training.ends:
        return ()
    if not isinstance(model, NodeModel) or model.log_end is not None or model.field.pieces:
        raise ValueError(
            "ends choose among times of one field, and this model has "
            + ("none" if not isinstance(model, NodeModel) else "a learned end or several fields")
        )
    return tuple(sorted({*training.ends, float(model.end)}))


@dataclass(frozen=True)
class _Judge:
    y: Tensor
    name: str

    def loss(self, out: Tensor, part: Tensor) -> Tensor:
        if self.name == "error":
            return nn.functional.mse_loss(out[part], self.y[part].view_as(out[part]))
        return nn.functional.cross_entropy(out[part], self.y[part])

    def score(self, out: Tensor, part: Tensor) -> float:
        if self.name == "error":
            return -float(self.loss(out, part))
        return SCORES[self.name](out[part], self.y[part])
