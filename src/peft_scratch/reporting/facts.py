"""What the results say, without a word of any language: shares, bytes, differences and verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from peft_scratch.assignment import HUB_BASE, HUB_REVIEWS, PROFILES, RUNS, SIZES, Run
from peft_scratch.comparison import (
    Difference,
    SeedDifference,
    SeedSummary,
    holm,
    over_seeds,
    paired,
    paired_over_seeds,
)
from peft_scratch.results import Memory, Result, RunResult, SmallDataResult, reviews_of
from peft_scratch.seeds import Seeds

PARTS_OF_MEMORY = ("parameters", "gradients", "optimizer", "activations")

#: What must be the same for two rows to be comparable, by the word for it.
CONDITIONS: dict[str, Callable[[RunResult], Any]] = {
    "profile": lambda run: run.profile,
    "base": lambda run: (run.base_model.model_dump(), run.config.base_sha256),
    "reviews": lambda run: [
        getattr(run.config, key) for key in ("reviews", "train_reviews", "test_reviews", "max_tokens")
    ],
    "training": lambda run: (run.config.epochs, run.config.batch_size),
    "seed": lambda run: run.config.seed,
    "device": lambda run: [getattr(run.environment, key) for key in ("device", "device_name", "precision")],
    "versions": lambda run: run.environment.versions,
}


def differing(things: Iterable[Any], conditions: Mapping[str, Callable[[Any], Any]]) -> list[str]:
    """The words of the conditions in which `things` differ."""
    things = list(things)
    return [word for word, of in conditions.items() if len({json.dumps(of(one)) for one in things}) > 1]


def is_assignments(run: RunResult) -> bool:
    """Whether the run has the assignment's profile, base and reviews, so that its number can be handed in."""
    profile = PROFILES.get(run.profile)
    return (
        profile is not None
        and profile.is_assignment
        and (run.base_model.name, run.config.reviews) == (HUB_BASE, HUB_REVIEWS)
    )


def ends(values: Mapping[str, float]) -> tuple[str, str]:
    """The names of the smallest and of the largest value."""
    return min(values, key=values.__getitem__), max(values, key=values.__getitem__)


def measured(runs: Mapping[str, RunResult], part: str) -> dict[str, Any]:
    """`memory`, `disk`, `knowledge` or `training_accuracy` of the runs that have it."""
    return {name: of for name, run in runs.items() if (of := getattr(run, part)) is not None}


# Parameters


def count_error(run: RunResult) -> int | None:
    """How far the hand count is from what torch counted, for added and trainable parameters together.

    It must be 0. It is `None` without a hand count.
    """
    counted, by_hand = run.parameters, run.parameters.by_hand
    if by_hand is None:
        return None
    trains = counted.whole if run.config.kind == "full" else by_hand.value
    added = counted.whole - run.base_model.parameters
    return abs(added - by_hand.value) + abs(counted.trainable - trains)


# The three claims

Verdict = Literal["holds", "partly", "contradicted", "open"]


def optimizer_bytes(runs: Mapping[str, RunResult]) -> dict[str, float]:
    """Bytes of optimizer state for each trained parameter."""
    memory = measured(runs, "memory")
    return {name: of.optimizer / runs[name].parameters.trainable for name, of in memory.items()}


def memory_verdict(runs: Mapping[str, RunResult]) -> Verdict:
    """Claim 1: the optimizer's state is in proportion to what is trained, whatever the method."""
    held = optimizer_bytes(runs)
    if len({runs[name].config.kind for name in held}) < 2:
        return "open"
    return "holds" if max(held.values()) <= 1.1 * min(held.values()) else "contradicted"


def all_of(memory: Memory) -> int:
    """The sum of the parts, in bytes."""
    return sum(getattr(memory, part) for part in PARTS_OF_MEMORY)


def gpu_peaks(runs: Mapping[str, RunResult]) -> dict[str, int]:
    """The peaks that a GPU's allocator counted. The memory of a whole process says nothing about a method."""
    memory = measured(runs, "memory")
    return {name: of.peak for name, of in memory.items() if of.peak is not None and of.peak_kind == "cuda"}


def off_distances(runs: Mapping[str, RunResult]) -> dict[str, float]:
    """How far the loss with the method switched off is from the loss of the untouched base."""
    known = measured(runs, "knowledge")
    return {name: abs(of.off - of.base) for name, of in known.items() if of.off is not None}


def small_files(runs: Mapping[str, RunResult]) -> dict[str, int]:
    """Bytes of the trained part's file, of all runs but full fine-tuning."""
    return {name: of.delta for name, of in measured(runs, "disk").items() if name != "full"}


def disk_verdict(runs: Mapping[str, RunResult]) -> Literal["holds", "fits", "serves", "contradicted", "open"]:
    """Claim 2 has two parts: all the small files together take less space than one more base (`fits`), and
    the base is unchanged to the last bit once a method is switched off (`serves`)."""
    small, off = small_files(runs), off_distances(runs)
    if not small or not off:
        return "open"
    base = next(iter(measured(runs, "disk").values())).base
    fits, serves = sum(small.values()) < base, not any(off.values())
    if fits and serves:
        return "holds"
    return "fits" if fits else "serves" if serves else "contradicted"


