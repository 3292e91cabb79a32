"""Many runs from the command line: several seeds, and `sweep`, one run with combinations of settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_scratch.assignment import find_run
from peft_scratch.errors import UserError
from peft_scratch.experiments.tuned import planned

if TYPE_CHECKING:
    from peft_scratch.experiments.jobs import Engine

EngineName = Annotated[str, typer.Option(help="here, one run after another; or ray, many at once.")]
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
    """Train every run with every seed; what is finished already is found on disk."""
    from peft_scratch.experiments.jobs import jobs_of

    plan = planned(run_ids, changes, profile)
    jobs = [
        job
        for run_id, changed in plan
        for job in jobs_of([run_id], seeds, profile, output, recipe, [changed])
    ]
    jobs.sort(key=lambda job: seeds.index(job.seed))  # runs of a seed share the tokenised reviews
    for job, result in engine.train(jobs):
        best, last = (100 * share for share in (result.accuracy.best, result.accuracy.last))
        typer.echo(f"{job}: best epoch {best:.1f} %, last {last:.1f} %")


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
        return float(text)
    except ValueError:
        return text
