"""The cell "Hand in" in a kernel, as JupyterLab runs it: not saved, saved, asked, packed."""

import json
import sys
import time

import nbformat
from by_hand import OpenNotebook, results_output
from left_behind import make
from nbformat.v4 import new_code_cell, new_notebook

from peft_scratch.assignment import NOTEBOOKS

OPEN = """
from pathlib import Path
from types import SimpleNamespace

from peft_scratch.assignment import PROFILES
from peft_scratch.notebook import front_end, submission
from peft_scratch.notebook.hand_in import hand_in
from peft_scratch.results import read_results


def pack(*arguments):
    print("packed:", *arguments[1:3])
    return [Path("files.zip")], True


front_end.watch()
Path("files.zip").touch()
submission.pack_submission = pack
output = Path("output").absolute()
results = lambda: read_results(output / "report" / "results")
session = SimpleNamespace(output=output, profile=PROFILES["offline"], results=results)
"""


def test_the_last_cell_asks_for_the_file_to_be_saved_then_for_the_student_and_packs(tmp_path):
    for number in NOTEBOOKS:
        make(tmp_path / "output", number)
    kept = tmp_path / "output" / "notebooks" / NOTEBOOKS[5]
    kept.unlink()
    path = tmp_path / "my notebook.ipynb"
    cells = [new_code_cell(source) for source in (OPEN, "hand_in(session, notebook=5)")]
    nbformat.write(new_notebook(cells=cells), path)
    answers = {"Your name": "Ada Lovelace", "student number": "400123456"}
    notebook = OpenNotebook(path, sys.executable, {"JPY_SESSION_NAME": str(path)}, answers)
    try:
        first, last = notebook.code
        notebook.run(first)
        said = notebook.run(last)
        assert "save the notebook (Ctrl+S" in said
        assert "packed" not in said
        assert not kept.exists()
        time.sleep(0.05)  # a file system's clock is coarse
        notebook.save()
        said = notebook.run(last)
    finally:
        notebook.close()
    assert "packed: Ada Lovelace 400123456" in said
    student = json.loads((tmp_path / "output" / "student.json").read_text())
    assert student == {"name": "Ada Lovelace", "number": "400123456"}
    shown = results_output(nbformat.read(kept, as_version=4))
    assert len(shown["results"]) == 3
    assert shown == results_output(notebook.document)
