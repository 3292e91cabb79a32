"""The two tables, from the results' JSON files alone.

Nothing here knows how a run is made: what is not in a JSON file is not in a table, and a run without
a file is shown as missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peft_scratch.assignment import BASELINES, TEN
from peft_scratch.errors import UserError

Result = dict[str, Any]

MISSING = "missing"


@dataclass(frozen=True)
class HandCount:
    """A derivation in symbols, with numbers put in, and its value."""

    symbols: str
    with_numbers: str
    value: int


def _full(size: Result, hyper: Result) -> HandCount:
    return HandCount("0", "0", 0)


def _soft_prompt(size: Result, hyper: Result) -> HandCount:
    N, d = hyper["virtual_tokens"], size["d_model"]
    return HandCount("N·d", f"{N}·{d}", N * d)


def _adapter(size: Result, hyper: Result) -> HandCount:
    E, D, d, b = size["num_layers"], size["num_decoder_layers"], size["d_model"], hyper["bottleneck"]
    return HandCount(
        "(E + D)·(d·b + b + b·d + d)",
        f"({E} + {D})·({d}·{b} + {b} + {b}·{d} + {d})",
        (E + D) * (d * b + b + b * d + d),
    )


def _lora(size: Result, hyper: Result) -> HandCount:
    # A decoder layer has two attention blocks, each block a q and a v.
    E, D, d, i, r = (
        size["num_layers"],
        size["num_decoder_layers"],
        size["d_model"],
        size["inner_dim"],
        hyper["rank"],
    )
    return HandCount(
        "(E + 2·D)·2·r·(d + i)",
        f"({E} + 2·{D})·2·{r}·({d} + {i})",
        (E + 2 * D) * 2 * r * (d + i),
    )


HAND_COUNTS = {"full": _full, "soft_prompt": _soft_prompt, "adapter": _adapter, "lora": _lora}


# What each part of a result holds at least, wherever it has that part.
PARTS = {
    "accuracy": ("best",),
    "config": (
        "kind",
        "library",
        "hyperparameters",
        "learning_rate",
        "epochs",
        "batch_size",
        "reviews",
        "seed",
    ),
    "environment": ("python", "versions", "device", "device_name", "precision"),
    "parameters": ("added", "trainable", "whole"),
    "base_model": ("name", "d_model", "num_layers", "num_decoder_layers", "inner_dim", "parameters"),
    "seconds": ("training", "evaluation"),
    "memory": ("parameters", "gradients", "optimizer", "activations", "peak"),
    "knowledge": ("reviews", "base", "tuned", "off"),
    "training_accuracy": ("accuracy", "reviews"),
    "disk": ("delta", "base"),
}


def read_results(folder: Path, parts: Mapping[str, Sequence[str]] = PARTS) -> dict[str, Result]:
    """The results in `folder`, by id; each has in its `parts` what these are said to hold.

    Raises:
        UserError: a file is not the JSON of a result.
    """
    results = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            results[result["id"]] = result
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path} is not the JSON of a result: delete it and run again what it should hold."
            ) from None
        for part, names in parts.items():
            if part in result and (absent := [n for n in names if n not in (result[part] or ())]):
                raise UserError(
                    f"{path} lacks {', '.join(f'{part}.{name}' for name in absent)}: delete it and run again "
                    f"what it should hold, {result['id']}."
                )
    return results


def numbers(results: dict[str, Result]) -> pd.DataFrame:
    """The ten numbers and the three to hold them against; accuracies and shares in percent.

    Columns: `run`, `best` (the course's number: the best epoch on the test split), `best_epoch`,
    `last`, `validation_chosen` (the epoch that a part of the test split chose, on the rest of it),
    `validation_epoch`, `malformed`, `epochs`, `seconds`, `profile`. A cell that the run has no value
    for is empty; a missing run has none.
    """
    rows = []
    for name, title in (TEN | BASELINES).items():
        result = results.get(name)
        row: dict[str, Any] = {"id": name, "run": title}
        if result is not None:
            accuracy = result["accuracy"]
            row |= {
                "best": 100 * accuracy["best"],
                "best_epoch": accuracy.get("best_epoch"),
                "last": _percent(accuracy.get("last")),
                "validation_chosen": _percent(accuracy.get("validation_chosen")),
                "validation_epoch": accuracy.get("validation_chosen_epoch"),
                "malformed": 100 * result["malformed"],
                "epochs": len(result["epochs"]) if "epochs" in result else None,
                "seconds": sum(result["seconds"].values()) if "seconds" in result else None,
                "profile": result["profile"],
            }
        rows.append(row)
    columns = [
        *("id", "run", "best", "best_epoch", "last", "validation_chosen", "validation_epoch"),
        *("malformed", "epochs", "seconds", "profile"),
    ]
    whole = dict.fromkeys(("best_epoch", "validation_epoch", "epochs"), "Int64")
    # In one step: 105.46 is 105, not 105.5 and then 106.
    table = pd.DataFrame(rows, columns=columns).astype(whole).round({"seconds": 0}).round(1)
    return table.set_index("id")


def parameters(results: dict[str, Result]) -> pd.DataFrame:
    """The hand count of every run beside torch's.

    Columns: `run`, `formula`, `with_numbers`, `added` (by the formula), `trainable` and `whole`
    (counted), `base` (counted before), and `difference`: what was counted less what the formula
    says, of the added parameters and, but for full fine-tuning, of the trainable ones. It must be 0.
    """
    rows = []
    for name, title in TEN.items():
        result = results.get(name)
        row: dict[str, Any] = {"id": name, "run": title}
        if result is not None:
            counted, size, config = result["parameters"], result["base_model"], result["config"]
            by_hand = HAND_COUNTS[config["kind"]](size, config["hyperparameters"])
            trains = counted["whole"] if config["kind"] == "full" else by_hand.value
            row |= {
                "formula": by_hand.symbols,
                "with_numbers": by_hand.with_numbers,
                "added": by_hand.value,
                "trainable": counted["trainable"],
                "whole": counted["whole"],
                "base": size["parameters"],
                "difference": abs(counted["whole"] - size["parameters"] - by_hand.value)
                + abs(counted["trainable"] - trains),
            }
        rows.append(row)
    columns = ["id", "run", "formula", "with_numbers", "added", "trainable", "whole", "base", "difference"]
    whole = dict.fromkeys(("added", "trainable", "whole", "base", "difference"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype(whole).set_index("id")


def numbers_markdown(results: dict[str, Result]) -> str:
    """`numbers` as a page, with the profile and the base that the figures are from in its heading."""
    return (
        f"# The ten numbers: {_origin(results)}\n\n{_note(results)}{_numbers_table(results)}\n\n"
        "Accuracy on the test reviews. *Best epoch* is the course's number; it selects on the test reviews. "
        "*Validation-chosen* does not: a fifth of the test reviews chose the epoch, the others were scored. "
        "*Malformed* is the share of outputs that are neither label word; they count as wrong.\n"
    )


def _numbers_table(results: dict[str, Result]) -> str:
    table = numbers(results)
    shown = pd.DataFrame(
        {
            "run": table.run,
            "best epoch, %": _with_epoch(table.best, table.best_epoch),
            "last epoch, %": table["last"].map(_decimal),
            "validation-chosen, %": _with_epoch(table.validation_chosen, table.validation_epoch),
            "malformed, %": table.malformed.map(_decimal),
            "epochs": table.epochs.map(_thousands),
            "seconds": table.seconds.map(lambda seconds: "" if pd.isna(seconds) else f"{seconds:,.0f}"),
        }
    )
    shown.loc[table.best.isna(), "best epoch, %"] = MISSING
    return _markdown(shown)


def parameters_markdown(results: dict[str, Result]) -> str:
    """`parameters` as a page."""
    table = parameters(results)
    counts = ["added", "trainable", "whole", "base", "difference"]
    shown = table.assign(**{name: table[name].map(_thousands) for name in counts}).astype(object).fillna("")
    shown.loc[table.added.isna(), "formula"] = MISSING
    shown.columns = [
        *("run", "added, by formula", "with numbers", "= added"),
        *("counted: trainable", "counted: whole", "base", "difference"),
    ]
    return (
        f"# Parameters: {_origin(results)}\n\n{_note(results)}{_markdown(shown, text_columns=3)}\n\n"
        "E and D are the layers of encoder and decoder, d is the width of the model, i that of its "
        "attention; N, b and r are prompt rows, bottleneck and rank. *Difference* is what was counted less "
        "what the formula says, for the whole model and for what trains.\n"
    )


def tables(results: dict[str, Result]) -> dict[str, str]:
    """The content of every table file, by its name."""
    return {
        "numbers.csv": numbers(results).to_csv(float_format="%.1f"),
        "numbers.md": numbers_markdown(results),
        "parameters.csv": parameters(results).to_csv(),
        "parameters.md": parameters_markdown(results),
    }


def with_numbers(page: str, results: dict[str, Result]) -> str:
    """`page` with the table of the ten numbers put between its two `numbers` markers."""
    start, end = "<!-- numbers: written by `make tables` -->", "<!-- /numbers -->"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{_numbers_table(results)}\n{end}{after}"


def _origin(results: dict[str, Result]) -> str:
    """Which profile, base and reviews the results are from, in a few words."""
    origins = sorted({_origin_of(result) for result in results.values() if "config" in result})
    return " and ".join(origins) or "no run yet"


def _origin_of(result: Result) -> str:
    config, base = result["config"], result["base_model"]
    return (
        f"profile {result['profile']}, base {base['name']} of {base['parameters']:,} parameters "
        f"(SHA-256 {config['base_sha256'][:8]}…), reviews {config['reviews']}, seed {config['seed']}"
    )


def _note(results: dict[str, Result]) -> str:
    profiles = {result["profile"] for result in results.values()}
    if profiles <= {"course"}:
        return ""
    return (
        "**Not the assignment's numbers**: these are from another base and fewer reviews than `t5-small` on "
        "the whole of IMDB, and can be compared with one another only.\n\n"
    )


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
