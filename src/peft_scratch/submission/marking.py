"""A table for marking: what each student handed in for each part of the assignment, and proposed points.

The points are a proposal: a person decides. Each error costs its share of the points. What the program does
not understand costs nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from peft_scratch.assignment import ALL_POINTS, FILES, PARTS, PRINT_A_COUNT, REPORT, RUNS
from peft_scratch.errors import UserError
from peft_scratch.files import write_atomically
from peft_scratch.submission.copies import Pair, find
from peft_scratch.submission.findings import ERROR, LOOK, OK, Checked, Finding, printable, visible

MISSING = "nothing handed in"
#: Weights of what a notebook's part consists of: a number, a weight file, a printed count.
_NUMBER, _WEIGHTS, _COUNT = 3, 2, 1
#: Weights of what the report consists of: it can be read, its numbers, the table of counts, the calculation.
_READABLE, _NUMBERS, _COUNTS, _CALCULATION = 2, 8, 2, 3
#: Errors of a weight file that leave the tensors usable.
_OF_FORM = ("weights-name", "weights-type", "weights-surplus")
_NO_REPORT = {f"report-{why}" for why in ("missing", "no-pdf", "locked", "damaged", "empty", "nothing")}
_IDLE = "was not executed: no code cell"


@dataclass
class Student:
    """A row: one student's submission, with remarks for the person who marks it.

    Attributes:
        checked: the checklist; None if nothing was handed in.
        number, name: from the files' names, or from the class list.
        remarks: late, handed in twice, not on the class list.
        copies: other students with the same content, and what they have in common.
    """

    checked: Checked | None
    number: str = ""
    name: str = ""
    remarks: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, checked: Checked) -> Student:
        """A row with the number and name that the files' names give."""
        return cls(checked, checked.student[0], checked.written_name or checked.student[1])

    @property
    def title(self) -> str:
        """Number and name, or the submission's own name."""
        own = " ".join(part for part in (self.number, self.name) if part)
        return printable(own or Path(self.checked.name if self.checked else "").name)


def proposed(checked: Checked, part: int) -> float | None:
    """Proposed points of a part, in halves; None where nothing was read, or the part has no points."""
    if checked.unread or not PARTS[part].points:
        return None
    share = _report_share(checked) if part == REPORT else _notebook_share(checked, part)
    return round(2 * share * PARTS[part].points) / 2


def _notebook_share(checked: Checked, part: int) -> float:
    errors = checked.of(part, ERROR)
    codes = {one.code for one in errors}
    idle = any(one.code == "not-executed" and _IDLE in one.text for one in errors)
    nothing = bool(codes & {"notebook-missing", "notebook-damaged", "notebook-empty"}) or idle
    bad_weights = {
        code for code in codes if code.startswith("weights-") or code in ("pickled-code", "not-reproducible")
    }
    weights = 0 if bad_weights - set(_OF_FORM) else 0.5 if bad_weights else 1
    shares: list[tuple[float, float]] = []  # weight and share of each component
    for run in RUNS.values():
        if run.notebook == part:
            denied = any(one.code == "number-missing" and run.title in one.text for one in errors)
            shares.append((_NUMBER, not denied and (run.id in checked.numbers or not nothing)))
            shares += [(_WEIGHTS, weights)] if run.weight_file else []
    if part in PRINT_A_COUNT:
        shares.append((_COUNT, not nothing and not any(code.startswith("count-") for code in codes)))
    return sum(weight * share for weight, share in shares) / sum(weight for weight, _ in shares)


def _report_share(checked: Checked) -> float:
    errors = [one.code for one in checked.of(REPORT, ERROR)]
    if _NO_REPORT & set(errors):
        return 0.0
    wrong = sum(2 if code == "report-swapped" else 1 for code in errors if code.startswith("report-"))
    numbers = _NUMBERS * max(1 - wrong / len(RUNS), 0)
    return (_READABLE + numbers + _COUNTS + _CALCULATION) / (_READABLE + _NUMBERS + _COUNTS + _CALCULATION)


def total(checked: Checked) -> float | None:
    """The proposed points of all parts; None where nothing was read."""
    return None if checked.unread else sum(proposed(checked, part) or 0 for part in PARTS)


# One row per student


def students(
    many: Iterable[Checked], class_list: Mapping[str, str] | None, deadline: datetime | None
) -> list[Student]:
    """One row per student, made of the newest submission. Students without a submission come last.

    Args:
        class_list: names by student number, if there is a list.
    """
    rows: dict[str, Student] = {}
    for n, checked in enumerate(many):
        row = Student.of(checked)
        key = row.number or f"?{n}"
        if deadline is not None and checked.handed_in > deadline.timestamp():
            changed = datetime.fromtimestamp(checked.handed_in)
            row.remarks.append(f"late by the date of its files: {changed:%Y-%m-%d %H:%M}")
        if key in rows:
            row = _newer(rows[key], row)
        rows[key] = row
    if class_list is not None:
        for row in rows.values():
            if row.number in class_list:
                row.name = class_list[row.number] or row.name
            else:
                row.remarks.append("not on the class list")
        for number, name in class_list.items():
            rows.setdefault(number, Student(None, number, name))
    return list(rows.values())