@dataclass(frozen=True)
class Extremeness:
    """The value of full fine-tuning, and how many of how many other runs exceed it."""

    full: float
    exceed: int
    others: int

    @property
    def supports(self) -> Verdict:
        """The verdict on the claim that full fine-tuning has the largest value."""
        if self.exceed == 0:
            return "holds"
        return "contradicted" if 2 * self.exceed > self.others else "partly"


def extremeness(values: Mapping[str, float]) -> Extremeness | None:
    """`None` unless full fine-tuning and another were measured."""
    if "full" not in values or len(values) < 2:
        return None
    full = values["full"]
    exceed = sum(value > full for name, value in values.items() if name != "full")
    return Extremeness(full, exceed, len(values) - 1)


def knowledge_moves(runs: Mapping[str, RunResult]) -> dict[str, float]:
    """By how much tuning moves the base's pre-training loss, with its sign."""
    return {name: of.tuned - of.base for name, of in measured(runs, "knowledge").items()}


def accuracy_gaps(runs: Mapping[str, RunResult]) -> dict[str, float]:
    """Training accuracy less test accuracy, by run."""
    trained = measured(runs, "training_accuracy")
    return {name: of.accuracy - runs[name].accuracy.best for name, of in trained.items()}


def small_data_gaps(small_data: Mapping[str, SmallDataResult]) -> dict[str, float]:
    """The same after the last epoch on few reviews, as the mean over the seeds, in the order of the ten."""
    return {
        name: fmean(
            run.epochs[-1].training_accuracy - run.epochs[-1].test_accuracy for run in small_data[name].runs
        )
        for name in RUNS
        if name in small_data
    }


def base_verdict(
    runs: Mapping[str, RunResult], small_data: Mapping[str, SmallDataResult]
) -> tuple[Verdict, Extremeness | None, Extremeness | None]:
    """Claim 3: full fine-tuning changes what the base knows most, and overfits most.

    Overfitting shows on few reviews, so those runs decide if they were made. The claim holds if both parts
    hold, and is contradicted if one of them is.

    Returns:
        The verdict, and how full fine-tuning compares in changed knowledge and in overfitting.
    """
    moved = extremeness({name: abs(move) for name, move in knowledge_moves(runs).items()})
    overfit = extremeness(small_data_gaps(small_data)) or extremeness(accuracy_gaps(runs))
    if moved is None or overfit is None:
        return "open", moved, overfit
    parts = {moved.supports, overfit.supports}
    if "contradicted" in parts:
        return "contradicted", moved, overfit
    return ("holds" if parts == {"holds"} else "partly"), moved, overfit


# Pairs of runs


@dataclass(frozen=True)
class Pair:
    """Two of the ten that differ in one thing: who implements the method, or its size.

    A pair about `best` is the run with the highest mean and any other run.
    """

    first: str
    second: str
    about: Literal["library", "size", "best"]


def _pairs() -> tuple[Pair, ...]:
    two = list(combinations(RUNS.values(), 2))  # in their order, so that scratch comes before its libraries
    implementations = [
        Pair(first.id, second.id, "library")
        for first, second in two
        if first.library == "scratch"
        and (first.kind, first.hyperparameters) == (second.kind, second.hyperparameters)
    ]
    sizes = [
        Pair(*(run.id for run in sorted(pair, key=_size, reverse=True)), "size")
        for pair in two
        if (pair[0].kind, pair[0].library) == (pair[1].kind, pair[1].library)
    ]
    return *implementations, *sizes


def _size(run: Run) -> float:
    return run.hyperparameters[SIZES[run.kind][0]]


PAIRS = _pairs()


def differences(results: Mapping[str, Result], pairs: Sequence[Pair] = PAIRS) -> dict[Pair, Difference]:
    """The differences of `pairs`, on the same reviews, p-values corrected for their number."""
    found = {}
    for pair in pairs:
        first, second = results.get(pair.first), results.get(pair.second)
        reviews = reviews_of(first, "test") if first and second else None
        if reviews and reviews == reviews_of(second, "test"):
            found[pair] = paired(first, second, reviews)
    return _corrected(found)


def summaries(seeds: Seeds) -> dict[str, SeedSummary]:
    """Mean and interval of each run in `seeds`, which are as `seeds.with_further` returns them."""
    return {name: over_seeds(runs, runs[0].conditions.reviews) for name, runs in seeds.items()}


def seed_differences(seeds: Seeds) -> dict[Pair, SeedDifference]:
    """The differences of the pairs over the seeds that both have, corrected for the number of pairs."""
    return compared_over_seeds([pair for pair in PAIRS if {pair.first, pair.second} <= seeds.keys()], seeds)


def compared_over_seeds(pairs: Sequence[Pair], seeds: Seeds) -> dict[Pair, SeedDifference]:
    """The differences of `pairs` over the seeds that both have, corrected for how many pairs there are."""
    found = {}
    for pair in pairs:
        first, second = seeds[pair.first], seeds[pair.second]
        found[pair] = paired_over_seeds(first, second, first[0].conditions.reviews, comparisons=len(pairs))
    return _corrected(found)


def _corrected(differences: dict[Pair, Any]) -> dict[Pair, Any]:
    found = {pair: of for pair, of in differences.items() if of is not None}
    ps = holm([of.p for of in found.values()])
    return {pair: replace(of, p=p) for (pair, of), p in zip(found.items(), ps, strict=True)}
