"""How long things take: the two recipes, ours against the libraries, the limit, and growth.

Every published figure is a quotient of times that were taken in turn in one process.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from parts import Part, ratio, summary
from products import Products
from subjects import (
    Subject,
    by_library,
    chosen_reviews,
    full_batch,
    in_turn,
    method_rows,
    peak_allocated,
    random_t5,
    reviews,
    taught,
    tokenizer,
    tuned,
    typical,
)
from torch import nn
from transformers import T5Config

from peft_scratch.assignment import FROM_SCRATCH, PROFILES, RUNS, Run, find_run
from peft_scratch.exactness.pairs import PAIRS as EXACT_PAIRS
from peft_scratch.exactness.pairs import Pair
from peft_scratch.exactness.t5_configs import t5_config
from peft_scratch.experiments.session import EVALUATION_FACTOR
from peft_scratch.experiments.settings import prompt_rows
from peft_scratch.libraries import AdapterHubAdapter, OpenDeltaPrompt, PeftLoRA, method_of
from peft_scratch.methods import Adapter, LoRA, Method, SoftPrompt
from peft_scratch.training.evaluation import MALFORMED, predict
from peft_scratch.training.recipe import RECIPES, Recipe

COURSE = PROFILES["course"]
# What an epoch of the assignment trains on, and what it is tested on.
COURSE_TRAIN, COURSE_TEST = 25_000, 25_000

#: From scratch, and the same through the library of the assignment.
PAIRS: dict[str, tuple[Method, Method]] = {
    "lora": (LoRA(rank=8, alpha=4.0), PeftLoRA(rank=8, alpha=4.0)),
    "adapter": (Adapter(bottleneck=8), AdapterHubAdapter(bottleneck=8)),
    "soft_prompt": (SoftPrompt(virtual_tokens=10), OpenDeltaPrompt(virtual_tokens=10)),
}


@dataclass(frozen=True)
class Sizes:
    """What a part measures on, and how often.

    Attributes:
        model: as `t5_config` takes it.
        tokens: length of an input, prompt rows not included.
        batch: reviews in a step.
        rounds: how often each thing is timed.
    """

    model: str = "t5-small"
    tokens: int = COURSE.max_tokens
    batch: int = COURSE.batch_size
    rounds: int = 3

    @property
    def config(self) -> T5Config:
        return t5_config(self.model)


# 1. The recipes


def recipes(
    path: Path,
    sizes: Sizes,
    runs: Sequence[str] = tuple(RUNS),
    *,
    pool: int = 3200,
    steps: int = 2,
    judged: int = 2,
) -> None:
    """The reference recipe against the fast one, for each of `runs`: training and evaluation.

    The time of an epoch is estimated from a few of its batches. They come from `pool` real reviews, batched
    as the recipe does it, and are evenly spaced in the order of their padded size.

    Args:
        steps, judged: how many batches of training and of evaluation are timed per round of the fast recipe.
            The reference recipe's batches are made at random and all alike, so one of each is enough.
    """
    part = Part(path, "recipes", {**vars(sizes), "pool": pool, "steps": steps, "judged": judged})
    chosen = [find_run(run_id) for run_id in runs]
    base = taught(sizes.config)
    for run in chosen:
        length = sizes.tokens - prompt_rows(run)
        training, test = (reviews(name, pool, length) for name in ("train", "test"))
        works: dict[str, Callable[[], object]] = {}
        shares: dict[str, dict[str, Any]] = {}
        for recipe in RECIPES.values():
            counts = (steps, judged) if recipe.name == "fast" else (1, 1)
            taken, shares[recipe.name] = _epoch(run, base, recipe, training, test, sizes.batch, counts)
            works |= taken
        seconds = in_turn(works, sizes.rounds)
        epochs = {
            name: [
                share["steps"] * train + share["evaluations"] * evaluate
                for train, evaluate in zip(seconds[f"{name} train"], seconds[f"{name} evaluate"], strict=True)
            ]
            for name, share in shares.items()
        }
        part.add(
            {
                "id": run.id,
                "title": run.title,
                "seconds": {name: summary(values) for name, values in seconds.items()},
                "epoch_seconds": {name: summary(values) for name, values in epochs.items()},
                "faster": {
                    "training": _faster(seconds, shares, "train", "steps"),
                    "evaluation": _faster(seconds, shares, "evaluate", "evaluations"),
                    "run": ratio(epochs["reference"], epochs["fast"]),
                },
                "shares": shares,
            }
        )
        del works
        gc.collect()
    part.close(faster=_all_runs(part.rows))


def _epoch(
    run: Run,
    base: nn.Module,
    recipe: Recipe,
    training: Any,
    test: Any,
    size: int,
    counts: tuple[int, int],
) -> tuple[dict[str, Callable[[], object]], dict[str, Any]]:
    """The work of a few batches of an epoch, by name, and how many times an epoch does it."""
    subject = Subject(tuned(method_of(run), base), recipe)
    larger = EVALUATION_FACTOR * size
    lengths, test_lengths = ([len(row) for row in part.inputs] for part in (training, test))
    batches = list(recipe.training_batches(lengths, size, seed=0))
    test_batches = list(recipe.evaluation_batches(test_lengths, larger))
    steps = typical(batches, lengths, counts[0])
    rows = chosen_reviews(test, typical(test_batches, test_lengths, counts[1]))

    answered: list[float] = []

    def evaluate() -> None:
        said = predict(subject.model, rows, tokenizer(), subject.accelerator, larger, recipe).predictions
        answered.append(sum(prediction != MALFORMED for prediction in said) / len(said))

    # The first time is not measured: memory is allocated, kernels are chosen.
    subject.train(training, [steps[0][:4]])
    evaluate()
    share = {
        "steps": math.ceil(COURSE_TRAIN / size) / len(steps),
        "evaluations": COURSE_TEST / len(rows.inputs),
        # Tokens per review, with padding: shows how typical the timed batches are.
        "padded_tokens": {
            "timed": _padded(steps, lengths),
            "all": _padded(batches, lengths),
            "evaluation_all": _padded(test_batches, test_lengths),
        },
        # The share of reviews that were answered with a label word, by evaluation. It must be 1.
        "answered": answered,
    }
    works = {
        f"{recipe.name} train": lambda: subject.train(training, steps),
        f"{recipe.name} evaluate": evaluate,
    }
    return works, share


def _padded(batches: Sequence[list[int]], lengths: Sequence[int]) -> float:
    held = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return held / sum(map(len, batches))


def _faster(seconds: dict[str, list[float]], shares: dict[str, Any], what: str, share: str) -> dict[str, Any]:
    course, fast = (
        [shares[name][share] * value for value in seconds[f"{name} {what}"]] for name in ("reference", "fast")
    )
    return ratio(course, fast)


def _all_runs(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many times faster the fast recipe is for all runs together."""
    course, fast = (
        np.sum([row["epoch_seconds"][name]["samples"] for row in rows], axis=0)
        for name in ("reference", "fast")
    )
    return ratio(course, fast)


