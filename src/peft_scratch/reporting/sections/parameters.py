"""The derivation of every count, and whether it equals what torch counted."""

from __future__ import annotations

from typing import Any

from peft_scratch.reporting.facts import count_error
from peft_scratch.reporting.sections.blocks import ABSENT, Block, Page, check, maths
from peft_scratch.results import RunResult


def section(page: Page) -> list[Block]:
    errors = [count_error(run) for run in page.runs.values()]
    counted = [error for error in errors if error is not None]
    findings = []
    if counted:
        key = "counts_no" if any(counted) else "counts_yes"
        findings.append(page.say(key, runs=len(counted), wrong=sum(map(bool, counted))))
    if absent := errors.count(None):
        findings.append(page.say("counts_absent", runs=absent))
    base = page.distinct(lambda run: run.base_model.parameters)
    head = ["run", "with_numbers", "trainable", "whole", "equal"]
    return [
        page.heading("parameters"),
        page.text(page.say("parameters_text", base=base)),
        {"kind": "list", "items": _formulas(page)},
        page.table(head, page.rows(lambda _, run: _cells(page, run), span=4)),
        *page.findings(findings),
    ]


def _formulas(page: Page) -> list[Block]:
    """What each method adds, in letters, once for each kind of method."""
    items: dict[str, Block] = {}
    for run in page.runs.values():
        by_hand, kind = run.parameters.by_hand, run.config.kind
        item = {"text": page.say(f"parameters_{kind}"), "maths": ""}
        if kind != "full" and by_hand is not None:
            formula = maths(by_hand.symbols)
            if formula["style"] == "maths":
                item["maths"] = formula["text"]
        items.setdefault(kind, item)
    return list(items.values())


def _cells(page: Page, run: RunResult) -> list[Any]:
    counted, by_hand, error = run.parameters, run.parameters.by_hand, count_error(run)
    if by_hand is None:
        derivation = page.missing("no_hand_count", span=1)
    else:
        derivation = maths(f'{by_hand.with_numbers} = "{by_hand.value:,}"' if by_hand.value else "0")
    return [derivation, counted.trainable, counted.whole, ABSENT if error is None else check(error == 0)]
