"""A setting small enough to overfit: the four methods from scratch on 256 reviews, with three seeds.

Training and test accuracy are measured after every epoch, in the same loop that makes the ten numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from peft_scratch.assignment import FROM_SCRATCH, find_run
from peft_scratch.experiments.environment import environment
from peft_scratch.experiments.session import Session
from peft_scratch.experiments.settings import fingerprint
from peft_scratch.results import Origins, SmallDataEpoch, SmallDataResult, SmallDataRun, write_result

SEEDS = (0, 1, 2)
#: There are fewer test reviews than in the ten runs, because they are predicted after every epoch.
SETTINGS = {"train_reviews": 256, "test_reviews": 500, "epochs": 8}


def small_data(
    profile: str = "auto",
    output: str | Path | None = None,
    recipe: str = "fast",
    *,
    runs: Sequence[str] = FROM_SCRATCH,
    seeds: Sequence[int] = SEEDS,
    settings: dict[str, int] = SETTINGS,
) -> Iterator[SmallDataResult]:
    """Train each of `runs` with each of `seeds`; write `report/small_data/<run>.json` and yield it.

    The reviews are the same for every run and seed. An interrupted run continues after its last
    finished epoch.

    Raises:
        UserError: as `Session.open`, `Session.prepare` and `Trainer.fit` do.
    """
    sessions = [Session.open(profile, seed, output, recipe) for seed in seeds]
    for run_id in runs:
        results = [_train(session, run_id, settings) for session in sessions]
        result = results[0].model_copy(update={"runs": [run for each in results for run in each.runs]})
        if sessions[0].accelerator.is_main_process:
            write_result(sessions[0].output / "report" / "small_data" / f"{run_id}.json", result)
        yield result


def _train(session: Session, run_id: str, settings: dict[str, int]) -> SmallDataResult:
    """The result of one run with one seed."""
    prepared = session.prepare(run_id, settings)
    run, profile, config = prepared.run, prepared.profile, prepared.configuration
    folder = session.output / "runs" / f"small-data-{profile.name}-{run.id}-{fingerprint(config)}"
    reviews = prepared.reviews
    training, test = (prepared.collator(split) for split in (reviews.train, reviews.test))

    def accuracies(model: nn.Module) -> dict[str, Any]:
        on_test, on_training = (
            session.predict(model, part, profile.batch_size).score()["accuracy"] for part in (test, training)
        )
        return {"accuracy": on_test, "training_accuracy": on_training}

    with session.alone_in(folder):
        history = prepared.trainer.fit(training, accuracies, profile.epochs, folder)
    kept = ("epoch", "loss", "training_accuracy")
    epochs = [
        SmallDataEpoch(**{name: epoch[name] for name in kept}, test_accuracy=epoch["accuracy"])
        for epoch in history.epochs
    ]
    return SmallDataResult(
        id=run.id,
        title=find_run(run_id).title,  # reviews and epochs are the same for all, and named elsewhere
        profile=profile.name,
        reviews=len(reviews.train),
        epochs=profile.epochs,
        origins=Origins(base=session.base_origin, reviews=reviews.origin),
        environment=environment(session.accelerator.device, session.precision),
        config={name: value for name, value in config.items() if name != "seed"},
        runs=[SmallDataRun(seed=session.seed, epochs=epochs)],
    )
