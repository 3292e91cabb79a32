"""The page and the plot of a sweep, from its JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pandas as pd

from peft_scratch.comparison import CONFIDENCE, gap_with_interval
from peft_scratch.errors import UserError
from peft_scratch.results import Accuracy
from peft_scratch.seeds import as_positions

#: What page and plot call a column, and how the page writes its numbers.
_COLUMNS = {
    "mean": ("best epoch, % (mean)", ".1f"),
    "deviation": ("standard deviation", ".1f"),
    "last": ("last epoch, % (mean)", ".1f"),
    "trainable": ("trainable parameters", ",.0f"),
    "seconds": ("seconds per run", ".0f"),
    "bytes": ("bytes on disk", ",.0f"),
}


def read_sweep(path: Path) -> tuple[str, pd.DataFrame]:
    """The swept run's id, and one row per combination of settings.

    Columns: the swept settings; `seeds` (how many); `mean` and `deviation` over the seeds of the best epoch's
    accuracy in percent (the deviation is empty for one seed); `last` (mean of the last epoch); `trainable`;
    `seconds`; `bytes`; `difference` in points from the run's own hyperparameters, and its interval from `low`
    to `high` (empty if the reviews differ); `front` (whether no other combination is better in accuracy or
    trainable parameters without being worse in the other).

    Raises:
        UserError: the file is not the JSON of a sweep.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows, swept, run = content["rows"], content["swept"], content["run"]
        measured = ("best", "last", "trainable", "seconds", "bytes")
        table = pd.DataFrame([{**row["settings"], **{name: row[name] for name in measured}} for row in rows])
        table[["best", "last"]] *= 100
        differences = _differences(rows, content.get("constants", []))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the JSON of a sweep: run `peft-scratch sweep` again.") from None
    grouped = table.groupby(swept, sort=False, dropna=False)
    summary = grouped.agg(
        seeds=("best", "size"),
        mean=("best", "mean"),
        deviation=("best", "std"),
        last=("last", "mean"),
        trainable=("trainable", "first"),
        seconds=("seconds", "mean"),
        bytes=("bytes", "first"),
    ).reset_index()
    for place, name in enumerate(("difference", "low", "high")):
        summary[name] = [100 * found[place] if found else None for found in differences]
    summary["front"] = [
        not (
            (summary["mean"] >= mean)
            & (summary["trainable"] <= trainable)
            & ((summary["mean"] > mean) | (summary["trainable"] < trainable))
        ).any()
        for mean, trainable in zip(summary["mean"], summary["trainable"], strict=True)
    ]
    return run, summary


def _differences(
    rows: list[dict[str, Any]], constants: list[dict[str, Any]]
) -> list[tuple[float, float, float] | None]:
    """How far each combination is from the run's own hyperparameters, with interval, in order of first rows.

    The more combinations there are, the wider are the intervals (Bonferroni): together they contain all true
    differences in `CONFIDENCE` of all cases.
    """
    combinations: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        combinations.setdefault(json.dumps(row["settings"]), []).append(row)
    first = {row.get("test_reviews") for row in constants}
    found: list[tuple[float, float, float] | None] = []
    for combination in combinations.values():
        reviews = {row.get("test_reviews") for row in combination} | first
        if len(reviews) > 1 or None in reviews or not constants:
            found.append(None)
            continue
        (count,) = reviews
        ours, theirs = ([_seed(row) for row in of] for of in (combination, constants))
        confidence = 1 - (1 - CONFIDENCE) / len(combinations)
        found.append(gap_with_interval(ours, theirs, count, confidence))
    return found


def _seed(row: dict[str, Any]) -> Any:
    """A combination with one seed, as `comparison.OneSeed` wants it."""
    mistakes = as_positions(row["mistakes"], row["test_reviews"])
    return SimpleNamespace(seed=row["seed"], accuracy=Accuracy(best=row["best"]), mistakes=mistakes)


# The page

