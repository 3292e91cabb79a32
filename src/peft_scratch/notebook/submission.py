"""Make the report and the packed files of an output folder in one call, as the cell "Hand in" does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from peft_scratch.errors import UserError
from peft_scratch.paths import shown


def pack_submission(output: Path, name: str, number: str, language: str = "") -> tuple[list[Path], bool]:
    """Make the report of the results in `output`, check everything there, and pack it.

    Args:
        language: `en` or `fa`, of the packed report; by default both are made and English is packed.

    Returns:
        The three files to hand in, and whether they are a rehearsal.

    Raises:
        UserError: name or number cannot be used, the check found an error, or in the student edition there
            is no report.
    """
    from peft_scratch.submission.findings import READY
    from peft_scratch.submission.pack import checked_name, checked_number, pack

    checked_name(name), checked_number(number)  # before the report is made
    if find_spec("peft_scratch.reporting"):
        from peft_scratch.reporting.content import Student
        from peft_scratch.reporting.report import write

        write(output, Student(name, number), language)
    elif not (report := output / "report" / "report.pdf").is_file():  # the student edition makes none
        raise UserError(f"Your report is missing: put it into {shown(report.parent)} as {report.name}.")
    packed = pack(output, number, name)
    return packed.files, packed.checked.verdict != READY
