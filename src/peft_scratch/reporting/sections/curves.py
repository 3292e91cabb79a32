"""How loss and accuracy went from epoch to epoch."""

from __future__ import annotations

from peft_scratch.reporting.sections.blocks import Block, Page


def section(page: Page) -> list[Block]:
    if not page.runs:
        return []
    number = page.language.number
    rising = sum(run.accuracy.best_epoch == len(run.epochs) for run in page.runs.values())
    drops = {
        name: run.accuracy.best - run.accuracy.last
        for name, run in page.runs.items()
        if run.accuracy.last is not None
    }
    findings = [
        page.say("rising_some" if rising else "rising_none", runs=number(rising), all=number(len(page.runs)))
    ]
    worst = max(drops, key=drops.__getitem__, default=None)
    if worst is not None and round(100 * drops[worst], 1) > 0:
        points = number(100 * drops[worst], 1)
        findings.append(page.say("largest_drop", run=page.language.run(worst), points=points))
    return [page.heading("curves"), *page.findings(findings), *page.figure("curves")]
