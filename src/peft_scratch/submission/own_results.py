"""The results in a folder that the kit worked in, compared with its notebooks and the assignment."""

from __future__ import annotations

import json
from collections.abc import Iterator

from peft_scratch.assignment import FILES, PROFILES, RUNS, Run
from peft_scratch.results import Config, RunResult
from peft_scratch.submission.archive import File
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.findings import Finding, error
from peft_scratch.submission.sizes import sizes_of


def read(files: list[File]) -> tuple[dict[str, RunResult], list[Finding]]:
    """The results of the ten runs, and what is wrong in their files."""
    results, findings = {}, []
    for file in files:
        try:
            if json.loads(file.data)["id"] not in RUNS:
                continue
            result = RunResult.model_validate_json(file.data)
            best = 100 * max(epoch.accuracy for epoch in result.epochs)
        except (ValueError, KeyError, TypeError, RecursionError):  # whatever the JSON holds instead
            text = f"{file.where} is not the JSON of a result"
            findings.append(error(FILES, "json-damaged", text, "run it again"))
            continue
        run = RUNS[result.id]
        constants = _changed(run, result.config) if result.profile == "course" else None
        if result.percent != best:
            text = f"{file.where} says {result.percent:.1f} %, but its best epoch has {best:.1f} %"
            fix = "run it again; results must not be edited"
            findings.append(error(run.notebook, "json-differs", text, fix))
        if constants:
            fix = "run it with the constants of the assignment"
            findings.append(error(run.notebook, "constants", f"{file.where}: {constants}", fix))
        results[run.id] = result
    return results, findings


def _changed(run: Run, config: Config) -> str | None:
    """The first constant of a result that is not the assignment's, in words; None if all are."""
    profile = PROFILES["course"]
    of_profile = ("max_tokens", "train_reviews", "test_reviews", "epochs", "batch_size", "reviews")
    expected = {name: getattr(run, name) for name in ("kind", "library", "learning_rate")}
    expected |= {name: getattr(profile, name) for name in of_profile} | dict(run.hyperparameters)
    said = {**vars(config), **config.hyperparameters}
    wrong = (name for name, value in expected.items() if said.get(name) != value)
    name = next(wrong, None)
    return f"{name} is {said.get(name)!r}, but {expected[name]!r} in the assignment" if name else None


def agreement(found: dict[int, Notebook], results: dict[str, RunResult]) -> Iterator[Finding]:
    """Number and count of each result compared with its notebook and the formula."""
    for name, result in results.items():
        run, whole = RUNS[name], result.parameters.whole
        number = found[run.notebook].numbers.get(name) if run.notebook in found else None
        if number is not None and number != round(result.percent, 1):
            text = f"{run.title} is {number} % in its notebook, {result.percent:.1f} % in {name}.json"
            fix = "hand in the notebook of the same run"
            yield error(run.notebook, "number-not-json", text, fix)
        if result.profile in PROFILES and whole != (right := sizes_of(name, result.profile).whole):
            text = f"{name}.json counts {whole:,} parameters in all; it should be {right:,}"
            yield error(run.notebook, "json-count", text, "run it again with the right base")
