"""The results' JSON in a folder that the kit worked in, against its notebooks and the assignment."""

from __future__ import annotations

import json

from peft_scratch.assignment import FILES, PROFILES, RUNS, Run
from peft_scratch.results import Config, RunResult
from peft_scratch.submission.archive import File
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.findings import Finding, error
from peft_scratch.submission.sizes import sizes_of


def read(files: list[File]) -> tuple[dict[str, RunResult], list[Finding]]:
    """The results' JSON of the ten runs, and what is wrong in itself."""
    results, findings = {}, []
    for file in files:
        try:
            if json.loads(file.data)["id"] not in RUNS:
                continue
            result = RunResult.model_validate_json(file.data)
            best = 100 * max(epoch.accuracy for epoch in result.epochs)
        except (ValueError, KeyError, TypeError, RecursionError):  # whatever the JSON holds instead
            text = f"{file.where} is not the JSON of a result"
            findings.append(error(FILES, "json-damaged", text, "run again what it should hold"))
            continue
        run = RUNS[result.id]
        constants = _changed(run, result.config) if result.profile == "course" else None
        if result.percent != best:
            text = f"{file.where} says {result.percent:.1f} %, its best epoch {best:.1f} %"
            findings.append(error(run.notebook, "json-differs", text, "run again; a result is not edited"))
        if constants:
            fix = "run it with the constants of the assignment"
            findings.append(error(run.notebook, "constants", f"{file.where}: {constants}", fix))
        results[run.id] = result
    return results, findings


def _changed(run: Run, config: Config) -> str | None:
    """The first constant in which a result of the course profile is not the assignment's."""
    profile = PROFILES["course"]
    expected = {
        "kind": run.kind,
        "library": run.library,
        "learning_rate": run.learning_rate,
        **{
            name: getattr(profile, name) for name in ("max_tokens", "train_reviews", "test_reviews", "epochs")
        },
        "batch_size": profile.batch_size,
        "reviews": profile.reviews,
    }
    for name, value in expected.items():
        if (said := getattr(config, name)) != value:
            return f"{name} is {said!r}, in the assignment {value!r}"
    for name, value in run.hyperparameters.items():
        if (said := config.hyperparameters.get(name)) != value:
            return f"{name} is {said!r}, in the assignment {value!r}"
    return None


def agreement(found: dict[int, Notebook], results: dict[str, RunResult]) -> list[Finding]:
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
        if result.parameters.whole != expected:
            text = (
                f"{name}.json counts {result.parameters.whole:,} parameters in all; it should be {expected:,}"
            )
            findings.append(error(run.notebook, "json-count", text, "run it again on the right base"))
    return findings
