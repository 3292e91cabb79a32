"""The command line: `peft-scratch --help` lists the commands.

Imports stand inside the commands, so that help appears at once: torch alone takes seconds.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from peft_scratch import __version__
from peft_scratch.app import cli_ask
from peft_scratch.assignment import RUNS, find_profile, find_run
from peft_scratch.console import make_printable
from peft_scratch.edition import commands as edition
from peft_scratch.errors import UserError, replaced_package
from peft_scratch.exactness import commands as exactness
from peft_scratch.experiments import commands as experiments
from peft_scratch.experiments.planned import planned
from peft_scratch.files import REFUSED
from peft_scratch.home import do_without_home
from peft_scratch.paths import shown
from peft_scratch.submission import commands as submission

# Errors of the machine (a full disk, say), not defects of the kit.
_REFUSALS = (*REFUSED, errno.ENOTDIR)


class _Sentences(TyperGroup):
    """Ends a command that fails for a known reason with one sentence and an exit status."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as mistake:
            _stop(str(mistake))
        except ModuleNotFoundError as missing:
            if str(missing.name).startswith("peft_scratch"):
                raise
            _stop(f"The package {missing.name!r} is not installed: run `make run`, which installs it.")
        except ImportError as problem:
            if (mistake := replaced_package(problem)) is None:
                raise
            _stop(str(mistake))
        except OSError as problem:
            if problem.errno not in _REFUSALS:
                raise
            _stop(
                f"{problem.filename or 'The output'} cannot be written ({problem.strerror}): free some space "
                "or choose another output folder."
            )
        except KeyboardInterrupt:
            _stop("Interrupted: finished epochs are kept; run the same command again to continue.", 130)


def _stop(sentence: str, status: int = 2) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(status)


def _say(text: str) -> None:
    """Print `text` once, however many processes `accelerate launch` has started."""
    from accelerate import PartialState

    PartialState().print(text)


def _known_profile(name: str) -> str:
    """Return `name`, or refuse an unknown profile before torch is imported, which takes seconds."""
    if name != "auto":
        find_profile(name)
    return name


Profile = Annotated[
    str,
    typer.Option(
        help="course, quick, offline or smoke; auto takes course if it finds a GPU and can reach the Hub.",
        callback=_known_profile,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed for initial weights, data order and dropout.")]
Seeds = Annotated[str, typer.Option(help="Several seeds, such as 0-4; the ten numbers are the first seed's.")]
Recipe = Annotated[
    str, typer.Option(help="fast, or reference, which trains and evaluates as the course's notebooks do.")
]
Output = Annotated[
    Path | None, typer.Option(help="Folder for results, weights and reports; out/PROFILE by default.")
]
Name = Annotated[str, typer.Option(help="Your name, for the head of the report.")]
Number = Annotated[str, typer.Option(help="Your student number, for the head of the report.")]


def runs() -> None:
    """List the ten runs."""
    for run in RUNS.values():
        typer.echo(f"{run.id:24}notebook {run.notebook}   {run.title}")


def run(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN_ID", help="Names from `runs`. all: the ten. tuned: the ten, better hyperparameters."
        ),
    ] = None,
    profile: Profile = "auto",
    seed: Seed = 0,
    output: Output = None,
    recipe: Recipe = "fast",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a setting; repeat --set for more. `--set --help` lists the settings.",
        ),
    ] = None,
    seeds: Seeds = "",
    engine: experiments.EngineName = "here",
    address: experiments.Address = None,
    gpus_per_run: experiments.GpusPerRun = 0,
    cpus_per_run: experiments.CpusPerRun = 1,
    name: Name = "",
    number: Number = "",
) -> None:
    """Train the named runs. Without a name, do what `make run` does.

    With RUN_IDs: train these runs and write their results and weights. A run with changed settings is
    kept under `runs` in the output folder, apart from the ten.

    Without RUN_IDs: execute the five notebooks, which train the ten runs, then make tables and report.
    """
    if experiments.asks_for_help(settings or ()):
        typer.echo(experiments.listing(run_ids or (), profile))
        return
    changes = dict(map(experiments.setting, settings or ()))
    plan = planned(run_ids or (), changes, profile)
    if changes and not plan:
        raise UserError("--set needs the RUN_ID of a run to change: `peft-scratch runs` lists them.")
    where, numbers = None, [seed]
    if seeds or engine != "here":
        from peft_scratch.experiments.jobs import Engine, seeds_of

        where, numbers = Engine(engine, address, gpus_per_run, cpus_per_run), seeds_of(seeds or str(seed))
    if not plan:  # the notebooks train the ten with the first seed; the other seeds follow
        _all_notebooks(profile, numbers[0], output, recipe)
    if where:
        experiments.train_many(run_ids or list(RUNS), changes, profile, numbers, output, recipe, where)
    elif plan:
        _train(plan, profile, seed, output, recipe)
    if not plan:
        tables(profile, output)
        report(profile, output, name, number)


