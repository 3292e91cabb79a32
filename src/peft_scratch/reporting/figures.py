"""The report's figures: matplotlib draws them as SVG, Typst sets their labels.

Text stays text in the SVG, so that Typst, which shapes Persian whatever matplotlib is installed, sets
it in the PDF and in the pictures of the README alike. Every figure is drawn from the results alone and
is None when there is nothing measured to draw.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.patches
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from peft_scratch.assignment import TEN
from peft_scratch.reporting.tables import Result
from peft_scratch.reporting.words import Language

# Okabe and Ito's colours (2008), told apart by colour-blind readers; markers and hatches serve print in grey.
BLUE, RED, GREEN, PINK, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#666666"
METHODS = {"full": ("#000000", "s"), "soft_prompt": (BLUE, "o"), "adapter": (RED, "^"), "lora": (GREEN, "D")}
PARTS = {
    "parameters": ("#BBBBBB", ""),
    "gradients": (SKY, "////"),
    "optimizer": (RED, "...."),
    "activations": ("#F0E442", "\\\\\\\\"),
}
# Of the runs of one method: colour, marker, line.
SERIES = ((BLUE, "o", "-"), (RED, "s", "--"), (GREEN, "^", ":"))

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "peft-scratch",  # the ids in the file, the same each time
    "font.family": "DejaVu Sans",
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

_THOUSANDS = FuncFormatter(lambda x, _: f"{x:,.0f}" if x == round(x) else f"{x:g}")

WIDE = 6.7  # inches: the text width of the page


def draw(results: dict[str, Result], small_data: dict[str, Result], language: Language) -> dict[str, str]:
    """The figures that there is data for, as SVG, by name.

    Args:
        results: of the runs, by id.
        small_data: of the runs on few reviews, by id.
    """
    with mpl.rc_context(_STYLE):
        figures = {
            "accuracy": accuracy(results, language),
            "curves": curves(results, language),
            "memory": memory(results, language),
            "knowledge": knowledge(results, language),
            "small_data": small(small_data, language),
            "time": seconds(results, language),
        }
        return {name: _svg(figure) for name, figure in figures.items() if figure is not None}


#: Points below the lowest run at which a line of comparison is named at the foot instead of drawn.
FAR_BELOW = 10


def accuracy(results: dict[str, Result], language: Language) -> Figure | None:
    """Test accuracy of the best epoch against the number of trained parameters."""
    runs = {name: results[name] for name in TEN if name in results}
    if not runs:
        return None
    figure, (ax,) = _figure(WIDE, 2.9)
    ax.set_xscale("log")
    labels, avoid = {}, []  # from scratch and through a library at the same place: one label
    for name, result in runs.items():
        colour, marker = METHODS[result["config"]["kind"]]
        scratch = result["config"]["library"] in ("scratch", "none")
        share, counted = result["accuracy"]["best"], reviews(result, "test")
        x, y = result["parameters"]["trainable"], 100 * share
        error = 100 * standard_error(share, counted) if counted else 0
        ax.errorbar(x, y, error, color=colour, lw=0.7, alpha=0.55)
        avoid.append((x, y - error, x, y + error))
        ax.plot(
            x, y, marker, color=colour, ms=7, mew=1.4, mfc=colour if scratch else "white", zorder=3, ls=""
        )
        labels.setdefault((x, language.size_of(name)), (x, y, language.drawn(language.size_of(name)), colour))
    trained = [run["parameters"]["trainable"] for run in runs.values()]
    right = 3 * max(trained)
    ax.set_xlim(min(trained) / 2.2, right)
    lines = []
    lowest = min(100 * run["accuracy"]["best"] for run in runs.values())
    for name, dashes in (("bag_of_words", (5, 2)), ("zero_shot", (1, 2)), ("zero_shot_prefix", (3, 2, 1, 2))):
        if name in results:
            y = 100 * results[name]["accuracy"]["best"]
            label = language.drawn(f"{language.run(name)} {language.number(y, 1)}")
            if y < lowest - FAR_BELOW:  # down to it, the runs would all lie on one line
                lines.append((lowest - FAR_BELOW, f"{label} ↓"))
                continue
            ax.axhline(y, color=GREY, lw=0.9, dashes=dashes, zorder=1)
            avoid.append((min(trained) / 2.2, y, right, y))
            lines.append((y, label))
    ax.update_datalim([(min(trained), y) for y, _ in lines])
    ax.margins(y=0.12)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_locator(LogLocator(numticks=12))
    ax.xaxis.set_major_formatter(_THOUSANDS)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(language.drawn(language.say("trained_parameters")))
    ax.set_ylabel(language.drawn(language.say("test_accuracy")))
    ax.grid(axis="y")
    kinds = dict.fromkeys(result["config"]["kind"] for result in runs.values())
    handles = [_dot(*METHODS[kind], language.drawn(language.say(kind))) for kind in kinds]
    handles.append(_dot(GREY, "o", language.drawn(language.say("from_scratch"))))
    handles.append(_dot(GREY, "o", language.drawn(language.say("through_library")), mfc="white"))
    _legend(figure, handles, columns=len(handles))
    _label_lines(ax, lines)
    place_labels(ax, list(labels.values()), avoid)
    return figure


def curves(results: dict[str, Result], language: Language) -> Figure | None:
    """For each method a column: training loss above, test accuracy below."""
    by_kind: dict[str, list[str]] = {}
    for name in TEN:
        if name in results:
            by_kind.setdefault(results[name]["config"]["kind"], []).append(name)
    if not by_kind:
        return None
    figure, axes = _figure(WIDE, 3.2, rows=2, columns=len(by_kind), sharex="col", sharey="row")
    for column, (kind, names) in enumerate(by_kind.items()):
        upper, lower = axes[column], axes[len(by_kind) + column]
        for name, (colour, marker, line) in zip(names, SERIES, strict=False):
            result = results[name]
            upper.plot(*zip(*result["curve"], strict=True), color=colour, ls=line, lw=1)
            epochs = [epoch["epoch"] for epoch in result["epochs"]]
            shares = [100 * epoch["accuracy"] for epoch in result["epochs"]]
            label = language.drawn(language.source_and_size_of(name))
            lower.plot(epochs, shares, color=colour, ls=line, marker=marker, ms=4, label=label)
        upper.set_title(language.drawn(language.say(kind)), fontsize=8.5, fontweight="bold")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        lower.set_xlim(left=0)
        lower.set_xlabel(language.drawn(language.say("epoch")))
        for ax in (upper, lower):
            ax.grid(axis="y")
        if len(names) > 1:
            lower.legend(loc="upper center", bbox_to_anchor=(0.5, -0.38), handlelength=2.2, borderpad=0)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel(language.drawn(language.say("training_loss")))
    axes[len(by_kind)].set_ylabel(language.drawn(language.say("test_accuracy")))
    return figure


def memory(results: dict[str, Result], language: Language) -> Figure | None:
    """Bytes by part, stacked, a bar a run; the peak as a diamond."""
    measured = {name: results[name]["memory"] for name in TEN if results.get(name, {}).get("memory")}
    if not measured:
        return None
    figure, (ax,) = _figure(WIDE, 0.75 + 0.185 * len(TEN))
    unit = 1e9 if max(sum(_parts(parts)) for parts in measured.values()) >= 1e9 else 1e6
    peaks = []
    for row, name in enumerate(TEN):
        if name not in measured:
            _missing(ax, row, language)
            continue
        left = 0.0
        for part, size in zip(PARTS, _parts(measured[name]), strict=True):
            colour, hatch = PARTS[part]
            ax.barh(row, size / unit, left=left, color=colour, hatch=hatch, ec="black", lw=0.4, height=0.68)
            left += size / unit
        if measured[name].get("peak") is not None:
            peaks.append((measured[name]["peak"] / unit, row))
    handles = [_patch(*PARTS[part], language.drawn(language.say(f"memory_{part}"))) for part in PARTS]
    if peaks:
        ax.plot(*zip(*peaks, strict=True), "D", color="black", ms=4, ls="")
        handles.append(_dot("black", "D", language.drawn(language.say("peak")), ms=4))
    _rows(ax, language)
    ax.xaxis.set_major_formatter(_THOUSANDS)
    letters = language.bytes(unit).replace(language.number(1, 1), "").strip()
    ax.set_xlabel(language.drawn(f"{language.say('memory')}{language.join(['', letters])}"))
    _legend(figure, handles, columns=len(handles))
    return figure


def seconds(results: dict[str, Result], language: Language) -> Figure | None:
    """Seconds of training and of evaluation, stacked, a bar a run."""
    if not any(name in results for name in TEN):
        return None
    figure, (ax,) = _figure(WIDE, 0.75 + 0.185 * len(TEN))
    kinds = (("training", BLUE, ""), ("evaluation", ORANGE, "////"))
    for row, name in enumerate(TEN):
        if name not in results:
            _missing(ax, row, language)
            continue
        left = 0.0
        for kind, colour, hatch in kinds:
            value = results[name]["seconds"][kind]
            ax.barh(
                row,
                value,
                left=left,
                color=colour,
                hatch=hatch,
                ec="white" if not hatch else "black",
                lw=0.4,
                height=0.68,
            )
            left += value
        ax.annotate(
            language.number(left), (left, row), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
    _rows(ax, language)
    ax.xaxis.set_major_formatter(_THOUSANDS)
    ax.set_xlabel(language.drawn(language.say("seconds")))
    _legend(
        figure,
        [_patch(colour, hatch, language.drawn(language.say(f"in_{kind}"))) for kind, colour, hatch in kinds],
        2,
    )
    return figure


def knowledge(results: dict[str, Result], language: Language) -> Figure | None:
    """The base's pre-training loss before tuning, after it, and with the delta off."""
    measured = {name: results[name]["knowledge"] for name in TEN if results.get(name, {}).get("knowledge")}
    if not measured:
        return None
    figure, (ax,) = _figure(WIDE, 0.75 + 0.185 * len(TEN))
    before = next(iter(measured.values()))["base"]
    ax.axvline(before, color=GREY, lw=0.9, dashes=(5, 2), zorder=1)
    for row, name in enumerate(TEN):
        if name not in measured:
            _missing(ax, row, language)
            continue
        tuned, off = measured[name]["tuned"], measured[name].get("off")
        ax.plot([before, tuned], [row, row], color=RED, lw=2, alpha=0.5, zorder=2)
        if off is not None:
            ax.plot(off, row, "o", color=BLUE, mfc="white", ms=6.5, mew=1.3, zorder=3)
        ax.plot(tuned, row, "D", color=RED, ms=5, zorder=4)
        side = 1 if tuned >= before else -1
        ax.annotate(
            language.number(tuned, 2),
            (tuned, row),
            (6 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            fontsize=7,
        )
    ax.margins(x=0.15)
    _rows(ax, language)
    ax.set_xlabel(language.drawn(language.say("pretraining_loss")))
    handles = [
        mpl.lines.Line2D(
            [], [], color=GREY, lw=0.9, dashes=(5, 2), label=language.drawn(language.say("untouched"))
        ),
        _dot(RED, "D", language.drawn(language.say("delta_on")), ms=5),
        _dot(BLUE, "o", language.drawn(language.say("delta_off")), mfc="white"),
    ]
    _legend(figure, handles, columns=3)
    return figure


def small(small_data: dict[str, Result], language: Language) -> Figure | None:
    """For each run on few reviews a panel: accuracy on what it trained on and on the test reviews."""
    names = [name for name in TEN if name in small_data]
    if not names:
        return None
    columns = min(len(names), 5)
    rows = math.ceil(len(names) / columns)
    figure, axes = _figure(WIDE, 0.6 + 1.35 * rows, rows=rows, columns=columns, sharex=True, sharey=True)
    kinds = (
        ("training_accuracy", RED, "s", "--", "on_training"),
        ("test_accuracy", BLUE, "o", "-", "on_test"),
    )
    for ax, name in zip(axes, names, strict=False):
        runs = [run["epochs"] for run in small_data[name]["runs"]]
        for kind, colour, marker, line, _ in kinds:
            shares = [[100 * epoch[kind] for epoch in run] for run in runs]
            epochs = [epoch["epoch"] for epoch in runs[0]]
            for one in shares:
                ax.plot(epochs, one, color=colour, lw=0.5, alpha=0.6)
            mean = [sum(values) / len(values) for values in zip(*shares, strict=True)]
            ax.plot(epochs, mean, color=colour, ls=line, lw=1.8)
            ax.plot(epochs[-1:], mean[-1:], marker, color=colour, ms=4)
        title = filter(None, (language.method_of(name), language.source_and_size_of(name)))
        ax.set_title("\n".join(map(language.drawn, title)), fontsize=7, pad=3)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        ax.grid(axis="y")
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel(language.drawn(language.say("epoch")), fontsize=8)
    figure.supylabel(language.drawn(language.say("accuracy")), fontsize=8)
    handles = [
        mpl.lines.Line2D(
            [], [], color=colour, marker=marker, ls=line, ms=4, label=language.drawn(language.say(word))
        )
        for _, colour, marker, line, word in kinds
    ]
    _legend(figure, handles, columns=2)
    return figure


def standard_error(share: float, reviews: int) -> float:
    """Of an accuracy, as a share, measured on so many reviews."""
    return math.sqrt(share * (1 - share) / reviews)


def reviews(result: Result, split: str) -> int | None:
    """How many were in `split`, train or test; `None` if an older result took all and did not count them."""
    return result.get("reviews", {}).get(split) or result["config"][f"{split}_reviews"]


def place_labels(
    ax: Axes,
    points: Sequence[tuple[float, float, str, str]],
    avoid: Iterable[tuple[float, float, float, float]] = (),
) -> list[Any]:
    """Write a label beside each point, so that none covers a point or another label.

    Each label takes the first place that is free, from near to far and round the point; a far one gets
    a thin line to its point.

    Args:
        points: (x, y, text, colour).
        avoid: lines (x, y, x, y) that a label should not cover either, if it can be helped.

    Returns:
        The texts, in the order of `points`.
    """
    figure = ax.figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout, and with it every position, is known from here on
    figure.set_layout_engine("none")
    renderer = canvas.get_renderer()
    scale = figure.dpi / 72
    centres = [ax.transData.transform((x, y)) for x, y, *_ in points]
    taken = [Bbox.from_bounds(x - 5 * scale, y - 5 * scale, 10 * scale, 10 * scale) for x, y in centres]
    lines = [Bbox(ax.transData.transform([line[:2], line[2:]])).padded(scale) for line in avoid]
    texts = []
    for x, y, words, colour in points:
        text = ax.annotate(
            words, (x, y), (0, 0), textcoords="offset points", fontsize=7.5, color=colour, zorder=5
        )
        best = None
        for distance, (right, up) in ((d, way) for d in (8, 16, 26, 38, 52, 68) for way in _WAYS):
            text.set_position((right * distance, up * distance))
            text.set(ha=_ALIGN_X[right], va=_ALIGN_Y[up])
            box = text.get_window_extent(renderer).padded(1.5)
            inside = (
                ax.bbox.x0 <= box.x0
                and box.x1 <= ax.bbox.x1
                and ax.bbox.y0 <= box.y0
                and box.y1 <= ax.bbox.y1
            )
            if inside and not box.count_overlaps(taken):
                # Of two free places the one that covers fewer lines.
                covered = box.count_overlaps(lines)
                if best is None or covered < best[0]:
                    best = (covered, text.get_position(), text.get_ha(), text.get_va(), box, distance)
                if not covered:
                    break
        if best is not None:
            _, position, ha, va, box, distance = best
            text.set_position(position)
            text.set(ha=ha, va=va)
            taken.append(box)
            if distance > 16:
                ax.annotate(
                    "",
                    (x, y),
                    position,
                    xycoords="data",
                    textcoords="offset points",
                    arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 4},
                )
        texts.append(text)
    return texts


