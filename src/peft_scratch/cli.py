"""The command line: `peft-scratch --help` lists the commands.

Imports stand inside the commands: torch alone takes seconds, and help should not.
"""

from __future__ import annotations

import atexit
import errno
import gc
import math
import re
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from peft_scratch.errors import UserError
from peft_scratch.exactness import commands as exactness
from peft_scratch.submission import commands as submission

# What the machine refuses, as opposed to what the kit does wrong.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class _Sentences(TyperGroup):
    """Ends a command that fails through no defect of the kit with one sentence and an exit status."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as mistake:
            _stop(str(mistake), 2)
        except ModuleNotFoundError as missing:
            if str(missing.name).startswith("peft_scratch"):
                raise
            _stop(f"The package {missing.name!r} is not installed: run `make run`, which installs it.", 2)
        except OSError as problem:
            if problem.errno not in _REFUSALS:
                raise
            _stop(
                f"{problem.filename or 'The output'} cannot be written ({problem.strerror}): free some space "
                "or choose another output folder.",
                2,
            )
        except KeyboardInterrupt:
            _stop("Interrupted: finished epochs are kept, and the same command goes on from there.", 130)


def _stop(sentence: str, status: int) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(status)


def _say(text: str) -> None:
    """Once, however many processes `accelerate launch` has started."""
    from accelerate import PartialState

    PartialState().print(text)


app = typer.Typer(
    cls=_Sentences,
    help="Fine-tune T5 on IMDB four ways, each method from scratch and through its library.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
main = app

# Python ends by looking for garbage in all that was imported: a second, once torch and transformers are.
atexit.register(gc.freeze)

for command in (
    *(exactness.parity, exactness.convert, exactness.parameters),
    *(submission.check, submission.submit),
):
    app.command()(command)

Profile = Annotated[
    str, typer.Option(help="course, offline, smoke; auto takes course where there is a GPU and the Hub.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of initialisation, data order and dropout.")]
Recipe = Annotated[
    str, typer.Option(help="fast, or course, which trains and evaluates as the course's notebooks do.")
]
Output = Annotated[
    Path | None, typer.Option(help="Folder for results and weights; the profile's own by default.")
]


@app.command()
def runs() -> None:
    """List the ten runs."""
    from peft_scratch.assignment import RUNS

    for run in RUNS.values():
        typer.echo(f"{run.id:24}notebook {run.notebook}   {run.title}")


@app.command()
def run(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN_ID...", help="As `runs` lists them, or `all`.")
    ],
    profile: Profile = "auto",
    seed: Seed = 0,
    output: Output = None,
    recipe: Recipe = "fast",
    settings: Annotated[
        list[str], typer.Option("--set", metavar="NAME=NUMBER", help="Change a constant; may be repeated.")
    ] = [],  # noqa: B006
) -> None:
    """Train runs of the ten and write their results and weights.

    A run with changed constants is kept under `runs` in the output folder, apart from the ten.
    """
    changes = dict(_setting(text) for text in settings)
    from peft_scratch.assignment import RUNS, find_run
    from peft_scratch.experiments.run import change
    from peft_scratch.experiments.session import Session

    chosen = list(RUNS) if run_ids == ["all"] else run_ids
    bench = Session.open(profile, seed, output, recipe)
    for run_id in chosen:  # before hours are spent on the first
        change(find_run(run_id), bench.profile, changes)
    _say(str(bench))
    for run_id in chosen:
        _say(f"\n{run_id}")
        accuracy = bench.prepare(run_id, changes).train().accuracy
        _say(
            f"best epoch {_percent(accuracy.best)}, last {_percent(accuracy.last)}, "
            f"validation-chosen {_percent(accuracy.validation_chosen)}"
        )


@app.command()
def baselines(profile: Profile = "auto", output: Output = None, recipe: Recipe = "fast") -> None:
    """Measure what the ten are held against: zero-shot with and without prefix, bag of words."""
    from peft_scratch.experiments.session import Session

    bench = Session.open(profile, output=output, recipe=recipe)
    for result in bench.baselines():
        _say(f"{result.title}: {_percent(result.accuracy.best)}")


@app.command()
def small_data(profile: Profile = "auto", output: Output = None, recipe: Recipe = "fast") -> None:
    """Train the methods from scratch on 256 reviews with three seeds, to see them overfit.

    Training and test accuracy of every epoch go to `report/small_data` in the output folder.
    """
    from peft_scratch.experiments.small_data import small_data

    for result in small_data(profile, output, recipe):
        last = [run.epochs[-1] for run in result.runs]
        training = sum(epoch.training_accuracy for epoch in last) / len(last)
        test = sum(epoch.test_accuracy for epoch in last) / len(last)
        _say(
            f"{result.title}: after epoch {result.epochs}, {_percent(training)} in training and "
            f"{_percent(test)} in test, on average over {len(last)} seeds"
        )


@app.command()
def notebooks(
    profile: Profile = "auto", seed: Seed = 0, output: Output = None, recipe: Recipe = "fast"
) -> None:
    """Execute the five notebooks; the executed copies go to `notebooks` in the output folder."""
    from peft_scratch.notebook.execute import execute_all

    for path in execute_all(profile, seed, output, recipe):
        typer.echo(path)


@app.command()
def tables(profile: Profile = "auto", output: Output = None) -> None:
    """Make the tables of the ten numbers and of the parameters from the results that are there."""
    from peft_scratch.experiments.profile_choice import choose_profile
    from peft_scratch.reporting.tables import write

    typer.echo(write(output or choose_profile(profile).profile.output))


@app.command()
def report(
    profile: Profile = "auto",
    output: Output = None,
    name: Annotated[str, typer.Option(help="Yours, as the report's head shows it.")] = "",
    number: Annotated[str, typer.Option(help="Your student number, likewise.")] = "",
    language: Annotated[
        str, typer.Option(help="en or fa: make the report in this language only, to pack it; else both.")
    ] = "",
) -> None:
    """Make the report as PDF, in English and in Persian, and its figures, from the results that are there."""
    from peft_scratch.experiments.profile_choice import choose_profile
    from peft_scratch.reporting.content import Student
    from peft_scratch.reporting.report import write

    for file in write(output or choose_profile(profile).profile.output, Student(name, number), language):
        typer.echo(file)


@app.command()
def base(
    budget: Annotated[str, typer.Option(help="Training time, such as 2m or 2h.")] = "60m",
    output: Annotated[
        Path | None, typer.Option(help="Folder for the model; weights/base by default.")
    ] = None,
) -> None:
    """Pre-train the offline base model anew, or go on with a pre-training that was interrupted."""
    seconds = _seconds(budget)
    from peft_scratch.paths import OFFLINE_BASE
    from peft_scratch.pretraining.pretrain import pretrain

    pretrain(seconds, output or OFFLINE_BASE)


def _seconds(budget: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if match is None or float(match[1]) == 0:
        raise UserError(f"A budget is a number and s, m or h, such as 90s, 2m or 1.5h, not {budget!r}.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _setting(text: str) -> tuple[str, int | float]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise UserError(f"--set needs NAME=NUMBER, such as rank=4, not {text!r}.") from None
    return name, int(value) if re.fullmatch(r"[+-]?\d+", value) else number


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":  # accelerate launch -m peft_scratch.cli
    main()