def _all_notebooks(profile: str, seed: int, output: Path | None, recipe: str) -> None:
    """Execute the notebooks, after checking that the packages for them and the report are installed."""
    from peft_scratch.experiments.profile_choice import choose_profile
    from peft_scratch.experiments.ready import check_packages

    check_packages(choose_profile(profile).profile)
    notebooks(profile, seed, output, recipe)


def _train(
    plan: list[tuple[str, dict[str, Any]]],
    profile: str,
    seed: int,
    output: Path | None,
    recipe: str,
) -> None:
    from peft_scratch.experiments.run import change
    from peft_scratch.experiments.session import Session

    session = Session.open(profile, seed, output, recipe)
    # This comes first, so that a mistake in the last run is found before hours are spent on the first.
    for run_id, changes in plan:
        change(find_run(run_id), session.profile, changes)
    _say(str(session))
    for run_id, changes in plan:
        prepared = session.prepare(run_id, changes)
        _say(f"\n{prepared.run.id}: {prepared.run.title}")
        if changes:
            _say(experiments.changed(run_id, session.profile, changes))
        accuracy = prepared.train().accuracy
        _say(
            f"best epoch {_percent(accuracy.best)}, last {_percent(accuracy.last)}, "
            f"validation-chosen {_percent(accuracy.validation_chosen)}"
        )
        _say(f"result: {shown(prepared.result_path)}")


def notebooks(
    profile: Profile = "auto",
    seed: Seed = 0,
    output: Output = None,
    recipe: Recipe = "fast",
    seeds: Seeds = "",
) -> None:
    """Execute the five notebooks.

    They train the ten runs. The executed copies go to `notebooks` in the output folder. With
    --seeds, the notebooks train the first seed. The other seeds are trained after them.
    """
    from peft_scratch.notebook.execute import execute_all

    numbers = [seed]
    if seeds:  # imported only if needed, because it imports torch
        from peft_scratch.experiments.jobs import Engine, seeds_of

        numbers = seeds_of(seeds)
    for path in execute_all(profile, numbers[0], output, recipe):
        typer.echo(path)
    if len(numbers) > 1:
        experiments.train_many(list(RUNS), {}, profile, numbers, output, recipe, Engine())


def baselines(profile: Profile = "auto", output: Output = None, recipe: Recipe = "fast") -> None:
    """Measure what the ten numbers are compared with.

    These are the base model before any training, with and without the prefix, and a bag of words.
    """
    from peft_scratch.experiments.session import Session

    session = Session.open(profile, output=output, recipe=recipe)
    for result in session.baselines():
        _say(f"{result.title}: {_percent(result.accuracy.best)}")


def claims(profile: Profile = "auto", output: Output = None, recipe: Recipe = "fast") -> None:
    """Train on 256 reviews with three seeds, to see overfitting.

    Each method from scratch is trained. Training and test accuracy of every epoch are written to
    `report/small_data` in the output folder.
    """
    from peft_scratch.experiments.small_data import small_data

    for result in small_data(profile, output, recipe):
        last = [run.epochs[-1] for run in result.runs]
        training = sum(epoch.training_accuracy for epoch in last) / len(last)
        test = sum(epoch.test_accuracy for epoch in last) / len(last)
        _say(
            f"{result.title}: after epoch {result.epochs}, {_percent(training)} training and "
            f"{_percent(test)} test accuracy, averaged over {len(last)} seeds"
        )


