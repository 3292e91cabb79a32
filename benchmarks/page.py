"""The tables and the figure, from the JSON alone. They show quotients: seconds hold for one machine only."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from parts import read

from peft_scratch.files import write_atomically
from peft_scratch.reporting.figures.style import BLUE, GREY, METHODS, ORANGE
from peft_scratch.wording import counted

START, END = "<!-- speed: written by `make bench` -->", "<!-- /speed -->"
METHOD_NAMES = {
    "full": "full fine-tuning",
    "soft_prompt": "soft prompt, N = 10",
    "adapter": "adapter, b = 8",
    "lora": "LoRA, r = 8",
}
AXIS_NAMES = {
    "tokens": "tokens of an input",
    "batch": "reviews in a batch",
    "model": "parameters of the base, millions",
    "rank": "LoRA's rank",
    "bottleneck": "adapter's bottleneck",
    "virtual_tokens": "prompt rows",
}
#: The columns of the recipes' table: title, and name in the JSON.
_COLUMNS = {"training": "training", "evaluation": "evaluation", "whole run": "run"}
_FIGURE = (
    '<img src="../benchmarks/speed.png" width="100%" alt="How many times faster the fast recipe is; a step '
    'of ours over one of the libraries, and over its matrix products; how a step grows">'
)
Parts = dict[str, dict[str, Any]]


def write(results: Path, readme: Path | None) -> None:
    """`results.md` and `speed.png` beside `results`, and the tables in `readme` between its markers."""
    parts = read(results)
    write_atomically(results.with_suffix(".md"), "# Speed\n\n" + "\n\n".join(sections(parts)) + "\n")
    write_atomically(results.with_name("speed.png"), figure(parts))
    if readme is None:
        return
    before, start, rest = readme.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if start and end:
        shown = "\n\n".join(sections({name: part for name, part in parts.items() if name != "growth"}))
        write_atomically(readme, f"{before}{START}\n{shown}\n\n{_FIGURE}\n{END}{after}")


def sections(parts: Parts) -> list[str]:
    """A paragraph and a table for each of `parts` that is known here."""
    return [
        f"{make(parts[name])}\n\n*{_where(parts[name]['machine'])}*"
        for name, make in _MAKERS.items()
        if name in parts
    ]


def _where(machine: dict[str, Any]) -> str:
    versions = machine["versions"]
    return ", ".join(
        (
            machine["name"],
            f"{counted(machine['threads'], 'thread')} on {counted(machine['cores'], 'core')}",
            f"{machine['memory_gib']} GiB",
            f"torch {versions['torch']}",
            f"transformers {versions['transformers']}",
            machine["date"],
        )
    )


def _recipes(part: dict[str, Any]) -> str:
    size = part["settings"]
    rows = [
        {"run": row["title"], **{name: _times(row["faster"][key]) for name, key in _COLUMNS.items()}}
        for row in part["rows"]
    ]
    if "faster" in part:
        rows.append({"run": "**all together**", "whole run": _times(part["faster"])})
    return (
        "**The fast recipe against the reference recipe**: how many times faster, for 25,000 training "
        f"and 25,000 test reviews per epoch, on {size['model']}'s sizes with random weights, in batches of "
        f"{size['batch']} with at most {size['tokens']} tokens. Median of "
        f"{counted(size['rounds'], 'round')}, with quartiles. {_answered(part)} answers were label words; "
        "generation stops after them. Both recipes are timed in one process. The fast recipe's setting to "
        "keep freed memory then also applies to the reference recipe; in a process of its own it would not."
        f"\n\n{_table(rows)}"
    )


def _answered(part: dict[str, Any]) -> str:
    least = min(min(share["answered"]) for row in part["rows"] for share in row["shares"].values())
    return "All" if least == 1 else f"At least {100 * least:.0f} % of the"


def _steps(part: dict[str, Any]) -> str:
    size = part["settings"]
    rows: dict[str, dict[str, str]] = {}
    for row in part["rows"]:
        name = f"{METHOD_NAMES[row['method']]}, against {row['library']}"
        found = rows.setdefault(name, {"ours / library": name})
        found[f"time, {row['recipe']}"] = _times(row["time"])
        found[f"peak memory, {row['recipe']}"] = f"{row['memory']:.2f}"
    return (
        "**A training step, ours over the library's**: below 1, ours takes less. Memory is the most that "
        f"torch hands out at once during a step. Batches of {size['batch']} with {size['tokens']} tokens, "
        f"{size['rounds']} rounds.\n\n"
        f"{_table(list(rows.values()))}"
    )


def _limit(part: dict[str, Any]) -> str:
    size = part["settings"]
    rows = [
        {
            "step / its matrix products": METHOD_NAMES[row["method"]],
            **{name: _times(found) for name, found in row["step_over_products"].items()},
        }
        for row in part["rows"]
    ]
    return (
        "**A training step over its matrix products alone**: 1 would be the limit. The products are those of "
        "the plain step, forward and backward, without gradients of frozen weights. Batches of "
        f"{size['batch']} with {size['tokens']} tokens, {size['rounds']} rounds.\n\n{_table(rows)}"
    )


def _growth(part: dict[str, Any]) -> str:
    rows = []
    for axis, name in AXIS_NAMES.items():
        found = [row for row in part["rows"] if row["axis"] == axis]
        for method in METHODS:
            points = [row for row in found if row["method"] == method]
            if len(points) > 1:
                low, high = points[0], points[-1]
                rows.append(
                    {
                        "what grows": f"{name}, {_x(low):.3g} to {_x(high):.3g}",
                        "how many times": f"{_x(high) / _x(low):.3g}",
                        "method": METHOD_NAMES[method].partition(",")[0],
                        **{
                            f"its time, {label}": f"{_median(high, which) / _median(low, which):.2f}"
                            for which, label in (("ours", "ours"), ("library", "library"))
                        },
                    }
                )
    size = part["settings"]
    return (
        f"**How the time of a step grows**, by the fast recipe, from {size['batch']} reviews of "
        f"{size['tokens']} tokens on {size['model']}'s sizes.\n\n{_table(rows)}"
    )


def _peers(part: dict[str, Any]) -> str:
    rows = [
        {
            "who": row["who"],
            "training and evaluation": f"{row['seconds']['median']:.1f} s",
            "times ours": _times(row["over_ours"]),
            "accuracy": ", ".join(f"{100 * share:.1f}" for share in row["accuracies"]),
        }
        for row in part["rows"]
    ]
    size = part["settings"]
    return (
        f"**Whole runs beside `Seq2SeqTrainer`**: LoRA by PEFT, r = 8, on the offline base, {size['epochs']} "
        f"epoch of {size['train_reviews']:,} reviews and an evaluation of {size['test_reviews']:,}. Each run "
        f"has a process of its own; {size['rounds']} rounds, a seed each.\n\n{_table(rows)}"
    )


def _beside(part: dict[str, Any]) -> str:
    alone, together = ([row[name] for row in part["rows"]] for name in ("alone", "slower_of_two"))
    return (
        "**Two runs at once**: such a run of ours takes "
        f"{np.median(alone):.1f} s alone; of two at once, the slower one takes {np.median(together):.1f} s, "
        f"{_times(part['over_alone'])} times as long."
    )


def _float16(part: dict[str, Any]) -> str:
    size = part["settings"]
    rows = [
        {
            "run": row["id"],
            "seed": str(row["seed"]),
            "equal predictions": f"{row['equal_predictions']} of {size['test_reviews']}",
            **{f"accuracy in {name}": f"{100 * share:.1f}" for name, share in row["accuracy"].items()},
            "largest difference of a loss": "–"  # noqa: RUF001
            if row["largest_loss_difference"] is None
            else f"{row['largest_loss_difference']:.4f}",
            "skipped steps": str(row["skipped"]),
        }
        for row in part["rows"]
    ]
    return (
        "**The fast recipe in float16 and in float32**, on the offline base, from the same start on the same "
        f"batches: {size['steps']} steps of {size['batch']} reviews of {size['max_tokens']} tokens, by the "
        f"CPU's float16.\n\n{_table(rows)}"
    )


def _agree(part: dict[str, Any]) -> str:
    rows = []
    for run_id, found in part.get("difference", {}).items():
        row = {"run": run_id}
        for which, one in found.items():
            deviation = "" if one["deviation"] is None else f" ± {100 * one['deviation']:.1f}"
            row[f"{which} epoch"] = f"{100 * one['mean']:+.1f}{deviation}"
        rows.append({**row, "seeds": str(found["last"]["seeds"])})
    return (
        "**Accuracy by the fast recipe minus the reference recipe**, in points, on the "
        f"{part['settings']['profile']} profile: mean and standard deviation over seeds.\n\n{_table(rows)}"
    )


def _verdicts(part: dict[str, Any]) -> str:
    rows = [
        {
            "run": row["id"],
            "reviews": f"{row['reviews']:,}",
            "as generated": f"{row['identical']:,}",
            "as the reference recipe": f"{row['identical_to_course']:,}",
            "malformed": f"{row['malformed']:,}",
            "weights": row["weights"],
        }
        for row in part["rows"]
    ]
    return (
        "**Predictions by scores against real generation**: how many are identical, with nothing else "
        f"changed, and also with the reference recipe's precision and batches.\n\n{_table(rows)}"
    )


def _estimates(part: dict[str, Any]) -> str:
    rows = [
        {
            "run": row["title"],
            "announced": f"{row['announced']:.0f} s",
            "taken": f"{row['taken']:.0f} s",
            "taken / announced": f"{row['taken'] / row['announced']:.2f}",
        }
        for row in part["rows"]
    ]
    return (
        "**The time that a notebook announces for a run, and the time that it takes**, on the "
        f"{part['settings']['profile']} profile, recipe {part['settings']['recipe']}.\n\n{_table(rows)}"
    )


_MAKERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "recipes": _recipes,
    "steps": _steps,
    "limit": _limit,
    "growth": _growth,
    "peers": _peers,
    "beside": _beside,
    "recipes_agree": _agree,
    "float16": _float16,
    "verdicts": _verdicts,
    "estimates": _estimates,
}


def _times(found: dict[str, Any]) -> str:
    return f"{found['median']:.2f} ({found['q1']:.2f}–{found['q3']:.2f})"  # noqa: RUF001


def _table(rows: list[dict[str, str]]) -> str:
    table = pd.DataFrame(rows).fillna("")
    align = ["left"] + ["right"] * (len(table.columns) - 1)
    return table.to_markdown(index=False, disable_numparse=True, colalign=align) if rows else ""


def _x(row: dict[str, Any]) -> float:
    return row["model_parameters"] / 1e6 if row["axis"] == "model" else row["value"]


def _median(row: dict[str, Any], which: str) -> float:
    return row["seconds"][which]["median"]


# The figure


def figure(parts: Parts) -> bytes:
    """A PNG: how much faster the fast recipe is, ours against the libraries, the limit, and growth."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "axes.spines.top": False,
                         "axes.spines.right": False, "axes.axisbelow": True}):  # fmt: skip
        growth = parts.get("growth", {}).get("rows", [])
        sheet = Figure(figsize=(10, 8.6 if growth else 3.5), layout="constrained")
        top, bottom = sheet.subfigures(2, 1, height_ratios=[1, 1.5]) if growth else (sheet, None)
        axes = top.subplots(1, 3, width_ratios=[1, 1, 1.1])
        for ax, name, draw in zip(
            axes, ("recipes", "steps", "limit"), (_draw_recipes, _draw_steps, _draw_limit), strict=True
        ):
            draw(ax, parts[name]) if name in parts else ax.set_axis_off()
        below = bottom.subplots(2, 3).flat if bottom else ()
        for ax, axis in zip(below, AXIS_NAMES, strict=False):
            rows = [row for row in growth if row["axis"] == axis]
            _draw_growth(ax, axis, rows) if rows else ax.set_axis_off()
        if parts:
            newest = max((part["machine"] for part in parts.values()), key=lambda machine: machine["date"])
            sheet.supxlabel(_where(newest), fontsize=7, color=GREY)
        file = io.BytesIO()
        sheet.savefig(file, dpi=160, format="png", metadata={"Software": None})
        return file.getvalue()


