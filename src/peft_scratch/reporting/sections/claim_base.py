"""Claim 3: the base keeps what it knew, and overfits less."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from peft_scratch.assignment import TEN
from peft_scratch.reporting import facts
from peft_scratch.reporting.sections.blocks import ABSENT, Block, Page
from peft_scratch.results import SmallDataResult


def section(page: Page) -> list[Block]:
    heading = page.subheading("claim_base")
    gaps = facts.accuracy_gaps(page.runs)
    findings = [*_about_knowledge(page), *_about_gaps(page, "gap", gaps)]
    blocks = [heading, _base_verdict(page)]
    if findings or any(run.disk for run in page.runs.values()):
        blocks.append(_disk_and_base_table(page, gaps))
    blocks += page.findings(findings) if findings else [page.not_measured()]
    small = page.findings(_about_small_data(page))
    return [*blocks, *page.figure("knowledge"), *small, *page.figure("small_data")]


def _base_verdict(page: Page) -> Block:
    verdict, moved, overfit = facts.base_verdict(page.runs, page.inputs.small_data)
    number = page.language.number
    if moved is None or overfit is None:
        return page.verdict("base_open")
    return page.verdict(
        f"base_{verdict}",
        moved=number(moved.exceed),
        moved_of=number(moved.others),
        overfit=number(overfit.exceed),
        overfit_of=number(overfit.others),
        where=page.say("on_few" if facts.small_data_gaps(page.inputs.small_data) else "in_the_ten"),
    )


def _about_knowledge(page: Page) -> Iterable[str]:
    knows = facts.knowledge_of(page.runs)
    if not knows:
        return
    language = page.language
    tuned = {name: of.tuned for name, of in knows.items()}
    low, high = facts.ends(tuned)
    first = next(iter(knows.values()))
    yield page.say(
        "knows",
        reviews=language.number(first.reviews),
        base=language.number(first.base, 3),
        low=language.number(tuned[low], 3),
        high=language.number(tuned[high], 3),
        low_run=language.run(low),
        high_run=language.run(high),
    )
    if "full" in knows and len(knows) > 1:
        moves = {name: of.tuned - of.base for name, of in knows.items()}
        most = max(moves, key=lambda name: abs(moves[name]))
        yield page.say(
            "knows_full_most" if most == "full" else "knows_full_not_most",
            change=language.number(moves["full"], 3),
            run=language.run(most),
            most=language.number(moves[most], 3),
        )


def _about_gaps(page: Page, key: str, gaps: dict[str, float], **values: str) -> Iterable[str]:
    """The smallest and the largest gap, and where full fine-tuning's stands."""
    if not gaps:
        return
    language = page.language
    low, high = facts.ends(gaps)
    yield page.say(
        key,
        low=language.points(gaps[low]),
        high=language.points(gaps[high]),
        low_run=language.run(low),
        high_run=language.run(high),
        **values,
    )
    if (full := facts.extremeness(gaps)) is not None:
        yield page.say(
            "gap_full_not_most" if full.exceed else "gap_full_most",
            full=language.points(full.full),
            exceed=language.number(full.exceed),
            others=language.number(full.others),
        )


def _about_small_data(page: Page) -> Iterable[str]:
    small = {name: page.inputs.small_data[name] for name in TEN if name in page.inputs.small_data}
    if not small:
        yield page.say("small_missing")
        return

    def distinct(of: Callable[[SmallDataResult], int]) -> str:
        return page.language.join(
            page.language.number(value) for value in dict.fromkeys(map(of, small.values()))
        )

    yield from _about_gaps(
        page,
        "small",
        facts.small_data_gaps(small),
        reviews=distinct(lambda result: result.reviews),
        epochs=distinct(lambda result: len(result.runs[0].epochs)),
        seeds=distinct(lambda result: len(result.runs)),
    )


def _disk_and_base_table(page: Page, gaps: dict[str, float]) -> Block:
    language, rows = page.language, []
    for name in TEN:
        run = page.runs.get(name)
        if run is None:
            rows.append([language.run(name), page.missing("missing", span=5)])
            continue
        disk, knows = run.disk, run.knowledge
        off = knows.off if knows else None
        rows.append(
            [
                language.run(name),
                language.bytes(disk.delta) if disk else ABSENT,
                language.share(disk.delta / disk.base) if disk else ABSENT,
                language.number(knows.tuned, 3) if knows else ABSENT,
                language.number(off, 3) if off is not None else ABSENT,
                language.points(gaps[name]) if name in gaps else ABSENT,
            ]
        )
    return page.table(["run", "delta", "share_of_base", "tuned_loss", "off_loss", "gap_points"], rows)
