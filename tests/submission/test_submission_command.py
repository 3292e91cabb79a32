"""The command over one and over many submissions."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

from peft_scratch.assignment import RUNS
from peft_scratch.cli import app
from peft_scratch.submission.findings import NOT_READY, READY
from submission.parts import (
    NUMBERS,
    lora_not_trained,
)

# The command, over one and over many


def test_the_exit_status_says_whether_it_is_ready(right, tmp_path):
    good = right.write(tmp_path / "good")
    done = CliRunner().invoke(app, ["check", str(good)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0,
        "READY to hand in: 0 errors, 1 point to look at.",
    )
    lora_not_trained(right)
    done = CliRunner().invoke(app, ["check", str(right.write(tmp_path / "bad"))])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].startswith("NOT READY: 1 error,")
    assert "worth 75 of 105" in done.stdout.splitlines()[-1]
    done = CliRunner().invoke(app, ["check", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert "does not exist" in done.stderr


def test_many_submissions_make_a_table(right, tmp_path):
    folder = tmp_path / "all"
    right.write(folder / "400123456 Ada")
    right.stem = "400222222_Bea"
    for name, content in right.files().items():  # loose among the folders
        (folder / name).write_bytes(content)
    lora_not_trained(right)
    right.stem = "400333333_=cmd()"
    right.write(folder / "=cmd()")
    (folder / "empty").mkdir()
    (folder / "list.csv").write_text("number,name\n")
    (folder / "400444444_Dan_notebooks.zip").write_bytes(b"PK\x03\x04 broken")
    arguments = sorted(map(str, folder.iterdir()))
    done = CliRunner().invoke(app, ["check", *arguments, "--csv", str(tmp_path / "out.csv")])
    assert done.exit_code == 1, done.exception
    assert len([line for line in done.stdout.splitlines() if not line.startswith("copy?")]) == 5
    assert "list.csv does not belong to a submission" in done.stderr
    table = pd.read_csv(tmp_path / "out.csv", dtype={"student_number": str}).set_index("submission")
    rows = {Path(name).name: row for name, row in table.iterrows()}
    good = rows["400123456 Ada"]
    assert (good.verdict, good.errors, good.student_number) == (READY, 0, "400123456")
    assert good[list(RUNS)].to_dict() == NUMBERS
    assert (good.notebook_5, good.points_without_error) == ("ok", 105)
    assert rows["400222222_Bea"].verdict == READY
    bad = rows["=cmd()"]
    assert (bad.verdict, bad.notebook_5, bad.points_without_error) == (NOT_READY, "weights-untrained", 75)
    assert "36 of 36 places" in bad.what_is_wrong
    assert rows["empty"].verdict == NOT_READY and rows["empty"].points_without_error == 0
    assert "zip-corrupt" in rows["400444444_Dan_notebooks.zip"].files
    # A spreadsheet would run a cell that begins with an equals sign.
    assert not re.search(r'(^|,)"?[=+@-]', (tmp_path / "out.csv").read_text(), re.MULTILINE)
