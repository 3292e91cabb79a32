"""Does another version of transformers give the same predictions, review by review?

python benchmarks/both_versions.py predict FILE --output FOLDER   predict with this process's transformers
python benchmarks/both_versions.py same FILE OTHER                compare the predictions in two such files
python benchmarks/both_versions.py trained FOLDER OTHER           compare two folders with results

`predict` reads the weights of finished runs and adds to FILE, run by run. For transformers 4.57.6, put
build/transformers-4.57.6 first on PYTHONPATH. `trained` compares runs that were trained twice.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import typer

from peft_scratch.assignment import RUNS
from peft_scratch.paths import output_folder
from peft_scratch.results import read_results, write_json

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

OFFLINE = output_folder("offline")
#: How a prediction is made: recipe, and whether by the label words' scores or by generation.
WAYS = {
    "scores, fast recipe": ("fast", True),
    "generation, fast recipe": ("fast", False),
    "generation, reference recipe": ("reference", False),
}


@app.command()
def predict(
    file: Path,
    output: Annotated[Path, typer.Option(help="The folder with the finished runs.")] = OFFLINE,
    profile: str = "offline",
    test_reviews: int = 2000,
    run: Annotated[list[str] | None, typer.Option(help="One of the ten; may be repeated.")] = None,
) -> None:
    """Write what each run's model predicts for the test reviews, in each way."""
    import transformers

    from peft_scratch.experiments.session import Session

    rows = json.loads(file.read_text())["predictions"] if file.exists() else {}
    sessions = {name: Session.open(profile, 0, output, name) for name in ("fast", "reference")}
    for run_id in run or RUNS:
        prepared = {name: session.prepare(run_id) for name, session in sessions.items()}
        weights = trained_weights(prepared["fast"].folder / "best.pt", prepared["fast"].tuned.model)
        rows[run_id] = predictions(prepared, weights, test_reviews)
        write_json(file, {"transformers": transformers.__version__, "predictions": rows})


def predictions(prepared: dict[str, Any], weights: dict, test_reviews: int) -> dict[str, list[int]]:
    """What a run's model with `weights` predicts in each of `WAYS`; `prepared` has the run by recipe."""
    from peft_scratch.training.checkpoints import restore

    fast = prepared["fast"]
    whole = fast.session.prepare(fast.run.id, {"test_reviews": test_reviews})
    test = whole.collator(whole.reviews.test)
    found = {}
    for way, (recipe, scoring) in WAYS.items():
        restore(prepared[recipe].tuned.model, weights)
        predicted = prepared[recipe].predict(test, scoring=scoring)
        found[way] = [int(answer) for answer in predicted.predictions]
    return found


def trained_weights(file: Path, model: object) -> dict:
    """The trained tensors in `file` under their names in `model`; a file of ours has other names."""
    import torch

    from peft_scratch.methods import load_delta
    from peft_scratch.methods.parameters import trainable_names
    from peft_scratch.training.checkpoints import trainable_state

    entries = torch.load(file, map_location="cpu", weights_only=True)
    if set(trainable_names(model)) <= set(entries):
        return entries
    load_delta(model, file)
    return trainable_state(model)


@app.command()
def same(file: Path, other: Path) -> None:
    """Print how many predictions are equal, for each run and way."""
    first, second = (json.loads(path.read_text()) for path in (file, other))
    print(f"transformers {first['transformers']} and {second['transformers']}")
    for run_id in (name for name in RUNS if name in first["predictions"] and name in second["predictions"]):
        for way in WAYS:
            _print(run_id, first["predictions"][run_id][way], second["predictions"][run_id][way], way)


@app.command()
def trained(folder: Path, other: Path) -> None:
    """Print how many predictions are equal for runs that were trained twice, by their result files."""
    first, second = read_results(folder), read_results(other)
    for run_id in (name for name in RUNS if name in first and name in second):
        reviews = first[run_id].config.test_reviews
        wrong = [set(results[run_id].mistakes) for results in (first, second)]
        answers = [[row in mistakes for row in range(reviews)] for mistakes in wrong]
        _print(run_id, *answers, f"{first[run_id].percent:.1f} % and {second[run_id].percent:.1f} %")


def _print(run_id: str, first: list, second: list, about: str) -> None:
    equal = sum(a == b for a, b in zip(first, second, strict=True))
    print(f"{run_id:24}{equal:6,} of {len(first):,} equal, {100 * equal / len(first):6.2f} %: {about}")


if __name__ == "__main__":
    app()
