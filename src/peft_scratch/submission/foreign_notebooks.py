"""The numbers of a completed notebook of the course, read from its outputs and assigned to its runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from peft_scratch.assignment import PRINT_A_COUNT, RUNS, Run
from peft_scratch.submission.attribution import Reading, size_by_count
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.cells import Cell
from peft_scratch.submission.findings import Finding, error, look, ok
from peft_scratch.submission.identify import ADAPTER_HUB
from peft_scratch.submission.outputs import BEST, TABLE, Accuracy, shows_any_number
from peft_scratch.submission.sizes import sizes_of
from peft_scratch.submission.source import LIBRARY_MODULES, literal_numbers

_RUN_AND_SAVE = "run the cells that train and print it, and save the notebook with its outputs"
_OF_LIBRARY = re.compile(r"external librar|open\s?delta|adapter\s?hub|\bpeft\b|\badapters\b", re.IGNORECASE)


def examine(notebook: Notebook) -> Iterator[Finding]:
    """The numbers, counts and libraries of a notebook that is not this kit's."""
    reading = Reading(notebook.cells, notebook.number)
    runs = notebook.runs
    if notebook.number in (3, 4):  # notebook 3 may also contain the part of notebook 4
        others = [run for run in RUNS.values() if run.kind == "adapter" and run not in runs]
        runs += [run for run in others if any(one.run is run for one in reading.accuracies)]
    for run in runs:
        if mine := [one for one in reading.accuracies if one.run is run]:
            yield from _number(notebook, run, mine, reading)
        else:
            yield _no_number(notebook, run, reading)
    yield from _counts(notebook, reading)
    yield from _libraries(notebook, reading)


def _number(notebook: Notebook, run: Run, mine: list[Accuracy], reading: Reading) -> Iterator[Finding]:
    """The accuracy of a run (the last of the strongest ones), and what makes it doubtful."""
    strength = max(one.strength for one in mine)
    chosen = [one for one in mine if one.strength == strength][-1]
    value = notebook.numbers[run.id] = round(chosen.value, 1)
    curves = [one.curve for one in mine if one.strength == TABLE or len(one.curve) > 1]
    if curves:
        notebook.curves[run.id] = curves[-1]
    doubts = [
        *_differences(notebook, run, chosen, mine),
        *_typed(notebook, run, chosen, bool(curves), reading),
    ]
    yield from doubts or [notebook.compared(run, value)]


def _differences(notebook: Notebook, run: Run, chosen: Accuracy, mine: list[Accuracy]) -> Iterator[Finding]:
    """The number compared with other values of the same run and with its table of epochs."""
    if chosen.strength != BEST:
        return
    said, value = f"{notebook.where}: {run.title} is printed", f"{chosen.value:.1f} %"
    curve = notebook.curves.get(run.id)
    best = sorted({round(one.value, 1) for one in mine if one.strength == BEST})
    if len(best) > 1:
        values = ", ".join(f"{one:.1f}" for one in best)
        text = f"{said} more than once, {values} %; the last, {value}, was used"
        yield look(run.notebook, "number-twice", text, "check which one the report should have")
    elif curve and abs(max(curve) - chosen.value) > 0.1001:
        text = f"{said} as {value}, but the best epoch of its table is {max(curve):.1f} %"
        yield look(run.notebook, "number-differs", text, "check which run each belongs to")


def _typed(
    notebook: Notebook, run: Run, chosen: Accuracy, has_curve: bool, reading: Reading
) -> Iterator[Finding]:
    """Whether the number is typed into the code that prints it."""
    if (reading.trains and has_curve) or len(chosen.text) < 4:
        return
    if chosen.text in literal_numbers(notebook.cells[chosen.cell].source):
        training = "no epochs of it are shown" if reading.trains else "the notebook has no training"
        text = f"the {chosen.value:.1f} % of {run.title} is typed into the code, and {training}"
        yield look(run.notebook, "number-typed", f"{notebook.where}: {text}", "ask how it was measured")


