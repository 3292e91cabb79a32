"""Figures of what goes on from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from peft_scratch.assignment import TEN
from peft_scratch.comparison import error_of
from peft_scratch.reporting.figures.style import BLUE, GREEN, RED, legend, line, new_figure
from peft_scratch.reporting.languages import Language
from peft_scratch.results import RunResult, SmallDataResult

# Colour, marker and line of the runs of one method.
SERIES = ((BLUE, "o", "-"), (RED, "s", "--"), (GREEN, "^", ":"))


def curves(runs: Mapping[str, RunResult], language: Language) -> Figure | None:
    """For each method a column: training loss above, test accuracy below."""
    by_kind: dict[str, list[str]] = {}
    for name, run in runs.items():
        by_kind.setdefault(run.config.kind, []).append(name)
    if not by_kind:
        return None
    figure, axes = new_figure(language, 3.0, rows=2, columns=len(by_kind), sharex="col", sharey="row")
    for column, (kind, names) in enumerate(by_kind.items()):
        upper, lower = axes[column], axes[len(by_kind) + column]
        for name, (colour, marker, dashes) in zip(names, SERIES, strict=False):
            upper.plot(*zip(*runs[name].curve, strict=True), color=colour, ls=dashes, lw=1)
            epochs = [epoch.epoch for epoch in runs[name].epochs]
            shares = [100 * epoch.accuracy for epoch in runs[name].epochs]
            errors = [100 * (error_of(runs[name], share / 100) or 0) for share in shares]
            label = language.drawn(language.source_and_size_of(name))
            style = {"color": colour, "ls": dashes, "marker": marker, "ms": 4, "elinewidth": 0.6}
            lower.errorbar(epochs, shares, errors, **style, label=label)
        upper.set_title(language.label(kind), fontsize=8.5, fontweight="bold")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        lower.set_xlim(left=0)
        lower.set_xlabel(language.label("epoch"))
        upper.grid(axis="y")
        lower.grid(axis="y")
        if len(names) > 1:
            # Below the label of the axis at any height of the axes: 5 times the size of the font.
            lower.legend(
                loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=5, borderpad=0, handlelength=2.2
            )
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel(language.label("training_loss"))
    axes[len(by_kind)].set_ylabel(language.label("test_accuracy"))
    return figure


def small(small_data: Mapping[str, SmallDataResult], language: Language) -> Figure | None:
    """A panel for each run on few reviews: accuracy on the training reviews and on the test reviews."""
    names = [name for name in TEN if name in small_data]
    if not names:
        return None
    columns = min(len(names), 5)
    rows = math.ceil(len(names) / columns)
    share = {"sharex": True, "sharey": True}
    figure, axes = new_figure(language, 0.6 + 1.35 * rows, rows, columns, **share)
    kinds = (
        ("training_accuracy", RED, "s", "--", "on_training"),
        ("test_accuracy", BLUE, "o", "-", "on_test"),
    )
    for ax, name in zip(axes, names, strict=False):
        runs = [run.epochs for run in small_data[name].runs]
        for kind, colour, marker, dashes, _ in kinds:
            shares = [[100 * getattr(epoch, kind) for epoch in run] for run in runs]
            epochs = [epoch.epoch for epoch in runs[0]]
            for one in shares:
                ax.plot(epochs, one, color=colour, lw=0.5, alpha=0.6)
            mean = [fmean(values) for values in zip(*shares, strict=True)]
            ax.plot(epochs, mean, color=colour, ls=dashes, lw=1.8)
            ax.plot(epochs[-1:], mean[-1:], marker, color=colour, ms=4)
        title = filter(None, (language.method_of(name), language.source_and_size_of(name)))
        ax.set_title("\n".join(map(language.drawn, title)), fontsize=7, pad=3)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        ax.grid(axis="y")
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel(language.label("epoch"), fontsize=8)
    figure.supylabel(language.label("accuracy"), fontsize=8)
    handles = [
        line(colour, language.label(word), marker=marker, ls=dashes, ms=4)
        for _, colour, marker, dashes, word in kinds
    ]
    legend(figure, handles)
    return figure
