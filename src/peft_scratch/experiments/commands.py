"""The command `sweep`, runs with several seeds, and what `--set` changes in a run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_scratch.assignment import FROM_SCRATCH, Profile, find_run
from peft_scratch.errors import UserError
from peft_scratch.experiments.planned import ALL, TUNED, planned

if TYPE_CHECKING:
    from peft_scratch.experiments.jobs import Engine

#: Given in place of a setting, these ask which settings there are.
_HELP = ("--help", "-h", "help")
#: Settings whose values are words.
_WORDS = ("initialiser", "schedule")

EngineName = Annotated[str, typer.Option(help="here: one run after another. ray: many at once.")]
Address = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster; by default Ray starts on this machine.")
]
GpusPerRun = Annotated[float, typer.Option(help="With ray: GPUs of each run, or a share such as 0.5.")]
CpusPerRun = Annotated[int, typer.Option(help="With ray: cores of each run.")]


def sweep(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A name from `runs`.")],
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE,VALUE", help="Values to try; repeat it for more settings."),
    ],
    seeds: Annotated[str, typer.Option(help="Such as 3, 0-4 or 0,2,5.")] = "0",
    profile: Annotated[str, typer.Option(help="As for `run`.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="As for `run`.")] = None,
    recipe: Annotated[str, typer.Option(help="As for `run`.")] = "fast",
    engine: EngineName = "here",
    address: Address = None,
    gpus_per_run: GpusPerRun = 0,
    cpus_per_run: CpusPerRun = 1,
    name: Annotated[str, typer.Option(help="Name of the files it writes.")] = "",
) -> None:
    """Train a run with every combination of some settings.

    A table and a plot go to `report/sweeps` in the output folder, with the Pareto front marked.
    """
    find_run(run_id)
    values = dict(values_of(text) for text in settings)
    from peft_scratch.experiments.jobs import Engine, seeds_of
    from peft_scratch.experiments.sweep import sweep as train_all
    from peft_scratch.files import write_atomically
    from peft_scratch.reporting.sweeps import sweep_markdown, sweep_plot

    where = Engine(engine, address, gpus_per_run, cpus_per_run)
    path = train_all(
        run_id,
        values,
        profile=profile,
        seeds=seeds_of(seeds),
        output=output,
        recipe=recipe,
        engine=where,
        name=name,
    )
    page = sweep_markdown(path)
    write_atomically(path.with_suffix(".md"), page)
    sweep_plot(path, path.with_suffix(".png"))
    typer.echo(page)
    typer.echo(path.with_suffix(".png"))


def train_many(
    run_ids: list[str],
    changes: dict[str, int | float | str],
    profile: str,
    seeds: list[int],
    output: Path | None,
    recipe: str,
    engine: Engine,
) -> None:
    """Train every run with every seed; finished runs are read from disk."""
    from peft_scratch.experiments.jobs import jobs_of

    plan = planned(run_ids, changes, profile)
    for job, result in engine.train(jobs_of(plan, seeds, profile, output, recipe)):
        best, last = (100 * share for share in (result.accuracy.best, result.accuracy.last))
        typer.echo(f"{job}: best epoch {best:.1f} %, last {last:.1f} %")


def asks_for_help(texts: Sequence[str]) -> bool:
    """Whether one of the values of `--set` asks for the list of settings."""
    return any(text in _HELP for text in texts)


def listing(run_ids: Sequence[str], profile_name: str) -> str:
    """The settings of runs with their values, one per line; by default for one run of each method.

    Raises:
        UserError: unknown run or profile.
    """
    from peft_scratch.experiments.profile_choice import choose_profile
    from peft_scratch.experiments.settings import settings_of

    profile = choose_profile(profile_name).profile
    blocks = []
    named = [run_id for run_id in run_ids if run_id not in (ALL, TUNED)]
    for run in map(find_run, named or FROM_SCRATCH):
        lines = (f"  {name:16}{value}" for name, value in settings_of(run, profile).items())
        blocks.append("\n".join([f"{run.id}, in the {profile.name} profile:", *lines]))
    return "\n\n".join([*blocks, "Change one with --set NAME=VALUE, such as --set learning_rate=0.001."])


def setting(text: str) -> tuple[str, int | float | str]:
    """Name and value of `rank=4`, or of `schedule=linear`.

    Raises:
        UserError: it has no name, or its value is not a number and should be one.
    """
    name, _, text_of_value = text.partition("=")
    value = _value(text_of_value)
    if isinstance(value, str) and not (value and name in _WORDS):
        raise UserError(
            f"--set needs NAME=NUMBER, such as rank=4, not {text!r}. `--set --help` lists the names."
        )
    return name, value


def values_of(text: str) -> tuple[str, list[Any]]:
    """Name and values of `rank=1,2,4` or `initialiser=first_rows,random_uniform`.

    Raises:
        UserError: there is no name or no value.
    """
    name, _, values = text.partition("=")
    found = [_value(part.strip()) for part in values.split(",") if part.strip()]
    if not re.fullmatch(r"\w+", name) or not found:
        raise UserError(f"--set needs NAME=VALUE,VALUE such as rank=1,2,4, not {text!r}.")
    return name, found


def _value(text: str) -> int | float | str:
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def changed(run_id: str, profile: Profile, changes: Mapping[str, Any]) -> str:
    """What was changed in a run, with the value before: `changed: rank = 4 (8 otherwise)`."""
    from peft_scratch.experiments.settings import settings_of

    before = settings_of(find_run(run_id), profile)
    words = (f"{name} = {value} ({before[name]} otherwise)" for name, value in changes.items())
    return f"changed: {', '.join(words)}"
