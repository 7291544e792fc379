"""The divergence of a velocity: exactly, or by random probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from neuralpde.flows.models import Function


class Divergence(Protocol):
    """The sum over the numbers of each point of dv_i / dx_i.

    Attributes:
        random: Whether a value has a random error.
    """

    random: bool

    def __call__(self, velocity: Function, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity, and the divergence of each point."""


@dataclass(frozen=True)
class Trace:
    """The trace of the Jacobian of each point, by as many products as a point has numbers.

    Points are taken to move by themselves, as those of a network do; nodes of a graph do not, and
    need `Hutchinson`.

    >>> x = torch.tensor([[1.0, 2.0]])
    >>> Trace()(lambda t, x: x**2, torch.tensor(0.0), x)[1].tolist()
    [6.0]
    """

    random = False

    def __call__(self, velocity: Function, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity, and the trace."""
        v, at, tracked = _differentiable(velocity, t, x)
        flat = x.reshape(len(x), -1)
        total = torch.zeros_like(flat[:, 0])
        for i in range(flat.shape[1]):
            probe = torch.zeros_like(flat)
            probe[:, i] = 1
            total = total + _product(v, at, probe.reshape(x.shape), tracked)
        return _plain(v, tracked), total


@dataclass(frozen=True)
class Hutchinson:
    """The estimate `z^T J z` with signs z at random, unbiased; fresh ones at every time.

    The signs are a function of the seed and the time, so that the velocity with its divergence
    stays a function: steps can be replayed. Where J is diagonal the estimate is exact. On nodes of
    a graph, sum the entries over the graph: those of single nodes are of no meaning.

    Args:
        seed: Of the signs, from 0 to 2^64 - 1.
        probes: How many are averaged, each a product with the Jacobian.

    Raises:
        ValueError: Without probes.

    References:
        Hutchinson, Commun. Stat. Simul. Comput. 18 (1989), 1059; Grathwohl et al., FFJORD, ICLR
        2019, arXiv:1810.01367, who keep one probe for a whole solve.

    >>> Hutchinson(0)(lambda t, x: x**2, torch.tensor(0.0), torch.tensor([[1.0, 2.0]]))[1].item()
    6.0
    """

    seed: int
    probes: int = 1
    random = True

    def __post_init__(self) -> None:
        """Refuse to do nothing."""
        if self.probes < 1:
            raise ValueError(f"probes={self.probes}: at least one is needed")

    def __call__(self, velocity: Function, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity, and the estimate."""
        v, at, tracked = _differentiable(velocity, t, x)
        signs = self._signs(t, x)
        total = sum(_product(v, at, probe, tracked) for probe in signs)
        return _plain(v, tracked), torch.as_tensor(total) / self.probes

    def _signs(self, t: Tensor, x: Tensor) -> Tensor:
        place = int(np.float64(float(t)).view(np.uint64))
        bits = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, place, 0, 0]))
        signs = 2 * bits.integers(0, 2, (self.probes, *x.shape), dtype=np.int8) - 1
        return torch.from_numpy(signs).to(x)


def _differentiable(velocity: Function, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """The velocity at a point that autograd sees, and whether anyone outside looks on."""
    tracked = torch.is_grad_enabled()
    with torch.enable_grad():
        at = x if tracked and x.requires_grad else x.detach().requires_grad_()
        return velocity(t, at), at, tracked


def _product(v: Tensor, at: Tensor, probe: Tensor, tracked: bool) -> Tensor:
    """z^T J z, summed over the numbers of each point."""
    if not v.requires_grad:
        return torch.zeros_like(probe.reshape(len(probe), -1)[:, 0])
    (pulled,) = torch.autograd.grad(
        v, at, probe, retain_graph=True, create_graph=tracked, materialize_grads=True
    )
    return (pulled * probe).reshape(len(probe), -1).sum(1)


def _plain(v: Tensor, tracked: bool) -> Tensor:
    return v if tracked else v.detach()