# 2. Ours against the libraries


def steps(path: Path, sizes: Sizes) -> None:
    """A step of ours against one of each library that has the method, on the same base and reviews: its time,
    and the most memory that torch allocates during it."""
    part = Part(path, "steps", vars(sizes))
    base = random_t5(sizes.config)
    for ours, _ in PAIRS.values():
        collator = full_batch(sizes.batch, sizes.tokens - method_rows(ours))
        # Without the pairs in which the library changes fewer places.
        against = [pair for pair in EXACT_PAIRS if pair.ours == ours and pair.shares is Pair.shares]
        for recipe in RECIPES.values():
            models = {"ours": tuned(ours, base)} | {p.library: by_library(p, base) for p in against}
            subjects = {name: Subject(model, recipe) for name, model in models.items()}
            seconds = _step_seconds(subjects, collator, sizes.rounds)
            memory = {
                name: peak_allocated(partial(subject.train, collator)) for name, subject in subjects.items()
            }
            for pair in against:
                part.add(
                    {
                        "method": ours.kind,
                        "library": pair.library,
                        "what": pair.what,
                        "recipe": recipe.name,
                        "precision": recipe.precision_name,
                        "seconds": {name: summary(seconds[name]) for name in ("ours", pair.library)},
                        "time": ratio(seconds["ours"], seconds[pair.library]),
                        "bytes": {name: memory[name] for name in ("ours", pair.library)},
                        "memory": memory["ours"] / memory[pair.library],
                    }
                )
            del models, subjects
            gc.collect()


