"""The notebooks of a submission: which of the five each is, whether it was executed, the numbers it found.

This kit's own notebooks display their results for programs. The main road is the notebooks of the course,
completed: there the outputs are read (`outputs.py`), and each number is given to its run by evidence
(`attribution.py`). What is not understood is said to be so, and is no error.
"""

from __future__ import annotations

import itertools
import re

from peft_scratch.assignment import FILES, PRINT_A_COUNT, RUNS, Run
from peft_scratch.submission import own_notebooks
from peft_scratch.submission.archive import File
from peft_scratch.submission.attribution import Found, Measured, attribute, size_by_count
from peft_scratch.submission.book import Notebook, compared
from peft_scratch.submission.cells import Cell, NotANotebook, read_cells
from peft_scratch.submission.combined import ABOUT, split
from peft_scratch.submission.findings import ERROR, Finding, error, look, ok
from peft_scratch.submission.outputs import BEST, TABLE, Seen, shows_any_number
from peft_scratch.submission.sizes import sizes_of
from peft_scratch.submission.source import LIBRARY_MODULES, literal_numbers
from peft_scratch.wording import counted

_AGAIN = "restart the kernel, run all cells from the top, and save"
_RUN_AND_SAVE = "run the cells that train and print it, and save the notebook with its outputs"

_ADAPTER_HUB = re.compile(
    r"SeqBn|PfeifferConfig|HoulsbyConfig|AdapterTrainer|AdapterConfig|\badapters\.init|train_adapter|add_adapter"
)
#: What every notebook of the assignment speaks of, whatever it is called.
_OF_THE_ASSIGNMENT = re.compile(
    rf"t5|imdb|sharif_llm|peft|{'|'.join(about.pattern for about in ABOUT.values())}", re.IGNORECASE
)
_OF_LIBRARY = re.compile(r"external librar|open\s?delta|adapter\s?hub|\bpeft\b|\badapters\b", re.IGNORECASE)
_OWN_ADAPTER = re.compile(r"class \w*(?:adapter|bottleneck)\w*\s*\(\s*(?:\w+\.)*Module", re.IGNORECASE)
_NAMED = (
    (re.compile(r"adapter[\s_-]*(?:hub|lib)", re.IGNORECASE), 4),
    (re.compile(r"(?:^|\D)0?([1-5])(?=\D|$)"), None),
    *((re.compile(word, re.IGNORECASE), n) for word, n in (("lora", 5), ("prompt", 2), ("hub|lib", 4))),
    *((re.compile(word, re.IGNORECASE), n) for word, n in (("adapter", 3), ("full|fine", 1))),
)


def examine(files: list[File]) -> tuple[dict[int, Notebook], list[Finding]]:
    """The notebooks among `files` by their number, and what is to be said of each and of those missing."""
    read, findings = _read(files)
    notebooks: dict[int, Notebook] = {}
    for notebook in read:
        findings += _choose(notebooks, notebook)
    said: list[Finding] = []
    for notebook in notebooks.values():
        named = named_number(notebook.file.name)
        if named not in (None, notebook.number) and not notebook.is_part:
            text = (
                f"{notebook.file.where} is named as notebook {named}, but its code is that of notebook "
                f"{notebook.number}"
            )
            said.append(look(notebook.number, "notebook-name", text, "see whether two were mixed up"))
        said += own_notebooks.examine(notebook) if own_notebooks.is_own(notebook) else _examine(notebook)
        said += _execution(notebook, any(one.mark == ERROR for one in said if one.item == notebook.number))
    findings += said
    damaged = {found.item for found in findings if found.code == "notebook-damaged"}
    for number in range(1, 6):
        if number not in notebooks and number not in damaged:
            findings.append(_absent(number, notebooks))
    return notebooks, findings


def _absent(number: int, notebooks: dict[int, Notebook]) -> Finding:
    runs = [run.id for run in RUNS.values() if run.notebook == number]
    if all(any(run in other.numbers for other in notebooks.values()) for run in runs):
        return look(number, "notebook-elsewhere", f"notebook {number} is part of another notebook", "")
    return error(number, "notebook-missing", f"notebook {number} is missing", "execute it and add it")


def _read(files: list[File]) -> tuple[list[Notebook], list[Finding]]:
    read, findings = [], []
    for file in files:
        try:
            cells = read_cells(file.data)
        except NotANotebook as problem:
            text = f"{file.where} is not a notebook that can be read: {problem}"
            item = named_number(file.name) or FILES
            fix = "open it where it was made, run it and save it again"
            findings.append(error(item, "notebook-damaged", text, fix))
            continue
        parts = [cells] if own_notebooks.number_of(cells, _code(cells)) is not None else split(cells)
        named = named_number(file.name) if len(parts) == 1 else None
        if named is None and not _OF_THE_ASSIGNMENT.search(" ".join(cell.source for cell in cells)):
            text = f"{file.where} is about something else than the five notebooks and was not read"
            findings.append(look(FILES, "notebook-other", text, "leave it out"))
            continue
        read += [Notebook(_number(named, part), file, part, is_part=len(parts) > 1) for part in parts]
    return read, findings


