"""The three files that are handed in: made only of what was checked, and the same from the same input."""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from pathlib import Path

from peft_scratch.assignment import PROFILES, WEIGHT_FILES
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.submission.archive import File, gather
from peft_scratch.submission.check import inspect
from peft_scratch.submission.contract import REHEARSAL, file_names
from peft_scratch.submission.findings import FAULT, Checked
from peft_scratch.wording import counted

# The earliest date that a zip can hold: a real one would change the bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def pack(number: str, name: str, folder: Path | None = None) -> tuple[list[Path], Checked]:
    """Check the folder that the kit worked in, and pack it for handing in; an offline run as a rehearsal.

    Args:
        number, name: the student's.
        folder: holds `notebooks`, `weights` and `report/report.pdf`, and gets `submission`. By default that
            of the course profile if it has been run, else the project's.

    Returns:
        The three files, and the checklist.

    Raises:
        UserError: number or name cannot be in a file's name, there is no report, or the check found a fault.
    """
    number, name = _checked_number(number), _checked_name(name)
    folder = folder or _worked_in()
    if not (folder / "report" / "report.pdf").is_file():
        raise UserError(f"There is no report/report.pdf in {folder}: run `make report` first.")
    gathered = gather([folder])
    checked = inspect(gathered, student=(number, name))
    if faults := checked.marked(FAULT):
        raise UserError(
            f"Nothing was packed, for {counted(len(faults), 'fault')}; the first: "
            f"{faults[0].text}. `peft-scratch check {folder}` lists all and how to mend them."
        )
    prefix = REHEARSAL if checked.profile != "course" else ""
    (report,) = gathered.of(".pdf")
    contents = (
        zipped(gathered.of(".ipynb")),
        zipped([file for file in gathered.of(".pt") if file.name in WEIGHT_FILES]),
        report.data,
    )
    written = []
    for file_name, content in zip(file_names(number, name), contents, strict=True):
        path = folder / "submission" / f"{prefix}{file_name}"
        write_atomically(path, content)
        written.append(path)
    return written, checked


def zipped(files: list[File]) -> bytes:
    """A zip of `files` by their plain names, whose bytes depend on names and contents alone.

    Stored, not compressed: what zlib makes of the same bytes differs between its versions.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(files, key=lambda file: file.name):
            member = zipfile.ZipInfo(file.name, _DATE)
            member.create_system = 3  # Unix, on whatever this runs
            member.external_attr = 0o100644 << 16
            archive.writestr(member, file.data)
    return data.getvalue()


def _worked_in() -> Path:
    course = PROFILES["course"].output
    return course if (course / "notebooks").is_dir() else PROFILES["offline"].output


def _checked_number(number: str) -> str:
    number = number.strip()
    if not re.fullmatch(r"\d{4,12}", number):
        raise UserError(f"A student number is 4 to 12 digits, not {number!r}: give --number 400123456, say.")
    return "".join(str(unicodedata.digit(digit)) for digit in number)  # Persian digits too


def _checked_name(name: str) -> str:
    name = re.sub(r"\s+", "_", unicodedata.normalize("NFC", name).strip())
    if not re.fullmatch(r"[^\W\d_][\w\u200c.'-]{0,79}", name):
        raise UserError(f"A name is made of letters, not {name!r}: give --name 'Ada Lovelace', say.")
    return name
