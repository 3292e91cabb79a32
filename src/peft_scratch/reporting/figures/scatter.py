"""Accuracy and trainable parameters: the report's main figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from peft_scratch.comparison import error_of
from peft_scratch.reporting.figures import style
from peft_scratch.reporting.figures.labels import label_lines, place_labels
from peft_scratch.reporting.inputs import Inputs
from peft_scratch.reporting.languages import Language
from peft_scratch.results import RunResult

#: A baseline that is more points below the lowest run is named at the foot and not drawn.
FAR_BELOW = 10

_DASHES = {"bag_of_words": (5, 2), "zero_shot": (1, 2), "zero_shot_prefix": (3, 2, 1, 2)}


def accuracy(inputs: Inputs, language: Language) -> Figure | None:
    """Test accuracy of the best epoch against the number of trainable parameters, with its error.

    A run with several seeds stands at their mean, with its interval.
    """
    runs = inputs.runs
    if not runs:
        return None
    figure, (ax,) = style.new_figure(language, 2.6)
    ax.set_xscale("log")
    markers, bars = [], []
    labels = {}  # one for scratch and library, if they have the same number of parameters and size
    for name, run in runs.items():
        colour, marker = style.METHODS[run.config.kind]
        x, y, low, high = run.parameters.trainable, *_percent(inputs, name, run)
        ax.errorbar(x, y, [[y - low], [high - y]], color=colour, lw=0.7, alpha=0.55)
        bars.append((x, low, x, high))
        markers.append((x, y))
        filled = colour if run.config.library in ("scratch", "none") else "white"
        ax.plot(x, y, marker, color=colour, ms=7, mew=1.4, mfc=filled, zorder=3, ls="")
        labels.setdefault((x, language.size_of(name)), (x, y, language.drawn(language.size_of(name)), colour))
    trained = [run.parameters.trainable for run in runs.values()]
    ax.set_xlim(min(trained) / 2.2, 3 * max(trained))
    ax.margins(y=0.12)
    lines, at_the_foot = _lines_of_comparison(ax, inputs, language, min(low for _, low, _, _ in bars))
    _axes_and_legend(figure, ax, inputs, language)
    label_lines(ax, lines, at_the_foot)
    left, right = ax.get_xlim()
    place_labels(ax, list(labels.values()), markers, bars, [(left, y, right, y) for y, _ in lines])
    return figure


def _percent(inputs: Inputs, name: str, run: RunResult) -> tuple[float, float, float]:
    """Accuracy, and where its bar begins and ends."""
    if name in inputs.summaries:
        of = inputs.summaries[name]
        return 100 * of.mean, 100 * min(of.low, of.mean), 100 * max(of.high, of.mean)
    share = run.accuracy.best
    error = error_of(run, share) or 0
    return 100 * share, 100 * (share - error), 100 * (share + error)


def _lines_of_comparison(
    ax: Axes, inputs: Inputs, language: Language, lowest: float
) -> tuple[list[tuple[float, str]], list[str]]:
    """Draw the baselines; the labels of those that are drawn, and of those that lie far below."""
    lines, at_the_foot = [], []
    for name, dashes in _DASHES.items():
        if name not in inputs.results:
            continue
        y = inputs.results[name].percent
        label = language.drawn(f"{language.run(name)} {language.number(y, 1)}")
        if y < lowest - FAR_BELOW:  # an axis that reaches this far would hide the differences of the runs
            at_the_foot.append(f"{label} ↓")
            continue
        ax.axhline(y, color=style.GREY, lw=0.9, dashes=dashes, zorder=1)
        lines.append((y, label))
    return lines, at_the_foot


def _axes_and_legend(figure: Figure, ax: Axes, inputs: Inputs, language: Language) -> None:
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_locator(LogLocator(numticks=12))
    ax.xaxis.set_major_formatter(style.ticks(language))  # the logarithmic scale has set its own
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(language.label("trained_parameters"))
    ax.set_ylabel(language.label("test_accuracy"))
    ax.grid(axis="y")
    kinds = dict.fromkeys(run.config.kind for run in inputs.runs.values())
    handles = [style.dot(*style.METHODS[kind], language.label(kind)) for kind in kinds]
    handles.append(style.dot(style.GREY, "o", language.label("from_scratch")))
    handles.append(style.dot(style.GREY, "o", language.label("through_library"), mfc="white"))
    style.legend(figure, handles)