def _choose(notebooks: dict[int, Notebook], notebook: Notebook) -> list[Finding]:
    """Take `notebook` in; of two of the same number, the one with more outputs."""
    other = notebooks.get(notebook.number)
    if other is None:
        notebooks[notebook.number] = notebook
        return []
    first, second = sorted((other, notebook), key=_rank, reverse=True)
    notebooks[notebook.number] = first
    text = f"{other.file.where} and {notebook.file.where} are both notebook {notebook.number}"
    if other.file.data == notebook.file.data and named_number(other.file.name) == named_number(
        notebook.file.name
    ):
        return [look(notebook.number, "notebook-same", f"{text} and are the same", "hand in one")]
    if named_number(second.file.name) not in (None, notebook.number) or other.file.data == notebook.file.data:
        text += ", by what their code is about"
        return [error(notebook.number, "notebook-twice", text, "hand in one of each")]
    text += f"; {first.file.where} has more outputs and was read"
    return [look(notebook.number, "notebook-more", text, "hand in one of each")]


def _rank(notebook: Notebook) -> tuple[bool, bool, int]:
    """Of two of the same number: the one with outputs and the right name, else that with more outputs."""
    outputs = sum(bool(cell.outputs) for cell in notebook.code)
    return bool(outputs) and named_number(notebook.file.name) == notebook.number, bool(outputs), outputs


# Which of the five


def _code(cells: list[Cell]) -> str:
    return "\n".join(cell.source for cell in cells if cell.kind == "code")


def _number(named: int | None, cells: list[Cell]) -> int:
    """Which of the five it is: by this kit's results, else by name and content together."""
    code = _code(cells)
    if (own := own_notebooks.number_of(cells, code)) is not None:
        return own
    if named is None and max(len(about.findall(code)) for about in ABOUT.values()) < 2:
        return 1  # its text may speak of the other methods, its code does not
    everything = code + "\n".join(cell.source for cell in cells if cell.kind == "markdown")
    said = {number: len(about.findall(everything)) for number, about in ABOUT.items()}
    most = max(said, key=lambda number: said[number])
    if said[most] < 2:
        return named or 1
    hub, own_class = bool(_ADAPTER_HUB.search(code)), bool(_OWN_ADAPTER.search(code))
    if most == 3 and hub != own_class:
        most = 4 if hub else 3
    elif most == 3:
        most = named if named in (3, 4) else 3
    if named is None or named == most:
        return most
    if {named, most} == {3, 4}:
        return most if hub != own_class else named
    # A name is believed unless the content speaks much more of another method.
    return named if said.get(3 if named == 4 else named, 4) * 2 >= said[most] else most


def named_number(name: str) -> int | None:
    """Which of the five a file's name says it is.

    >>> named_number("04_AdapterHub (1).ipynb"), named_number("02_Soft Prompt.ipynb")
    (4, 2)
    """
    stem = re.sub(r"\(\d+\)|\d{5,}|(?i:hw|homework|part|تمرین)[\s_-]*\d+", "", name.rpartition(".")[0])
    for pattern, number in _NAMED:
        if found := pattern.search(stem):
            return number or int(found[1])
    return None


# Executed?


def _execution(notebook: Notebook, has_error: bool) -> list[Finding]:
    """A cell with outputs was executed; the order of the counts is a remark and no error."""
    number, where, cells = notebook.number, notebook.file.where, notebook.code
    own = notebook.profile is not None
    if not cells:
        return [
            error(number, "notebook-empty", f"{where} has no code in it", "hand in the executed notebook")
        ]
    idle = [cell for cell in cells if not cell.executed]
    # Counts that are missing beside outputs say nothing: such a notebook was put together from two.
    reliable = not any(cell.outputs and cell.count is None for cell in cells)
    found = []
    if len(idle) == len(cells):
        text = f"{where} was not executed: no code cell has a count or an output"
        return [error(number, "not-executed", text, _AGAIN)]
    if idle and reliable:
        text = (
            f"{where}: {len(idle)} of {len(cells)} code cells were not executed, the first is "
            f"`{idle[0].first_line}`"
        )
        say = error if has_error else look
        found.append(
            say(number, "not-executed", text, "run these cells, or delete them if they are not needed")
        )
    counts = [(cell.count, cell) for cell in cells if cell.count is not None]
    found += _order(number, where, counts, counts[0][0] - 1 if notebook.is_part and counts else 0)
    errors = [(cell, output) for cell in cells for output in cell.outputs if output.error]
    for cell, output in errors[:1]:
        text = f"{where}: the cell `{cell.first_line}` ended with {output.error}"
        say = error if own or has_error else look
        found.append(say(number, "error-output", text, f"fix it, then {_AGAIN}"))
    if found:
        return found
    return [ok(number, "executed", f"{where}: {len(cells)} code cells, executed in order, no error")]


