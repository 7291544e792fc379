"""Trajectories by eigenvalue and frequency: the joint Fourier transform over nodes and time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.spectra import spectrum
from solvers.trajectory import Trajectory

LEAST = 8
"""Times that a frequency needs at least."""

UNIFORM = 1e-6
"""Relative difference of two gaps between times that are taken for equal."""


@dataclass(frozen=True, eq=False)
class JointSpectrum:
    """Power of a trajectory by angular frequency and by eigenvalue of the Laplacian.

    Attributes:
        frequencies: omega >= 0, radians per unit of time; of complex states negative ones as well,
            ascending.
        eigenvalues: Ascending.
        power: |X(omega, lambda)|^2, summed over channels, `[frequencies, modes]`; with a Hann
            window over time, mean 1, which keeps what leaks from a strong line two lines away.
        norm: Which Laplacian.

    >>> from neuralpde import catalogue, solve
    >>> from neuralpde.fields import Wave
    >>> x0 = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)  # swings with sqrt(2)
    >>> t = torch.linspace(0, 60, 241, dtype=torch.float64)
    >>> found = joint_spectrum(solve(Wave(), (x0, 0 * x0), t, catalogue.path(2)))
    >>> abs(found.ridge()[1].item() - 2**0.5) < 0.01
    True
    """

    frequencies: Float[Tensor, " frequencies"]
    eigenvalues: Float[Tensor, " modes"]
    power: Float[Tensor, "frequencies modes"]
    norm: str

    @property
    def resolution(self) -> float:
        """Distance of neighbouring frequencies, 2 pi over the length of time."""
        return float(self.frequencies[1] - self.frequencies[0])

    def ridge(self) -> Float[Tensor, " modes"]:
        """The strongest frequency of each mode, between lines by a parabola through log power."""
        top = self.power.argmax(0)
        inner = top.clamp(1, len(self.frequencies) - 2)
        floor = torch.finfo(torch.float64).tiny
        at = torch.arange(self.power.shape[1])
        before, here, after = (self.power[inner + k, at].clamp(min=floor).log() for k in (-1, 0, 1))
        bend = before - 2 * here + after
        shift = torch.where(bend < 0, 0.5 * (before - after) / bend, 0.0).clamp(-0.5, 0.5)
        shift = torch.where(top == inner, shift, 0.0)
        return self.frequencies[top] + shift * self.resolution


def joint_spectrum(trajectory: Trajectory, norm: str = "comb") -> JointSpectrum:
    """The joint time-vertex Fourier transform of a trajectory, as powers.

    A wave x'' = -c^2 L x has its power on the ridge omega = c sqrt(lambda): the dispersion relation
    of the graph. Of a tuple state (x, v) it reads x.

    Args:
        trajectory: On one undirected graph of at most 3000 nodes, saved at equally spaced times.
        norm: "comb", "sym", "rw" or "augmented".

    Raises:
        ValueError: Without a graph, for a batch, fewer than 8 times, or times unequally spaced.

    References:
        F. Grassi, A. Loukas, N. Perraudin, B. Ricaud, A time-vertex signal processing framework,
        IEEE Trans. Signal Process. 66 (2018), arXiv:1705.02307.

    >>> from neuralpde import catalogue
    >>> still = Trajectory(torch.arange(8).double(), torch.ones(8, 3, 1), graph=catalogue.path(3))
    >>> found = joint_spectrum(still)
    >>> tuple(found.power.shape), found.power.argmax().item()  # constant in time and space
    ((5, 3), 0)
    """
    graph, t = trajectory.graph, trajectory.t.detach()
    if graph is None or graph.num_graphs > 1 or t.dim() > 1:
        raise ValueError("a joint spectrum is that of one graph with one clock")
    if len(t) < LEAST:
        raise ValueError(f"{len(t)} saved times are too few for frequencies; give {LEAST} or more")
    gaps = t.diff().abs()
    if float(gaps.max() - gaps.min()) > UNIFORM * float(gaps.mean()):
        raise ValueError(
            f"saved times are {float(gaps.min()):.4g} to {float(gaps.max()):.4g} apart; solve with "
            "equally spaced ones, t=torch.linspace(start, end, count)"
        )
    x = trajectory.x[0] if isinstance(trajectory.x, tuple) else trajectory.x
    modes = spectrum(graph, norm)
    states = x.detach().to(modes.eigenvalues.device).movedim(0, -1)
    coefficients = modes.transform(states.reshape(len(states), -1, len(t)))
    window = torch.hann_window(len(t) + 2, periodic=False, dtype=torch.float64)[1:-1]
    seen = coefficients * (window / window.mean())
    step = float(gaps.mean())
    if x.is_complex():
        lines, waves = torch.fft.fftfreq(len(t), step), torch.fft.fft(seen, dim=-1)
        order = lines.argsort()
        lines, waves = lines[order], waves[..., order]
    else:
        lines, waves = torch.fft.rfftfreq(len(t), step), torch.fft.rfft(seen, dim=-1)
    power = (waves.abs().square() / len(t) ** 2).sum(1).T
    return JointSpectrum(2 * torch.pi * lines.double(), modes.eigenvalues, power, norm)
