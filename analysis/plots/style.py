"""How figures look: sizes of a paper, colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from textwrap import fill
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")

COLUMN = 85 / 25.4
"""Width of a paper's column, inches."""

PAGE = 170 / 25.4
"""Width of a paper's page, inches."""

# Okabe and Ito's colours.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"

CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of many lines, in order; beyond them markers and dashes must tell lines apart."""

LINE = 38
"""Letters of a title that fit above a third of a page."""

STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def on_paper(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Let a function that makes its own axes or figure draw in `STYLE`; what comes keeps its own.

    >>> import matplotlib.pyplot as plt
    >>> draw = on_paper(lambda ax=None: axes(ax).set_xlabel("t").get_size())
    >>> draw(), draw(ax=plt.figure().subplots()) == plt.rcParams["font.size"]
    (7.0, True)
    """
    takes = signature(draw)

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Drawn:
        given = takes.bind(*args, **kwargs).arguments
        if given.get("ax") is not None or given.get("figure") is not None:
            return draw(*args, **kwargs)
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def axes(ax: Axes | None = None, width: float = COLUMN, height: float | None = None) -> Axes:
    """The axes that came, or new ones as wide as a column.

    >>> import matplotlib.pyplot as plt
    >>> new = axes()
    >>> axes(new) is new
    True
    >>> plt.close(new.figure)
    """
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    size = (width, height or 0.75 * width)
    return plt.subplots(figsize=size, layout="constrained")[1]


def title(convention: str) -> str:
    """A convention in lines that leave the neighbour its place.

    >>> title("tr(x'Lx) / |x|^2")
    'tr($x^TLx$) / $|x|^2$'
    """
    return fill(convention, LINE).replace("x'Lx", "$x^TLx$").replace("|x|^2", "$|x|^2$")


def logarithmic(ax: Axes) -> None:
    """Make the vertical axis logarithmic, with few ticks: plain numbers where decades are few.

    >>> import matplotlib.pyplot as plt
    >>> ax = axes()
    >>> _ = ax.set_ylim(0.1, 0.9)
    >>> logarithmic(ax)
    >>> ax.yaxis.get_major_formatter()(0.5)
    '0.5'
    >>> plt.close(ax.figure)
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    low, high = ax.get_ylim()
    few = high < 300 * low
    if few:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    else:
        ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_minor_formatter(NullFormatter())
