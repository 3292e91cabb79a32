"""Which paths belong to which student: folders, single files, or a whole class; and the class list."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from peft_scratch.errors import UserError
from peft_scratch.files import encoding_of
from peft_scratch.submission.archive import HANDED_IN, is_kit_folder
from peft_scratch.submission.names import folded, number_in, read_name, stem_of, western_digits

_NAME_HEADS = ("name", "نام")


@dataclass
class Group:
    """The paths of one submission, and the student number in their names; empty if there is none."""

    paths: list[Path]
    number: str = ""


def submissions(paths: Iterable[Path]) -> tuple[list[Group], list[Path]]:
    """The submissions among `paths`, each a folder or the files of one student; and the other paths.

    A folder with the files of several students is a class, and each student's files are a submission.

    Raises:
        UserError: a path does not exist.
    """
    groups: list[Group] = []
    loose: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise UserError(f"{path} does not exist: give a folder, or the files that are handed in.")
        if path.is_dir() and not path.is_symlink():
            if (inside := _of_a_class(path)) is None:
                groups.append(Group([path], _number_of_folder(path)))
            else:
                more, rest = submissions(inside)
                groups += more
                others += rest
        elif path.suffix.lower() in HANDED_IN:
            loose.append(path)
        else:
            others.append(path)
    return [*groups, *_grouped(loose)], others


def _of_a_class(folder: Path) -> list[Path] | None:
    """The paths in a folder of several students; None if the folder is one student's."""
    if is_kit_folder(folder):
        return None
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
    except OSError:
        return None
    numbers = {number_in(path.name) for path in inside if path.is_dir() or path.suffix.lower() in HANDED_IN}
    return inside if len(numbers - {""}) > 1 and not number_in(folder.name) else None


def _number_of_folder(folder: Path) -> str:
    """The student number in the names of its files, or else in its own name."""
    try:
        names = [read_name(path.name) for path in sorted(folder.iterdir())[:50]]
    except OSError:
        names = []
    return next((name.number for name in names if name), "") or number_in(folder.name)


def _grouped(loose: list[Path]) -> list[Group]:
    """Files by the student number in their names, or else by what their names have in common."""
    groups: dict[tuple[str, str], Group] = {}
    without: list[Path] = []
    for path in loose:
        name = read_name(path.name)
        number = name.number if name else number_in(path.name)
        if number:
            groups.setdefault((str(path.parent), number), Group([], number)).paths.append(path)
        else:
            without.append(path)
    for folder in dict.fromkeys(path.parent for path in without):
        here = [path for path in without if path.parent == folder]
        students = [group for (parent, _), group in groups.items() if parent == str(folder)]
        stems = {stem_of(path.name) for path in here if path.suffix.lower() in (".zip", ".pdf")} - {""}
        if len(students) == 1 and len(loose) == len(students[0].paths) + len(here):
            students[0].paths += here  # `400123456_Ada.pdf` beside `notebooks.zip`, and nobody else's
        elif len(stems) <= 1 and not students:
            groups[str(folder), ""] = Group(here)
        else:
            for path in here:
                key = str(folder), f"?{stem_of(path.name) or path.name}"
                groups.setdefault(key, Group([])).paths.append(path)
    return list(groups.values())


# The class list


def read_class_list(path: Path) -> dict[str, str]:
    """The names of the students by their number, from a CSV file.

    The columns may be in any order and language. The numbers are in the column with most student numbers.

    Raises:
        UserError: the file cannot be read, or no column holds student numbers.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        text = f"The class list {path} cannot be read ({problem.strerror}): give a CSV file."
        raise UserError(text) from problem
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError:
        text = data.decode("cp1256", "replace")  # the code page of a Persian Windows
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [[western_digits(cell.strip()) for cell in row] for row in read]
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows if any(row)]
    counts = [sum(bool(number_in(row[n])) and row[n].isdigit() for row in rows) for n in range(width)]
    if not any(counts):
        text = f"The class list {path} has no column of student numbers: give a CSV with one per line."
        raise UserError(text)
    column = counts.index(max(counts))
    others = [n for n in range(width) if n != column]
    named = [n for n in others if any(word in folded(rows[0][n]) for word in _NAME_HEADS)] or others
    return {row[column]: " ".join(row[n] for n in named if row[n]) for row in rows if row[column].isdigit()}
