"""Packing the three files."""

from __future__ import annotations

import shutil
import zipfile

import pytest
from typer.testing import CliRunner

from peft_scratch.cli import app
from peft_scratch.errors import UserError
from peft_scratch.submission import check, pack
from peft_scratch.submission.findings import READY
from submission.parts import (
    NUMBERS,
    STEM,
    Submission,
    code_cells,
    lora_not_trained,
    notebook,
    pdf,
    report_lines,
    weights,
)

# Packing


def test_packing_says_that_the_report_is_anonymous(right, tmp_path):
    right.report = pdf([line for line in report_lines() if "student number" not in line])
    folder = right.write_unpacked(tmp_path / "kit")
    arguments = ["submit", "--number", "400123456", "--name", "Ada Lovelace", "--output", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert (
        "report.pdf does not have the student number 400123456: put number and name at its beginning"
        in done.output
    )


def test_packing_makes_the_three_files_that_pass(right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    (folder / "weights" / "old_lora_backup.pt").write_bytes(b"not to be handed in")
    (folder / "notebooks" / "notes.txt").write_text("mine")
    packed = pack.pack(folder, "400123456", "Ada  Lovelace")
    written = packed.files
    assert packed.checked.verdict == READY
    names = [f"{STEM}_notebooks.zip", f"{STEM}_weights.zip", f"{STEM}.pdf"]
    assert [path.name for path in written] == names
    with zipfile.ZipFile(written[0]) as books, zipfile.ZipFile(written[1]) as tensors:
        assert books.namelist() == [f"0{n}_part.ipynb" for n in range(1, 6)]
        assert tensors.namelist() == ["adapter.pt", "lora.pt", "prompts.pt"]
        for member in (*books.infolist(), *tensors.infolist()):
            assert (member.date_time, member.extra, member.comment) == ((1980, 1, 1, 0, 0, 0), b"", b"")
    assert written[2].read_bytes() == right.report
    assert {path.name for path in (folder / "submission").iterdir()} == set(names)
    again = check.check([folder / "submission"])
    assert (again.verdict, again.numbers) == (READY, NUMBERS)


def test_the_bytes_depend_on_the_contents_alone(right, tmp_path):
    first = pack.pack(right.write_unpacked(tmp_path / "one"), "400123456", "Ada").files
    second = right.write_unpacked(tmp_path / "two")
    for path in second.rglob("*"):  # another order, another time, other rights
        if path.is_file():
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
            path.chmod(0o600)
    again = pack.pack(second, "۴۰۰۱۲۳۴۵۶", " Ada ").files
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert [path.name for path in first] == [path.name for path in again]


def test_what_has_an_error_is_not_packed(right, tmp_path):
    lora_not_trained(right)
    folder = right.write_unpacked(tmp_path / "kit")
    with pytest.raises(
        UserError, match=r"Nothing was packed, because of 1 error; the first: .*36 of 36 places"
    ):
        pack.pack(folder, "400123456", "Ada")
    assert not (folder / "submission").exists()


@pytest.mark.parametrize(
    ("number", "name", "message"),
    [
        ("40012345", "Ada", "run `make report` first"),
        ("4001", "Ada", "has 4 digits, but 8 to 10 are usual"),
        ("", "Ada", "A student number has 4 to 12 digits, not ''"),
        ("../40012", "Ada", "A student number has 4 to 12 digits"),
        ("400123456", "", "A name is made of letters, not ''"),
        ("400123456", "../Ada", "A name is made of letters"),
        ("400123456", "Ada/Lovelace", "A name is made of letters"),
    ],
)
def test_what_cannot_be_packed_gets_one_sentence(number, name, message, right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    shutil.rmtree(folder / "report")
    arguments = ["submit", "--number", number, "--name", name, "--output", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.output
    assert not (folder / "submission").exists()


def test_an_offline_run_is_packed_as_a_rehearsal(tmp_path):
    made = Submission(
        {f"0{n}_part.ipynb": notebook(n, "offline") for n in range(1, 6)},
        weights("offline"),
        pdf(report_lines("offline")),
    )
    folder = made.write_unpacked(tmp_path / "kit")
    arguments = ["submit", "--number", "400123456", "--name", "Ada Lovelace", "--output", str(folder)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "a rehearsal and not a submission" in done.stderr
    written = sorted(path.name for path in (folder / "submission").iterdir())
    assert all(name.startswith(f"REHEARSAL_{STEM}") for name in written) and len(written) == 3
    done = CliRunner().invoke(app, ["check", str(folder / "submission")])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].startswith("REHEARSAL: 0 errors")
    assert "an offline run (profile offline) is a rehearsal and not a submission" in done.stdout


def test_a_quick_run_is_called_quick(tmp_path):
    made = Submission(
        {f"0{n}_part.ipynb": notebook(n, "quick") for n in range(1, 6)},
        weights("course"),
        pdf(report_lines("course")),
    )
    done = CliRunner().invoke(app, ["check", str(made.write_unpacked(tmp_path / "kit"))])
    assert "a quick run (profile quick) is a rehearsal and not a submission" in done.stdout
    assert "offline" not in done.stdout


def test_the_last_cell_may_be_run_again_as_it_asks(right, tmp_path):
    last = code_cells(right.notebooks["03_part.ipynb"])[-1]
    last.source, last.execution_count = "hand_in(session, notebook=3)", 17
    found = check.check([right.write_unpacked(tmp_path / "kit")])
    assert "run-again" not in [finding.code for finding in found.findings]
    last.source = "show.numbers(result)"
    found = check.check([right.write_unpacked(tmp_path / "other")])
    assert "run-again" in [finding.code for finding in found.findings]


@pytest.mark.parametrize(
    "name",
    ["Ada (Byron) Lovelace", "A" * 80, "علی" + "ر" * 77, "Ann-Marie O'Hara"],
    ids=["parentheses", "80 letters", "80 Persian letters", "apostrophe"],
)
def test_a_second_run_under_another_name_leaves_nothing_of_the_first(name, right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    pack.pack(folder, "400123456", "Misspelt")
    written = pack.pack(folder, "400123456", name).files
    assert {path.name for path in (folder / "submission").iterdir()} == {path.name for path in written}
    checked = check.check([folder / "submission"])
    assert checked.verdict == READY and checked.student[0] == "400123456"


def test_a_name_of_81_letters_and_an_unusual_number_are_questioned(right, tmp_path):
    folder = right.write_unpacked(tmp_path / "kit")
    with pytest.raises(UserError, match="at most 80 letters"):
        pack.pack(folder, "400123456", "A" * 81)
    with pytest.raises(UserError, match="give --any-number if it is right"):
        pack.pack(folder, "4001234", "Ada")
    assert pack.pack(folder, "4001234", "Ada", any_number=True).files[0].name == "4001234_Ada_notebooks.zip"
