"""Figures with a row for each run: memory, seconds, what the base still knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from peft_scratch.assignment import TEN
from peft_scratch.reporting import facts
from peft_scratch.reporting.facts import PARTS_OF_MEMORY
from peft_scratch.reporting.figures import style
from peft_scratch.reporting.figures.style import BLUE, GREY, ORANGE, RED, SKY, YELLOW
from peft_scratch.reporting.languages import Language
from peft_scratch.results import RunResult

_COLOURS = {
    "parameters": ("#BBBBBB", ""),
    "gradients": (SKY, "////"),
    "optimizer": (RED, "...."),
    "activations": (YELLOW, "\\\\\\\\"),
}
_KINDS = {"training": (BLUE, ""), "evaluation": (ORANGE, "////")}


def memory(runs: Mapping[str, RunResult], language: Language) -> Figure | None:
    """Bytes by part, stacked, a bar for each run; a diamond for the peak that a GPU counted."""
    measured = facts.measured(runs, "memory")
    if not measured:
        return None
    figure, ax = _rows(language)
    unit = 1e9 if max(map(facts.all_of, measured.values())) >= 1e9 else 1e6
    peaks = facts.gpu_peaks(runs)
    for row, name in _drawn(ax, measured, language):
        sizes = {part: getattr(measured[name], part) / unit for part in PARTS_OF_MEMORY}
        _stack(ax, row, sizes, _COLOURS)
        if name in peaks:
            ax.plot(peaks[name] / unit, row, "D", color="black", ms=4, ls="")
    handles = [style.patch(*_COLOURS[part], language.label(f"memory_{part}")) for part in PARTS_OF_MEMORY]
    if peaks:
        handles.append(style.dot("black", "D", language.label("peak"), ms=4))
    letters = language.bytes(unit).replace(language.number(1, 1), "").strip()
    ax.set_xlabel(language.drawn(f"{language.say('memory')}{language.join(['', letters])}"))
    style.legend(figure, handles)
    return figure


def seconds(runs: Mapping[str, RunResult], language: Language) -> Figure | None:
    """Seconds of training and of evaluation, stacked, a bar for each run."""
    if not runs:
        return None
    figure, ax = _rows(language)
    for row, name in _drawn(ax, runs, language):
        _stack(ax, row, {kind: getattr(runs[name].seconds, kind) for kind in _KINDS}, _KINDS)
        total = runs[name].seconds.total
        style.note(ax, language.number(total), (total, row), 3)
    ax.set_xlabel(language.label("seconds"))
    handles = [style.patch(*_KINDS[kind], language.label(f"in_{kind}")) for kind in _KINDS]
    style.legend(figure, handles)
    return figure


def knowledge(runs: Mapping[str, RunResult], language: Language) -> Figure | None:
    """The base's pre-training loss before tuning, after it, and with the method switched off."""
    measured = facts.measured(runs, "knowledge")
    if not measured:
        return None
    figure, ax = _rows(language)
    before = next(iter(measured.values())).base
    ax.axvline(before, color=GREY, lw=0.9, dashes=(5, 2), zorder=1)
    for row, name in _drawn(ax, measured, language):
        tuned, off = measured[name].tuned, measured[name].off
        ax.plot([before, tuned], [row, row], color=RED, lw=2, alpha=0.5, zorder=2)
        if off is not None:
            ax.plot(off, row, "o", color=BLUE, mfc="white", ms=6.5, mew=1.3, zorder=3)
        ax.plot(tuned, row, "D", color=RED, ms=5, zorder=4)
        right, ha = (6, "left") if tuned >= before else (-6, "right")
        style.note(ax, language.number(tuned, 2), (tuned, row), right, ha=ha)
    ax.margins(x=0.15)
    ax.set_xlabel(language.label("pretraining_loss"))
    handles = [
        style.line(GREY, language.label("untouched"), lw=0.9, dashes=(5, 2)),
        style.dot(RED, "D", language.label("delta_on"), ms=5),
        style.dot(BLUE, "o", language.label("delta_off"), mfc="white"),
    ]
    style.legend(figure, handles)
    return figure


def _rows(language: Language) -> tuple[Figure, Axes]:
    """A row for each of the ten, named, the first on top."""
    figure, (ax,) = style.new_figure(language, 0.6 + 0.165 * len(TEN))
    ax.set_yticks(range(len(TEN)), [language.drawn(language.run(name)) for name in TEN])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(TEN) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    return figure, ax


def _drawn(ax: Axes, measured: Mapping[str, object], language: Language) -> Iterator[tuple[int, str]]:
    """Row and id of each run that was measured. The rows of the others get the words `not measured`."""
    for row, name in enumerate(TEN):
        if name in measured:
            yield row, name
        else:
            where = {"xycoords": ax.get_yaxis_transform(), "color": GREY}
            style.note(ax, language.label("not_measured"), (0, row), 4, **where)


def _stack(ax: Axes, row: int, sizes: Mapping[str, float], colours: Mapping[str, tuple[str, str]]) -> None:
    left = 0.0
    for part, size in sizes.items():
        colour, hatch = colours[part]
        ax.barh(row, size, left=left, color=colour, hatch=hatch, ec="black", lw=0.4, height=0.68)
        left += size
