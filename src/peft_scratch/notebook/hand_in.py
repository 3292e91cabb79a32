"""The last cell of each notebook: keep the executed notebook, show what is there, pack the submission."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
from IPython import get_ipython
from IPython.display import display
from nbformat import NotebookNode

from peft_scratch.assignment import NOTEBOOKS, RUNS
from peft_scratch.errors import UserError
from peft_scratch.experiments.session import Session
from peft_scratch.files import write_atomically
from peft_scratch.notebook import front_end, show
from peft_scratch.notebook.cleaned import cleaned
from peft_scratch.notebook.parts import merge_parts, missing_from, write_part
from peft_scratch.paths import DRIVE, shown
from peft_scratch.results import Result, RunResult

#: The results as an output of a notebook, for programs: the check of a submission reads them.
MIME_TYPE = "application/vnd.peft-scratch.results+json"
FORMAT = 1

_STUDENT = "student.json"


def hand_in(session: Session, notebook: int, name: str = "", number: str = "", language: str = "") -> None:
    """Keep this notebook, show what is there and what is missing, and pack if nothing is missing.

    Args:
        notebook: the number of this notebook.
        name, number: the student's; asked for once if they are not given, and kept in the output folder.
        language: of the report that is packed, `en` or `fa`.

    Raises:
        UserError: the parts beside the notebook do not fit together, or the check found an error.
    """
    output = session.output
    _merge_what_lies_here(output, notebook)
    shown_now = _numbers_of(session, notebook)
    display(shown_now, raw=True)
    if front_end.executed_by_the_kit():
        print(f"This notebook is saved as {shown(_place(output, notebook))}.")
        return
    kept = _keep(output, notebook, shown_now)
    if kept and _is_alone(output):
        part = write_part(output, notebook)
        print(
            f"{shown(output)} is lost when this machine is taken back. Keep {part.name}: it contains this "
            "notebook with its results and weights. To put the parts together, upload them next to the last "
            "notebook that you run and run its last cell again, or use `peft-scratch submit --parts`."
        )
        front_end.offer([part])
    lacking = missing_from(output)
    if lacking:
        print(f"Gathered in {shown(output)}. Still missing:", *lacking, sep="\n  ")
        return
    print(f"Everything is gathered in {shown(output)}: five notebooks, ten numbers, three weight files.")
    if student := _student(output, name, number):
        _pack(output, *student, language)


def results_for_programs(session: Session, notebook: int, results: dict[str, Result]) -> dict[str, Any]:
    """The numbers of a notebook as JSON, in the form that the check of a submission reads."""
    return {
        "format": FORMAT,
        "profile": session.profile.name,
        "notebook": notebook,
        "results": [
            {
                "id": result.id,
                "percent": round(result.percent, 1),
                "whole": result.parameters.whole,
                "added": result.parameters.added,
                "fingerprint": result.fingerprint,
            }
            for result in results.values()
            if isinstance(result, RunResult) and result.notebook == notebook and result.id in RUNS
        ],
    }


def _numbers_of(session: Session, notebook: int) -> dict[str, Any]:
    """What this notebook contributes, as the data of an output: a table, and JSON for programs."""
    found = session.results()
    text = show.contribution(session, notebook, found)
    return {
        "text/markdown": text,
        "text/plain": text,
        MIME_TYPE: results_for_programs(session, notebook, found),
    }


def _place(output: Path, notebook: int) -> Path:
    return output / "notebooks" / NOTEBOOKS[notebook]


def _keep(output: Path, notebook: int, shown_now: dict[str, Any]) -> bool:
    """Keep this notebook in the output folder if its file can be read; otherwise say what to do."""
    place = _place(output, notebook)
    try:
        document = front_end.document()
    except UserError as problem:
        by_hand = (
            ""
            if "save the notebook" in str(problem)
            else (
                f" Download it (in Colab: File > Download > Download .ipynb) and put it into "
                f"{shown(place.parent)} as {place.name}, then run this cell again."
            )
        )
        print(f"The executed notebook is not kept yet. {problem}{by_hand}")
        return False
    _put_in(document, shown_now)
    write_atomically(place, nbformat.writes(cleaned(document)) + "\n")
    print(f"Kept this notebook as {shown(place)}.")
    return True


def _put_in(document: NotebookNode, shown_now: dict[str, Any]) -> None:
    """Give the last cell of `document`, which is still running, the output that it displays."""
    cells = [cell for cell in document.cells if cell.cell_type == "code" and "hand_in(" in cell.source]
    if not cells:
        raise UserError("This notebook has no cell that calls `hand_in`: keep its last cell as it is.")
    cells[-1].outputs = [nbformat.v4.new_output("display_data", data=shown_now)]
    if (shell := get_ipython()) is not None:
        cells[-1].execution_count = shell.execution_count


def _is_alone(output: Path) -> bool:
    """Whether this machine, with the output folder, will be gone some time after this notebook."""
    return (front_end.in_colab() and DRIVE not in output.parents) or front_end.on_kaggle()


def _merge_what_lies_here(output: Path, notebook: int) -> None:
    """Merge the parts that the user has put beside this notebook, except its own."""
    own = re.compile(rf"part-{notebook}\b")
    if parts := [path for path in sorted(Path().glob("part-*.zip")) if not own.match(path.name)]:
        merge_parts(parts, output)
        print(f"Added {', '.join(path.name for path in parts)}.")


def _student(output: Path, name: str, number: str) -> tuple[str, str] | None:
    """Name and number: as given, as kept, or as the user types them."""
    path = output / _STUDENT
    if not (name and number) and path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            name, number = name or kept["name"], number or kept["number"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{shown(path)} is damaged: delete it and run the cell again.") from None
    if not (name and number):
        name = name or front_end.ask("Your name, for the names of the files: ") or ""
        number = number or (front_end.ask("Your student number: ") if name else "") or ""
    if not (name and number):
        print(
            "Your name and student number are missing. Give them in this cell, and run it again: "
            'hand_in(session, notebook=…, name="Ada Lovelace", number="400123456")'
        )
        return None
    return name, number


def _pack(output: Path, name: str, number: str, language: str) -> None:
    from peft_scratch.notebook.submission import pack_submission

    print("Making the report and checking everything: about a minute.", flush=True)
    files, rehearsal = pack_submission(output, name, number, language)
    write_atomically(
        output / _STUDENT, json.dumps({"name": name, "number": number}, ensure_ascii=False) + "\n"
    )
    if rehearsal:
        print("These files are a rehearsal, and their names say so: do not hand them in.")
    print("The files to hand in:", *(shown(path) for path in files), sep="\n  ")
    front_end.offer(files)