def _step_seconds(subjects: dict[str, Subject], collator: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each of `subjects`, taken in turn. The first step of each is not timed."""
    works = {name: partial(subject.train, collator) for name, subject in subjects.items()}
    for work in works.values():
        work()
    return in_turn(works, rounds)


# 3. The limit


def limit(path: Path, sizes: Sizes) -> None:
    """A step against its matrix products alone.

    The products are those of a step of the reference recipe on the same reviews. For the fast recipe they are
    repeated in its precision. Operands of the same shape are the same tensor, so more of them are in the
    caches than in a real step: the limit is too low rather than too high.
    """
    part = Part(path, "limit", vars(sizes))
    base = random_t5(sizes.config)
    for run_id in FROM_SCRATCH:  # from scratch, because a library may do other work too
        run = RUNS[run_id]
        collator = full_batch(sizes.batch, sizes.tokens - prompt_rows(run))
        works: dict[str, Callable[[], object]] = {}
        products = Products()
        for recipe in RECIPES.values():
            subject = Subject(tuned(method_of(run), base), recipe)
            if recipe.name == "reference":
                with products:
                    subject.train(collator)
            else:
                subject.train(collator)
            works[f"{recipe.name} step"] = partial(subject.train, collator)
            alone = products.again(recipe.precision[0])
            alone()
            works[f"{recipe.name} products"] = alone
        seconds = in_turn(works, sizes.rounds)
        part.add(
            {
                "id": run_id,
                "method": run.kind,
                "products": len(products.calls),
                "flops": products.flops,
                "seconds": {name: summary(values) for name, values in seconds.items()},
                "step_over_products": {
                    name: ratio(seconds[f"{name} step"], seconds[f"{name} products"]) for name in RECIPES
                },
            }
        )
        del works
        gc.collect()


# 4. Growth

#: What is changed, one thing at a time; the rest is as in `Sizes` and `PAIRS`.
AXES: dict[str, tuple[Any, ...]] = {
    "tokens": (64, 128, 256, 512),
    "batch": (4, 8, 16, 32),
    "model": ("offline", "t5-small", "t5-base"),
    "rank": (1, 8, 64),
    "bottleneck": (1, 8, 64),
    "virtual_tokens": (1, 10, 100),
}


def growth(path: Path, sizes: Sizes, axes: dict[str, tuple[Any, ...]] = AXES) -> None:
    """How the time of a step, ours and the library's, grows with each of `axes`, by the fast recipe.

    The tokens include a prompt's rows, as in the assignment.
    """
    part = Part(path, "growth", {**vars(sizes), "axes": axes})
    bases: dict[str, nn.Module] = {}
    for axis, method, value, pair, changed in _points(sizes, axes):
        if changed.model not in bases:
            bases = {changed.model: random_t5(changed.config)}  # only one at a time, to save memory
        collator = full_batch(changed.batch, changed.tokens - method_rows(pair[0]))
        subjects = {
            name: Subject(tuned(each, bases[changed.model]), RECIPES["fast"])
            for name, each in zip(("ours", "library"), pair, strict=True)
        }
        seconds = _step_seconds(subjects, collator, sizes.rounds)
        part.add(
            {
                "axis": axis,
                "method": method,
                "value": value,
                "model_parameters": sum(p.numel() for p in bases[changed.model].parameters()),
                "seconds": {which: summary(values) for which, values in seconds.items()},
                "time": ratio(seconds["ours"], seconds["library"]),
            }
        )
        del subjects
        gc.collect()


def _points(
    sizes: Sizes, axes: dict[str, tuple[Any, ...]]
) -> Iterator[tuple[str, str, Any, tuple[Method, Method], Sizes]]:
    for axis, values in axes.items():
        for value in values:
            for name, pair in PAIRS.items():
                if axis in vars(sizes):
                    yield axis, name, value, pair, replace(sizes, **{axis: value})
                elif hasattr(pair[0], axis):
                    ours, library = (replace(method, **{axis: value}) for method in pair)
                    yield axis, name, value, (ours, library), sizes
