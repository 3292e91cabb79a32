"""A run with changed constants, and the fingerprint that tells runs apart."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any

from peft_scratch.assignment import SIZES, Profile, Run
from peft_scratch.edition import layers_file
from peft_scratch.errors import UserError
from peft_scratch.libraries import METHODS, method_of
from peft_scratch.methods import first_rows, label_words, random_uniform, sampled_vocabulary
from peft_scratch.training.schedule import SCHEDULES

_PROFILE_SETTINGS = ("max_tokens", "train_reviews", "test_reviews", "epochs", "batch_size")


def change(run: Run, profile: Profile, settings: dict[str, Any]) -> tuple[Run, Profile]:
    """`run` and `profile` with `settings` applied: a hyperparameter of the method, `learning_rate`, its
    `schedule`, or one of the profile's sizes. `scaling` sets LoRA's alpha / rank instead of alpha.

    Raises:
        UserError: a setting is unknown, or its value is impossible.
    """
    of_method = [field.name for field in fields(METHODS[run.kind, run.library])]
    original = run
    for name, value in settings.items():
        if name == "scaling" and "alpha" in of_method:
            continue  # it sets alpha below, once the rank is known
        elif name in of_method:
            value = _initialiser(value) if name == "initialiser" else value
            run = replace(run, hyperparameters={**run.hyperparameters, name: value})
        elif name in _PROFILE_SETTINGS:
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, not {value!r}.")
            profile = replace(profile, **{name: value})
        elif name == "learning_rate":
            if not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise UserError(f"learning_rate must be a number above 0, not {value!r}.")
        elif name == "schedule":
            if value not in SCHEDULES:
                raise UserError(f"schedule must be one of {', '.join(SCHEDULES)}, not {value!r}.")
        else:
            known = [*of_method, "learning_rate", "schedule", *_PROFILE_SETTINGS]
            raise UserError(f"The run {run.id!r} has no setting {name!r}; it has {', '.join(known)}.")
    if "scaling" in settings and "alpha" in of_method:
        alpha = settings["scaling"] * run.hyperparameters["rank"]
        run = replace(run, hyperparameters={**run.hyperparameters, "alpha": alpha})
    method_of(run)  # refuses an impossible value
    if prompt_rows(run) >= profile.max_tokens - 1:
        raise UserError(
            f"{prompt_rows(run)} virtual tokens leave no room for a review in inputs of {profile.max_tokens} "
            "tokens: ask for fewer."
        )
    return _renamed(run, original, settings), profile


def _renamed(run: Run, original: Run, settings: dict[str, Any]) -> Run:
    """`run` with an id and a title that name its changed constants."""
    name, letter = SIZES.get(run.kind, ("", ""))
    run_id, size = run.id, run.hyperparameters.get(name)
    if size != original.hyperparameters.get(name):
        run_id = f"{run_id.rpartition('_')[0]}_{letter.lower()}{size}"
    others = tuple((setting, value) for setting, value in settings.items() if setting != name)
    return replace(run, id=run_id, changes=others)


def settings_of(run: Run, profile: Profile) -> dict[str, Any]:
    """The settings that `change` can change, with their values in `run` and `profile`."""
    method = method_of(run)
    numbers = {
        field.name: getattr(method, field.name)
        for field in fields(method)
        if isinstance(getattr(method, field.name), (int, float))
    }
    if "alpha" in numbers:
        numbers["scaling"] = numbers["alpha"] / numbers["rank"]
    sizes = {name: getattr(profile, name) for name in _PROFILE_SETTINGS}
    everything = {name: "all" for name, size in sizes.items() if size is None}
    starts = {name: value for name, value in method.hyperparameters().items() if name == "initialiser"}
    rate = {"learning_rate": run.learning_rate_in(profile), "schedule": SCHEDULES[0]}
    return {**numbers, **starts, **rate, **sizes, **everything}


#: Ways to initialise a soft prompt, by the name that `--set initialiser=...` takes.
INITIALISERS = {
    function.__name__: function for function in (first_rows, sampled_vocabulary, random_uniform, label_words)
}


def _initialiser(value: Any) -> Any:
    if callable(value):
        return value
    if value not in INITIALISERS:
        raise UserError(f"There is no initialiser {value!r}; choose one of {', '.join(INITIALISERS)}.")
    return INITIALISERS[value]


def with_label_words(run: Run, pieces: Sequence[Sequence[int]]) -> Run:
    """`run`; if its initialiser is `label_words`, with the words' `pieces`, which only a tokenizer knows."""
    if run.hyperparameters.get("initialiser") is not label_words:
        return run
    bound = partial(label_words, words=pieces)
    return replace(run, hyperparameters={**run.hyperparameters, "initialiser": bound})


def prompt_rows(run: Run) -> int:
    """How many rows the run's method puts before the input; they count towards `max_tokens`."""
    return run.hyperparameters.get("virtual_tokens", 0)


def configuration(
    run: Run,
    profile: Profile,
    learning_rate: float,
    seed: int,
    base: str,
    recipe: str,
    schedule: str = "constant",
) -> dict[str, Any]:
    """Everything that the weights of a run depend on, as JSON.

    Args:
        base: the base's fingerprint.
        recipe: the recipe's name.
        schedule: of the learning rate; it is left out if it is constant, as in the assignment.
    """
    sizes = {name: value for name, value in asdict(profile).items() if name in _PROFILE_SETTINGS}
    hyperparameters = json.loads(json.dumps(method_of(run).hyperparameters(), default=lambda f: f.__name__))
    return {
        "kind": run.kind,
        "library": run.library,
        "hyperparameters": hyperparameters,
        "learning_rate": learning_rate,
        **sizes,
        "reviews": profile.reviews,
        "base_sha256": base,
        "seed": seed,
        "recipe": recipe,
        **({} if schedule == "constant" else {"schedule": schedule}),
        **_students_code(run),
    }


def _students_code(run: Run) -> dict[str, str]:
    """In the student edition: a hash of the student's code that `run` uses, so that new code is a new run."""
    if not layers_file.in_use():
        return {}
    from peft_scratch.edition.self_check.run import CHECKS

    used = {"rest", run.kind} | ({"libraries"} if run.library not in ("none", "scratch") else set())
    others = {item.name.partition(".")[0] for group in set(CHECKS) - used for item in CHECKS[group]}
    return {"layers": layers_file.fingerprint(others)}


def fingerprint(configuration: dict[str, Any]) -> str:
    """Eight characters that change with any part of the configuration."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:8]
