"""The results' JSON in a folder that the kit worked in, against its notebooks and the assignment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from peft_scratch.assignment import FILES, PROFILES, RUNS, Run
from peft_scratch.submission.archive import File
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.findings import Finding, error
from peft_scratch.submission.sizes import sizes_of


@dataclass(frozen=True)
class OwnResult:
    """What a result's JSON says: accuracy in %, profile, and the count of the whole model."""

    percent: float
    profile: str
    whole: int


def read(files: list[File]) -> tuple[dict[str, OwnResult], list[Finding]]:
    """The results' JSON of the ten runs, and what is wrong in itself."""
    results, findings = {}, []
    for file in files:
        try:
            result = json.loads(file.data)
            if result["id"] not in RUNS:
                continue
            run = RUNS[result["id"]]
            epochs = [100 * float(epoch["accuracy"]) for epoch in result["epochs"]]
            percent, best = 100 * float(result["accuracy"]["best"]), max(epochs)
            said = OwnResult(percent, str(result["profile"]), int(result["parameters"]["whole"]))
            constants = _changed(run, result["config"]) if said.profile == "course" else None
        except Exception as problem:  # whatever the JSON holds instead
            text = f"{file.where} is not the JSON of a result ({type(problem).__name__})"
            findings.append(error(FILES, "json-damaged", text, "run again what it should hold"))
            continue
        if percent != best:
            text = f"{file.where} says {percent:.1f} %, its best epoch {best:.1f} %"
            findings.append(error(run.notebook, "json-differs", text, "run again; a result is not edited"))
        if constants:
            fix = "run it with the constants of the assignment"
            findings.append(error(run.notebook, "constants", f"{file.where}: {constants}", fix))
        results[run.id] = said
    return results, findings


def _changed(run: Run, config: dict[str, Any]) -> str | None:
    """The first constant in which a result of the course profile is not the assignment's."""
    profile = PROFILES["course"]
    expected = {
        "kind": run.kind,
        "library": run.library,
        "learning_rate": run.learning_rate,
        **{name: getattr(profile, name) for name in ("max_tokens", "train_reviews", "test_reviews", "epochs")},
        "batch_size": profile.batch_size,
        "reviews": profile.reviews,
    }
    for name, value in expected.items():
        if config.get(name) != value:
            return f"{name} is {config[name]!r}, in the assignment {value!r}"
    for name, value in run.hyperparameters.items():
        if config["hyperparameters"].get(name) != value:
            return f"{name} is {config['hyperparameters'][name]!r}, in the assignment {value!r}"
    return None


def agreement(found: dict[int, Notebook], results: dict[str, OwnResult]) -> list[Finding]:
    """Number and count of each result against its notebook and the formula."""
    findings = []
    for name, result in results.items():
        run = RUNS[name]
        number = found[run.notebook].numbers.get(name) if run.notebook in found else None
        if number is not None and number != round(result.percent, 1):
            text = f"{run.title} is {number} % in its notebook, {result.percent:.1f} % in {name}.json"
            fix = "hand in the notebook of that very run"
            findings.append(error(run.notebook, "number-not-json", text, fix))
        if result.profile not in PROFILES:
            continue
        expected = sizes_of(name, result.profile).whole
        if result.whole != expected:
            text = f"{name}.json counts {result.whole:,} parameters in all; it should be {expected:,}"
            findings.append(error(run.notebook, "json-count", text, "run it again on the right base"))
    return findings