_WAYS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_ALIGN_X = {1: "left", 0: "center", -1: "right"}
_ALIGN_Y = {1: "bottom", 0: "center", -1: "top"}


def _label_lines(ax: Axes, lines: Sequence[tuple[float, str]]) -> None:
    """Write what a horizontal line is at its right end, outside; lines that are close push labels apart."""
    texts = [
        ax.annotate(text, (1, y), (4, 0), xycoords=ax.get_yaxis_transform(), textcoords="offset points",
                    va="center", fontsize=7, color=GREY)
        for y, text in sorted(lines)
    ]  # fmt: skip
    ax.figure.canvas.draw()  # the layout, and with it every position, is known from here on
    free = -math.inf
    for text in texts:
        wanted = ax.transData.transform((1, text.xy[1]))[1] * 72 / ax.figure.dpi
        shift = max(free - wanted, 0)
        text.set_position((4, shift))
        free = wanted + shift + 9


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **share: Any
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **share).flat)


def _svg(figure: Figure) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _legend(figure: Figure, handles: list[Artist], columns: int) -> None:
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, handlelength=1.8, columnspacing=1.2
    )


def _dot(colour: str, marker: str, label: str, mfc: str | None = None, ms: float = 6) -> Artist:
    return mpl.lines.Line2D([], [], color=colour, marker=marker, ls="", ms=ms, mfc=mfc or colour, label=label)


def _patch(colour: str, hatch: str, label: str) -> Artist:
    return mpl.patches.Patch(fc=colour, hatch=hatch, ec="black", lw=0.4, label=label)


def _rows(ax: Axes, language: Language) -> None:
    """A row for each of the ten, named, the first on top."""
    ax.set_yticks(range(len(TEN)), [language.drawn(language.run(name)) for name in TEN])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(TEN) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def _missing(ax: Axes, row: int, language: Language) -> None:
    ax.annotate(
        language.drawn(language.say("not_measured")), (0, row), (4, 0), xycoords=ax.get_yaxis_transform(),
        textcoords="offset points", va="center", fontsize=7, color=GREY,
    )  # fmt: skip


def _parts(measured: Result) -> list[float]:
    return [measured[part] for part in PARTS]
