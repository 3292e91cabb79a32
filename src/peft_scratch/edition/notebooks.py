"""The five notebooks of the edition: without outputs, with blanks, with a check under each blank."""

from __future__ import annotations

import copy
import re
from typing import Any

from peft_scratch.edition.blanks import BLANKS, Blank
from peft_scratch.edition.notebook_texts import (
    ASKED_IN_CELLS,
    IDEA_WITHOUT,
    LEFT_OUT,
    REPLACED,
    WHERE,
    YOUR_CODE,
)
from peft_scratch.edition.solutions import regions, without_markers

#: A code cell that has one of these is left out, with the text before it: it compares with the solution's
#: libraries, or asks models that the edition does not have.
_NOT_HERE = ("proofs.", "session.ask(", "show.opinions(")

#: What the edition's zip is called; the first cell of a notebook unpacks it.
ZIP = "peft-scratch-student.zip"

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
        if cell["id"] == WHERE[number]:
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
        if seed_per_student:
            source = re.sub(r"^SEED = 0$", _SEED, source, flags=re.MULTILINE)
        source = re.sub(r"^from peft_scratch\.exactness import proofs\n", "", source, flags=re.MULTILINE)
        source = re.sub(r'^REPOSITORY = ".*"$', 'REPOSITORY = ""', _imports(source), flags=re.MULTILINE)
        source = source.replace("peft-scratch.zip", ZIP)
    return {**cell, "source": source.splitlines(keepends=True), "metadata": _metadata(cell["metadata"])}


def _imports(source: str) -> str:
    """The cell that opens the session imports `check` too, and not what only a left-out cell needs."""
    if "open_session(" not in source or "import" not in source:
        return source
    source = re.sub(
        r"^from peft_scratch\.methods\.lora import kaiming_uniform_down\n", "", source, flags=re.MULTILINE
    )
    return re.sub(
        r"^(from peft_scratch\.notebook import show)$",
        r"from peft_scratch.edition.self_check import check\n\1",
        source,
        flags=re.MULTILINE,
    )


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
            *(
                f"{indent}# Yours: {line}" if i == 0 else f"{indent}# {line}"
                for i, line in enumerate(asked.split("\n"))
            ),
            f'{indent}raise NotImplementedError("This cell is still blank.")',
        ]
    return "\n".join(lines)


def _tasks(number: int) -> list[Cell]:
    """What is to be written in `layers.py` for this notebook: a text and a check for each blank."""
    blanks = [blank for blank in BLANKS if blank.notebook == number]
    if not blanks:
        return []
    points = sum(blank.points for blank in blanks)
    cells = [
        _markdown(
            "tasks",
            f"## Yours: `layers.py`\n\nIn this notebook you write {_counted(len(blanks), 'piece')} of code, "
            f"for {points} points. They stand in `layers.py`, beside the folder `notebooks`, with what is "
            "asked, the shapes and where to read. Write one, save the file, run the cell under it. The cell "
            "says what is wrong and where to read. The kit then trains, counts and saves with your code. "
            "Times above are rough until then.\n\nIn Colab, the file browser on the left opens "
            "`peft-scratch/layers.py`. Download the file before you leave: it is lost with the machine. Next "
            "time, upload it into the same place.",
        )
    ]
    earlier = [f'"{blank.name}"' for blank in BLANKS if blank.group == "rest" and blank.notebook < number]
    if earlier and number != 4:  # the library of notebook 4 finds its places itself
        cells += [
            _markdown("earlier", "What you wrote for notebook 2 is used here too:"),
            _code("check-earlier", f"check({', '.join(earlier)})"),
        ]
    for blank in blanks:
        cells += [
            _markdown(f"task-{blank.name}".replace("_", "-"), _task(blank)),
            _code(f"check-{blank.name}".replace("_", "-"), f'check("{blank.name}")'),
        ]
    return [*cells, _markdown("your-code", YOUR_CODE.get(number, YOUR_CODE[0]))]


def _task(blank: Blank) -> str:
    first, _, rest = blank.text.partition("\n\n")
    worth = f" ({_counted(blank.points, 'point')})" if blank.points else ""
    # Arguments and what is returned stand in the docstring.
    rest = re.split(r"^(?:Args|Returns|Raises):", rest, maxsplit=1, flags=re.MULTILINE)[0]
    rest = rest.replace("\n", " ").strip()
    return f"**`{blank.name}`**{worth}. {first.replace(chr(10), ' ')}" + (f"\n\n{rest}" if rest else "")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _markdown(cell_id: str, source: str) -> Cell:
    return {
        "cell_type": "markdown",
        "id": cell_id[:60],
        "metadata": {},
        "source": source.splitlines(keepends=True),
    }


def _code(cell_id: str, source: str) -> Cell:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": cell_id[:60],
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
