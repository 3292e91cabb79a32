"""The five notebooks of the edition: without outputs, with blanks, with a check under each blank."""

from __future__ import annotations

import copy
import re
from typing import Any

from peft_scratch.assignment import PARTS
from peft_scratch.edition.blanks import BLANKS, Blank
from peft_scratch.edition.layers_file import without_markers
from peft_scratch.edition.notebook_texts import (
    ASKED_IN_CELLS,
    EARLIER,
    IDEA_WITHOUT,
    LEFT_OUT,
    REPLACED,
    TASKS,
    YOUR_CODE,
)
from peft_scratch.edition.solutions import regions

#: A code cell with one of these is left out together with the text before it: it shows an answer, or needs
#: a model that the edition lacks.
_NOT_HERE = ("proofs.", "session.ask(", "show.opinions(")

#: What the edition's zip is called; the first cell of a notebook unpacks it.
ZIP = "peft-scratch-student.zip"

#: What is replaced in code cells: `check` is imported, and nothing that only a left-out cell needs.
_IN_CODE = {
    r"^from peft_scratch\.(exactness import proofs|methods\.lora import kaiming_uniform_down)\n": "",
    r"^(from peft_scratch\.notebook import show)$": r"from peft_scratch.edition.self_check import check\n\1",
    r'^REPOSITORY = ".*"$': 'REPOSITORY = ""',
    r"peft-scratch\.zip": ZIP,
}

Cell = dict[str, Any]

_SEED = """from peft_scratch.edition.student_seed import seed_of

SEED = seed_of("")  # your student number, between the quotes"""


def notebook(
    document: dict[str, Any], number: int, *, solved: bool = False, seed_per_student: bool = False
) -> dict[str, Any]:
    """The edition's form of the kit's notebook `number`.

    Args:
        solved: with the solutions in its cells.
        seed_per_student: whether the seed comes from the student number.
    """
    left_out, cells = LEFT_OUT.get(number, ()), []
    for cell in copy.deepcopy(document["cells"]):
        source = "".join(cell["source"])
        if cell["id"] in left_out:
            continue
        if cell["cell_type"] == "code" and any(part in source for part in _NOT_HERE):
            if cells and cells[-1]["cell_type"] == "markdown":
                cells.pop()
            continue
        cells.append(_changed(cell, source, number, solved, seed_per_student))
        if cell["id"] == "idea":
            cells += _tasks(number)
    return {**document, "cells": cells, "metadata": _metadata(document["metadata"])}


def _changed(cell: Cell, source: str, number: int, solved: bool, seed_per_student: bool) -> Cell:
    key = (number, cell["id"])
    if cell["cell_type"] == "markdown":
        source = REPLACED.get(key, source)
        if key in IDEA_WITHOUT:
            source = re.sub(IDEA_WITHOUT[key], "", source).rstrip()
        if cell["id"] == "title":
            source = re.sub(r"^\[!\[Open in Colab\].*\n\n", "", source)
    else:
        cell |= {"outputs": [], "execution_count": None}
        asked, where = ASKED_IN_CELLS.get(key, ""), f"notebook {number}, cell {cell['id']}"
        source = without_markers(source) if solved else _blank(source, asked, where)
        seed = {r"^SEED = 0$": _SEED} if seed_per_student else {}
        for pattern, instead in (_IN_CODE | seed).items():
            source = re.sub(pattern, instead, source, flags=re.MULTILINE)
    return {**cell, "source": source.splitlines(keepends=True), "metadata": _metadata(cell["metadata"])}


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Without what an execution has left."""
    return {key: value for key, value in metadata.items() if key not in ("papermill", "execution")}


def _blank(source: str, asked: str, where: str) -> str:
    lines = source.split("\n")
    for start, end in reversed(regions(lines, where)):
        if not asked:
            raise ValueError(f"{where}: no text says what this blank asks for")
        indent = " " * (len(lines[start - 1]) - len(lines[start - 1].lstrip()))
        lines[start - 1 : end] = [
            f"{indent}# Yours: {asked}",
            f'{indent}raise NotImplementedError("This cell is still blank.")',
        ]
    return "\n".join(lines)


def _tasks(number: int) -> list[Cell]:
    """What is to be written in `layers.py` for this notebook: a text and a check for each blank."""
    blanks = [blank for blank in BLANKS if blank.notebook == number]
    if not blanks:
        return []
    points = sum(blank.points for blank in blanks)
    whole = PARTS[number].points
    asked = TASKS.format(
        pieces=_counted(len(blanks), "piece"),
        points=points,
        whole=whole,
        rest=_counted(whole - points, "point"),
    )
    cells = [_cell("markdown", "tasks", asked)]
    earlier = [blank.name for blank in BLANKS if blank.group == "rest" and blank.notebook < number]
    if earlier and number != 4:  # the library of notebook 4 finds its places itself
        named = [f"`{name}`" for name in earlier]
        text = EARLIER.format(names=f"{', '.join(named[:-1])} and {named[-1]}")
        quoted = ", ".join(f'"{name}"' for name in earlier)
        cells += [_cell("markdown", "earlier", text), _cell("code", "check-earlier", f"check({quoted})")]
    for blank in blanks:
        name = blank.name.replace("_", "-")
        cells += [
            _cell("markdown", f"task-{name}", _task(blank)),
            _cell("code", f"check-{name}", f'check("{blank.name}")'),
        ]
    return [*cells, _cell("markdown", "your-code", YOUR_CODE.get(number, YOUR_CODE[0]))]


def _task(blank: Blank) -> str:
    """The text of a blank without what its docstring lists: arguments and what is returned."""
    first, *rest = re.split(r"^(?:Args|Returns|Raises):", blank.text, flags=re.MULTILINE)[0].split("\n\n")
    return "\n\n".join([f"**`{blank.name}`** ({_counted(blank.points, 'point')}). {first}", *rest]).rstrip()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _cell(kind: str, cell_id: str, source: str) -> Cell:
    cell = {"cell_type": kind, "id": cell_id[:60], "metadata": {}, "source": source.splitlines(keepends=True)}
    return cell | ({"outputs": [], "execution_count": None} if kind == "code" else {})
