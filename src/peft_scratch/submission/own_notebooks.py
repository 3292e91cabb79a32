"""This kit's own notebooks: their results are read from the JSON that their last cell displays.

Older notebooks of the kit only print their numbers, so their printed lines are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from peft_scratch.assignment import PRINT_A_COUNT, PROFILES, RUNS, Run
from peft_scratch.submission.book import RUN_AGAIN, Notebook
from peft_scratch.submission.cells import Cell
from peft_scratch.submission.findings import Finding, error, look, ok
from peft_scratch.submission.sizes import sizes_of

_FORMAT = 1
_PROFILE = re.compile(r"^profile +(\w{1,40}), because ", re.MULTILINE)
_EPOCH = re.compile(r"^epoch (\d{1,4})/(\d{1,4}): .*?test accuracy (\d{1,3}\.\d) %", re.MULTILINE)
_COUNT = re.compile(r"number of parameters\W{1,5}(\d[\d,_]{0,30})", re.IGNORECASE)


def _results_of(cells: list[Cell]) -> dict[str, Any] | None:
    """The last results that the notebook displays for programs, if they have the form of this kit."""
    shown = [output.results for cell in cells for output in cell.outputs if output.results]
    right = [one for one in shown if one.get("format") == _FORMAT and isinstance(one.get("results"), list)]
    return right[-1] if right else None


def number_of(cells: list[Cell]) -> int | None:
    """Which notebook of the kit it is; None if it is not the kit's."""
    results = _results_of(cells)
    if results is not None and results.get("notebook") in range(1, 6):
        return int(results["notebook"])
    code = "\n".join(cell.source for cell in cells if cell.kind == "code")
    return next((run.notebook for run in RUNS.values() if f'prepare("{run.id}")' in code), None)


def is_own(notebook: Notebook) -> bool:
    """Whether this kit made the notebook. If so, set its profile."""
    results = _results_of(notebook.cells)
    if results is not None and isinstance(results.get("profile"), str):
        notebook.profile = results["profile"][:40]
        return True
    found = _PROFILE.search(_printed(notebook))
    if found and any(f'"{run.id}"' in cell.source for run in RUNS.values() for cell in notebook.code):
        notebook.profile = found[1]
        return True
    return False


def examine(notebook: Notebook) -> Iterator[Finding]:
    """The numbers, their logs and the counts of a notebook of this kit."""
    results = _results_of(notebook.cells)
    listed = results["results"] if results else []
    entries = {one["id"]: one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)}
    for run in notebook.runs:
        if results is not None:
            yield from _from_results(notebook, run, entries.get(run.id, {}))
        else:
            yield from _from_tables(notebook, run)
        if (logged := _logged_epochs(notebook, run)) is not None:
            notebook.curves[run.id] = logged
    yield from _counts(notebook)


def _from_results(notebook: Notebook, run: Run, entry: dict[str, Any]) -> Iterator[Finding]:
    percent = entry.get("percent")
    if not isinstance(percent, (int, float)) or isinstance(percent, bool) or not 0 <= percent <= 100:
        yield _missing(notebook, run)
        return
    yield _agreed(notebook, run, round(float(percent), 1))
    if notebook.profile in PROFILES:
        sizes = sizes_of(run.id, notebook.profile)
        for name, right in (("whole", sizes.whole), ("added", sizes.added)):
            said = entry.get(name)
            if said is not None and said != right:
                counts = f"{run.title} has {right:,} {name} parameters, but the results say {said}"
                yield error(notebook.number, "count-wrong", f"{notebook.where}: {counts}", RUN_AGAIN)


def _from_tables(notebook: Notebook, run: Run) -> Iterator[Finding]:
    row = rf"^\| {re.escape(run.title)} \| (?:{run.notebook} \| )?(\d{{1,3}}\.\d)\b"
    rows = re.findall(row, _printed(notebook), re.MULTILINE)
    if len(set(rows)) > 1:
        notebook.numbers[run.id] = float(rows[-1])
        said = f"{run.title} is {' and '.join(sorted(set(rows)))} % in different tables"
        yield error(notebook.number, "number-differs", f"{notebook.where}: {said}", RUN_AGAIN)
    else:
        yield _agreed(notebook, run, float(rows[-1])) if rows else _missing(notebook, run)


def _agreed(notebook: Notebook, run: Run, said: float) -> Finding:
    """The number compared with the log of its own training, then with the published runs."""
    notebook.numbers[run.id] = said
    logged = _logged_epochs(notebook, run)
    if logged and max(logged) != said:
        text = f"{run.title} is {said} % in the table, but {max(logged)} % in the log of its training"
        return error(notebook.number, "number-differs", f"{notebook.where}: {text}", RUN_AGAIN)
    return notebook.compared(run, said)


def _logged_epochs(notebook: Notebook, run: Run) -> list[float] | None:
    """The accuracies printed while the run trained, in %; `None` unless each epoch is there."""
    for cell in notebook.code:
        if f'"{run.id}"' in cell.source and "train(" in cell.source:
            epochs = _EPOCH.findall(cell.printed)
            if epochs and len(epochs) == int(epochs[0][1]):
                return [float(accuracy) for _, _, accuracy in epochs]
    return None


def _missing(notebook: Notebook, run: Run) -> Finding:
    text = f"{notebook.where}: the accuracy of {run.title} is not in the outputs"
    return error(notebook.number, "number-missing", text, RUN_AGAIN)


def _printed(notebook: Notebook) -> str:
    return "\n".join(cell.printed for cell in notebook.code)


def _counts(notebook: Notebook) -> Iterator[Finding]:
    """`Number of parameters: …` compared with the formula."""
    number, where = notebook.number, notebook.where
    profile = notebook.profile if notebook.profile in PROFILES else "course"
    titles: dict[int, str] = {}
    for run in notebook.runs:
        titles.setdefault(sizes_of(run.id, profile).whole, run.title)
    first = next(iter(titles))
    printed = [int(re.sub(r"\D", "", count)) for count in _COUNT.findall(_printed(notebook))]
    if wrong := [count for count in printed if count not in titles]:
        right = " or ".join(f"{count:,} ({title})" for count, title in titles.items())
        text = f"{where} prints {wrong[0]:,} parameters; it should print {right}"
        # A library may count differently from the assignment, but code from scratch may not.
        say = look if first in printed else error
        yield say(number, "count-wrong", text, "count the whole model, and check where the method was put")
    elif number in PRINT_A_COUNT and first not in printed:
        text = f"{where} does not print `Number of parameters: {first:,}`"
        yield error(number, "count-missing", text, "print the count of the whole model with the method in it")
    elif printed:
        yield ok(number, "count", f"{where}: {first:,} parameters")
