"""The derivation of every count, and whether it is what was counted."""

from __future__ import annotations

from typing import Any

from peft_scratch.reporting.facts import count_is_right
from peft_scratch.reporting.sections.blocks import ABSENT, Block, Page, check, maths
from peft_scratch.results import RunResult


def section(page: Page) -> list[Block]:
    number = page.language.number
    right = [count_is_right(run) for run in page.runs.values()]
    counted = [one for one in right if one is not None]
    findings = []
    if counted:
        key = "counts_yes" if all(counted) else "counts_no"
        findings.append(page.say(key, runs=number(len(counted)), wrong=number(counted.count(False))))
    if absent := right.count(None):
        findings.append(page.say("counts_absent", runs=number(absent)))
    base = page.distinct(lambda run: number(run.base_model.parameters), raw=True)
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
    counted, by_hand, right = run.parameters, run.parameters.by_hand, count_is_right(run)
    if by_hand is None:
        derivation = page.missing("no_hand_count", span=1)
    else:
        derivation = maths(f'{by_hand.with_numbers} = "{by_hand.value:,}"' if by_hand.value else "0")
    whole = [page.language.number(count) for count in (counted.trainable, counted.whole)]
    return [derivation, *whole, ABSENT if right is None else check(right)]