def _order(number: int, where: str, counts: list[tuple[int, Cell]], before: int = 0) -> list[Finding]:
    back = [(n, cell) for (last, _), (n, cell) in itertools.pairwise(counts) if n <= last]
    if back:
        named = ", ".join(f"`{cell.first_line}` (as number {n})" for n, cell in back[:3])
        text = f"{where}: {counted(len(back), 'cell')} ran out of order: {named}"
        return [look(number, "out-of-order", text, "see whether the numbers are of the code that is shown")]
    gaps = []
    for n, cell in counts:
        # The last cell of a kit notebook asks to be run again, once the file is saved.
        if n != before + 1 and not cell.first_line.startswith("hand_in("):
            gaps.append((n, cell))
        before = n
    if gaps:
        named = ", ".join(f"before `{cell.first_line}` (number {n})" for n, cell in gaps[:3])
        text = f"{where} was executed from top to bottom, some cells more than once or since deleted: {named}"
        return [look(number, "run-again", text, "see whether the numbers are of the code that is shown")]
    return []


# The numbers of a foreign notebook


def _examine(notebook: Notebook) -> list[Finding]:
    found = attribute(notebook.cells, notebook.number)
    runs = notebook.runs
    if notebook.number in (3, 4):  # a library part may stand in notebook 3
        others = [run for run in RUNS.values() if run.kind == "adapter" and run not in runs]
        runs = [*runs, *(run for run in others if any(one.run is run for one in found.measured))]
    findings = []
    for run in runs:
        mine = [one for one in found.measured if one.run is run]
        findings += _number_of(notebook, run, mine, found) if mine else [_not_found(notebook, run, found)]
    return [*findings, *_counts(notebook, found), *_libraries(notebook, found)]


def _number_of(notebook: Notebook, run: Run, mine: list[Measured], found: Found) -> list[Finding]:
    where = notebook.file.where
    strongest = max(one.seen.strength for one in mine)
    chosen = [one for one in mine if one.seen.strength == strongest][-1]
    value = round(chosen.seen.value, 1)
    notebook.numbers[run.id] = value
    curves = [one.seen for one in mine if one.seen.strength == TABLE or len(one.seen.curve) > 1]
    if curves:
        notebook.curves[run.id] = curves[-1].curve
    findings = [*_doubts(notebook, run, chosen, mine, curves), *_typed(notebook, run, chosen, curves, found)]
    return findings or [compared(run.notebook, run.id, value, where, "course")]


def _doubts(
    notebook: Notebook, run: Run, chosen: Measured, mine: list[Measured], curves: list[Seen]
) -> list[Finding]:
    """The number against the table of its epochs, and against other values of the same run."""
    where, value = notebook.file.where, chosen.seen.value
    best = {round(one.seen.value, 1) for one in mine if one.seen.strength == BEST}
    if chosen.seen.strength == BEST and len(best) > 1:
        others = ", ".join(f"{other:.1f}" for other in sorted(best))
        text = (
            f"{where}: {run.title} is printed more than once, {others} %; the last, {value:.1f} %, was taken"
        )
        return [look(run.notebook, "number-twice", text, "see which one the report should have")]
    if chosen.seen.strength == BEST and curves and abs(max(curves[-1].curve) - value) > 0.1001:
        text = (
            f"{where}: {run.title} is printed as {value:.1f} %, but the best epoch of its table is "
            f"{max(curves[-1].curve):.1f} %"
        )
        return [look(run.notebook, "number-differs", text, "see which run each is of")]
    return []


def _typed(notebook: Notebook, run: Run, chosen: Measured, curves: list[Seen], found: Found) -> list[Finding]:
    """Whether the number stands in the code that prints it."""
    cell = notebook.cells[chosen.cell]
    text = chosen.seen.text
    if len(text) < 4 or text not in literal_numbers(cell.source) or (found.trains and curves):
        return []
    training = "and the notebook has no training" if not found.trains else "and no epochs of it are shown"
    value = f"{chosen.seen.value:.1f} %"
    said = f"{notebook.file.where}: the {value} of {run.title} is typed into the code, {training}"
    return [look(run.notebook, "number-typed", said, "ask how it was measured")]


