"""What the student says, what the report rests on, and who wrote which part."""

from __future__ import annotations

from peft_scratch.reporting.notes import parse, reads_right_to_left
from peft_scratch.reporting.references import references
from peft_scratch.reporting.sections.blocks import Block, Page


def discussion(page: Page) -> list[Block]:
    """The student's notes; without them the report says that they are missing."""
    notes = page.inputs.notes
    # In the report's own language if there are such notes, else in the other.
    text = notes.get(page.language.code) or next(iter(notes.values()), "")
    heading = page.heading("discussion")
    if not text:
        file = page.language.ltr("notes.md" if page.language.code == "en" else "notes.fa.md")
        return [heading, {"kind": "alarm", "text": page.say("discussion_missing", file=file)}]
    direction = "rtl" if reads_right_to_left(text) else "ltr"
    return [heading, {"kind": "notes", "direction": direction, "blocks": parse(text)}]


def sources(page: Page) -> list[Block]:
    """The references, and the line on who wrote what."""
    cited = {of for run in page.runs.values() for of in (run.config.kind, run.config.library)}
    return [
        page.heading("references"),
        {"kind": "references", "items": references(cited)},
        page.heading("honesty"),
        page.text(
            page.say(
                "honesty_text" if page.inputs.notes else "honesty_text_missing",
                kit=page.language.ltr("peft-scratch"),
            )
        ),
    ]