def _newer(one: Student, other: Student) -> Student:
    first, second = sorted((one, other), key=lambda row: row.checked.handed_in if row.checked else 0)
    name = printable(Path(first.checked.name).name) if first.checked else ""
    second.remarks = [*first.remarks, *second.remarks, f"handed in more than once: {name} is older"]
    return second


def mark_copies(rows: list[Student]) -> list[Pair]:
    """Compare all pairs of submissions, and name each copy in the rows of both."""
    pairs = find([row.checked.traces if row.checked else None for row in rows])
    for pair in pairs:
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            rows[one].copies.append(f"{rows[other].title}: {pair.text}")
    return pairs


# The table


def columns() -> list[str]:
    """The columns of the table: those of a row that has a submission."""
    return list(row_of(Student(Checked(""))))


def row_of(student: Student) -> dict[str, Any]:
    """A row of the table, for a spreadsheet; without a submission, it has only the first columns."""
    row = {
        "student_number": student.number,
        "student_name": student.name,
        "verdict": MISSING,
        "points_proposed": 0,
        "remarks": "; ".join(student.remarks),
        "copies": "; ".join(student.copies),
    }
    if student.checked:
        row |= _columns_of(student.checked)
    return {name: _cell(value) for name, value in row.items()}


def _columns_of(checked: Checked) -> dict[str, Any]:
    """What a checklist contributes to a row."""
    row = {
        "verdict": checked.verdict,
        "points_proposed": total(checked),
        "submission": checked.name,
        "profile": checked.profile,
        "errors": len(checked.marked(ERROR)),
        "to_look_at": len(checked.marked(LOOK)),
        "points_without_error": checked.points_without_error,
    }
    for part, item in PARTS.items():
        if item.points or part == FILES:
            codes = dict.fromkeys(found.code for mark in (ERROR, LOOK) for found in checked.of(part, mark))
            row[_column(part)] = " ".join(codes) or ("not read" if checked.unread else "ok")
        if item.points:
            row[f"{_column(part)}_points"] = proposed(checked, part)
    row |= {name: checked.numbers.get(name) for name in RUNS}
    row["what_is_wrong"] = _texts(checked.marked(ERROR))
    row["what_to_look_at"] = _texts(checked.marked(LOOK))
    return row


def _texts(findings: list[Finding]) -> str:
    text = "; ".join(found.text for found in findings[:40])
    # A cell of a spreadsheet holds 32,767 letters.
    return text if len(text) < 20_000 else f"{text[:20_000]} […]"


def _column(part: int) -> str:
    return {FILES: "files", REPORT: "report"}.get(part, f"notebook_{part}")


def _cell(value: Any) -> Any:
    """A value for a spreadsheet; a text that looks like a formula gets a quote, so that it is not run."""
    if not isinstance(value, str):
        return "" if value is None else value
    value = visible(value)
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


class Table:
    """The table as a CSV file. It is written row by row, so that a check that is stopped keeps its rows.

    It begins with a byte order mark: without it, Excel reads Persian names as Latin-1.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: TextIO = path.open("w", encoding="utf-8-sig", newline="")
        except OSError as problem:
            raise UserError(f"{path} cannot be written ({problem.strerror}): give another file.") from problem
        self._writer = _writer(self._file)
        self._file.flush()

    def add(self, checked: Checked) -> None:
        """Write the row of one submission."""
        self._writer.writerow(row_of(Student.of(checked)))
        self._file.flush()

    def finish(self, rows: list[Student]) -> None:
        """Write all rows again, now with copies, repeated submissions and missing students."""
        self._file.close()
        text = io.StringIO(newline="")
        _writer(text).writerows(map(row_of, rows))
        write_atomically(self._path, text.getvalue().encode("utf-8-sig"))


def _writer(file: TextIO) -> csv.DictWriter[str]:
    """A writer of rows; it has written the heads of the columns."""
    writer = csv.DictWriter(file, columns())
    writer.writeheader()
    return writer


# For the student


def feedback(student: Student) -> str:
    """The checklist for the student, without proposed points and without anything about other students."""
    checked = student.checked
    if checked is None:
        return f"{student.title}\n\nNothing was handed in.\n"
    said = [student.title, ""]
    heads = {
        ERROR: "To be corrected",
        LOOK: "Not understood by the program, or for a person to decide",
        OK: "Right",
    }
    for part, item in PARTS.items():
        if not (found := checked.of(part)):
            continue
        points = f" ({item.points} of {ALL_POINTS} points)" if item.points else ""
        said += [f"{item.title}{points}", "-" * len(item.title)]
        for mark, head in heads.items():
            lines = [str(one) for one in found if one.mark == mark]
            said += [f"{head}:", *(f"  {line}" for line in lines)] if lines else []
        said.append("")
    return "\n".join(said) + "\n"


def write_feedback(folder: Path, rows: list[Student]) -> None:
    """Write a text file per student to `folder`."""
    taken: set[str] = set()
    for student in rows:
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in student.title)[:80] or "submission"
        while stem.casefold() in taken:
            stem += "_2"
        taken.add(stem.casefold())
        write_atomically(folder / f"{stem}.txt", feedback(student))
