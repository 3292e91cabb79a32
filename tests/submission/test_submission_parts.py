"""`submit --parts`: five notebooks from five machines, put together on the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from left_behind import make
from typer.testing import CliRunner

from peft_scratch.assignment import NOTEBOOKS, PROFILES
from peft_scratch.cli import app
from peft_scratch.notebook.parts import write_part
from peft_scratch.reporting import report
from peft_scratch.submission import pack
from peft_scratch.submission.check import check
from peft_scratch.submission.pack import Packed

STUDENT = ("--number", "400123456", "--name", "Ada Lovelace")


def run(*arguments):
    return CliRunner().invoke(app, ["submit", *map(str, arguments)])


@pytest.fixture
def called(monkeypatch):
    """What would be made of the folder: the report's making and the packing, without their work."""
    calls = []

    def packed(folder, *student):
        calls.append(("pack", folder, *student))
        return Packed(folder, [folder / "one.zip"], check([folder]))

    monkeypatch.setattr(report, "write", lambda *arguments: calls.append(("report", *arguments)))
    monkeypatch.setattr(pack, "pack", packed)
    return calls


def test_five_parts_are_put_together_reported_and_packed(tmp_path, called):
    parts = [make(tmp_path / f"machine {n}", n) for n in NOTEBOOKS]
    done = run("--parts", *parts, *STUDENT, "--output", tmp_path / "all", "--language", "fa")
    assert done.exit_code == 0, done.output
    (_, folder, student, language), packed = called
    assert (student.name, student.number, language) == ("Ada Lovelace", "400123456", "fa")
    assert folder == tmp_path / "all"
    assert packed == ("pack", folder, "400123456", "Ada Lovelace", False)
    assert f"Put 5 parts together in {folder}." in done.stderr
    assert done.stdout == f"{folder / 'one.zip'}\n"


def test_the_parts_of_a_profile_go_to_its_folder(tmp_path, called, monkeypatch):
    monkeypatch.setitem(PROFILES, "offline", replace(PROFILES["offline"], output=tmp_path / "offline"))
    parts = [make(tmp_path / f"machine {n}", n) for n in NOTEBOOKS]
    assert run("--parts", *parts, *STUDENT).exit_code == 0
    assert called[1][1] == tmp_path / "offline"


def test_what_does_not_belong_together_or_lacks_is_said_in_one_sentence(tmp_path, called):
    one, two = make(tmp_path / "one", 1), make(tmp_path / "two", 2, seed=7)
    output = ("--output", tmp_path / "all")
    cases = {
        ("--parts", one, two): "part-2.zip was made with seed 7, part-1.zip with 0",
        ("--parts", one): "Still missing in {all}: notebook 2: 3 numbers, prompts.pt, the executed notebook;",
        ("--parts",): "There is no part to put together",
        ("--parts", tmp_path / "part-9.zip"): "There is no ",
        (one, two): "to put parts together, write --parts before it",
    }
    for arguments, sentence in cases.items():
        done = run(*arguments, *STUDENT, *output)
        assert done.exit_code == 2, arguments
        assert sentence.replace("{all}", str(tmp_path / "all")) in done.stderr
        assert "Traceback" not in done.output
    assert called == []


def test_parts_of_two_profiles_are_refused(tmp_path, called):
    one, two = make(tmp_path / "one", 1), tmp_path / "two"
    make(two, 2)
    for path in (two / "report" / "results").iterdir():
        path.write_text(path.read_text().replace('"profile": "offline"', '"profile": "course"'))
    done = run("--parts", one, write_part(two, 2), *STUDENT, "--output", tmp_path / "all")
    assert (done.exit_code, called) == (2, [])
    assert "part-2.zip was made with profile 'course', part-1.zip with 'offline'" in done.stderr
    assert not (tmp_path / "all").exists()


def test_a_name_that_cannot_be_used_is_refused_before_anything_is_put_together(tmp_path, called):
    done = run(
        "--parts", make(tmp_path / "one", 1), "--number", "4", "--name", "Ada", "--output", tmp_path / "all"
    )
    assert (done.exit_code, called) == (2, [])
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("there", "packed"), [(("quick",), "quick"), (("offline", "course"), "course"), ((), "course")]
)
def test_by_default_the_run_that_is_there_is_packed(tmp_path, monkeypatch, there, packed):
    for name, profile in PROFILES.items():
        folder = tmp_path / name
        monkeypatch.setitem(PROFILES, name, replace(profile, output=folder))
        if name in there:
            (folder / "notebooks").mkdir(parents=True)
    assert f"There is no report/report.pdf in {tmp_path / packed}: " in run(*STUDENT).stderr
    assert (
        f"There is no report/report.pdf in {tmp_path / 'smoke'}: "
        in run(*STUDENT, "--profile", "smoke").stderr
    )