def tables(profile: Profile = "auto", output: Output = None) -> None:
    """Make the tables from the results that are there.

    They show the ten numbers and the parameter counts, as Markdown and as CSV.
    """
    from peft_scratch.reporting.tables import write

    typer.echo(write(_output(profile, output)))


def report(
    profile: Profile = "auto",
    output: Output = None,
    name: Name = "",
    number: Number = "",
    language: Annotated[
        str,
        typer.Option(help="en or fa: make only this language, which `submit` then packs. By default both."),
    ] = "",
) -> None:
    """Make the report from the results that are there.

    It is a PDF in English and one in Persian, with their figures.
    """
    from peft_scratch.reporting.content import Student
    from peft_scratch.reporting.report import write

    for file in write(_output(profile, output), Student(name, number), language):
        typer.echo(file)


def _output(profile: str, output: Path | None) -> Path:
    from peft_scratch.experiments.profile_choice import choose_profile

    return output or choose_profile(profile).profile.output


def base(
    budget: Annotated[str, typer.Option(help="Training time, such as 2m or 2h.")] = "60m",
    output: Annotated[
        Path | None, typer.Option(help="Folder for the model; weights/base by default.")
    ] = None,
) -> None:
    """Pre-train the offline base model, or continue its pre-training."""
    seconds = _seconds(budget)
    from peft_scratch.paths import OFFLINE_BASE
    from peft_scratch.pretraining.pretrain import pretrain

    pretrain(seconds, output or OFFLINE_BASE)


def publish(
    output: Annotated[
        Path | None, typer.Option(help="Output folder of the offline run; out/offline by default.")
    ] = None,
) -> None:
    """Put a finished offline run into the repository.

    For maintainers. It replaces the repository's notebooks, report and weights and the numbers in the README.
    The report is made again from the results, so that it names nobody.
    """
    from peft_scratch.assignment import PROFILES
    from peft_scratch.publish import publish

    def make_report(folder: Path) -> None:
        tables("offline", folder)
        report("offline", folder)

    for path in publish(output or PROFILES["offline"].output, make_report):
        typer.echo(path)


def _seconds(budget: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if match is None or float(match[1]) == 0:
        raise UserError(f"A budget is a number with s, m or h, such as 90s, 2m or 1.5h, not {budget!r}.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


app = typer.Typer(
    cls=_Sentences,
    help="Fine-tune T5 on IMDB four ways, each method from scratch and through its library.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"peft-scratch {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None: ...


# The commands in the order of use. Each line fits into 80 columns, so that help does not cut it off.
for command, line in {
    runs: "List the ten runs.",
    run: "Train the named runs; with no name, do what `make run` does.",
    notebooks: "Execute the five notebooks, which train the ten runs.",
    baselines: "Measure what the ten numbers are compared with.",
    experiments.sweep: "Train a run with every combination of some settings.",
    claims: "Train on 256 reviews, to see overfitting; write `small_data`.",
    tables: "Make the tables from the results that are there.",
    report: "Make the report from the results that are there.",
    cli_ask.ask: "Ask the base and every trained model for their opinion.",
    cli_ask.app: "Open a page to try the trained models.",
    submission.submit: "Check your files and pack the three to hand in.",
    submission.check: "Check submissions against the assignment.",
    edition.student_edition: "Write the assignment with blanks, for students.",
    edition.self_check: "Check the layers in a layers.py and say what is wrong.",
    exactness.parity: "Compare methods and libraries to the last bit: exactness.md.",
    exactness.versions: "Compare the methods on two versions of transformers.",
    exactness.parameters: "Derive and count what each method adds to any T5.",
    exactness.convert: "Convert weight files to library folders and back.",
    exactness.export: "Write a LoRA merged into its base: an ordinary T5.",
    exactness.push: "Upload a converted or merged folder to the Hub.",
    base: "Pre-train the offline base model, or continue.",
    publish: "Put a finished offline run into the repository.",
}.items():
    app.command(short_help=line)(command)


def main() -> None:
    """The command `peft-scratch`."""
    make_printable()
    do_without_home()
    app()


if __name__ == "__main__":  # accelerate launch -m peft_scratch.cli
    main()
