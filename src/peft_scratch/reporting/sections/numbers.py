"""The ten numbers, beside the published ones, and what can be said about them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from itertools import chain
from statistics import fmean
from typing import Any

from peft_scratch.assignment import BASELINES, HUB_BASE, HUB_REVIEWS, RUNS, TEN
from peft_scratch.comparison import CONFIDENCE, SIGNIFICANT, outside_published
from peft_scratch.reporting.facts import (
    Pair,
    compared_over_seeds,
    differences,
    error_of,
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
    accuracy, malformed = result.accuracy, page.language.number(100 * result.malformed, 1)
    if not isinstance(result, RunResult):
        return [label, "", strong(_percent(page, accuracy.best)), "", "", "", malformed, ""]
    low, high = (page.language.number(bound, 1) for bound in RUNS[name].published)
    published = page.say("interval_value", low=low, high=high)
    return [
        label,
        page.language.rate(result.config.learning_rate),
        strong(_at_epoch(page, accuracy.best, accuracy.best_epoch)),
        _percent(page, accuracy.last),
        _at_epoch(page, accuracy.validation_chosen, accuracy.validation_chosen_epoch),
        published if is_assignments(result) else aside(published),
        malformed,
        page.language.number(result.seconds.total),
    ]


def _percent(page: Page, share: float | None) -> str:
    return "" if share is None else page.language.number(100 * share, 1)


def _at_epoch(page: Page, share: float | None, epoch: int | None) -> str:
    if share is None or epoch is None:
        return _percent(page, share)
    return page.say("at_epoch", value=_percent(page, share), epoch=page.language.number(epoch))


def _about_the_published_column(page: Page) -> str:
    comparable = all(is_assignments(run) for run in page.runs.values()) and page.runs
    return page.say(
        "published_note" if comparable else "published_note_other",
        base=page.language.ltr(HUB_BASE),
        reviews=page.language.ltr(HUB_REVIEWS),
    )


def _about_published(page: Page) -> Iterable[str]:
    """Numbers outside the published ranges, with the usual cause; nothing about other profiles."""
    compared = {name: run for name, run in page.runs.items() if is_assignments(run)}
    outside = {name: found for name, run in compared.items() if (found := outside_published(run))}
    if compared:
        number = page.language.number
        yield page.say(
            "published_all" if not outside else "published_some",
            inside=number(len(compared) - len(outside)),
            runs=number(len(compared)),
        )
    for name, found in outside.items():
        yield page.say(
            "published_above" if found.points > 0 else "published_below",
            run=page.language.run(name),
            points=page.language.number(abs(found.points), 1),
            cause=page.say(f"cause_{found.cause}"),
        )


def _about_numbers(page: Page) -> Iterable[str]:
    best = {name: run.accuracy.best for name, run in page.runs.items()}
    if not best:
        return
    number, percent = page.language.number, page.language.percent
    if len(page.inputs.summaries) == len(best) > 1:
        yield from _about_means(page)
        yield from _about_baselines(page, [of.mean for of in page.inputs.summaries.values()])
    else:
        highest = max(best.values())
        first = [name for name, share in best.items() if share == highest]
        run = page.language.join_longer(map(page.language.run, first))
        yield page.say("ranking", accuracy=percent(highest), run=run)
        yield from _about_baselines(page, list(best.values()))
        yield from _about_noise(page, first[0], best)
    accuracies = [run.accuracy for run in page.runs.values()]
    for key, others in (
        ("last", [accuracy.last for accuracy in accuracies]),
        ("chosen", [accuracy.validation_chosen for accuracy in accuracies]),
    ):
        if None in others:
            continue
        above = fmean(accuracy.best - other for accuracy, other in zip(accuracies, others, strict=True))
        points = page.language.number(abs(100 * above), 1)
        if round(100 * above, 1) == 0:
            yield page.say(f"selection_{key}_none", runs=number(len(best)))
        else:
            higher = page.say("higher" if above > 0 else "lower")
            yield page.say(f"selection_{key}", runs=number(len(best)), points=points, higher=higher)


def _about_means(page: Page) -> Iterable[str]:
    """The highest mean over the seeds, and how many of the others cannot be told from it."""
    number, means = page.language.number, {name: of.mean for name, of in page.inputs.summaries.items()}
    first = max(means, key=means.__getitem__)
    others = [Pair(first, name, "best") for name in means if name != first]
    found = compared_over_seeds(others, page.inputs.seeds)
    yield page.say(
        "ranking_seeds",
        accuracy=page.language.percent(means[first]),
        run=page.language.run(first),
        seeds=number(min(of.seeds for of in page.inputs.summaries.values())),
    )
    yield page.say(
        "noise_seeds",
        others=number(len(others)),
        close=number(sum(of.kind != "clear" for of in found.values())),
        level=number(100 * SIGNIFICANT),
    )


def _about_baselines(page: Page, shares: list[float]) -> Iterable[str]:
    number, percent, results = page.language.number, page.language.percent, page.inputs.results
    if "bag_of_words" in results:
        bar = results["bag_of_words"].accuracy.best
        above = sum(share > bar for share in shares)
        yield page.say(
            "bag_some" if above else "bag_none",
            above=number(above),
            runs=number(len(shares)),
            accuracy=percent(bar),
        )
    zero_shot = [results[name].accuracy.best for name in ("zero_shot", "zero_shot_prefix") if name in results]
    if zero_shot:
        bar = max(zero_shot)
        above = sum(share > bar for share in shares)
        yield page.say("zero_shot_some", accuracy=percent(bar), above=number(above), runs=number(len(shares)))


def _about_noise(page: Page, first: str, best: dict[str, float]) -> Iterable[str]:
    """How many of the others this many reviews cannot tell from the highest."""
    errors = {name: error_of(page.runs[name], share) for name, share in best.items()}
    if len(best) < 2 or None in errors.values():
        return
    number = page.language.number
    values = {
        "error": number(100 * max(errors.values()), 1),
        "reviews": page.distinct(lambda run: number(reviews_of(run, "test")), raw=True),
        "others": number(len(best) - 1),
    }
    others = [name for name in best if name != first]
    found = differences(page.runs, [Pair(first, name, "best") for name in others])
    if len(found) == len(others):
        close = sum(of.p >= SIGNIFICANT for of in found.values())
        yield page.say("noise_paired", **values, close=number(close), level=number(100 * SIGNIFICANT))
        return
    close = sum(best[first] - best[name] <= 2 * math.hypot(errors[first], errors[name]) for name in others)
    yield page.say("noise", **values, close=number(close))


def _seeds(page: Page) -> list[Block]:
    """Mean and interval of each run that has several seeds."""
    number, rows = page.language.number, []
    for name, of in page.inputs.summaries.items():
        interval = page.say("interval_value", low=number(100 * of.low, 1), high=number(100 * of.high, 1))
        mean_and_deviation = [number(100 * of.mean, 1), number(100 * of.deviation, 2)]
        rows.append([page.language.run(name), number(of.seeds), *mean_and_deviation, interval])
    if not rows:
        return []
    share = page.language.percent(CONFIDENCE, 0)
    return [
        page.subheading("over_seeds"),
        page.table(["run", "seeds", "mean", "deviation", "interval"], rows),
        page.note(" ".join([page.say("over_seeds_note", share=share), *_unlike(page)])),
    ]


def _unlike(page: Page) -> Iterable[str]:
    """In what the seeds were not trained alike."""
    by_seed: dict[int | None, list[Environment]] = {}
    for runs in page.inputs.seeds.values():
        for run in runs:
            by_seed.setdefault(run.seed, []).append(run.conditions.environment)
    differ = [word for word, of in _ENVIRONMENT.items() if _values(of, chain(*by_seed.values())) > 1]
    if differ:
        yield page.say("seeds_differ", what=page.language.join(map(page.say, differ)))
        if all(_values(_ENVIRONMENT[word], runs) == 1 for word in differ for runs in by_seed.values()):
            yield page.say("seeds_differ_in_pairs")


def _values(of: Callable[[Environment], Any], environments: Iterable[Environment]) -> int:
    return len({json.dumps(of(environment)) for environment in environments})


_ENVIRONMENT: dict[str, Callable[[Environment], Any]] = {
    "number_of_threads": lambda of: of.threads,
    "library_versions": lambda of: of.versions,
    "device_word": lambda of: [of.device, of.device_name, of.precision],
}
