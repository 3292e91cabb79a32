"""The results of further seeds: a training writes a folder per seed, and publishing makes one small file.

Seeds are compared by their accuracies and by the reviews that were predicted wrong, and by nothing else. So
`seeds.json` holds a few numbers per run and seed, and the reviews as bits.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from peft_scratch.assignment import TEN
from peft_scratch.errors import UserError
from peft_scratch.results import Accuracy, Environment, Result, RunResult, read_results, reviews_of

#: The published file, and the folder that a run writes; both are in the folder `report`.
FILE, FOLDER = "seeds.json", "seeds"


class Conditions(BaseModel):
    """What many seeds have in common; `reviews` is the number of test reviews."""

    profile: str
    base_sha256: str | None
    reviews: int
    environment: Environment

    def comparable(self, other: Conditions) -> bool:
        """Whether both have the same base and the same reviews."""
        ours, theirs = ((of.profile, of.base_sha256, of.reviews) for of in (self, other))
        return ours == theirs


class SeedResult(BaseModel):
    """What one run with one seed scored; `mistakes` are the positions of the reviews predicted wrong."""

    seed: int | None
    fingerprint: str | None
    accuracy: Accuracy
    malformed: float
    mistakes: list[int]
    conditions: Conditions


#: Results of seeds, by the id of their run.
Seeds = Mapping[str, Sequence[SeedResult]]


def read_seeds(report: Path) -> dict[str, list[SeedResult]]:
    """The further seeds in a folder `report`: from its folder `seeds`, or else from its `seeds.json`.

    Raises:
        UserError: a file does not hold such results.
    """
    folders = sorted((report / FOLDER).glob("*/"), key=lambda path: (len(path.name), path.name))
    found: dict[str, list[SeedResult]] = {}
    for folder in folders:
        for name, run in read_results(folder).items():
            if isinstance(run, RunResult) and name in TEN and (of := reduced(run)) is not None:
                found.setdefault(name, []).append(of)
    if found or not (report / FILE).is_file():
        return found
    return _unpacked(report / FILE)


def reduced(run: RunResult) -> SeedResult | None:
    """The part of a result by which seeds are compared; `None` if the number of its reviews is unknown."""
    if not (reviews := reviews_of(run, "test")):
        return None
    return SeedResult(
        seed=run.config.seed,
        fingerprint=run.fingerprint,
        accuracy=run.accuracy,
        malformed=run.malformed,
        mistakes=run.mistakes,
        conditions=Conditions(
            profile=run.profile,
            base_sha256=run.config.base_sha256,
            reviews=reviews,
            environment=run.environment,
        ),
    )


def with_further(first: Mapping[str, Result], further: Seeds) -> dict[str, list[SeedResult]]:
    """The results of each run that has several seeds, the first seed's first.

    Results with another base or other reviews than the very first are left out.
    """
    found: dict[str, list[SeedResult]] = {}
    common = None
    for name, run in first.items():
        of = reduced(run) if isinstance(run, RunResult) and further.get(name) else None
        if of is None:
            continue
        common = common or of.conditions
        alike = [seed for seed in (of, *further[name]) if seed.conditions.comparable(common)]
        if len({seed.seed for seed in alike}) > 1:
            found[name] = alike
    return found


def packed(seeds: Seeds) -> str:
    """The text of `seeds.json`; `read_seeds` returns the same seeds from it."""
    conditions: list[dict[str, Any]] = []
    runs: dict[str, list[dict[str, Any]]] = {}
    for name, results in seeds.items():
        for of in results:
            entry = of.model_dump(mode="json")
            if entry["conditions"] not in conditions:
                conditions.append(entry["conditions"])
            entry["conditions"] = conditions.index(entry["conditions"])
            entry["mistakes"] = as_bits(of.mistakes, of.conditions.reviews)
            runs.setdefault(name, []).append(entry)
    lines = [
        f"  {json.dumps(name)}: [\n" + ",\n".join(f"   {json.dumps(entry)}" for entry in entries) + "\n  ]"
        for name, entries in runs.items()
    ]
    return f'{{\n "conditions": {json.dumps(conditions)},\n "runs": {{\n' + ",\n".join(lines) + "\n }\n}\n"


def _unpacked(path: Path) -> dict[str, list[SeedResult]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: [_entry(entry, content["conditions"]) for entry in entries]
            for name, entries in content["runs"].items()
            if name in TEN
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ValidationError):
        raise UserError(f"{path} does not hold results of seeds: restore it, or delete it.") from None


def _entry(entry: dict[str, Any], conditions: list[dict[str, Any]]) -> SeedResult:
    shared = conditions[entry["conditions"]]
    mistakes = as_positions(entry["mistakes"], shared["reviews"])
    return SeedResult.model_validate({**entry, "mistakes": mistakes, "conditions": shared})


def as_bits(mistakes: Iterable[int], reviews: int) -> str:
    """A bit for each review, 1 for a mistake, as base64."""
    bits = np.zeros(reviews, dtype=bool)
    bits[list(mistakes)] = True
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def as_positions(text: str, reviews: int) -> list[int]:
    """The mistakes that `as_bits` made `text` of."""
    packed_bits = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(packed_bits, count=reviews)).tolist()
