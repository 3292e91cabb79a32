"""The notebooks of a submission: which of the five each is, whether it was executed, its numbers.

This kit's own notebooks display their results for programs (`own_notebooks.py`). Most submissions are
completed notebooks of the course (`foreign_notebooks.py`). What the program does not understand is a point to
look at, not an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from peft_scratch.assignment import FILES, RUNS
from peft_scratch.submission import foreign_notebooks, own_notebooks
from peft_scratch.submission.archive import File
from peft_scratch.submission.book import RUN_AGAIN, Notebook
from peft_scratch.submission.cells import Cell, NotANotebook, read_cells
from peft_scratch.submission.findings import ERROR, Finding, error, look, ok
from peft_scratch.submission.identify import named_number, parts_of
from peft_scratch.wording import counted


def examine(files: list[File]) -> tuple[dict[int, Notebook], list[Finding]]:
    """The notebooks among `files` by number, and the findings on them and on the missing ones."""
    notebooks: dict[int, Notebook] = {}
    findings: list[Finding] = []
    read: list[Notebook] = []
    for file in files:
        try:
            parts = parts_of(read_cells(file.data), file.name)
        except NotANotebook as problem:
            text = f"{file.where} cannot be read as a notebook: {problem}"
            fix = "open it where it was made, run it and save it again"
            findings.append(error(named_number(file.name) or FILES, "notebook-damaged", text, fix))
            continue
        if not parts:
            text = f"{file.where} is not about any of the five notebooks and was not read"
            findings.append(look(FILES, "notebook-other", text, "leave it out"))
        read += [Notebook(number, file, cells, is_part=len(parts) > 1) for number, cells in parts]
    for notebook in read:
        findings += _choose(notebooks, notebook)
    said: list[Finding] = []
    for notebook in notebooks.values():
        said += _name(notebook)
        room = own_notebooks if own_notebooks.is_own(notebook) else foreign_notebooks
        said += room.examine(notebook)
        said += _execution(notebook, any(one.mark == ERROR for one in said if one.item == notebook.number))
    findings += said
    damaged = {found.item for found in findings if found.code == "notebook-damaged"}
    findings += [_absent(number, notebooks) for number in range(1, 6) if number not in {*notebooks, *damaged}]
    return notebooks, findings


def _absent(number: int, notebooks: dict[int, Notebook]) -> Finding:
    found = {run for notebook in notebooks.values() for run in notebook.numbers}
    if all(run.id in found for run in RUNS.values() if run.notebook == number):
        return look(number, "notebook-elsewhere", f"notebook {number} is part of another notebook", "")
    return error(number, "notebook-missing", f"notebook {number} is missing", "execute it and add it")


def _name(notebook: Notebook) -> Iterator[Finding]:
    named, number = named_number(notebook.file.name), notebook.number
    if named not in (None, number) and not notebook.is_part:
        text = f"{notebook.where} has the name of notebook {named}, but the code of notebook {number}"
        yield look(number, "notebook-name", text, "check whether two were mixed up")


def _choose(notebooks: dict[int, Notebook], notebook: Notebook) -> Iterator[Finding]:
    """Add `notebook`; of two with the same number, keep the one with more outputs."""
    number = notebook.number
    other = notebooks.setdefault(number, notebook)
    if other is notebook:
        return
    first, second = sorted((other, notebook), key=_rank, reverse=True)
    notebooks[number] = first
    names = [named_number(one.file.name) for one in (other, notebook)]
    same = other.file.data == notebook.file.data
    text = f"{other.where} and {notebook.where} are both notebook {number}"
    if same and names[0] == names[1]:
        yield look(number, "notebook-same", f"{text} and are the same", "hand in one")
    elif same or named_number(second.file.name) not in (None, number):
        yield error(number, "notebook-twice", f"{text}, by their code", "hand in one of each")
    else:
        text += f"; {first.where} has more outputs and was read"
        yield look(number, "notebook-more", text, "hand in one of each")


def _rank(notebook: Notebook) -> tuple[bool, bool, int]:
    """For choosing between two: outputs and the right name count most, then how many outputs there are."""
    outputs = sum(bool(cell.outputs) for cell in notebook.code)
    return bool(outputs) and named_number(notebook.file.name) == notebook.number, bool(outputs), outputs


def _execution(notebook: Notebook, has_error: bool) -> Iterator[Finding]:
    """Whether its cells were executed. A wrong order of the execution counts is not an error."""
    number, where, cells = notebook.number, notebook.where, notebook.code
    idle = [cell for cell in cells if not cell.executed]
    if not cells:
        yield error(number, "notebook-empty", f"{where} contains no code", "hand in the executed notebook")
        return
    if len(idle) == len(cells):
        text = f"{where} was not executed: no code cell has a count or an output"
        yield error(number, "not-executed", text, RUN_AGAIN)
        return
    found = list(_order(notebook))
    say = error if has_error else look
    # A cell with outputs but no count comes from another notebook; then missing counts prove nothing.
    if idle and all(cell.count is not None for cell in cells if cell.outputs):
        text = f"{where}: {len(idle)} of {len(cells)} code cells were not executed; the first is "
        fix = "run these cells, or delete them if they are not needed"
        found.insert(0, say(number, "not-executed", f"{text}`{idle[0].first_line}`", fix))
    failed = ((cell, output.error) for cell in cells for output in cell.outputs if output.error)
    if ended := next(failed, None):
        text = f"{where}: the cell `{ended[0].first_line}` ended with {ended[1]}"
        say = error if notebook.profile else say
        found.append(say(number, "error-output", text, f"fix it, then {RUN_AGAIN}"))
    text = f"{where}: {len(cells)} code cells, executed in order, no error"
    yield from found or [ok(number, "executed", text)]


def _order(notebook: Notebook) -> Iterator[Finding]:
    number, where = notebook.number, notebook.where
    counts = [(cell.count, cell) for cell in notebook.code if cell.count is not None]
    fix = "check that the numbers come from the code that is shown"
    if back := [(n, cell) for (last, _), (n, cell) in itertools.pairwise(counts) if n <= last]:
        named = ", ".join(f"`{cell.first_line}` (as number {n})" for n, cell in back[:3])
        text = f"{where}: {counted(len(back), 'cell')} ran out of order: {named}"
        yield look(number, "out-of-order", text, fix)
        return
    before: list[tuple[int, Cell | None]] = [(counts[0][0] - 1 if notebook.is_part and counts else 0, None)]
    # The last cell of the kit's notebooks tells the student to run it again once the file is saved.
    gaps = [
        f"before `{cell.first_line}` (number {n})"
        for (last, _), (n, cell) in itertools.pairwise([*before, *counts])
        if n != last + 1 and not cell.first_line.startswith("hand_in(")
    ]
    if gaps:
        text = f"{where} was executed from top to bottom, but some cells were run again or deleted: "
        yield look(number, "run-again", text + ", ".join(gaps[:3]), fix)
