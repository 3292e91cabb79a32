"""A setting small enough to overfit: the four methods from scratch on 256 reviews, with three seeds.

Training and test accuracy are taken after every epoch, by the same loop that makes the ten numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from peft_scratch.assignment import FROM_SCRATCH
from peft_scratch.data.reviews import load_reviews
from peft_scratch.experiments.results import environment, write_json
from peft_scratch.experiments.run import fingerprint, prompt_rows
from peft_scratch.experiments.session import Session
from peft_scratch.training.trainer import train

SEEDS = (0, 1, 2)
#: The test reviews are fewer than in the ten runs, for time: they are judged after every epoch.
SETTINGS = {"train_reviews": 256, "test_reviews": 500, "epochs": 8}


def small_data(
    profile: str = "auto",
    output: str | Path | None = None,
    recipe: str = "fast",
    *,
    runs: Sequence[str] = FROM_SCRATCH,
    seeds: Sequence[int] = SEEDS,
    settings: dict[str, int] = SETTINGS,
) -> Iterator[dict[str, Any]]:
    """Train each of `runs` with each of `seeds`; write `report/small_data/<run>.json` and yield it.

    The reviews are the same for every run and seed. What was interrupted goes on from its last whole epoch.

    Raises:
        UserError: as `Session.open`, `Session.prepare` and `train` do.
    """
    benches = [Session.open(profile, seed, output, recipe) for seed in seeds]
    for run_id in runs:
        done = [_train(bench, run_id, settings) for bench in benches]
        result = {**done[0], "runs": [run for each in done for run in each["runs"]]}
        if benches[0].accelerator.is_main_process:
            write_json(benches[0].output / "report" / "small_data" / f"{run_id}.json", result)
        yield result


def _train(bench: Session, run_id: str, settings: dict[str, int]) -> dict[str, Any]:
    """The result of one run with one seed."""
    prepared = bench.prepare(run_id, settings)
    run, profile = prepared.run, prepared.profile
    config = bench.configuration(prepared)
    folder = bench.output / "runs" / f"small-data-{profile.name}-{run.id}-{fingerprint(config)}"
    reviews = load_reviews(profile)
    length = profile.max_tokens - prompt_rows(run)
    training, test = (bench.collator(split, length) for split in (reviews.train, reviews.test))

    def accuracies(model: nn.Module) -> dict[str, float]:
        on_test, on_training = (
            bench.judge(model, part, profile.batch_size).score()["accuracy"] for part in (test, training)
        )
        return {"accuracy": on_test, "training_accuracy": on_training}

    with bench.alone_in(folder):
        history = train(
            prepared.tuned.model,
            training,
            accuracies,
            accelerator=bench.accelerator,
            recipe=bench.recipe,
            epochs=profile.epochs,
            learning_rate=prepared.learning_rate,
            batch_size=profile.batch_size,
            seed=bench.seed,
            checkpoints=folder,
        )
    return {
        "id": run.id,
        "title": run.title,
        "profile": profile.name,
        "reviews": len(reviews.train),
        "epochs": profile.epochs,
        "environment": environment(bench.accelerator.device, bench.precision),
        "config": {name: value for name, value in config.items() if name != "seed"},
        "runs": [
            {
                "seed": bench.seed,
                "epochs": [
                    {
                        "epoch": epoch["epoch"],
                        "loss": epoch["loss"],
                        "training_accuracy": epoch["training_accuracy"],
                        "test_accuracy": epoch["accuracy"],
                    }
                    for epoch in history.epochs
                ],
            }
        ],
    }
