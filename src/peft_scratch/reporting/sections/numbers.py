"""The ten numbers, beside the published ones, and what can be said about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain
from statistics import fmean
from typing import Any

from peft_scratch.assignment import BASELINES, HUB_BASE, HUB_REVIEWS, RUNS, TEN
from peft_scratch.comparison import CONFIDENCE, SIGNIFICANT, error_of, outside_published
from peft_scratch.reporting.facts import (
    Pair,
    compared_over_seeds,
    differences,
    differing,
    is_assignments,
    reviews_of,
)
from peft_scratch.reporting.sections.blocks import Block, Page, aside, strong
from peft_scratch.results import Environment, RunResult


def section(page: Page) -> list[Block]:
    """Table, findings and figure; with several seeds a second table."""
    head = ["run", "rate", "best", "last", "chosen", "published", "malformed", "seconds"]
    rows = [_row(page, name) for name in TEN | BASELINES]
    return [
        page.heading("numbers"),
        page.table(head, rows, rules=[len(TEN)]),
        page.note(page.say("numbers_note") + " " + _about_the_published_column(page)),
        *page.findings([*_about_published(page), *_about_numbers(page)]),
        *page.figure("accuracy", "figure_accuracy_seeds" if page.inputs.summaries else ""),
        *_seeds(page),
    ]


def _row(page: Page, name: str) -> list[Any]:
    label, result = page.language.run(name), page.inputs.results.get(name)
    if result is None:
        return [label, page.missing("missing", span=7)]
    accuracy, malformed = result.accuracy, page.language.in_percent(result.malformed)
    if not isinstance(result, RunResult):
        return [label, "", strong(page.language.in_percent(accuracy.best)), "", "", "", malformed, ""]
    low, high = (page.language.number(bound, 1) for bound in RUNS[name].published)
    published = page.say("interval_value", low=low, high=high)
    return [
        label,
        page.language.rate(result.config.learning_rate),
        strong(_at_epoch(page, accuracy.best, accuracy.best_epoch)),
        page.language.in_percent(accuracy.last),
        _at_epoch(page, accuracy.validation_chosen, accuracy.validation_chosen_epoch),
        published if is_assignments(result) else aside(published),
        malformed,
        page.language.number(result.seconds.total),
    ]


def _at_epoch(page: Page, share: float | None, epoch: int | None) -> str:
    if share is None or epoch is None:
        return page.language.in_percent(share)
    return page.say("at_epoch", value=page.language.in_percent(share), epoch=epoch)


def _about_the_published_column(page: Page) -> str:
    comparable = all(is_assignments(run) for run in page.runs.values()) and page.runs
    return page.say(
        "published_note" if comparable else "published_note_other",
        base=page.language.ltr(HUB_BASE),
        reviews=page.language.ltr(HUB_REVIEWS),
    )


def _about_published(page: Page) -> Iterable[str]:
    """The numbers outside the published ranges, each with its usual cause; nothing in other profiles."""
    compared = {name: run for name, run in page.runs.items() if is_assignments(run)}
    outside = {name: found for name, run in compared.items() if (found := outside_published(run))}
    if compared:
        key = "published_some" if outside else "published_all"
        yield page.say(key, inside=len(compared) - len(outside), runs=len(compared))
    for name, found in outside.items():
        key = "published_above" if found.points > 0 else "published_below"
        points, cause = page.language.number(abs(found.points), 1), page.say(f"cause_{found.cause}")
        yield page.say(key, run=page.language.run(name), points=points, cause=cause)


def _about_numbers(page: Page) -> Iterable[str]:
    best = {name: run.accuracy.best for name, run in page.runs.items()}
    if not best:
        return
    if len(page.inputs.summaries) == len(best) > 1:
        yield from _about_means(page)
        yield from _about_baselines(page, [of.mean for of in page.inputs.summaries.values()])
    else:
        highest = max(best.values())
        first = [name for name, share in best.items() if share == highest]
        run = page.language.join_longer(map(page.language.run, first))
        yield page.say("ranking", accuracy=page.language.percent(highest), run=run)
        yield from _about_baselines(page, list(best.values()))
        yield from _about_noise(page, first[0], best)
    accuracies = [run.accuracy for run in page.runs.values()]
    for key, field in (("last", "last"), ("chosen", "validation_chosen")):
        others = [getattr(accuracy, field) for accuracy in accuracies]
        if None in others:
            continue
        above = fmean(accuracy.best - other for accuracy, other in zip(accuracies, others, strict=True))
        points = page.language.in_percent(abs(above))
        if round(100 * above, 1) == 0:
            yield page.say(f"selection_{key}_none", runs=len(best))
        else:
            higher = page.say("higher" if above > 0 else "lower")
            yield page.say(f"selection_{key}", runs=len(best), points=points, higher=higher)


def _about_means(page: Page) -> Iterable[str]:
    """The highest mean over the seeds, and how many of the others cannot be told apart from it."""
    language, means = page.language, {name: of.mean for name, of in page.inputs.summaries.items()}
    first = max(means, key=means.__getitem__)
    others = [Pair(first, name, "best") for name in means if name != first]
    found = compared_over_seeds(others, page.inputs.seeds)
    seeds = min(of.seeds for of in page.inputs.summaries.values())
    accuracy = language.percent(means[first])
    yield page.say("ranking_seeds", accuracy=accuracy, run=language.run(first), seeds=seeds)
    close, level = sum(of.kind != "clear" for of in found.values()), language.in_percent(SIGNIFICANT, 0)
    yield page.say("noise_seeds", others=len(others), close=close, level=level)


def _about_baselines(page: Page, shares: list[float]) -> Iterable[str]:
    for word, names in (("bag", ["bag_of_words"]), ("zero_shot", ["zero_shot", "zero_shot_prefix"])):
        found = [page.inputs.results[name].accuracy.best for name in names if name in page.inputs.results]
        if found:
            bar = page.language.percent(max(found))
            above = sum(share > max(found) for share in shares)
            key = f"{word}_some" if above or word == "zero_shot" else f"{word}_none"
            yield page.say(key, above=above, runs=len(shares), accuracy=bar)


def _about_noise(page: Page, first: str, best: dict[str, float]) -> Iterable[str]:
    """How many of the others cannot be told apart from the highest with this many reviews."""
    errors = {name: error_of(page.runs[name], share) for name, share in best.items()}
    if len(best) < 2 or None in errors.values():
        return
    error, reviews = max(errors.values()), page.distinct(lambda run: reviews_of(run, "test"))
    values = {"error": page.language.in_percent(error), "reviews": reviews, "others": len(best) - 1}
    others = [name for name in best if name != first]
    found = differences(page.runs, [Pair(first, name, "best") for name in others])
    if len(found) == len(others):
        close = sum(of.p >= SIGNIFICANT for of in found.values())
        yield page.say("noise_paired", **values, close=close, level=page.language.in_percent(SIGNIFICANT, 0))
        return
    close = sum(best[first] - best[name] <= 2 * math.hypot(errors[first], errors[name]) for name in others)
    yield page.say("noise", **values, close=close)


def _seeds(page: Page) -> list[Block]:
    """Mean and interval of each run that has several seeds."""
    percent, rows = page.language.in_percent, []
    for name, of in page.inputs.summaries.items():
        interval = page.say("interval_value", low=percent(of.low), high=percent(of.high))
        numbers = (of.seeds, percent(of.mean), percent(of.deviation, 2))
        rows.append([page.language.run(name), *numbers, interval])
    if not rows:
        return []
    share = page.language.percent(CONFIDENCE, 0)
    return [
        page.subheading("over_seeds"),
        page.table(["run", "seeds", "mean", "deviation", "interval"], rows),
        page.note(" ".join([page.say("over_seeds_note", share=share), *_unlike(page)])),
    ]


def _unlike(page: Page) -> Iterable[str]:
    """In what the seeds were trained differently."""
    by_seed: dict[int | None, list[Environment]] = {}
    for runs in page.inputs.seeds.values():
        for run in runs:
            by_seed.setdefault(run.seed, []).append(run.conditions.environment)
    if differ := differing(chain(*by_seed.values()), _ENVIRONMENT):
        what = page.language.join(map(page.say, differ))
        yield page.say("seeds_differ", what=what)
        if not any(set(differ) & set(differing(runs, _ENVIRONMENT)) for runs in by_seed.values()):
            yield page.say("seeds_differ_in_pairs", what=what)


_ENVIRONMENT: dict[str, Callable[[Environment], Any]] = {
    "number_of_threads": lambda of: of.threads,
    "library_versions": lambda of: of.versions,
    "device_word": lambda of: [of.device, of.device_name, of.precision],
}
