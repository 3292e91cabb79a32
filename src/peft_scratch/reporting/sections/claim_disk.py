"""Claim 2: one small file for each task is enough."""

from __future__ import annotations

from peft_scratch.reporting import facts
from peft_scratch.reporting.sections.blocks import Block, Page


def section(page: Page) -> list[Block]:
    heading, language = page.subheading("claim_disk"), page.language
    measured = {name: run.disk for name, run in page.runs.items() if run.disk is not None}
    if not measured:
        return [heading, page.not_measured()]
    small, off = facts.small_files(page.runs), facts.off_distances(page.runs)
    base = next(iter(measured.values())).base
    findings = []
    if small:
        together = sum(small.values())
        findings.append(
            page.say(
                "disk_together",
                runs=language.number(len(small)),
                together=language.bytes(together),
                share=language.share(together / base),
                base=language.bytes(base),
                with_base=language.bytes(base + together),
                copies=language.bytes(len(small) * base),
            )
        )
    if "full" in measured:
        findings.append(page.say("disk_full", size=language.bytes(measured["full"].delta)))
    if off:
        wrong = sum(distance != 0 for distance in off.values())
        findings.append(
            page.say(
                "serves_no" if wrong else "serves_yes",
                runs=language.number(len(off)),
                wrong=language.number(wrong),
                most=language.ltr(f"{max(off.values()):.1e}"),
            )
        )
    verdict = page.verdict(f"disk_{facts.disk_verdict(page.runs)}")
    return [heading, verdict, *page.findings(findings)]
