"""States by frequency: spectrograms, profiles, and the dispersion of waves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from analysis.bands import BandEnergy
from analysis.plots.style import CYCLE, GREY, ORANGE, axes, on_paper
from analysis.spectra import Spectrum, spectrum
from analysis.waves import JointSpectrum
from neuralpde.graph import Graph
from solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 8.0
"""Decades of power that colours span at most."""

WIDTH = 60
"""Bins of eigenvalues in a dispersion plot."""


@on_paper
def spectrogram(
    trajectory: Trajectory,
    ax: Axes | None = None,
    *,
    bands: BandEnergy | None = None,
    log: bool = False,
    decades: float = DECADES,
) -> Axes:
    r"""The energy of a trajectory by eigenvalue and time, colours logarithmic.

    Each cell is one band around a saved time; grey ones lie below their floor (of rounding: what
    the solver's tolerance left in the states is not known here, about `rtol^2 |x|^2`). Bands of
    equal width are drawn on the eigenvalues, bands of equally many modes as equal strips.

    Args:
        trajectory: On one graph, with several saved states.
        ax: Where; new axes by default.
        bands: The measure; by default 24 bands of the field's own Laplacian.
        log: Whether time is logarithmic; what is at t = 0 then starts the first cell.
        decades: How many decades of energy the colours span.

    Raises:
        ValueError: Without a graph, for a batch, or with a single saved state.

    >>> from neuralpde import Graph, solve
    >>> from neuralpde.fields import Heat
    >>> x0 = torch.tensor([[2.0], [0.0]])
    >>> heat = solve(Heat(), x0, [0.0, 1.0, 2.0], torch.tensor([[0, 1], [1, 0]]))
    >>> spectrogram(heat, bands=BandEnergy(4)).get_ylabel()
    'eigenvalue $\\lambda$ (comb)'
    """
    from matplotlib.colors import LogNorm

    if trajectory.graph is None or trajectory.t.dim() > 1 or trajectory.graph.num_graphs > 1:
        raise ValueError("a spectrogram is that of one graph with one clock")
    if len(trajectory.t) < 2:
        raise ValueError("a spectrogram needs several saved states: solve with t=[...] or save=")
    ax = axes(ax)
    measure = bands or BandEnergy(24, _own_norm(trajectory))
    series = trajectory.measure(measure)
    graph = trajectory.graph.like(_first(trajectory)[0])
    edges = measure.edges(graph)[0].cpu().numpy()
    strips = measure.spacing == "modes" and not isinstance(measure.bands, tuple)
    rows = np.arange(len(edges)) if strips else edges
    energy = np.ma.masked_less_equal(np.nan_to_num(series.y.numpy().T), 0.0)
    top = float(energy.max()) if energy.count() else 1.0
    least = float(energy.min()) if energy.count() else 0.1
    low = max(least, top * 10.0**-decades)
    cells = ax.pcolormesh(
        _borders(series.t.numpy(), log),
        rows,
        np.ma.maximum(energy, low),
        norm=LogNorm(min(low, 0.99 * top), top),
        cmap="viridis",
        rasterized=True,
    )
    ax.set_facecolor("0.85")
    if log:
        ax.set_xscale("log")
    ax.set_xlabel("time $t$")
    if strips:
        _strip_labels(ax, edges)
    ax.set_ylabel(f"eigenvalue $\\lambda$ ({measure.norm})")
    kind = "share of $|x|^2$" if measure.relative else "energy $|x_\\lambda|^2$"
    _bar(ax, cells, f"{kind} per band", low > least)
    return ax


@on_paper
def profile(
    graph: Graph,
    states: Tensor | list[Tensor],
    ax: Axes | None = None,
    *,
    norm: str = "comb",
    labels: tuple[str, ...] = (),
) -> Axes:
    """The share of a state's energy below each eigenvalue: steep on the left means smooth.

    The dotted curve is that of white noise, the share of the modes themselves.

    Args:
        graph: The graph, of at most 3000 nodes.
        states: A state, or several.
        ax: Where; new axes by default.
        norm: Which Laplacian.
        labels: Names of the curves.

    >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
    >>> ax = profile(pair, torch.tensor([[3.0], [1.0]]))
    >>> [round(float(y), 6) for y in ax.lines[1].get_ydata()]  # 4^2 of 4^2 + 2^2
    [0.0, 0.8, 1.0]
    """
    ax = axes(ax)
    modes = spectrum(graph, norm)
    several = [states] if isinstance(states, Tensor) else list(states)
    ax.step(*_steps(modes, _white(modes)), where="post", color=GREY, ls=":", label="white noise")
    for k, x in enumerate(several):
        curve = modes.profile(x.detach()).cpu().numpy()
        color, name = CYCLE[k % len(CYCLE)], labels[k] if k < len(labels) else None
        ax.step(*_steps(modes, curve), where="post", color=color, label=name)
    ax.set_ylim(0.0, 1.02)
    ax.set_xlim(float(modes.eigenvalues[0]), float(modes.eigenvalues[-1]) or 1.0)
    ax.set_xlabel(f"eigenvalue $\\lambda$ ({norm})")
    ax.set_ylabel("share of $|x|^2$ up to $\\lambda$")
    ax.legend(frameon=False, loc="lower right")
    return ax


@on_paper
def dispersion(
    joint: JointSpectrum,
    ax: Axes | None = None,
    *,
    speed: float = 1.0,
    decades: float = 6.0,
) -> Axes:
    r"""The power of a trajectory by eigenvalue and frequency, with omega = c sqrt(lambda) on top.

    Modes are put together in bins of equal width.

    Args:
        joint: What `joint_spectrum` returned.
        ax: Where; new axes by default.
        speed: c of the relation that is drawn.
        decades: How many decades of power the colours span.

    >>> flat = JointSpectrum(torch.arange(3.0), torch.tensor([0.0, 1.0]), torch.ones(3, 2), "comb")
    >>> ax = dispersion(flat)
    >>> ax.get_ylabel(), ax.lines[0].get_label()
    ('angular frequency $\\omega$ (rad / time)', '$\\omega = \\sqrt{\\lambda}$')
    """
    from matplotlib.colors import LogNorm

    ax = axes(ax)
    values = joint.eigenvalues.numpy()
    top = float(values[-1]) or 1.0
    count = min(WIDTH, len(values))
    edges = np.linspace(0.0, top, count + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, count - 1)
    power = np.zeros((len(joint.frequencies), count))
    np.add.at(power.T, place, joint.power.numpy().T)
    empty = np.broadcast_to(np.bincount(place, minlength=count) == 0, power.shape)
    most = float(power.max()) or 1.0
    low = most * 10.0**-decades
    seen = np.ma.array(np.maximum(power, low), mask=empty)
    omega = joint.frequencies.numpy()
    half = joint.resolution / 2
    cells = ax.pcolormesh(
        edges,
        np.append(omega - half, omega[-1] + half),
        seen,
        norm=LogNorm(low, most),
        cmap="viridis",
        rasterized=True,
    )
    ax.set_facecolor("0.85")
    line = np.linspace(0.0, top, 400)
    name = "" if speed == 1.0 else f"{speed:g}\\,"
    ax.plot(
        line,
        speed * np.sqrt(line),
        color=ORANGE,
        ls="--",
        lw=0.9,
        label=f"$\\omega = {name}\\sqrt{{\\lambda}}$",
    )
    # Beyond the fastest mode there is nothing to see.
    ax.set_ylim(min(0.0, float(omega[0])), min(1.3 * speed * top**0.5, float(omega[-1])))
    ax.set_xlim(0.0, top)
    ax.set_xlabel(f"eigenvalue $\\lambda$ ({joint.norm})")
    ax.set_ylabel("angular frequency $\\omega$ (rad / time)")
    ax.legend(frameon=False, loc="upper left", labelcolor="white")
    _bar(ax, cells, "power $|X(\\lambda, \\omega)|^2$", float(power.min()) < low)
    return ax


def _own_norm(trajectory: Trajectory) -> str:
    """The convention of the trajectory's own energy, where modes have one of that name."""
    own = "comb" if trajectory.energy is None else trajectory.energy.convention.split(":")[0]
    return own if own in ("comb", "sym", "augmented") else "comb"


def _first(trajectory: Trajectory) -> Tensor:
    return trajectory.x[0] if isinstance(trajectory.x, tuple) else trajectory.x


def _borders(t: np.ndarray, log: bool) -> np.ndarray:
    """Where the cells around the times begin and end: midway, or midway in the logarithm."""
    if not log:
        middle = (t[1:] + t[:-1]) / 2
        return np.concatenate([t[:1], middle, t[-1:]])
    first = t[1] ** 2 / t[2] if t[0] <= 0 and len(t) > 2 else max(t[0], 0.5 * t[1])
    shown = np.concatenate([[first], t[1:]])
    return np.concatenate([shown[:1], np.sqrt(shown[1:] * shown[:-1]), shown[-1:]])


def _strip_labels(ax: Axes, edges: np.ndarray) -> None:
    """Eigenvalues at some of the borders between strips."""
    every = max(1, (len(edges) - 1) // 6)
    places = np.arange(0, len(edges), every)
    ax.set_yticks(places, [f"{edges[k]:.3g}" for k in places])


def _white(modes: Spectrum) -> np.ndarray:
    counts = torch.searchsorted(modes.levels, modes.levels, right=True)
    shares: np.ndarray = (counts.double() / len(counts)).cpu().numpy()
    return shares


def _steps(modes: Spectrum, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From zero, at the first eigenvalue."""
    values = modes.eigenvalues.cpu().numpy()
    return np.concatenate([values[:1], values]), np.concatenate([[0.0], curve])


def _bar(ax: Axes, cells: Any, label: str, cut: bool) -> None:
    """Colours with their label; an arrow where the last one stands for all that is less."""
    ends = "min" if cut else "neither"
    bar = ax.figure.colorbar(cells, ax=ax, pad=0.02, aspect=25, extend=ends, extendfrac=0.04)
    bar.set_label(label, fontsize=ax.yaxis.label.get_fontsize())
    bar.ax.tick_params(labelsize=ax.yaxis.get_ticklabels()[0].get_fontsize())
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
