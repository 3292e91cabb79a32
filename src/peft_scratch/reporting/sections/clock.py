"""Where the time went."""

from __future__ import annotations

from peft_scratch.reporting.facts import ends
from peft_scratch.reporting.sections.blocks import Block, Page


def section(page: Page) -> list[Block]:
    if not page.runs:
        return []
    language, spent = page.language, {name: run.seconds for name, run in page.runs.items()}
    shares = {name: of.evaluation / of.total for name, of in spent.items()}
    low, high = ends(shares)
    total = sum(of.total for of in spent.values())
    findings = [
        page.say(
            "clock_text",
            share=language.percent(sum(of.evaluation for of in spent.values()) / total, 0),
            low=language.percent(shares[low], 0),
            high=language.percent(shares[high], 0),
            low_run=language.run(low),
            high_run=language.run(high),
        )
    ]
    others = {name: of.training for name, of in spent.items() if name != "full"}
    if "full" in spent and others:
        full = spent["full"].training
        fastest, _ = ends(others)
        faster = sum(seconds < full for seconds in others.values())
        findings.append(
            page.say(
                "faster_yes" if faster else "faster_no",
                faster=language.number(faster),
                runs=language.number(len(others)),
                run=language.run(fastest),
                share=language.percent(others[fastest] / full, 0),
            )
        )
    return [page.heading("clock"), *page.findings(findings), *page.figure("time")]