Finding = Literal["better", "worse", "open", "same"]

#: What each finding but `same` is called.
_FOUND: dict[Finding, str] = {
    "better": "Better than the run's own hyperparameters",
    "worse": "Worse than the run's own hyperparameters",
    "open": "Cannot be told apart from the run's own hyperparameters",
}


@dataclass(frozen=True)
class Change:
    """A combination of settings beside the run's own hyperparameters; in points, with the interval."""

    run: str
    settings: str
    gap: float
    low: float
    high: float

    @property
    def finding(self) -> Finding:
        return finding(self.gap, self.low, self.high)

    def __str__(self) -> str:
        gap, low, high = (
            "0.0" if round(of, 1) == 0 else f"{of:+.1f}" for of in (self.gap, self.low, self.high)
        )
        return f"{self.settings}: {gap} points ({low} to {high})"


def _caution(fewest: int) -> str:
    """What few seeds leave open."""
    if fewest == 1:
        return " With one seed, an interval shows the chance of the reviews alone, not that of the seed."
    if fewest < 5:
        return " So few seeds say little about other seeds: the intervals are probably too narrow."
    return ""


def _seeds(counts: Iterable[int]) -> str:
    counts = sorted(set(counts))
    return "one seed" if counts == [1] else f"{' or '.join(map(str, counts))} seeds"


def finding(gap: float, low: float, high: float) -> Finding:
    """`better` or `worse` if the interval from `low` to `high` excludes 0, `same` for the same runs."""
    if gap == low == high == 0:
        return "same"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def changes(path: Path) -> list[Change]:
    """The combinations of a sweep that can be compared with the run's own hyperparameters."""
    run, table = read_sweep(path)
    return [
        Change(
            run,
            ", ".join(f"{name} = {_short(row[name])}" for name in _swept(table)),
            *(row[name] for name in ("difference", "low", "high")),
        )
        for _, row in table[table["difference"].notna()].iterrows()
    ]


def _sentence(change: Change) -> str:
    if change.finding == "same":
        return f"{change.settings}: these are the run's own hyperparameters."
    return f"{change}. {_FOUND[change.finding]}."


def advice(paths: Iterable[Path]) -> str:
    """What all the sweeps at `paths` say together, as a page: what helps, what hurts, what shows nothing."""
    paths = list(paths)
    found = [change for path in paths for change in changes(path)]
    tables = [read_sweep(path)[1] for path in paths]
    counts = {int(count) for table in tables for count in table["seeds"]}
    parts = [
        "# What other hyperparameters give",
        "Each line changes hyperparameters of one run and nothing else, and compares the best epoch on "
        f"the same test reviews, with {_seeds(counts)}. Differences are in percentage "
        "points, each with its interval. They hold for the base, the reviews and the epochs that they were "
        "measured with. Elsewhere they may be different." + _caution(min(counts)),
    ]
    for kind, title in _FOUND.items():
        lines = [f"- `{change.run}`, {change}" for change in found if change.finding == kind]
        parts.append(f"## {title}\n\n" + ("\n".join(lines) or "Nothing that was tried."))
    parts.append("Tables and plots: [the sweeps](../sweeps).")
    return "\n\n".join(parts) + "\n"


