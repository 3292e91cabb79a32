"""Report and packed files from an output folder, in one call: what the cell "Hand in" does at the end."""

from __future__ import annotations

from pathlib import Path

from peft_scratch.paths import OFFLINE_BASE, ROOT


def pack_submission(output: Path, name: str, number: str, language: str = "") -> tuple[list[Path], bool]:
    """Make the report of the results in `output`, check everything there, and pack it.

    Returns:
        The three files to hand in, and whether they are a rehearsal.

    Raises:
        UserError: name or number cannot be used, or the check found an error.
    """
    from peft_scratch.files import write_atomically
    from peft_scratch.reporting.content import Student
    from peft_scratch.reporting.inputs import read
    from peft_scratch.reporting.report import build
    from peft_scratch.submission.findings import READY
    from peft_scratch.submission.pack import pack_checked

    folder = output / "report"
    inputs = read(folder, ROOT / "report" / "exactness.json", OFFLINE_BASE / "pretraining.json")
    for file, content in build(inputs, Student(name, number)).items():
        write_atomically(folder / file, content)
    packed = pack_checked(output, number, name)
    return packed.files, packed.checked.verdict != READY
