"""What a report is made from: the JSON of the runs and the student's notes, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from peft_scratch.assignment import BASELINES, TEN
from peft_scratch.comparison import SeedDifference, SeedSummary
from peft_scratch.errors import UserError
from peft_scratch.paths import OFFLINE_BASE, ROOT
from peft_scratch.reporting.facts import Pair, seed_differences, summaries
from peft_scratch.reporting.languages import LANGUAGES
from peft_scratch.results import Result, RunResult, SmallDataResult, read_results, read_small_data
from peft_scratch.seeds import SeedResult, Seeds, read_seeds, with_further

#: The comparison of scratch and library with the same weights, which the checkout carries.
EXACTNESS = ROOT / "report" / "exactness.json"
#: How the offline base was made, likewise.
PRETRAINING = OFFLINE_BASE / "pretraining.json"


@dataclass(frozen=True)
class Inputs:
    """All that a report is made from.

    Attributes:
        results: of the runs and of the baselines with the first seed, by id.
        small_data: of the runs on few reviews, by id; may be empty.
        exactness: the comparison of scratch and library with the same weights, if it was made.
        pretraining: how the base was made, if it is our own.
        further_seeds: results of the ten with other seeds, by id; may be empty.
        notes: the student's discussion as Markdown, by language code; may be empty.
    """

    results: Mapping[str, Result]
    small_data: Mapping[str, SmallDataResult]
    exactness: Mapping[str, Any] | None
    pretraining: Mapping[str, Any] | None
    further_seeds: Seeds = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> dict[str, RunResult]:
        """Those of the ten that have a result, in their order."""
        found = ((name, self.results.get(name)) for name in TEN)
        return {name: result for name, result in found if isinstance(result, RunResult)}

    @cached_property
    def seeds(self) -> dict[str, list[SeedResult]]:
        """The results of each run that has several seeds on the same reviews, the first seed's first."""
        return with_further(self.runs, self.further_seeds)

    @cached_property
    def summaries(self) -> dict[str, SeedSummary]:
        """Mean and interval of each run that has several seeds."""
        return summaries(self.seeds)

    @cached_property
    def seed_differences(self) -> dict[Pair, SeedDifference]:
        """The pairs of runs over the seeds that both have."""
        return seed_differences(self.seeds)


def read(output: Path, exactness: Path = EXACTNESS, pretraining: Path = PRETRAINING) -> Inputs:
    """Read what a report is made from.

    Args:
        output: the output folder of a profile. Its `report` holds `results` and, perhaps, `small_data` and
            `seeds`; beside it, perhaps, are the student's `notes.md` and `notes.fa.md`.
        exactness, pretraining: their files, which may be missing.

    Raises:
        UserError: there is no result, or a file is not what it should be.
    """
    folder = output / "report"
    results = read_results(folder / "results")
    if not results.keys() & (TEN | BASELINES).keys():
        raise UserError(f"{folder / 'results'} has no results: run `make run` first.")
    base = _read(pretraining, "peft-scratch base")
    sizes = {
        (run.base_model.name, run.base_model.parameters)
        for run in results.values()
        if isinstance(run, RunResult)
    }
    if base is not None and sizes != {("weights/base", base["parameters"])}:
        base = None  # these runs are on another base
    return Inputs(
        results,
        read_small_data(folder / "small_data"),
        _read(exactness, "peft-scratch parity"),
        base,
        read_seeds(folder),
        _notes(output),
    )


def _notes(output: Path) -> dict[str, str]:
    notes = {}
    for code, language in LANGUAGES.items():
        path = output / language.notes_file
        if path.is_file():
            try:
                text = path.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError:
                raise UserError(f"{path} is not a UTF-8 text file: save it as UTF-8.") from None
            if text.strip():
                notes[code] = text
    return notes


def _read(path: Path, command: str) -> Mapping[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{path} is not complete JSON: delete it, or make it with `{command}`.") from None