def _no_number(notebook: Notebook, run: Run, reading: Reading) -> Finding:
    """Why a run has no number: the notebook shows none, or this program did not find it."""
    where, cells = notebook.where, notebook.cells

    def missing(why: str) -> Finding:
        return error(run.notebook, "number-missing", f"{where}: {why} of {run.title}", _RUN_AND_SAVE)

    if unsettled := [one for one in reading.accuracies if one.run is None]:
        values = ", ".join(f"{one.value:.1f}" for one in unsettled[:6])
        why = next((f" ({one.contradiction})" for one in unsettled if one.contradiction), "")
        text = f"{where}: it is not clear which accuracy belongs to {run.title}; there are {values} %{why}"
        return look(run.notebook, "number-not-assigned", text, "look by hand")
    library = [cells[at] for at in reading.library_cells]
    by_library = run.library not in ("none", "scratch")
    counts = all(cell.count is not None for cell in cells if cell.outputs)
    if by_library and library and counts and not any(cell.executed for cell in library):
        return missing("the library part was not executed, so there is no accuracy")
    called = library or reading.imports & LIBRARY_MODULES
    called = called or any(ADAPTER_HUB.search(cell.source) for cell in notebook.code)
    if by_library and not called and reading.accuracies:
        text = f"{where}: no library is called, and no accuracy belongs to {run.title}"
        return look(run.notebook, "number-not-found", text, "check whether another module calls the library")
    if not shows_any_number(cells):
        return missing("no output shows an accuracy, so there is none")
    rest = _library_part(cells, reading) if by_library else []
    if rest and not shows_any_number(rest):
        ended = next((output.error for cell in rest for output in cell.outputs if output.error), "")
        why = f"the library part ended with {ended}" if ended else "the library part shows no number"
        return missing(f"{why}, so there is no accuracy")
    text = f"{where}: this program did not find the accuracy of {run.title} in the outputs"
    return look(run.notebook, "number-not-found", text, "look by hand")


def _library_part(cells: list[Cell], reading: Reading) -> list[Cell]:
    """The cells after all accuracies, from the first that names a library; empty if none does."""
    behind = max((one.cell for one in reading.accuracies), default=-1) + 1
    start = next((n for n in range(behind, len(cells)) if _OF_LIBRARY.search(cells[n].source)), len(cells))
    return cells[start:]


def _counts(notebook: Notebook, reading: Reading) -> Iterator[Finding]:
    """`Number of parameters: …`, which may count the whole model or the trained part alone."""
    number, where, counts = notebook.number, notebook.where, reading.counts
    first = notebook.runs[0]
    sizes = sizes_of(first.id, "course")
    known = [sizes_of(run.id, "course") for run in notebook.runs]
    others = [count for count in counts if all(count not in (one.whole, one.added) for one in known)]
    if sizes.whole in counts:
        yield ok(number, "count", f"{where}: {sizes.whole:,} parameters")
    elif sizes.added and sizes.added in counts:
        yield ok(number, "count", f"{where}: {sizes.added:,} parameters, the trained part of {sizes.whole:,}")
    elif number in PRINT_A_COUNT and not counts:
        text = f"{where}: no `Number of parameters: {sizes.whole:,}` was found"
        yield look(number, "count-missing", text, "look for the whole model's count by hand")
    elif number in PRINT_A_COUNT and others:
        text = f"{where} prints {others[0]:,} parameters; {first.title} has {sizes.whole:,}"
        if size := size_by_count(others[0], first.kind):
            text += f", and {others[0]:,} is the count of size {size:g}"
            yield error(number, "count-wrong", text, "train it with the size that is asked for")
        else:
            yield look(number, "count-unknown", text, "check what is counted")


def _libraries(notebook: Notebook, reading: Reading) -> Iterator[Finding]:
    """Whether a part from scratch imports or calls the library."""
    number, where = notebook.number, notebook.where
    imported = sorted(reading.imports & LIBRARY_MODULES)
    library_part = any(run.notebook == 4 and run.id in notebook.numbers for run in RUNS.values())
    scratch = [one.cell for one in reading.accuracies if one.run and one.run.library == "scratch"]
    fix = "check that the number does not come from the library"
    if number == 3 and imported and not library_part:
        text = f"{where} imports {', '.join(imported)}, although its adapter has to be from scratch"
        yield look(number, "scratch-imports", text, fix)
    elif number in (2, 5) and scratch and any(cell < scratch[0] for cell in reading.library_cells):
        text = f"{where}: a library is called above the number from scratch"
        yield look(number, "scratch-imports", text, fix)
