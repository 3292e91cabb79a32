"""The table and the page to mark from: points, one row per student, late and double submissions."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

import pytest

from peft_scratch.assignment import PARTS, REPORT
from peft_scratch.submission import check, marking
from peft_scratch.submission.findings import Checked, error, look, ok
from peft_scratch.submission.page import page
from submission.parts import NUMBERS, pdf, report_lines, zipped


def checked(number: str = "400123456", *findings, at: float = 0.0, **more) -> Checked:
    return Checked(f"/class/{number}", findings=list(findings), student=(number, "ada"), handed_in=at, **more)


@pytest.mark.parametrize(
    ("finding", "points"),
    [
        (look(5, "number-not-found", "the accuracy of LoRA, PEFT, r = 1 was not found"), 30),
        (look(5, "count-missing", "no count"), 30),
        (error(5, "number-missing", "none of LoRA, PEFT, r = 1", "run it"), 22.5),
        (error(5, "weights-untrained", "B is zero", "train"), 25),
        (error(5, "weights-type", "half", "float32"), 27.5),
        (error(5, "notebook-missing", "notebook 5 is missing", "add it"), 5),
        (error(5, "count-wrong", "rank 4", "rank 8"), 27.5),
    ],
)
def test_points_lie_between_none_and_all(finding, points):
    assert marking.proposed(checked("4", finding), 5) == points


def test_a_report_loses_a_tenth_of_its_numbers_for_each_that_is_wrong():
    wrong = error(REPORT, "report-number", "87 for 86.6", "correct it")
    assert marking.proposed(checked("4"), REPORT) == 15
    assert marking.proposed(checked("4", wrong), REPORT) == 14
    assert marking.proposed(checked("4", error(REPORT, "report-missing", "none", "add")), REPORT) == 0


def test_what_was_not_read_gets_no_points_and_no_blame():
    row = marking.row_of(
        marking.Student(checked("4", look(0, "took-too-long", "stopped"), unread=True), "4", "ada")
    )
    assert (row["verdict"], row["points_proposed"], row["errors"]) == ("not read", "", 0)


def test_one_row_per_student():
    many = [checked("400000001", at=100.0), checked("400000002"), checked("400000001", at=200.0), checked("")]
    many[2].name = "/class/again"
    rows = marking.students(many, {"400000001": "آدا", "400000003": "Cyd"}, datetime.fromtimestamp(150))
    assert [row.number for row in rows] == ["400000001", "400000002", "", "400000003"]
    assert rows[0].checked is many[2] and rows[0].name == "آدا"
    assert any("late" in one for one in rows[0].remarks) and any(
        "more than once" in one for one in rows[0].remarks
    )
    assert rows[1].remarks == ["not on the class list"]
    assert marking.row_of(rows[3])["verdict"] == marking.MISSING


def test_rows_are_kept_as_they_come_and_excel_reads_the_names(tmp_path):
    path = tmp_path / "marks.csv"
    table = marking.Table(path)
    one = checked("400000001", numbers=NUMBERS)
    one.student = ("400000001", "=cmd()")
    table.add(one)
    kept = list(csv.DictReader(path.read_text("utf-8-sig").splitlines()))
    assert [row["student_name"] for row in kept] == ["'=cmd()"], "before the run has ended"
    table.finish([marking.Student(one, "400000001", "علی"), marking.Student(None, "400000002", "Bea")])
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(path.read_text("utf-8-sig").splitlines()))
    assert [row["student_name"] for row in rows] == ["علی", "Bea"]
    assert rows[0]["points_proposed"] == "105.0" and rows[0]["lora_peft_r1"] == str(NUMBERS["lora_peft_r1"])


def test_a_stopped_table_is_said_where_it_cannot_be_written(tmp_path):
    from peft_scratch.errors import UserError

    with pytest.raises(UserError, match="cannot be written"):
        marking.Table(Path(tmp_path))


def test_feedback_says_nothing_of_others_and_no_points(tmp_path):
    student = marking.Student(
        checked("400000001", error(5, "number-missing", "no number", "run it"), ok(1, "number", "fine")),
        *("400000001", "ada", ["late"], ["400000002 bea: the same numbers"]),
    )
    marking.write_feedback(tmp_path, [student, marking.Student(student.checked, "400000001", "ada")])
    texts = [path.read_text("utf-8") for path in sorted(tmp_path.iterdir())]
    assert len(texts) == 2
    assert "no number: run it" in texts[0] and "bea" not in texts[0] and "late" not in texts[0]


def test_the_page_shows_all_and_runs_nothing():
    bad = "<script>alert(1)</script>"
    one = checked(
        "400000001", error(5, "x", bad, bad), numbers={"full": 93.0}, curves={"full": [88.0, 89.5, 93.0]}
    )
    student = marking.Student(one, "400000001", bad, [bad], [bad])
    said = page([student, marking.Student(None, "400000002", "Bea")])
    assert "<script" not in said and "&lt;script&gt;" in said
    assert "<polyline" in said and "3 epochs, 88.0 to 93.0 %" in said
    assert "89.9 to 90.1" in said and marking.MISSING in said
    assert all(item.title in said for item in PARTS.values())
    assert "http" not in said, "nothing is fetched"


def test_the_page_shows_names_as_written_and_points_as_people_write_them(tmp_path):
    for name in ("400123456_Ada_Lovelace_notebooks.zip", "400123456_Ada_Lovelace.pdf"):
        (tmp_path / name).write_bytes(pdf(report_lines()) if name.endswith("pdf") else zipped({}))
    rows = marking.students([check.check(tmp_path)], None, None)
    shown = page(rows)
    assert rows[0].title == "400123456 Ada Lovelace"
    assert "<b>400123456 Ada Lovelace</b>" in shown
    assert ".0 of 105" not in shown and "Report 15/15" in shown
