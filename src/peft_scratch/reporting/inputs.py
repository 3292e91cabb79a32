"""What a report is made from: the JSON of the runs, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from peft_scratch.assignment import BASELINES, TEN
from peft_scratch.errors import UserError
from peft_scratch.reporting.tables import Result, read_results

_EVERY_RESULT = ("profile", "accuracy", "malformed")
_EVERY_RUN = ("config", "environment", "parameters", "base_model", "epochs", "curve", "seconds")


@dataclass(frozen=True)
class Inputs:
    """All that a report is made from.

    Attributes:
        results: of the runs and of what they are held against, by id.
        small_data: of the runs on few reviews, by id; may be empty.
        exactness: the comparison of scratch and library with the same weights, if it was made.
        pretraining: how the base was made, if it is our own.
    """

    results: dict[str, Result]
    small_data: dict[str, Result]
    exactness: Result | None
    pretraining: Result | None

    @property
    def runs(self) -> dict[str, Result]:
        """The results of those of the ten that there are, in their order."""
        return {name: self.results[name] for name in TEN if name in self.results}


def read(folder: Path, exactness: Path, pretraining: Path) -> Inputs:
    """Read the JSON that a report is made from.

    Args:
        folder: holds `results` and, perhaps, `small_data`.
        exactness, pretraining: the files of these; they may be missing.

    Raises:
        UserError: there is no result, or a file is not the JSON that it should be.
    """
    results = read_results(folder / "results")
    if not results.keys() & (TEN | BASELINES).keys():
        raise UserError(f"{folder / 'results'} holds no result: `make run` makes them.")
    for name in results.keys() & (TEN | BASELINES).keys():
        wanted = _EVERY_RESULT + _EVERY_RUN if name in TEN else _EVERY_RESULT
        if absent := [key for key in wanted if key not in results[name]]:
            raise UserError(
                f"{folder / 'results' / name}.json lacks {', '.join(absent)}: delete it, run {name} again."
            )
    base = _read(pretraining, "peft-scratch base")
    sizes = {
        (run["base_model"]["name"], run["base_model"]["parameters"])
        for run in results.values()
        if "config" in run
    }
    if base is not None and sizes != {("weights/base", base["parameters"])}:
        base = None  # these runs stand on another base
    return Inputs(
        results, read_results(folder / "small_data", {}), _read(exactness, "peft-scratch parity"), base
    )


def _read(path: Path, command: str) -> Result | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{path} is not whole JSON: delete it, or make it again with `{command}`.") from None
