"""The cell "Hand in": the notebook is kept, what lacks is said, and what is whole is packed."""

import json
import os
import sys
import time
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
from left_behind import make
from nbformat.v4 import new_code_cell, new_notebook

from peft_scratch.assignment import NOTEBOOKS, PROFILES
from peft_scratch.experiments.profile_choice import ProfileChoice
from peft_scratch.notebook import front_end, submission
from peft_scratch.notebook import hand_in as module
from peft_scratch.notebook.hand_in import MIME_TYPE, hand_in
from peft_scratch.results import read_results


@pytest.fixture
def session(tmp_path):
    """As much of a session as the cell needs: output folder, profile and results."""
    output = tmp_path / "output"
    return SimpleNamespace(
        output=output,
        profile=PROFILES["offline"],
        choice=ProfileChoice(PROFILES["offline"], "a test wants it"),
        results=lambda: read_results(output / "report" / "results"),
    )


@pytest.fixture(autouse=True)
def jupyter(tmp_path, monkeypatch):
    """A JupyterLab: the notebook's file, which is saved after the last cell ended."""
    path = tmp_path / "my lora.ipynb"
    cells = [new_code_cell("1 + 1", execution_count=1), new_code_cell("hand_in(session, notebook=5)")]
    nbformat.write(new_notebook(cells=cells), path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    monkeypatch.setattr(front_end, "_ended", time.time() - 60)
    monkeypatch.setattr(front_end, "in_colab", lambda: False)
    monkeypatch.setattr(front_end, "ask", lambda question: None)
    return path


@pytest.fixture
def displayed(monkeypatch):
    """All that the cell displays."""
    shown = []
    monkeypatch.setattr(module, "display", lambda data, raw: shown.append(data))
    return shown


def test_the_notebook_is_kept_with_what_its_last_cell_shows(session, displayed, capsys):
    make(session.output, 5)
    (session.output / "notebooks" / NOTEBOOKS[5]).unlink()
    hand_in(session, notebook=5)
    kept = nbformat.read(session.output / "notebooks" / NOTEBOOKS[5], as_version=4)
    (output,) = kept.cells[-1].outputs
    assert output.data == displayed[0]
    shown = output.data[MIME_TYPE]
    assert (shown["format"], shown["profile"], shown["notebook"]) == (1, "offline", 5)
    results = session.results()
    for entry in shown["results"]:
        result = results[entry["id"]]
        assert entry["percent"] == round(100 * result.accuracy.best, 1)
        assert (entry["whole"], entry["added"]) == (result.parameters.whole, result.parameters.added)
        assert entry["fingerprint"] == result.fingerprint
    assert [entry["id"] for entry in shown["results"]] == ["lora_peft_r1", "lora_peft_r8", "lora_scratch_r8"]
    said = capsys.readouterr().out
    assert "notebook 1: 1 number, the executed notebook" in said
    assert "notebook 5" not in said


def test_a_file_older_than_the_run_has_to_be_saved_first(session, displayed, jupyter, capsys):
    os.utime(jupyter, (1e9, 1e9))
    hand_in(session, notebook=5)
    said = capsys.readouterr().out
    assert "save the notebook (Ctrl+S" in said
    assert "Download it" not in said
    assert "notebook 5: 3 numbers, lora.pt, the executed notebook" in said


def test_where_no_front_end_answers_the_cell_says_what_to_do_by_hand(session, displayed, monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME")
    hand_in(session, notebook=2)
    said = capsys.readouterr().out
    assert "File > Download > Download .ipynb" in said
    assert "as 02_soft_prompt.ipynb" in said


@pytest.fixture
def colab(monkeypatch):
    """A stand-in for `google.colab`; its document, and the names of what it downloads."""
    document = new_notebook(cells=[new_code_cell("hand_in(session, notebook=2)")])
    downloaded = []
    message, files = ModuleType("google.colab._message"), ModuleType("google.colab.files")
    message.blocking_request = lambda what, request, timeout_sec: {
        "ipynb": json.loads(nbformat.writes(document))
    }
    files.download = lambda path: downloaded.append(os.path.basename(path))
    package = ModuleType("google.colab")
    package._message, package.files = message, files
    for stand_in in (package, message, files):
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(front_end, "in_colab", lambda: True)
    return SimpleNamespace(message=message, downloaded=downloaded)


def test_colab_gives_its_document_and_without_drive_a_part_is_offered(session, displayed, colab, capsys):
    make(session.output, 2)
    hand_in(session, notebook=2)
    assert "hand_in(session" in (session.output / "notebooks" / NOTEBOOKS[2]).read_text()
    assert colab.downloaded == ["part-2.zip"]
    assert "Keep part-2.zip" in capsys.readouterr().out


def test_a_private_function_that_is_gone_is_said(session, displayed, colab, capsys):
    del colab.message.blocking_request
    hand_in(session, notebook=2)
    assert "Colab did not give this notebook's document (AttributeError)." in capsys.readouterr().out
    assert not (session.output / "notebooks").exists()
    assert colab.downloaded == []


def test_parts_beside_the_notebook_are_taken_in_but_not_its_own(session, displayed, tmp_path, capsys):
    for number in (1, 2, 3, 4):
        make(tmp_path / f"machine {number}", number).rename(tmp_path / f"part-{number}.zip")
    old = make(tmp_path / "machine 5", 5)
    old.rename(tmp_path / "part-5.zip")
    make(session.output, 5)
    (session.output / "weights" / "lora.pt").write_text("newer")
    hand_in(session, notebook=5)
    said = capsys.readouterr().out
    assert "Added part-1.zip, part-2.zip, part-3.zip, part-4.zip." in said
    assert "Everything is gathered" in said
    assert (session.output / "weights" / "lora.pt").read_text() == "newer"
    assert "Your name and student number are missing" in said


@pytest.fixture
def packed(monkeypatch, tmp_path):
    """A stand-in for the packing; what it was asked for."""
    calls = []

    def pack(*arguments):
        calls.append(arguments)
        return [tmp_path / "REHEARSAL_1.zip"], True

    monkeypatch.setattr(submission, "pack_submission", pack)
    monkeypatch.setattr(front_end, "offer", lambda paths: calls.append([path.name for path in paths]))
    return calls


def test_name_and_number_are_asked_for_once(session, displayed, packed, monkeypatch, capsys):
    for number in NOTEBOOKS:
        make(session.output, number)
    answers = {
        "Your name, for the names of the files: ": "Ada Lovelace",
        "Your student number: ": "400123456",
    }
    monkeypatch.setattr(front_end, "ask", answers.pop)
    for _ in range(2):
        hand_in(session, notebook=5, language="fa")
    assert not answers
    expected = (session.output, "Ada Lovelace", "400123456", "fa")
    assert packed == [expected, ["REHEARSAL_1.zip"]] * 2
    assert "do not hand them in" in capsys.readouterr().out
    hand_in(session, notebook=5, name="آدا", number="400123457")
    assert packed[-2][1:3] == ("آدا", "400123457")


def test_when_the_kit_executes_the_notebooks_nothing_is_asked_or_packed(
    session, displayed, packed, monkeypatch
):
    for number in NOTEBOOKS:
        make(session.output, number)
    before = (session.output / "notebooks" / NOTEBOOKS[5]).read_bytes()
    monkeypatch.setenv(front_end.EXECUTED, "1")
    hand_in(session, notebook=5)
    assert packed == []
    assert (session.output / "notebooks" / NOTEBOOKS[5]).read_bytes() == before
