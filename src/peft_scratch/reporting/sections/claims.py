"""The three claims that the assignment opens with, each with a verdict that the data choose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft_scratch.assignment import TEN
from peft_scratch.reporting import facts
from peft_scratch.reporting.sections.blocks import ABSENT, Block, Page
from peft_scratch.results import Memory, RunResult


def section(page: Page) -> list[Block]:
    """A verdict, findings, tables and figures for each claim."""
    return [page.heading("claims"), *_memory(page), *_disk(page), *_base(page)]


def _memory(page: Page) -> list[Block]:
    """Claim 1: the optimizer's memory grows with what is trained."""
    heading = page.subheading("claim_memory")
    held = facts.optimizer_bytes(page.runs)
    if not held:
        return [heading, page.not_measured()]
    ends = page.ends(held, lambda each: page.language.number(each, 1))
    verdict = page.verdict(
        f"memory_{facts.memory_verdict(page.runs)}",
        bytes=page.language.range(ends["low"], ends["high"]),
        **ends,
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
    measured = facts.measured(page.runs, "memory")
    if "full" in measured and len(measured) > 1:
        full = measured["full"].optimizer
        shares = {name: of.optimizer / full for name, of in measured.items() if name != "full"}
        key = "optimizer_share" if len(shares) > 1 else "optimizer_one"
        yield page.say(key, full=language.bytes(full), **page.ends(shares, language.share))
        sums = {name: facts.all_of(of) for name, of in measured.items()}
        yield from _lower_than_full(page, "sum", sums)
        yield from _lower_than_full(page, "peak", facts.gpu_peaks(page.runs))
    shares = {name: of.activations / facts.all_of(of) for name, of in measured.items()}
    ends = page.ends(shares, lambda share: language.percent(share, 0))
    yield page.say("activations", shares=language.range(ends["low"], ends["high"]))
    yield from _held_lower(page, measured)


def _held_lower(page: Page, measured: dict[str, Memory]) -> Iterable[str]:
    """Why full fine-tuning's parameters take more: a frozen base may be held in lower precision."""
    held = {name: of.parameters / page.runs[name].parameters.whole for name, of in measured.items()}
    full = held.pop("full", 0.0)
    if not held or max(held.values()) > 0.75 * full:
        return
    ends = page.ends(held, lambda each: page.language.number(each, 1))
    others = page.language.range(ends["low"], ends["high"])
    yield page.say("held_lower", full=page.language.number(full, 1), others=others)


def _lower_than_full(page: Page, what: str, sizes: dict[str, int]) -> Iterable[str]:
    others = {name: size for name, size in sizes.items() if name != "full"}
    if "full" not in sizes or not others:
        return
    full, below = sizes["full"], sum(size < sizes["full"] for size in others.values())
    ends, ratio = page.ends(others, page.language.bytes), min(others.values()) / full
    values = {"full": page.language.bytes(full), "ratio": page.language.percent(ratio, 0)}
    yield page.say(f"{what}_{'lower' if below else 'none'}", below=below, runs=len(others), **values, **ends)


def _memory_table(page: Page) -> Block:
    peaks = facts.gpu_peaks(page.runs)
    words = [*(f"memory_{part}" for part in (*facts.PARTS_OF_MEMORY, "sum")), *(["peak"] if peaks else [])]

    def cells(name: str, run: RunResult) -> list[Any]:
        if run.memory is None:
            return [page.missing("not_measured", span=len(words))]
        sizes = [*(getattr(run.memory, part) for part in facts.PARTS_OF_MEMORY), facts.all_of(run.memory)]
        peak = page.language.bytes(peaks[name]) if name in peaks else ABSENT
        return [*map(page.language.bytes, sizes), *([peak] if peaks else [])]

    return page.table(["run", *words], page.rows(cells, span=len(words)))


def _disk(page: Page) -> list[Block]:
    """Claim 2: one small file for each task is enough."""
    heading = page.subheading("claim_disk")
    if not facts.measured(page.runs, "disk"):
        return [heading, page.not_measured()]
    verdict = page.verdict(f"disk_{facts.disk_verdict(page.runs)}")
    return [heading, verdict, *page.findings(_about_disk(page))]


def _about_disk(page: Page) -> Iterable[str]:
    measured = facts.measured(page.runs, "disk")
    small, off = facts.small_files(page.runs), facts.off_distances(page.runs)
    size, base, together = page.language.bytes, next(iter(measured.values())).base, sum(small.values())
    if small:
        yield page.say(
            "disk_together",
            runs=len(small),
            together=size(together),
            share=page.language.share(together / base),
            base=size(base),
            with_base=size(base + together),
        )
    if "full" in measured:
        full, parameters = measured["full"], page.runs["full"].parameters.whole
        each = {
            name: page.language.number(of / parameters, 1)
            for name, of in (("full_bytes", full.delta), ("base_bytes", full.base))
        }
        yield page.say("disk_full", size=size(full.delta), **each)
        if small:
            yield page.say("disk_copies", copies=size(len(small) * full.delta))
    if off:
        wrong, most = sum(map(bool, off.values())), page.language.ltr(f"{max(off.values()):.1e}")
        yield page.say("serves_no" if wrong else "serves_yes", runs=len(off), wrong=wrong, most=most)


def _base(page: Page) -> list[Block]:
    """Claim 3: the base keeps what it knew, and overfits less."""
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
    if moved is None or overfit is None:
        return page.verdict("base_open")
    few = page.inputs.small_data.values()
    reviews = page.distinct(lambda result: result.reviews, few)
    where = page.say("on_few", reviews=reviews) if few else page.say("in_the_ten")
    gaps = {"overfit": overfit.exceed, "overfit_of": overfit.others, "where": where}
    return page.verdict(f"base_{verdict}", moved=moved.exceed, moved_of=moved.others, **gaps)


def _about_knowledge(page: Page) -> Iterable[str]:
    knows = facts.measured(page.runs, "knowledge")
    if not knows:
        return

    def shown(loss: float) -> str:
        return page.language.number(loss, 3)

    tuned, first = {name: of.tuned for name, of in knows.items()}, next(iter(knows.values()))
    yield page.say("knows", reviews=first.reviews, base=shown(first.base), **page.ends(tuned, shown))
    if "full" in knows and len(knows) > 1:
        moves = facts.knowledge_moves(page.runs)
        most = max(moves, key=lambda name: abs(moves[name]))
        yield page.say(
            "knows_full_most" if most == "full" else "knows_full_not_most",
            change=shown(moves["full"]),
            run=page.language.run(most),
            most=shown(moves[most]),
        )


def _about_gaps(page: Page, key: str, gaps: dict[str, float], **values: str) -> Iterable[str]:
    """The smallest and the largest gap, and where full fine-tuning's stands."""
    if not gaps:
        return
    yield page.say(key, **page.ends(gaps, page.language.points), **values)
    if (full := facts.extremeness(gaps)) is not None:
        key, value = "gap_full_not_most" if full.exceed else "gap_full_most", page.language.points(full.full)
        yield page.say(key, full=value, exceed=full.exceed, others=full.others)


def _about_small_data(page: Page) -> Iterable[str]:
    small = {name: page.inputs.small_data[name] for name in TEN if name in page.inputs.small_data}
    if not small:
        yield page.say("small_missing")
        return
    of = {
        "reviews": lambda result: result.reviews,
        "epochs": lambda result: len(result.runs[0].epochs),
        "seeds": lambda result: len(result.runs),
    }
    values = {word: page.distinct(value, small.values()) for word, value in of.items()}
    yield from _about_gaps(page, "small", facts.small_data_gaps(small), **values)


def _disk_and_base_table(page: Page, gaps: dict[str, float]) -> Block:
    language = page.language

    def cells(name: str, run: RunResult) -> list[Any]:
        disk, knows = run.disk, run.knowledge
        off = knows.off if knows else None
        return [
            language.bytes(disk.delta) if disk else ABSENT,
            language.share(disk.delta / disk.base) if disk else ABSENT,
            language.number(knows.tuned, 3) if knows else ABSENT,
            language.number(off, 3) if off is not None else ABSENT,
            language.points(gaps[name]) if name in gaps else ABSENT,
        ]

    head = ["run", "delta", "share_of_base", "tuned_loss", "off_loss", "gap_points"]
    return page.table(head, page.rows(cells, span=5))
