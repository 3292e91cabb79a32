"""How every figure of the report looks: colours, fonts, axes, legends."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.patches
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter

from peft_scratch.reporting.languages import Language

# Okabe and Ito's colours (2008), told apart by colour-blind readers; markers and hatches serve print in grey.
BLUE, RED, GREEN, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9"
YELLOW, GREY = "#F0E442", "#666666"
METHODS = {"full": ("#000000", "s"), "soft_prompt": (BLUE, "o"), "adapter": (RED, "^"), "lora": (GREEN, "D")}

#: The folder of the typefaces that matplotlib does not have.
FONTS = Path(__file__).resolve().parents[1] / "fonts"

_WIDTH = 6.7  # inches: the text width of the page

_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "peft-scratch",  # the ids in the file, the same each time
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.linewidth": 0.6,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


def styled(language: Language) -> AbstractContextManager[None]:
    """A context in which matplotlib draws in this style."""
    if language.typeface:  # matplotlib measures the text with it, Typst sets the text in it
        known = {font.fname for font in font_manager.fontManager.ttflist}
        for path in sorted(map(str, FONTS.glob("*.ttf"))):
            if path not in known:
                font_manager.fontManager.addfont(path)
    families = [name for name in (language.typeface, "DejaVu Sans") if name]
    return mpl.rc_context({**_STYLE, "font.family": families})


def ticks(language: Language) -> FuncFormatter:
    """How the language writes the numbers at an axis."""
    return FuncFormatter(lambda x, _: language.number(x) if x == round(x) else language.numeral(f"{x:g}"))


def new_figure(
    language: Language, height: float, rows: int = 1, columns: int = 1, **share: Any
) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the text and `height` inches high, and its axes row by row."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, **share).flat)
    for ax in axes:
        ax.xaxis.set_major_formatter(ticks(language))
        ax.yaxis.set_major_formatter(ticks(language))
    return figure, axes


def svg(figure: Figure) -> str:
    """`figure` as SVG, whose text stays text; the same bytes each time."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def legend(figure: Figure, handles: list[Artist], columns: int | None = None) -> None:
    """The legend above the axes, on one line, or in `columns` (the page of `peft-scratch app` is narrow)."""
    place = {"loc": "outside upper center", "ncols": columns or len(handles)}
    figure.legend(handles=handles, handlelength=1.8, columnspacing=1.2, **place)


def note(ax: Axes, text: str, at: tuple[float, float], right: float, **more: Any) -> Annotation:
    """Small words beside a point, `right` typographic points to its right."""
    small = {"textcoords": "offset points", "va": "center", "fontsize": 7}
    return ax.annotate(text, at, (right, 0), **small, **more)


def dot(colour: str, marker: str, label: str, mfc: str | None = None, ms: float = 6) -> Artist:
    """A marker of the legend."""
    return mpl.lines.Line2D([], [], color=colour, marker=marker, ls="", ms=ms, mfc=mfc or colour, label=label)


def line(colour: str, label: str, **style: Any) -> Artist:
    """A line of the legend."""
    return mpl.lines.Line2D([], [], color=colour, label=label, **style)


def patch(colour: str, hatch: str, label: str) -> Artist:
    """A filled part of the legend."""
    return mpl.patches.Patch(fc=colour, hatch=hatch, ec="black", lw=0.4, label=label)
