"""Packs the three files to hand in. They are checked first, and the same input gives the same bytes."""

from __future__ import annotations

import io
import re
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path

from peft_scratch.assignment import PROFILES, WEIGHT_FILES
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.paths import shown
from peft_scratch.submission.archive import File, gather
from peft_scratch.submission.check import inspect
from peft_scratch.submission.findings import ERROR, Checked
from peft_scratch.submission.names import LONGEST, REHEARSAL, SHORTEST, file_names, western_digits
from peft_scratch.wording import counted

#: The date of each file in a zip, the earliest possible: the real date would change the bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
#: Digits that a student number usually has.
_USUAL = (8, 9, 10)
#: Longest name of a file that every system takes, in bytes, without the ending.
_LONGEST_NAME = 180


@dataclass(frozen=True)
class Packed:
    """What was packed: the run's folder, the three files, and their checklist."""

    folder: Path
    files: list[Path]
    checked: Checked


def pack(output: Path | None, number: str, name: str, any_number: bool = False) -> Packed:
    """Check the run in a folder and pack it. A run in a profile other than course becomes a rehearsal.

    Args:
        output: the folder of a run, with `notebooks`, `weights` and `report/report.pdf`. The packed files go
            to `submission` in it. By default it is the folder of the first profile that was run, in the order
            course, quick, offline, smoke.
        number, name: the student's.
        any_number: accept a student number of an unusual length.

    Raises:
        UserError: number or name cannot be in a file's name, there is no report, or the check found an error.
    """
    number, name = checked_number(number, any_number), checked_name(name)
    folder = output or _worked_in()
    if not any((folder / "report").glob("report*.pdf")):  # in one language it may be report.fa.pdf
        raise UserError(f"There is no report/report.pdf in {shown(folder)}: run `make report` first.")
    gathered = gather([folder])
    checked = inspect(gathered, student=(number, name))
    if errors := checked.marked(ERROR):
        raise UserError(
            f"Nothing was packed, because of {counted(len(errors), 'error')}; the first: "
            f"{errors[0].text}. `peft-scratch check {shown(folder)}` lists all and how to fix them."
        )
    prefix = REHEARSAL if checked.profile != "course" else ""
    report = gathered.of(".pdf")[0]
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
    _remove_others(folder / "submission", written)
    return Packed(folder, written, checked)


def _remove_others(folder: Path, written: list[Path]) -> None:
    """Remove what this command wrote earlier under another name, and nothing else."""
    for path in folder.iterdir():
        made = re.fullmatch(rf"({REHEARSAL})?\d+_.+(_notebooks\.zip|_weights\.zip|\.pdf)", path.name)
        if made and path not in written:
            path.unlink()


def zipped(files: list[File]) -> bytes:
    """A zip of `files` by their plain names, whose bytes depend only on names and contents.

    It is not compressed, because versions of zlib give different bytes.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(files, key=lambda file: file.name):
            member = zipfile.ZipInfo(file.name, _DATE)
            member.create_system = 3  # Unix, whatever this runs on
            member.external_attr = 0o100644 << 16
            archive.writestr(member, file.data)
    return data.getvalue()


def _worked_in() -> Path:
    folders = [profile.output for profile in PROFILES.values()]  # course is the first
    return next((folder for folder in folders if (folder / "notebooks").is_dir()), folders[0])


def checked_number(number: str, any_number: bool = False) -> str:
    """A student number with its digits as ASCII.

    Raises:
        UserError: it is no number, or has an unusual length and `any_number` is not set.
    """
    number = western_digits(number.strip())
    if not re.fullmatch(rf"\d{{{SHORTEST},{LONGEST}}}", number, re.ASCII):
        text = f"A student number has {SHORTEST} to {LONGEST} digits, not {number[:40]!r}"
        raise UserError(f"{text}: give --number 400123456, for example.")
    if len(number) not in _USUAL and not any_number:
        raise UserError(
            f"The student number {number} has {len(number)} digits, but 8 to 10 are usual: correct it, or "
            "give --any-number if it is right."
        )
    return number


def checked_name(name: str) -> str:
    """A student's name for the names of files, with underscores for spaces.

    Raises:
        UserError: it cannot be a file's name.
    """
    name = re.sub(r"\s+", "_", unicodedata.normalize("NFC", name).strip())
    if not re.fullmatch(r"[^\W\d_][\w\u200c.'()-]*", name):
        raise UserError(
            f"A name is made of letters, not {name[:80]!r}: give --name 'Ada Lovelace', for example."
        )
    if len(name) > 80 or len(name.encode()) > _LONGEST_NAME:
        raise UserError(
            f"The name {name[:30]!r}… is too long for a file's name: give at most 80 letters, or fewer."
        )
    return name
