"""Paths as submissions, one per student: folders, loose files, a whole class; and the class list."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from peft_scratch.errors import UserError
from peft_scratch.submission.archive import is_kit_folder
from peft_scratch.submission.names import folded, number_in, read_name, stem_of, western_digits

# What a submission may come as, when it comes as files.
_HANDED_IN = (".zip", ".pdf", ".ipynb", ".pt", ".pth")
_NUMBER_HEADS = ("number", "student", "id", "std", "شماره", "دانشجویی")
_NAME_HEADS = ("name", "نام")


@dataclass
class Group:
    """The paths of one submission, and the student number that their names give; empty if none."""

    paths: list[Path]
    number: str = ""


@dataclass
class ClassList:
    """The students of a class, name by number."""

    names: dict[str, str] = field(default_factory=dict)


def submissions(paths: Iterable[Path]) -> tuple[list[Group], list[Path]]:
    """`paths` as submissions, a folder each or the files of one student each; and those that are none.

    A folder in which several students lie is a class, and each of them a submission. Loose files of two
    students are never put together.

    Raises:
        UserError: a path is not there.
    """
    groups: list[Group] = []
    loose: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise UserError(f"{path} is not there: give a folder, or the files that are handed in.")
        if path.is_dir() and not path.is_symlink():
            inside = _of_a_class(path)
            if inside is None:
                groups.append(Group([path], _number_of_folder(path)))
            else:
                more, rest = submissions(inside)
                groups += more
                others += [one for one in rest if not one.name.startswith(".")]
        elif path.suffix.lower() in _HANDED_IN:
            loose.append(path)
        else:
            others.append(path)
    return [*groups, *_grouped(loose)], others


def _of_a_class(folder: Path) -> list[Path] | None:
    """What lies in a folder of several students; None if it is one student's."""
    if is_kit_folder(folder):
        return None
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
    except OSError:
        return None
    numbers = {number_in(path.name) for path in inside if path.is_dir() or path.suffix.lower() in _HANDED_IN}
    return inside if len(numbers - {""}) > 1 and not number_in(folder.name) else None


def _number_of_folder(folder: Path) -> str:
    """By the files in it, else by its own name."""
    try:
        names = [read_name(path.name) for path in sorted(folder.iterdir())[:50]]
    except OSError:
        names = []
    return next((name.number for name in names if name), "") or number_in(folder.name)


def _grouped(loose: list[Path]) -> list[Group]:
    """Files by the number in their names; those without one by what their names share."""
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


def read_class_list(path: Path) -> ClassList:
    """The students of a CSV file, by its columns of numbers and names, in whatever order and language.

    Raises:
        UserError: the file cannot be read, or no column holds student numbers.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise UserError(
            f"The class list {path} cannot be read ({problem.strerror}): give a CSV file."
        ) from problem
    for encoding in ("utf-8-sig", "utf-16", "cp1256"):
        try:
            text = data.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [
        [western_digits(cell.strip()) for cell in row]
        for row in csv.reader(io.StringIO(text), delimiter=delimiter)
    ]
    rows = [row for row in rows if any(row)]
    width = max(map(len, rows), default=0)
    counts = [
        sum(bool(number_in(row[n])) and row[n].isdigit() for row in rows if n < len(row))
        for n in range(width)
    ]
    if not counts or not max(counts):
        raise UserError(
            f"The class list {path} has no column of student numbers: give a CSV with one per line."
        )
    column = counts.index(max(counts))
    heads = [folded(cell) for cell in rows[0]]
    named = [
        n
        for n in range(width)
        if n != column and n < len(heads) and any(word in heads[n] for word in _NAME_HEADS)
    ]
    named = named or [n for n in range(width) if n != column]
    names = {}
    for row in rows:
        if column < len(row) and row[column].isdigit():
            names[row[column]] = " ".join(row[n] for n in named if n < len(row) and row[n])
    return ClassList(names)
