"""The table and the plot of a sweep, from its JSON alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from peft_scratch.errors import UserError

_COSTS = {"trainable": "trainable parameters", "seconds": "seconds per run", "bytes": "bytes on disk"}


def read_sweep(path: Path) -> tuple[str, pd.DataFrame]:
    """The swept run's id, and one row per combination of settings.

    Columns: the swept settings, `seeds` (how many), `mean` and `deviation` of the best epoch's accuracy in
    percent (over seeds; the deviation is empty for a single one), `last` (mean of the last epoch),
    `trainable`, `seconds`, `bytes`, and `front`: whether no other combination is at least as accurate with
    fewer trainable parameters.

    Raises:
        UserError: the file is not the JSON of a sweep.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows, swept, run = content["rows"], content["swept"], content["run"]
        table = pd.DataFrame([{**row["settings"], **_figures(row)} for row in rows])
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
    summary["front"] = [
        not ((summary["mean"] >= mean) & (summary["trainable"] < trainable)).any()
        for mean, trainable in zip(summary["mean"], summary["trainable"], strict=True)
    ]
    return run, summary


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "best": 100 * row["best"],
        "last": 100 * row["last"],
        **{name: row[name] for name in ("trainable", "seconds", "bytes")},
    }


def sweep_markdown(path: Path) -> str:
    """The sweep as a page: a heading and a table, the Pareto front marked."""
    run, table = read_sweep(path)
    shown = table.copy()
    shown["front"] = table["front"].map({True: "yes", False: ""})
    for name, digits in (("mean", 1), ("deviation", 1), ("last", 1), ("seconds", 0)):
        shown[name] = table[name].map(lambda value, d=digits: "" if pd.isna(value) else f"{value:.{d}f}")
    for name in ("trainable", "bytes"):
        shown[name] = table[name].map(lambda value: "" if pd.isna(value) else f"{value:,.0f}")
    shown = shown.rename(
        columns={
            "mean": "best epoch, % (mean)",
            "deviation": "standard deviation",
            "last": "last epoch, % (mean)",
            "trainable": "trainable parameters",
            "seconds": "seconds per run",
            "bytes": "bytes on disk",
            "front": "Pareto front",
        }
    )
    return (
        f"# Sweep of {run}\n\n{shown.to_markdown(index=False, disable_numparse=True)}\n\n"
        "*Best epoch* is chosen on the test reviews, as the assignment has it; the last epoch involves no "
        "choice. *Pareto front*: no other combination is at least as accurate with fewer trainable "
        "parameters.\n"
    )


def sweep_plot(path: Path, target: Path) -> None:
    """Draw accuracy against trainable parameters, seconds and bytes; rings mark the Pareto front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run, table = read_sweep(path)
    swept = list(table.columns[: list(table.columns).index("seeds")])
    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(_COSTS), sharey=True)
    error = table["deviation"].fillna(0)
    for ax, (cost, label) in zip(axes, _COSTS.items(), strict=True):
        ax.errorbar(table[cost], table["mean"], yerr=error, fmt="o", color="#0072B2", capsize=3)
        front = table[table["front"]]
        ax.plot(front[cost], front["mean"], "o", markersize=12, markerfacecolor="none", color="#D55E00")
        for _, row in table.iterrows():
            text = ", ".join(f"{row[name]:g}" if _is_number(row[name]) else str(row[name]) for name in swept)
            ax.annotate(text, (row[cost], row["mean"]), xytext=(5, 6), textcoords="offset points", fontsize=7)
        if cost == "trainable" and table[cost].max() > 8 * table[cost].min():
            ax.set_xscale("log")
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
        ax.margins(x=0.12, y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("best epoch, %")
    seeds = int(table["seeds"].max())
    bars = f"; bars: one standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"
    figure.suptitle(f"{run}: {', '.join(swept)}; rings: Pareto front{bars}", fontsize=9)
    figure.savefig(target)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
