"""Make the report and the packed files of an output folder in one call, as the cell "Hand in" does."""

from __future__ import annotations

from pathlib import Path


def pack_submission(output: Path, name: str, number: str, language: str = "") -> tuple[list[Path], bool]:
    """Make the report of the results in `output`, check everything there, and pack it.

    Args:
        language: `en` or `fa`, of the packed report; by default both are made and English is packed.

    Returns:
        The three files to hand in, and whether they are a rehearsal.

    Raises:
        UserError: name or number cannot be used, or the check found an error.
    """
    from peft_scratch.reporting.content import Student
    from peft_scratch.reporting.report import write
    from peft_scratch.submission.findings import READY
    from peft_scratch.submission.pack import checked_name, checked_number, pack_checked

    checked_name(name), checked_number(number)  # before the report is made
    write(output, Student(name, number), language)
    packed = pack_checked(output, number, name)
    return packed.files, packed.checked.verdict != READY
