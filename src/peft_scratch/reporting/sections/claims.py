"""The three claims that the assignment opens with, each with a verdict that the data choose."""

from __future__ import annotations

from peft_scratch.reporting.sections import claim_base, claim_disk, claim_memory
from peft_scratch.reporting.sections.blocks import Block, Page


def section(page: Page) -> list[Block]:
    return [
        page.heading("claims"),
        *claim_memory.section(page),
        *claim_disk.section(page),
        *claim_base.section(page),
    ]
