"""This kit's own notebooks: their results are read from the JSON that their last cell displays.

Older notebooks of the kit print their numbers only; those lines are read as far as they need.
"""

from __future__ import annotations

import re
from typing import Any

from peft_scratch.assignment import PRINT_A_COUNT, PROFILES, RUNS, Run
from peft_scratch.submission.book import Notebook, compared
from peft_scratch.submission.cells import Cell
from peft_scratch.submission.findings import Finding, error, look, ok
from peft_scratch.submission.sizes import sizes_of

_FORMAT = 1
_AGAIN = "restart the kernel, run all cells from the top, and save"
_PROFILE = re.compile(r"^profile +(\w{1,40}), because ", re.MULTILINE)
_EPOCH = re.compile(r"^epoch (\d{1,4})/(\d{1,4}): .*?test accuracy (\d{1,3}\.\d) %", re.MULTILINE)
_COUNT = re.compile(r"number of parameters\W{1,5}(\d[\d,_]{0,30})", re.IGNORECASE)


def results_of(cells: list[Cell]) -> dict[str, Any] | None:
    """The last results that the notebook displays for programs, if they have the form of this kit."""
    shown = [output.results for cell in cells for output in cell.outputs if output.results]
    for results in reversed(shown):
        entries = results.get("results")
        if results.get("format") == _FORMAT and isinstance(entries, list):
            return results
    return None


def number_of(cells: list[Cell], code: str) -> int | None:
    """Which notebook of the kit it is; None if it is not the kit's."""
    results = results_of(cells)
    if results is not None and results.get("notebook") in range(1, 6):
        return int(results["notebook"])
    return next((run.notebook for run in RUNS.values() if f'prepare("{run.id}")' in code), None)


def is_own(notebook: Notebook) -> bool:
    """Whether this kit made the notebook; its profile is then set."""
    results = results_of(notebook.cells)
    if results is not None and isinstance(results.get("profile"), str):
        notebook.profile = results["profile"][:40]
        return True
    found = _PROFILE.search("\n".join(map(_text, notebook.code)))
    if found and any(f'"{run.id}"' in cell.source for run in RUNS.values() for cell in notebook.code):
        notebook.profile = found[1]
        return True
    return False


def examine(notebook: Notebook) -> list[Finding]:
    """The numbers, their logs and the counts of a notebook of this kit."""
    findings = []
    results = results_of(notebook.cells)
    entries = {
        e["id"]: e
        for e in (results or {}).get("results", [])
        if isinstance(e, dict) and _is_text(e.get("id"))
    }
    for run in notebook.runs:
        if results is not None:
            findings += _from_results(notebook, run, entries.get(run.id))
        else:
            findings += _from_tables(notebook, run)
        if (logged := logged_epochs(notebook, run)) is not None:
            notebook.curves[run.id] = logged
    return [*findings, *_counts(notebook)]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _from_results(notebook: Notebook, run: Run, entry: dict[str, Any] | None) -> list[Finding]:
    percent = (entry or {}).get("percent")
    if not isinstance(percent, (int, float)) or isinstance(percent, bool) or not 0 <= percent <= 100:
        return [_missing(notebook, run)]
    findings = _agreed(notebook, run, round(float(percent), 1))
    profile = notebook.profile if notebook.profile in PROFILES else None
    if profile and isinstance(entry, dict):
        sizes = sizes_of(run.id, profile)
        for name, right in (("whole", sizes.whole), ("added", sizes.added)):
            said = entry.get(name)
            if said is not None and said != right:
                counts = f"{run.title} has {right:,} {name} parameters, the results say {said}"
                text = f"{notebook.file.where}: {counts}"
                findings.append(error(notebook.number, "count-wrong", text, _AGAIN))
    return findings


def _from_tables(notebook: Notebook, run: Run) -> list[Finding]:
    row = rf"^\| {re.escape(run.title)} \| (?:{run.notebook} \| )?(\d{{1,3}}\.\d)\b"
    rows = re.findall(row, "\n".join(map(_text, notebook.code)), re.MULTILINE)
    if not rows:
        return [_missing(notebook, run)]
    if len(set(rows)) > 1:
        notebook.numbers[run.id] = float(rows[-1])
        text = (
            f"{notebook.file.where}: {run.title} is {' and '.join(sorted(set(rows)))} % in different tables"
        )
        return [error(notebook.number, "number-differs", text, _AGAIN)]
    return _agreed(notebook, run, float(rows[-1]))


def _agreed(notebook: Notebook, run: Run, said: float) -> list[Finding]:
    """The number against the log of its own training, then beside the published runs."""
    notebook.numbers[run.id] = said
    logged = logged_epochs(notebook, run)
    if logged and max(logged) != said:
        text = (
            f"{notebook.file.where}: {run.title} is {said} % in the table, but {max(logged)} % in the log of "
            "its training"
        )
        return [error(notebook.number, "number-differs", text, _AGAIN)]
    return [compared(notebook.number, run.id, said, notebook.file.where, notebook.profile)]


def logged_epochs(notebook: Notebook, run: Run) -> list[float] | None:
    """The accuracies printed while the run trained, in %; `None` unless each epoch is there."""
    for cell in notebook.code:
        if f'"{run.id}"' in cell.source and "train(" in cell.source:
            epochs = _EPOCH.findall(_text(cell))
            if epochs and len(epochs) == int(epochs[0][1]):
                return [float(accuracy) for _, _, accuracy in epochs]
    return None


def _missing(notebook: Notebook, run: Run) -> Finding:
    text = f"{notebook.file.where}: the accuracy of {run.title} is not in the outputs"
    return error(notebook.number, "number-missing", text, _AGAIN)


def _text(cell: Cell) -> str:
    return "\n".join(output.text for output in cell.outputs)


def _counts(notebook: Notebook) -> list[Finding]:
    """`Number of parameters: …` against the formula."""
    number, where = notebook.number, notebook.file.where
    profile = notebook.profile if notebook.profile in PROFILES else "course"
    right = {run.title: sizes_of(run.id, profile).whole for run in notebook.runs}
    text = "\n".join(map(_text, notebook.code))
    printed = [int(re.sub(r"\D", "", count)) for count in _COUNT.findall(text)]
    wrong = [count for count in printed if count not in right.values()]
    first = next(iter(right.values()))
    if wrong:
        said = f"{where} prints {wrong[0]:,} parameters; it should be {_alternatives(right)}"
        # A library may well count otherwise than the assignment does; from scratch nothing may.
        say = look if first in printed else error
        return [
            say(number, "count-wrong", said, "count the whole model, and see what the method was put into")
        ]
    if number in PRINT_A_COUNT and first not in printed:
        said = f"{where} does not print `Number of parameters: {first:,}`"
        return [error(number, "count-missing", said, "print the whole model's count with the method in it")]
    return [ok(number, "count", f"{where}: {first:,} parameters")] if printed else []


def _alternatives(right: dict[str, int]) -> str:
    titles: dict[int, str] = {}
    for title, count in right.items():
        titles.setdefault(count, title)
    return " or ".join(f"{count:,} ({title})" for count, title in titles.items())