def _errors(found: list[dict[str, Any]]) -> list[list[float]]:
    return [[one["median"] - one["q1"] for one in found], [one["q3"] - one["median"] for one in found]]


def _bars(ax: Axes, names: list[str], series: dict[str, list[dict[str, Any]]], title: str, unit: str) -> None:
    """Horizontal groups of bars from the top down, with quartiles and the median as a number."""
    width = 0.8 / len(series)
    for n, ((label, found), colour, hatch) in enumerate(
        zip(series.items(), (BLUE, ORANGE), ("", "//"), strict=False)
    ):
        places = [i + (n - (len(series) - 1) / 2) * width for i in range(len(names))]
        values = [one["median"] for one in found]
        ax.barh(places, values, width * 0.92, color=colour, hatch=hatch, edgecolor="white", label=label,
                xerr=_errors(found), error_kw={"lw": 0.8, "capsize": 2})  # fmt: skip
        for place, one in zip(places, found, strict=True):
            ax.annotate(f"{one['median']:.2f}", (max(one["median"], one["q3"]), place), (3, 0),
                        textcoords="offset points", va="center", fontsize=7)  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.axvline(1, color=GREY, lw=0.8, ls="--")
    ax.margins(x=0.18)
    ax.set_xlim(left=0)
    ax.set_title(title, fontsize=8.5, fontweight="bold")
    ax.set_xlabel(unit)
    if len(series) > 1:
        ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_recipes(ax: Axes, part: dict[str, Any]) -> None:
    names = [row["title"] for row in part["rows"]]
    found = [row["faster"]["run"] for row in part["rows"]]
    if "faster" in part:
        names, found = [*names, "all together"], [*found, part["faster"]]
    _bars(ax, names, {"": found}, "The fast recipe against the reference", "times faster, a whole run")