def sweep_markdown(path: Path) -> str:
    """The sweep as a page: what can be said, and a table with the Pareto front marked."""
    run, table = read_sweep(path)
    shown = table.drop(columns=["difference", "low", "high"])
    shown["front"] = table["front"].map({True: "yes", False: ""})
    titles = {"front": "Pareto front"}
    for name, (title, form) in _COLUMNS.items():
        shown[name] = ["" if pd.isna(value) else f"{value:{form}}" for value in table[name]]
        titles[name] = title
    shown = shown.rename(columns=titles)
    said = [_sentence(change) for change in changes(path)]
    compared = ""
    if said:
        counts, share = {int(count) for count in table["seeds"]}, f"{100 * CONFIDENCE:.0f} %"
        compared = (
            f"Difference from the run's own hyperparameters, with {_seeds(counts)} on the same test reviews. "
            f"The intervals come from resampling seeds and reviews. In {share} of cases, they contain all "
            f"true differences.{_caution(min(counts))}\n\n"
            + "\n".join(f"- {sentence}" for sentence in said)
            + "\n\n"
        )
    return (
        f"# Sweep of {run}\n\n{compared}{shown.to_markdown(index=False, disable_numparse=True)}\n\n"
        "*Best epoch* is chosen on the test reviews, as the assignment asks; the last epoch involves no "
        "choice. *Pareto front*: no other combination is better in accuracy or in trainable parameters "
        "without being worse in the other. *Seconds* depend on what else the machine did.\n"
    )


def _swept(table: pd.DataFrame) -> list[str]:
    return list(table.columns[: list(table.columns).index("seeds")])


def _short(value: Any) -> str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:g}" if is_number else str(value)


# The plot

# Okabe and Ito's colours (2008) and markers, for the values of the setting that changes slowest.
_SERIES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#E69F00", "D"), ("#56B4E9", "v"))


def sweep_plot(path: Path, target: Path) -> None:
    """Draw accuracy against trainable parameters, seconds and bytes; rings mark the Pareto front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run, table = read_sweep(path)
    figure = Figure(figsize=(11, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    costs = ("trainable", "seconds", "bytes")
    axes = figure.subplots(1, len(costs), sharey=True)
    for ax, cost in zip(axes, costs, strict=True):
        _draw(ax, table, cost)
        ax.set_xlabel(_COLUMNS[cost][0])
    axes[0].set_ylabel("best epoch, %")
    if len(handles := axes[0].get_legend_handles_labels()[0]) > 1:
        figure.legend(handles=handles, loc="outside right upper", fontsize=7, title=_swept(table)[-1])
    seeds = int(table["seeds"].max())
    bars = f"; bars: one standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"
    figure.suptitle(f"{run}: {', '.join(_swept(table))}; rings: Pareto front{bars}", fontsize=9)
    figure.savefig(target)


def _draw(ax: Any, table: pd.DataFrame, cost: str) -> None:
    """One panel: a colour for each value of the last setting if there are several, a label for the others."""
    swept = _swept(table)
    groups = [(None, table)] if len(swept) == 1 else list(table.groupby(swept[-1], sort=False))
    measured = cost == "seconds"
    logarithmic = not measured and table[cost].max() > 8 * table[cost].min()
    for place, (value, group) in enumerate(groups):
        colour, marker = _SERIES[place % len(_SERIES)]
        # Side by side where they would cover each other.
        x = group[cost] * (1 if measured else _ASIDE ** (place - (len(groups) - 1) / 2))
        name = None if value is None else _short(value)
        error = group["deviation"].fillna(0)
        ax.errorbar(x, group["mean"], error, fmt=marker, color=colour, capsize=2, label=name, ms=5, lw=1)
        front = group["front"].to_numpy(dtype=bool)
        ax.plot(x[front], group["mean"][front], "o", ms=12, mfc="none", color="black", mew=0.8)
        if measured or len(groups) == 1:
            for at, (_, row) in zip(x, group.iterrows(), strict=True):
                text = ", ".join(_short(row[name]) for name in swept[: max(1, len(swept) - 1)])
                ax.annotate(text, (at, row["mean"]), (7, 5), textcoords="offset points", fontsize=7)
    if logarithmic:
        ax.set_xscale("log")
    if not measured:
        at = sorted(set(table[cost]))
        ax.set_xticks(at, [f"{value:,.0f}" for value in at], rotation=40, ha="right", fontsize=7)
        ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.margins(x=0.14, y=0.15)
    ax.spines[["top", "right"]].set_visible(False)


# By how much values beside each other are moved apart, as a factor: the axis is logarithmic or nearly so.
_ASIDE = 1.07
