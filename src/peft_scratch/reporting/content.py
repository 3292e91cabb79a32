"""The report as the template lays it out: a head, and the blocks of every section.

Every number comes from a JSON file or follows from the runs' configuration. A missing run is shown as
missing. `report.typ` does the layout and knows nothing about the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peft_scratch.reporting.inputs import Inputs
from peft_scratch.reporting.languages import Language
from peft_scratch.reporting.sections import (
    claims,
    closing,
    confounds,
    numbers,
    page_one,
    parameters,
    training,
    twins,
)
from peft_scratch.reporting.sections.blocks import Block, Page

_SECTIONS = (
    numbers.section,
    training.curves,
    parameters.section,
    claims.section,
    training.clock,
    twins.section,
    confounds.section,
    closing.discussion,
    closing.sources,
)


@dataclass(frozen=True)
class Student:
    """Who hands in the report; the report itself asks for what is empty."""

    name: str = ""
    number: str = ""


def content(inputs: Inputs, student: Student, language: Language, drawings: Mapping[str, str]) -> Block:
    """The report of one language, each number set as text.

    Args:
        drawings: the figures as SVG, by name, from `figures.draw`.
    """
    say, page = language.say, Page(inputs, language, drawings)
    name = student.name or f"[{say('no_name')}]"
    number = language.ltr(student.number) or f"[{say('no_number')}]"
    return {
        "language": language.code,
        "direction": "rtl" if language.right_to_left else "ltr",
        "author": say("by", name=name, number=number),
        "anonymous": not (student.name and student.number),
        "warnings": page_one.warnings(page),
        "facts": page_one.facts(page),
        "facts_title": say("what_ran"),
        "blocks": [block for section in _SECTIONS for block in section(page)],
        **{word: say(word) for word in ("title", "page", "figure")},
    }