def _draw_steps(ax: Axes, part: dict[str, Any]) -> None:
    names: list[str] = []
    series: dict[str, list[dict[str, Any]]] = {}
    for row in part["rows"]:
        name = f"{METHOD_NAMES[row['method']]}\nagainst {row['library']}"
        names += [] if name in names else [name]
        series.setdefault(f"{row['recipe']} recipe", []).append(row["time"])
    if len({len(found) for found in series.values()}) == 1:  # otherwise the part was interrupted within a row
        _bars(ax, names, series, "A step, ours over the library's", "time, ours / library")


def _draw_limit(ax: Axes, part: dict[str, Any]) -> None:
    names = [METHOD_NAMES[row["method"]].partition(",")[0] for row in part["rows"]]
    series = {
        f"{name} recipe": [row["step_over_products"][name] for row in part["rows"]]
        for name in ("reference", "fast")
    }
    _bars(ax, names, series, "A step over its products", "time, step / matrix products alone")


def _draw_growth(ax: Axes, axis: str, rows: list[dict[str, Any]]) -> None:
    """Time against the axis, both relative to their smallest; a straight line of slope 1 for comparison."""
    for method, (colour, marker) in METHODS.items():
        points = [row for row in rows if row["method"] == method]
        for which, style in (("ours", "-"), ("library", ":")):
            if points:
                first = _median(points[0], "ours")
                values = [_median(row, which) / first for row in points]
                ax.plot([_x(row) for row in points], values, style, color=colour, marker=marker, ms=4, lw=1.3)
    xs = sorted({_x(row) for row in rows})
    ax.set_xscale("log", base=2)
    if axis in ("tokens", "batch", "model"):
        ax.set_yscale("log", base=2)
        ax.plot(xs, [x / xs[0] for x in xs], color=GREY, lw=0.8, ls="--", zorder=0)
    else:
        ax.set_ylim(0, 1.15 * max(max(line.get_ydata()) for line in ax.lines))
    ax.set_xticks(xs, [f"{x:.3g}" for x in xs])
    ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    ax.grid(color="#DDDDDD", lw=0.5)
    ax.set_xlabel(AXIS_NAMES[axis])
    ax.set_ylabel("time of a step, smallest = 1")
    shown = [method for method in METHODS if any(row["method"] == method for row in rows)]
    handles = [
        Line2D([], [], color=METHODS[method][0], marker=METHODS[method][1], ms=4,
               label=METHOD_NAMES[method].partition(",")[0])
        for method in shown
    ]  # fmt: skip
    handles += [
        Line2D([], [], color=GREY, ls=style, label=label)
        for style, label in (("-", "ours"), (":", "library"))
    ]
    ax.legend(handles=handles, fontsize=6.5, frameon=False)
