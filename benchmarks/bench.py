"""`make bench`: the parts. Each can be run alone and writes its part of `results.json`.

python benchmarks/bench.py recipes | steps | limit | growth     how fast is it? `all` does these four
python benchmarks/bench.py peers | beside                       whole runs: `Seq2SeqTrainer`; two at once
python benchmarks/bench.py recipes-agree | float16 | verdicts   are the results the same?
python benchmarks/bench.py estimates                            does a notebook announce the right time?
python benchmarks/bench.py page | publish                       tables and figure, from the JSON alone

Run it on a machine that does nothing else. Each part records the load of the machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # otherwise the profiler prints a line when it starts

import typer

from peft_scratch.errors import UserError
from peft_scratch.paths import BUILD, ROOT, output_folder

app = typer.Typer(
    help="How fast the kit is, part by part. Each part writes a row to the JSON as soon as it is measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Results = Annotated[Path, typer.Option(help="The JSON that the part is written to.")]
Model = Annotated[str, typer.Option(help="A T5's name, as `peft-scratch parameters` takes it.")]
Tokens = Annotated[int, typer.Option(min=16, help="Length of an input.")]
Batch = Annotated[int, typer.Option(min=1, help="Reviews in a step.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each thing is timed.")]
RESULTS = BUILD / "benchmarks" / "results.json"
PUBLISHED = ROOT / "benchmarks" / "results.json"
OFFLINE = output_folder("offline")


@app.command()
def recipes(
    results: Results = RESULTS,
    model: Model = "t5-small",
    tokens: Tokens = 256,
    batch: Batch = 32,
    rounds: Rounds = 3,
    run: Annotated[list[str] | None, typer.Option(help="One of the ten; may be repeated.")] = None,
) -> None:
    """The fast recipe against the reference recipe, all ten runs: about 10 minutes."""
    import speed

    speed.recipes(results, speed.Sizes(model, tokens, batch, rounds), run or tuple(speed.RUNS))


@app.command()
def steps(
    results: Results = RESULTS,
    model: Model = "t5-small",
    tokens: Tokens = 256,
    batch: Batch = 16,
    rounds: Rounds = 8,
) -> None:
    """A step of ours against every library, time and peak memory: about 6 minutes."""
    import speed

    speed.steps(results, speed.Sizes(model, tokens, batch, rounds))


@app.command()
def limit(
    results: Results = RESULTS,
    model: Model = "t5-small",
    tokens: Tokens = 256,
    batch: Batch = 16,
    rounds: Rounds = 4,
) -> None:
    """A step against its matrix products alone: about 3 minutes."""
    import speed

    speed.limit(results, speed.Sizes(model, tokens, batch, rounds))


@app.command()
def growth(
    results: Results = RESULTS,
    model: Model = "t5-small",
    tokens: Tokens = 128,
    batch: Batch = 8,
    rounds: Rounds = 3,
) -> None:
    """How a step grows with tokens, batch, rank, bottleneck, prompt rows and model: about 4 minutes."""
    import speed

    speed.growth(results, speed.Sizes(model, tokens, batch, rounds))


@app.command("all")
def everything(results: Results = RESULTS) -> None:
    """The four parts about time, then the page."""
    for part in (recipes, steps, limit, growth):
        part(results)
    page(results)


@app.command()
def peers(results: Results = RESULTS, rounds: Rounds = 3) -> None:
    """Whole LoRA runs by ours and by `Seq2SeqTrainer` with PEFT, plain and tuned: about 5 minutes."""
    import whole_runs

    whole_runs.peers(results, rounds)


@app.command()
def beside(results: Results = RESULTS, rounds: Rounds = 3) -> None:
    """One whole run alone, and two at once: about 2 minutes."""
    import whole_runs

    whole_runs.beside(results, rounds)


@app.command()
def float16(results: Results = RESULTS) -> None:
    """float16 against float32, four methods and two seeds, by the CPU's float16: half an hour of one core."""
    import agreement

    agreement.float16(results)


@app.command()
def recipes_agree(
    results: Results = RESULTS,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ...")] = 3,
    profile: str = "offline",
) -> None:
    """Accuracy by both recipes, four methods; continues where it stopped. Minutes per seed and method."""
    import agreement

    agreement.recipes_agree(results, seeds, profile)


@app.command()
def verdicts(
    results: Results = RESULTS,
    output: Annotated[Path, typer.Option(help="The folder with the runs' weights.")] = OFFLINE,
    test_reviews: int = 2000,
) -> None:
    """Scores against real generation, all ten runs, review by review."""
    import agreement

    agreement.verdicts(results, output, test_reviews=test_reviews)


@app.command()
def estimates(
    results: Results = RESULTS,
    profile: str = "offline",
    run: Annotated[list[str] | None, typer.Option(help="One of the ten; may be repeated.")] = None,
) -> None:
    """The announced and the taken time of each of the ten runs: about 10 minutes."""
    import announced

    announced.estimates(results, profile, run or tuple(announced.RUNS))


@app.command()
def page(results: Results = RESULTS) -> None:
    """The tables and the figure, beside the JSON."""
    import page as making

    making.write(results, None)


@app.command()
def publish(results: Results = RESULTS) -> None:
    """For maintainers: put the parts that were measured into benchmarks/ and docs/performance.md."""
    import page as making
    import parts

    from peft_scratch.results import write_json

    write_json(PUBLISHED, {**parts.read(PUBLISHED), **parts.read(results)})
    making.write(PUBLISHED, ROOT / "docs" / "performance.md")


if __name__ == "__main__":
    try:
        app()
    except UserError as mistake:
        sys.exit(str(mistake))
