"""The tables, from the results' JSON files alone.

Nothing here knows how a run is made: what is not in a JSON file is not in a table, and a run without
a file is shown as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from peft_scratch.assignment import BASELINES, PROFILES, RUNS, TEN
from peft_scratch.comparison import SeedDifference, SeedSummary
from peft_scratch.files import write_atomically
from peft_scratch.reporting.facts import count_error, is_assignments, seed_differences, summaries
from peft_scratch.reporting.sweeps import advice
from peft_scratch.results import Result, RunResult, read_results
from peft_scratch.seeds import Seeds, read_seeds, with_further

MISSING = "missing"

Results = Mapping[str, Result]


def write(output: Path) -> str:
    """Write the tables of the results in an output folder into its folder `report/tables`.

    Returns:
        The page with the ten numbers.

    Raises:
        UserError: a file is not the JSON of a result.
    """
    results = read_results(output / "report" / "results")
    seeds = read_seeds(output / "report")
    files = tables(results, seeds)
    if sweeps := sorted((output / "report" / "sweeps").glob("*.json")):
        files["advice.md"] = advice(sweeps)
    for name, text in files.items():
        write_atomically(output / "report" / "tables" / name, text)
    return numbers_markdown(results)


def tables(results: Results, further_seeds: Seeds | None = None) -> dict[str, str]:
    """The content of every table file, by its name.

    Args:
        results: of the first seed, by id.
        further_seeds: the results of the other seeds, by id of the run.
    """
    files = {
        "numbers.csv": numbers(results).to_csv(float_format="%.1f"),
        "numbers.md": numbers_markdown(results),
        "parameters.csv": parameters(results).to_csv(),
        "parameters.md": parameters_markdown(results),
    }
    if seeds := with_further(results, further_seeds or {}):
        files["seeds.csv"] = seed_table(seeds).to_csv(float_format="%.2f")
        files["differences.csv"] = difference_table(seeds).to_csv(index=False, float_format="%.3f")
    return files


def numbers(results: Results) -> pd.DataFrame:
    """The ten numbers and the three to compare them with; accuracies and shares in percent.

    Columns: `run`, `best` (the assignment's number: the best epoch on the test split), `best_epoch`,
    `last`, `validation_chosen` (the epoch that a part of the test split chose, on the rest of it),
    `validation_epoch`, `published_low` and `published_high` (always of the assignment's constants on
    t5-small), `malformed`, `epochs`, `seconds`, `profile`. A cell without a value is empty. A missing run has
    only the published values.
    """
    rows = []
    for name, title in (TEN | BASELINES).items():
        row: dict[str, Any] = {"id": name, "run": title}
        if name in RUNS:
            row["published_low"], row["published_high"] = RUNS[name].published
        if (result := results.get(name)) is not None:
            accuracy = result.accuracy
            row |= {
                "best": 100 * accuracy.best,
                "best_epoch": accuracy.best_epoch,
                "last": _percent(accuracy.last),
                "validation_chosen": _percent(accuracy.validation_chosen),
                "validation_epoch": accuracy.validation_chosen_epoch,
                "malformed": 100 * result.malformed,
                "profile": result.profile,
            }
        if isinstance(result, RunResult):
            row |= {"epochs": len(result.epochs), "seconds": result.seconds.total}
        rows.append(row)
    columns = [
        *("best", "best_epoch", "last", "validation_chosen", "validation_epoch", "published_low"),
        *("published_high", "malformed", "epochs", "seconds", "profile"),
    ]
    # In one step: 105.46 is 105, not 105.5 and then 106.
    return _table(rows, columns, "best_epoch", "validation_epoch", "epochs").round({"seconds": 0}).round(1)


def parameters(results: Results) -> pd.DataFrame:
    """The hand count of every run beside torch's.

    Columns: `run`, `formula`, `with_numbers`, `added` (by the formula), `trainable` and `whole`
    (counted), `base` (counted before), and `difference`: what was counted less what the formula
    says, of the added parameters and, but for full fine-tuning, of the trainable ones. It must be 0. A
    result of an older kit has no hand count: its cells stay empty.
    """
    rows = []
    for name, title in TEN.items():
        result = results.get(name)
        row: dict[str, Any] = {"id": name, "run": title}
        if isinstance(result, RunResult):
            counted, base = result.parameters, result.base_model.parameters
            row |= {"trainable": counted.trainable, "whole": counted.whole, "base": base}
            if (by_hand := counted.by_hand) is not None:
                row |= {"formula": by_hand.symbols, "with_numbers": by_hand.with_numbers}
                row |= {"added": by_hand.value, "difference": count_error(result)}
        rows.append(row)
    counts = ("added", "trainable", "whole", "base", "difference")
    return _table(rows, ["formula", "with_numbers", *counts], *counts)


def seed_table(seeds: Seeds) -> pd.DataFrame:
    """Accuracy over the seeds in percent: `run`, `seeds`, `mean`, `deviation`, `low` and `high`."""
    found = summaries(seeds)
    rows = [
        {"id": name, "run": title, "seeds": of.seeds, **_percents(of, "mean", "deviation", "low", "high")}
        for name, title in TEN.items()
        if (of := found.get(name))
    ]
    return _table(rows, ["seeds", "mean", "deviation", "low", "high"])


def difference_table(seeds: Seeds) -> pd.DataFrame:
    """Differences of pairs over the seeds, in points: `first`, `second`, `seeds`, `gap`, `low`, `high`,
    `p` (corrected for the number of pairs) and `findable`."""
    rows = [
        {"first": pair.first, "second": pair.second, "seeds": of.seeds, "p": of.p}
        | _percents(of, "gap", "low", "high", "findable")
        for pair, of in seed_differences(seeds).items()
    ]
    return pd.DataFrame(rows, columns=["first", "second", "seeds", "gap", "low", "high", "p", "findable"])


def _table(rows: list[dict[str, Any]], columns: list[str], *whole: str) -> pd.DataFrame:
    """The rows by id, each with its `run`; the columns `whole` hold whole numbers."""
    table = pd.DataFrame(rows, columns=["id", "run", *columns])
    return table.astype(dict.fromkeys(whole, "Int64")).set_index("id")


# Pages


def numbers_markdown(results: Results) -> str:
    """`numbers` as a page, with the profile and the base that the figures are from in its heading."""
    return (
        f"# The ten numbers: {_origin(results)}\n\n{_note(results)}{_numbers_table(results)}\n\n"
        "Accuracy on the test reviews. The assignment asks for the accuracy in the *best epoch*. This is "
        "optimistic, because the same reviews choose the epoch and score it. *By validation*: one fifth of "
        "the test reviews chooses the epoch, and the other four fifths give its accuracy. *Published*: the "
        "range of three to four published runs of the assignment's constants on `t5-small`, one seed "
        "each. *Malformed* is the share of outputs that are neither label word; they count as wrong.\n"
    )


def _numbers_table(results: Results) -> str:
    table = numbers(results)
    shown = pd.DataFrame(
        {
            "run": table.run,
            "best epoch, %": _with_epoch(table.best, table.best_epoch),
            "last epoch, %": table["last"].map(_decimal),
            "by validation, %": _with_epoch(table.validation_chosen, table.validation_epoch),
            "published, %": [
                "" if pd.isna(low) else f"{low:.1f}\N{EN DASH}{high:.1f}"
                for low, high in zip(table.published_low, table.published_high, strict=True)
            ],
            "malformed, %": table.malformed.map(_decimal),
            "epochs": table.epochs.map(_thousands),
            "seconds": table.seconds.map(lambda seconds: "" if pd.isna(seconds) else f"{seconds:,.0f}"),
        }
    )
    shown.loc[table.best.isna(), "best epoch, %"] = MISSING
    return _markdown(shown)


def parameters_markdown(results: Results) -> str:
    """`parameters` as a page."""
    table = parameters(results)
    counts = ["added", "trainable", "whole", "base", "difference"]
    shown = table.assign(**{name: table[name].map(_thousands) for name in counts}).astype(object).fillna("")
    shown.loc[table.whole.isna(), "formula"] = MISSING
    shown.columns = [
        *("run", "added, by formula", "with numbers", "= added"),
        *("counted: trainable", "counted: whole", "base", "difference"),
    ]
    return (
        f"# Parameters: {_origin(results)}\n\n{_note(results)}{_markdown(shown, text_columns=3)}\n\n"
        "L_enc and L_dec are the numbers of encoder and decoder blocks, d is the width of the model, d' that "
        "of its attention; N, b and r are prompt rows, bottleneck and rank. *Difference* is what was counted "
        "minus what the formula says, for the whole model and for what is trained. A result of an older "
        "version has no hand count.\n"
    )


def _origin(results: Results) -> str:
    """Which profile, base and reviews the results are from, in a few words."""
    origins = sorted({_origin_of(result) for result in results.values() if isinstance(result, RunResult)})
    return " and ".join(origins) or "no run yet"


def _origin_of(result: RunResult) -> str:
    config, base = result.config, result.base_model
    digest = f" (SHA-256 {config.base_sha256[:8]}…)" if config.base_sha256 else ""
    return (
        f"profile {result.profile}, base {base.name} of {base.parameters:,} parameters{digest}, "
        f"reviews {config.reviews}, seed {config.seed}"
    )


def _note(results: Results) -> str:
    profiles = [PROFILES.get(result.profile) for result in results.values()]
    runs = [result for result in results.values() if isinstance(result, RunResult)]
    if all(profile and profile.is_assignment for profile in profiles) and all(map(is_assignments, runs)):
        return ""
    return (
        "**Not the assignment's numbers**: these are from another base and fewer reviews than `t5-small` on "
        "the whole of IMDB. Compare them with one another only, not with the published ones.\n\n"
    )


def _percents(of: SeedSummary | SeedDifference, *names: str) -> dict[str, float]:
    return {name: 100 * getattr(of, name) for name in names}


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _decimal(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.1f}"


def _thousands(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:,}"


def _with_epoch(values: pd.Series, epochs: pd.Series) -> list[str]:
    cells = zip(values.map(_decimal), epochs, strict=True)
    return [cell if pd.isna(epoch) else f"{cell} (epoch {epoch})" for cell, epoch in cells]


def _markdown(table: pd.DataFrame, text_columns: int = 1) -> str:
    align = ["left"] * text_columns + ["right"] * (len(table.columns) - text_columns)
    return table.to_markdown(index=False, disable_numparse=True, colalign=align)
