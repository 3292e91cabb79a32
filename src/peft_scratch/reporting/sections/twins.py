"""Runs in pairs: from scratch and through a library, and two sizes of one method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from peft_scratch.comparison import POWER, SIGNIFICANT, seeds_needed, two_figures
from peft_scratch.exactness.page import largest
from peft_scratch.reporting.facts import PAIRS, Pair, differences
from peft_scratch.reporting.sections.blocks import Block, Page


def section(page: Page) -> list[Block]:
    """The comparison with the same weights, and the pairs of runs that were trained separately."""
    exactness = page.inputs.exactness
    exact = [page.text(page.say("exact_missing"))] if exactness is None else _exactness(page, exactness)
    return [page.heading("twins"), *exact, *_apart(page), *_over_seeds(page)]


def _exactness(page: Page, exactness: Mapping[str, Any]) -> list[Block]:
    def counts(compared: list[Mapping[str, Any]]) -> tuple[int, int, int]:
        exact = sum(largest(row) == 0 for row in compared)
        return len(compared), exact, sum(row["control_detected"] for row in compared)

    rows = []
    for base in exactness["bases"]:
        title = page.language.words.get(f"base_{base['name']}", base["title"])
        most = max(map(largest, base["rows"]))
        shown = page.language.ltr(f"{most:.1e}") if most else 0
        number, exact, detected = counts(base["rows"])
        rows.append([title, number, exact, shown, detected])
    every = [row for base in exactness["bases"] for row in base["rows"]]
    number, exact, detected = counts(every)
    within = sum(row["equal"] for row in every)
    said = page.say("exact", equal=exact, rows=number, within=within, controls=detected)
    places = page.say("exact_places", places=len(exactness["differences"]))
    return [
        page.table(["on_base", "comparisons", "to_the_bit", "largest", "controls"], rows),
        *page.findings([said, places]),
    ]


def _title(page: Page, pair: Pair) -> str:
    language = page.language
    if pair.about == "library":
        sizes = language.size_of(pair.first)
        return language.join([language.method_of(pair.first), sizes, language.library_of(pair.second)])
    sizes = page.say("against", first=language.size_of(pair.first), second=language.size_of(pair.second))
    return language.join([language.method_of(pair.first), language.library_of(pair.first), sizes])


def _apart(page: Page) -> list[Block]:
    """The pairs of the first seed, on the same test reviews."""
    found, language, rows = differences(page.inputs.results), page.language, []
    for pair in PAIRS:
        if pair.first not in page.runs or pair.second not in page.runs:
            rows.append([_title(page, pair), page.missing("missing", span=6)])
            continue
        runs = [page.runs[name] for name in (pair.first, pair.second)]
        shares = [run.accuracy.best for run in runs]
        rates = dict.fromkeys(language.rate(run.config.learning_rate) for run in runs)
        of = found.get(pair)
        luck = [language.numeral(two_figures(value)) for value in (100 * of.error, of.p)] if of else ["", ""]
        numbers = [*map(language.in_percent, shares), language.points(shares[0] - shares[1]), *luck]
        rows.append([_title(page, pair), *numbers, language.ltr(" / ").join(rates)])
    # For a pair with several seeds, the sentence about the seeds replaces this one.
    said = {pair: of.kind for pair, of in found.items() if pair not in page.inputs.seed_differences}
    head = ["pair", "first", "second", "difference", "error", "p", "rates"]
    return [
        page.table(head, rows),
        page.note(page.say("pairs_note", pairs=len(found))),
        *page.findings(_about_pairs(page, said)),
    ]


def _about_pairs(page: Page, kinds: dict[Pair, str], over_seeds: bool = False) -> Iterable[str]:
    """What can be said of the pairs: one sentence for all of which the same can be said."""
    zero = page.language.points(0)
    for about in ("library", "size"):
        for kind in ("clear", "chance", "none"):
            titles = [_title(page, pair) for pair, of in kinds.items() if (pair.about, of) == (about, kind)]
            if titles:
                pairs = page.language.join_longer(titles)
                key = f"{about}_{kind}{'_seeds' * (over_seeds and kind == 'none')}"
                yield page.say(key, pairs=pairs, zero=zero)


def _over_seeds(page: Page) -> list[Block]:
    """The pairs over the seeds that both runs have; nothing without several seeds."""
    found, language, rows = page.inputs.seed_differences, page.language, []
    for pair, of in found.items():
        interval = page.say("range", low=language.points(of.low, 2), high=language.points(of.high, 2))
        p, findable = language.numeral(two_figures(of.p)), language.in_percent(of.findable)
        rows.append([_title(page, pair), of.seeds, language.points(of.gap), interval, p, findable])
    if not rows:
        return []
    said = _about_pairs(page, {pair: of.kind for pair, of in found.items()}, over_seeds=True)
    findings = [page.say("over_the_seeds", sentence=sentence) for sentence in said]
    seeds, needed = min(of.seeds for of in found.values()), seeds_needed(len(found))
    if seeds < needed:  # first, because it explains a p of 1 beside an interval without 0
        level = language.percent(SIGNIFICANT, 0)
        findings.insert(0, page.say("too_few_seeds", level=level, seeds=seeds, needed=needed))
    low, high = (language.in_percent(end(of.findable for of in found.values())) for end in (min, max))
    findings.append(page.say("findable", share=language.percent(POWER, 0), low=low, high=high))
    head = ["pair", "seeds", "mean_difference", "interval", "p", "findable_head"]
    return [page.subheading("pairs_over_seeds"), page.table(head, rows), *page.findings(findings)]
