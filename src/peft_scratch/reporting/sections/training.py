"""How training went: from epoch to epoch, and where the time went."""

from __future__ import annotations

from peft_scratch.reporting.facts import ends
from peft_scratch.reporting.sections.blocks import Block, Page


def curves(page: Page) -> list[Block]:
    """How loss and accuracy went from epoch to epoch."""
    if not page.runs:
        return []
    rising = sum(run.accuracy.best_epoch == len(run.epochs) for run in page.runs.values())
    drops = {
        name: run.accuracy.best - run.accuracy.last
        for name, run in page.runs.items()
        if run.accuracy.last is not None
    }
    findings = [page.say("rising_some" if rising else "rising_none", runs=rising, all=len(page.runs))]
    worst = max(drops, key=drops.__getitem__, default=None)
    if worst is not None and round(100 * drops[worst], 1) > 0:
        points = page.language.in_percent(drops[worst])
        findings.append(page.say("largest_drop", run=page.language.run(worst), points=points))
    return [page.heading("curves"), *page.findings(findings), *page.figure("curves")]


def clock(page: Page) -> list[Block]:
    """Where the time went."""
    if not page.runs:
        return []
    language, spent = page.language, {name: run.seconds for name, run in page.runs.items()}
    shares = {name: of.evaluation / of.total for name, of in spent.items()}
    total = sum(of.total for of in spent.values())
    share = language.percent(sum(of.evaluation for of in spent.values()) / total, 0)
    rounded = page.ends(shares, lambda of: language.percent(of, 0))
    findings = [page.say("clock_text", share=share, **rounded)]
    others = {name: of.training for name, of in spent.items() if name != "full"}
    if "full" in spent and others:
        full = spent["full"].training
        fastest, _ = ends(others)
        faster = sum(seconds < full for seconds in others.values())
        values = {"run": language.run(fastest), "share": language.percent(others[fastest] / full, 0)}
        key = "faster_yes" if faster else "faster_no"
        findings.append(page.say(key, faster=faster, runs=len(others), **values))
    return [page.heading("clock"), *page.findings(findings), *page.figure("time")]
