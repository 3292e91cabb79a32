"""A sweep: one run with every combination of some settings, as a table and a plot.

The results are in `report/sweeps/<name>.json` of the output folder, one entry per combination and seed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft_scratch.errors import UserError
from peft_scratch.experiments.jobs import Engine, jobs_of
from peft_scratch.experiments.profile_choice import choose_profile
from peft_scratch.results import RunResult, reviews_of, write_json
from peft_scratch.seeds import as_bits

# The run with its own constants. They are given as a setting, so that its results stay apart from the ten.
_CONSTANTS = {"schedule": "constant"}


def combinations(settings: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the values, the last name changing fastest.

    >>> list(combinations({"rank": [1, 2], "epochs": [3]}))
    [{'rank': 1, 'epochs': 3}, {'rank': 2, 'epochs': 3}]
    """
    for values in itertools.product(*settings.values()):
        yield dict(zip(settings, values, strict=True))


def sweep(
    run_id: str,
    settings: dict[str, list[Any]],
    *,
    profile: str = "auto",
    seeds: Sequence[int] = (0,),
    output: Path | None = None,
    recipe: str = "fast",
    engine: Engine | None = None,
    name: str = "",
) -> Path:
    """Train `run_id` with every combination of `settings` and every seed; return the file of the results.

    The run is also trained with its own constants and the same seeds, so that each combination can be
    compared with it. Finished combinations are read from disk, not repeated.

    Args:
        settings: values by name of the setting, such as `{"rank": [1, 2, 4]}`.
        name: of the file; made from run and settings by default.

    Raises:
        UserError: no setting is given, or one is impossible.
    """
    if not settings:
        raise UserError("A sweep needs settings: give at least one, such as --set rank=1,2,4.")
    name = name or "-".join([run_id, *settings])
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"A sweep's name is made of letters, digits, dots and dashes, not {name!r}.")
    engine = engine or Engine()
    plan = [(run_id, tried) for tried in (_CONSTANTS, *combinations(settings))]
    made = jobs_of(plan, seeds, profile, output, recipe)
    jobs = [replace(job, extra_seed=True) for job in made]  # nothing to measure after the last epoch
    trained = sorted(engine.train(jobs), key=lambda pair: jobs.index(pair[0]))
    rows = [_row(job.settings, job.seed, result) for job, result in trained if job.settings != _CONSTANTS]
    constants = [_row({}, job.seed, result) for job, result in trained if job.settings == _CONSTANTS]
    folder = output or choose_profile(profile).profile.output
    path = folder / "report" / "sweeps" / f"{name}.json"
    write_json(path, {"run": run_id, "swept": list(settings), "rows": rows, "constants": constants})
    return path


def _row(settings: dict[str, Any], seed: int, result: RunResult) -> dict[str, Any]:
    reviews = reviews_of(result, "test")
    return {
        "settings": settings,
        "seed": seed,
        "title": result.title,
        "profile": result.profile,
        "best": result.accuracy.best,
        "last": result.accuracy.last,
        "validation_chosen": result.accuracy.validation_chosen,
        "trainable": result.parameters.trainable,
        "seconds": result.seconds.training + result.seconds.evaluation,
        "bytes": result.disk.delta if result.disk else None,
        "test_reviews": reviews,
        "mistakes": as_bits(result.mistakes, reviews) if reviews else None,
        "fingerprint": result.fingerprint,
    }
