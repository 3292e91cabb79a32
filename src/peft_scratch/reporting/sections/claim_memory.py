"""Claim 1: the optimiser's memory grows with what is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft_scratch.assignment import TEN
from peft_scratch.reporting import facts
from peft_scratch.reporting.sections.blocks import ABSENT, Block, Page


def section(page: Page) -> list[Block]:
    heading = page.subheading("claim_memory")
    held = facts.optimizer_bytes(page.runs)
    if not held:
        return [heading, page.not_measured()]
    low, high = facts.ends(held)
    bytes_each = [page.language.number(held[name], 1) for name in (low, high)]
    verdict = page.verdict(
        f"memory_{facts.memory_verdict(page.runs)}",
        bytes=page.language.range(*bytes_each),
        low=bytes_each[0],
        high=bytes_each[1],
        low_run=page.language.run(low),
        high_run=page.language.run(high),
    )
    return [
        heading,
        verdict,
        _memory_table(page),
        *page.findings(_about_memory(page)),
        *page.figure("memory", "figure_memory_peak" if facts.gpu_peaks(page.runs) else ""),
    ]


def _about_memory(page: Page) -> Iterable[str]:
    language = page.language
    measured = {name: run.memory for name, run in page.runs.items() if run.memory is not None}
    if "full" in measured and len(measured) > 1:
        full = measured["full"].optimizer
        shares = {name: of.optimizer / full for name, of in measured.items() if name != "full"}
        low, high = facts.ends(shares)
        yield page.say(
            "optimizer_share" if len(shares) > 1 else "optimizer_one",
            full=language.bytes(full),
            low=language.share(shares[low]),
            high=language.share(shares[high]),
            low_run=language.run(low),
            high_run=language.run(high),
        )
        sums = {name: facts.all_of(of) for name, of in measured.items()}
        yield from _lower_than_full(page, "sum", sums)
        yield from _lower_than_full(page, "peak", facts.gpu_peaks(page.runs))
    shares = {name: of.activations / facts.all_of(of) for name, of in measured.items()}
    ends = [language.percent(shares[name], 0) for name in facts.ends(shares)]
    yield page.say("activations", shares=language.range(*ends))


def _lower_than_full(page: Page, what: str, sizes: dict[str, int]) -> Iterable[str]:
    others = {name: size for name, size in sizes.items() if name != "full"}
    if "full" not in sizes or not others:
        return
    lowest, _ = facts.ends(others)
    below = sum(size < sizes["full"] for size in others.values())
    yield page.say(
        f"{what}_lower" if below else f"{what}_none",
        full=page.language.bytes(sizes["full"]),
        below=page.language.number(below),
        runs=page.language.number(len(others)),
        low=page.language.bytes(others[lowest]),
        low_run=page.language.run(lowest),
        ratio=page.language.percent(others[lowest] / sizes["full"], 0),
    )


def _memory_table(page: Page) -> Block:
    peaks = facts.gpu_peaks(page.runs)
    words = [
        *(f"memory_{part}" for part in facts.PARTS_OF_MEMORY),
        "memory_sum",
        *(["peak"] if peaks else []),
    ]
    rows: list[list[Any]] = []
    for name in TEN:
        of = page.runs[name].memory if name in page.runs else None
        if of is None:
            rows.append([page.language.run(name), page.missing("not_measured", span=len(words))])
            continue
        sizes = [*(getattr(of, part) for part in facts.PARTS_OF_MEMORY), facts.all_of(of)]
        row: list[Any] = [page.language.run(name), *map(page.language.bytes, sizes)]
        if peaks:
            row.append(page.language.bytes(peaks[name]) if name in peaks else ABSENT)
        rows.append(row)
    return page.table(["run", *words], rows)
