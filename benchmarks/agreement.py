"""Does the fast recipe give the same results? Accuracies over seeds, and predictions one by one."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from both_versions import predictions, trained_weights
from parts import Part

from peft_scratch.assignment import FROM_SCRATCH, RUNS
from peft_scratch.experiments.run import PreparedRun
from peft_scratch.experiments.session import Session
from peft_scratch.methods import load_delta
from peft_scratch.paths import ROOT
from peft_scratch.training import device
from peft_scratch.training.checkpoints import restore, trainable_state
from peft_scratch.training.evaluation import MALFORMED
from peft_scratch.training.recipe import RECIPES

#: Where `recipes_agree` keeps its runs.
RUNS_FOLDER = ROOT / "build" / "bench"
#: What a run is trained on if its weights are not found: enough to make it answer.
SHORT = {"train_reviews": 320, "test_reviews": 40, "epochs": 1}


# 1. Accuracies


def recipes_agree(
    path: Path,
    seeds: int = 3,
    profile: str = "offline",
    settings: dict[str, int] | None = None,
    folder: Path = RUNS_FOLDER,
) -> None:
    """Accuracy by each recipe of each method from scratch, with `seeds` seeds; continues where it stopped."""
    settings = settings or {}
    part = Part(path, "recipes_agree", {"profile": profile, "changed": settings}, resume=True)
    done = {(row["id"], row["seed"], row["recipe"]) for row in part.rows}
    for seed in range(seeds):
        for run_id in FROM_SCRATCH:
            for recipe in RECIPES:
                if (run_id, seed, recipe) in done:
                    continue
                session = Session.open(profile, seed, folder / f"{recipe}-{seed}", recipe)
                accuracy = session.prepare(run_id, settings).train().accuracy
                row = {"last": accuracy.last, "best": accuracy.best}
                part.add({"id": run_id, "seed": seed, "recipe": recipe, **row})
    part.close(difference=_differences(part.rows))


def _differences(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Fast minus reference, in shares of 1, seed by seed: mean, standard deviation and standard error."""
    found = {(row["id"], row["seed"], row["recipe"]): row for row in rows}
    differences: dict[str, Any] = {}
    for run_id in FROM_SCRATCH:
        seeds = sorted({seed for name, seed, _ in found if name == run_id})
        differences[run_id] = {}
        for which in ("last", "best"):
            each = [
                found[run_id, seed, "fast"][which] - found[run_id, seed, "reference"][which] for seed in seeds
            ]
            deviation = float(np.std(each, ddof=1)) if len(each) > 1 else None
            differences[run_id][which] = {
                "mean": float(np.mean(each)),
                "deviation": deviation,
                "standard_error": deviation and deviation / len(each) ** 0.5,
                "seeds": len(each),
            }
    return differences


# 2. float16


def float16(
    path: Path,
    runs: Sequence[str] = FROM_SCRATCH,
    seeds: Sequence[int] = (0, 1),
    profile: str = "offline",
    steps: int = 60,
    test_reviews: int = 300,
    tokens: int = 64,
    batch: int = 16,
) -> None:
    """The fast recipe in float16 and in float32, from the same start on the same batches.

    The CPU computes float16 slowly, so the runs are short, on the beginnings of reviews. It continues where
    it stopped.
    """
    sizes = {"train_reviews": steps * batch, "test_reviews": test_reviews, "max_tokens": tokens}
    part = Part(path, "float16", {"profile": profile, "steps": steps, "batch": batch, **sizes}, resume=True)
    done = {(row["id"], row["seed"]) for row in part.rows}
    for run_id, seed in itertools.product(runs, seeds):
        if (run_id, seed) not in done:
            in_type = {
                dtype: _in_type(dtype, run_id, seed, profile, {**sizes, "batch_size": batch, "epochs": 1})
                for dtype in (torch.float32, torch.float16)
            }
            part.add({"id": run_id, "seed": seed, **_apart(*in_type.values())})


@dataclass(frozen=True)
class InType:
    """A short run in one number type.

    Attributes:
        losses: of the steps that were taken.
        skipped: how many steps were skipped.
        said, right: the prediction of each test review, and whether it is right.
    """

    losses: list[float]
    skipped: int
    said: np.ndarray
    right: np.ndarray


def _in_type(dtype: torch.dtype, run_id: str, seed: int, profile: str, sizes: dict[str, int]) -> InType:
    """An epoch and an evaluation by the fast recipe, as on hardware whose best type is `dtype`."""
    with (
        mock.patch.object(device, "precision_of", lambda: (dtype, "for this comparison")),
        tempfile.TemporaryDirectory() as folder,
    ):
        session = Session.open(profile, seed, Path(folder), "fast", extra_seed=True)
        prepared = session.prepare(run_id, sizes)
        training, test = map(prepared.collator, (prepared.reviews.train, prepared.reviews.test))
        trainer = prepared.trainer
        losses = trainer.train_epoch(training, "comparing", seed)
        skipped = trainer.loss_scale.take_skipped() if trainer.loss_scale else 0
        said = np.array(prepared.predict(test).predictions)
        return InType(losses, skipped, said, said == np.array(test.labels))


def _apart(float32: InType, float16: InType) -> dict[str, Any]:
    """How far apart the two are. Losses are compared only if no step was skipped."""
    pairs = zip(float32.losses, float16.losses, strict=True) if not float16.skipped else ()
    return {
        "largest_loss_difference": max((abs(one - other) for one, other in pairs), default=None),
        "skipped": float16.skipped,
        "equal_predictions": int((float32.said == float16.said).sum()),
        "accuracy": {"float32": float(float32.right.mean()), "float16": float(float16.right.mean())},
    }


# 3. Predictions


def verdicts(path: Path, output: Path = ROOT, profile: str = "offline", test_reviews: int = 2000) -> None:
    """Predictions by scores against real generation for each of the ten runs, review by review.

    Args:
        output: where the runs' weights are; a run without weights there is trained for a few steps.
    """
    part = Part(path, "verdicts", {"profile": profile, "test_reviews": test_reviews})
    sessions = {name: Session.open(profile, 0, output, name) for name in RECIPES}
    for run_id in RUNS:
        prepared = {name: session.prepare(run_id) for name, session in sessions.items()}
        origin = _put_weights(sessions["fast"], prepared["fast"])
        weights = trainable_state(prepared["fast"].tuned.model)
        found = predictions(prepared, weights, test_reviews)
        scored, generated, reference = map(np.array, found.values())  # the order of `WAYS`
        part.add(
            {
                "id": run_id,
                "weights": origin,
                "reviews": len(scored),
                "malformed": int((generated == MALFORMED).sum()),
                # Only scoring differs.
                "identical": int((scored == generated).sum()),
                # Everything differs that the recipes do differently: scoring, precision, batches.
                "identical_to_course": int((scored == reference).sum()),
            }
        )


def _put_weights(session: Session, prepared: PreparedRun) -> str:
    """Put the run's trained weights into `prepared`; return where they come from."""
    run, model = prepared.run, prepared.tuned.model
    best = prepared.folder / "best.pt"
    if best.exists():
        restore(model, trained_weights(best, model))
        return "the run's"
    if run.weight_file and (session.output / "weights" / run.weight_file).exists():
        load_delta(model, session.output / "weights" / run.weight_file)
        return "the run's"
    short = Session.open(session.profile.name, 0, RUNS_FOLDER / "short", session.recipe.name)
    trained = short.prepare(run.id, SHORT)
    trained.train()
    restore(model, trainable_state(trained.tuned.model))
    return f"of {SHORT['train_reviews']} reviews"