def _not_found(notebook: Notebook, run: Run, found: Found) -> Finding:
    """Why there is no number: nobody could find one, or only this reader could not."""
    number, where = run.notebook, notebook.file.where
    unsettled = [one for one in found.measured if one.run is None]
    if unsettled:
        values = ", ".join(f"{one.seen.value:.1f}" for one in unsettled[:6])
        why = next((f" ({one.contradiction})" for one in unsettled if one.contradiction), "")
        text = f"{where}: which accuracy is that of {run.title} was not understood; there are {values} %{why}"
        return look(number, "number-not-assigned", text, "look by hand")
    cells = notebook.cells
    library = [cells[at] for at in found.library_cells]
    counts = all(cell.count is not None for cell in cells if cell.outputs)
    if run.library not in ("none", "scratch") and library and counts and not any(c.executed for c in library):
        text = f"{where}: the library part was not executed, so there is no accuracy of {run.title}"
        return error(number, "number-missing", text, _RUN_AND_SAVE)
    called = (
        library
        or found.imports & LIBRARY_MODULES
        or _ADAPTER_HUB.search("".join(c.source for c in notebook.code))
    )
    if run.library not in ("none", "scratch") and not called and found.measured:
        text = (
            f"{where}: no library is called, and every accuracy is of another run, so none is of {run.title}"
        )
        return look(number, "number-not-found", text, "see whether another module calls the library")
    if not shows_any_number(cells):
        text = f"{where}: no output holds an accuracy, so there is none of {run.title}"
        return error(number, "number-missing", text, _RUN_AND_SAVE)
    start = _library_part(cells, found) if run.library not in ("none", "scratch") else None
    if start is not None and not shows_any_number(cells[start:]):
        ended = next((o.error for cell in cells[start:] for o in cell.outputs if o.error), "")
        why = (
            f"the library part ended with {ended}" if ended else "no output of the library part has a number"
        )
        text = f"{where}: {why}, so there is no accuracy of {run.title}"
        return error(number, "number-missing", text, _RUN_AND_SAVE)
    text = f"{where}: the accuracy of {run.title} was not found in the outputs by this reader"
    return look(number, "number-not-found", text, "look by hand")


def _library_part(cells: list[Cell], found: Found) -> int | None:
    """Where the library is first spoken of, behind all accuracies; None if it is not."""
    behind = max((one.cell for one in found.measured), default=-1) + 1
    return next((n for n in range(behind, len(cells)) if _OF_LIBRARY.search(cells[n].source)), None)


# Counts and libraries


def _counts(notebook: Notebook, found: Found) -> list[Finding]:
    """`Number of parameters: …`: the whole model, or the trained part alone."""
    number, where = notebook.number, notebook.file.where
    first = notebook.runs[0]
    sizes = sizes_of(first.id, "course")
    counts = [int(seen.value) for seen in found.counts]
    if sizes.whole in counts:
        return [ok(number, "count", f"{where}: {sizes.whole:,} parameters")]
    if sizes.added and sizes.added in counts:
        return [
            ok(number, "count", f"{where}: {sizes.added:,} parameters, the trained part of {sizes.whole:,}")
        ]
    if number not in PRINT_A_COUNT:
        return []
    if not counts:
        text = f"{where}: no `Number of parameters: {sizes.whole:,}` was found"
        return [look(number, "count-missing", text, "look by hand for the whole model's count")]
    right = {sizes_of(run.id, "course").whole for run in notebook.runs}
    right |= {sizes_of(run.id, "course").added for run in notebook.runs}
    others = [count for count in counts if count not in right]
    if not others:
        return []
    text = f"{where} prints {others[0]:,} parameters; {first.title} has {sizes.whole:,}"
    if number in (2, 3, 5) and (size := size_by_count(others[0], first.kind)) is not None:
        return [
            error(
                number,
                "count-wrong",
                f"{text}: it is the count of size {size:g}",
                "train it at the size asked for",
            )
        ]
    return [look(number, "count-unknown", text, "see what is counted")]


def _libraries(notebook: Notebook, found: Found) -> list[Finding]:
    """A part from scratch that imports or calls the library."""
    number, where = notebook.number, notebook.file.where
    imported = sorted(found.imports & LIBRARY_MODULES)
    if (
        number == 3
        and imported
        and not any(run.notebook == 4 and run.id in notebook.numbers for run in RUNS.values())
    ):
        text = f"{where} imports {', '.join(imported)}, though its adapter is to be from scratch"
        return [look(number, "scratch-imports", text, "see that the library does not train the number")]
    if number in (2, 5) and found.library_cells:
        scratch = [one.cell for one in found.measured if one.run is not None and one.run.library == "scratch"]
        if scratch and min(found.library_cells) < min(scratch):
            text = f"{where}: a library is called above the number from scratch"
            return [look(number, "scratch-imports", text, "see that the library does not train that number")]
    return []
