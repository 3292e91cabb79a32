"""A notebook as a submission holds it: which of the five it is, whether it was executed, what it found.

It is read as JSON and never executed. The kit's own notebooks say their numbers in tables that are read
exactly; in anybody else's, accuracies are looked for as best one can.
"""

from __future__ import annotations

import functools
import itertools
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import nbformat

from peft_scratch.assignment import FAR_OUTSIDE, FILES, PRINT_A_COUNT, RUNS, SEED_SPREAD, Run, points_outside
from peft_scratch.submission.archive import File
from peft_scratch.submission.contract import base_name_of, fitted
from peft_scratch.submission.findings import Finding, fault, note, ok

# A progress bar goes back to the start of its line, and so does what is printed after it.
_OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)
_AGAIN = "restart the kernel, run all cells from the top, and save"
_PROFILE = re.compile(r"^profile +(\w+), because ", re.MULTILINE)
_EPOCH = re.compile(r"^epoch (\d+)/(\d+): .*?test accuracy (\d+\.\d) %", re.MULTILINE)
_COUNT = re.compile(r"number of parameters\W{1,5}(\d[\d,_]{0,30})", re.IGNORECASE)
_ACCURACY = re.compile(
    r"(.{0,12})acc(?:uracy)?\b[^\w\n]{0,6}(?:is |of |= )?(\d{1,3}(?:\.\d+)?)\s?(%?)", re.IGNORECASE
)
_OF_TRAINING = re.compile(r"train\w*\W*$", re.IGNORECASE)
# What a notebook is about, by the words that its code repeats.
_ABOUT = (
    (5, re.compile(r"(?<![a-z])lora", re.IGNORECASE)),
    (2, re.compile(r"soft_?prompt|prompt_(?:emb|tuning)", re.IGNORECASE)),
    (3, re.compile(r"adapter", re.IGNORECASE)),
)
_ADAPTER_HUB = re.compile(r"SeqBn|\badapters\.|(?:from|import) adapters\b|train_adapter")
_NAMED = (
    (re.compile(r"(?:^|\D)0?([1-5])(?:\D|$)"), None),
    *((re.compile(word, re.IGNORECASE), n) for word, n in (("lora", 5), ("prompt", 2), ("hub|lib", 4))),
    *((re.compile(word, re.IGNORECASE), n) for word, n in (("adapter", 3), ("full|fine", 1))),
)


@dataclass
class Notebook:
    """One notebook of a submission.

    Attributes:
        number: which of the five, 1 to 5.
        file: where it was found.
        cells: the cells with code in them, blank ones left out.
        profile: which profile of the kit ran it; `None` if it is not the kit's.
        numbers: the accuracies in %, by run; a run whose number was not found is not in it.
    """

    number: int
    file: File
    cells: list[Any]
    profile: str | None = None
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        """The runs whose numbers it has to give."""
        return [run for run in RUNS.values() if run.notebook == self.number]

    @functools.cached_property
    def texts(self) -> list[str]:
        """What each cell put out, as text."""
        return [_text(cell) for cell in self.cells]


def examine(files: list[File]) -> tuple[dict[int, Notebook], list[Finding]]:
    """The notebooks among `files` by their number, and what is to be said of each and of those missing."""
    notebooks: dict[int, Notebook] = {}
    findings: list[Finding] = []
    for file in files:
        cells = _read(file)
        if isinstance(cells, str):
            number = _named(file.name)
            findings.append(
                fault(
                    number or FILES,
                    "notebook-damaged",
                    f"{file.where} is not a valid notebook ({cells})",
                    "open it in Jupyter and save it again",
                )
            )
            continue
        number = _number(file, cells)
        if number in notebooks:
            other = notebooks[number].file.where
            findings.append(
                fault(
                    number,
                    "notebook-twice",
                    f"{file.where} and {other} are both notebook {number}, by what their code is about",
                    "hand in one of each",
                )
            )
            continue
        notebook = notebooks[number] = Notebook(number, file, cells)
        if (named := _named(file.name)) not in (None, number):
            findings.append(
                note(
                    number,
                    "notebook-name",
                    f"{file.where} is named as notebook {named}, but its code is that of notebook {number}",
                    "see whether two were mixed up",
                )
            )
        findings += [*_execution(notebook), *_numbers(notebook), *_counts(notebook)]
    damaged = {found.item for found in findings if found.code == "notebook-damaged"}
    for number in range(1, 6):
        if number not in notebooks and number not in damaged:
            findings.append(
                fault(number, "notebook-missing", f"notebook {number} is missing", "execute it and add it")
            )
    return notebooks, findings


def _read(file: File) -> list[Any] | str:
    """The cells with code, or why the file is no notebook."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cells without a name, say: they do no harm
            notebook = nbformat.v4.reads(file.data.decode("utf-8"))
            nbformat.validate(notebook)
            return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    except Exception as problem:  # JSON, encoding, form, depth: each has its own
        first, _, _ = str(problem).strip().partition("\n")
        return f"{type(problem).__name__}: {first[:200]}"


def _number(file: File, cells: list[Any]) -> int:
    """Which of the five it is: by the runs that the kit's code prepares, else by what the code is about."""
    code = "\n".join(cell.source for cell in cells)
    for run in RUNS.values():
        if f'prepare("{run.id}")' in code:
            return run.notebook
    said = {number: len(about.findall(code)) for number, about in _ABOUT}
    most = max(said, key=lambda number: said[number])
    if said[most] < 2:
        return _named(file.name) or 1
    return 4 if most == 3 and _ADAPTER_HUB.search(code) else most


def _named(name: str) -> int | None:
    """Which of the five the file's name says it is."""
    stem = re.sub(r"\d{5,}", "", name.rpartition(".")[0])  # a student's number is no notebook's
    for pattern, number in _NAMED:
        if found := pattern.search(stem):
            return number or int(found[1])
    return None


def _text(cell: Any) -> str:
    said = []
    for output in cell.outputs:
        data = output.get("data", {})
        # A table has both forms; a page of HTML has the words between its tags.
        shown = data.get("text/markdown") or data.get("text/plain") or ""
        if shown.startswith("<IPython") and "text/html" in data:
            shown = re.sub(r"<[^<>]*>", " ", data["text/html"])
        said.append(output.get("text") or shown)
    text = "\n".join(part for part in said if isinstance(part, str))
    return _OVERWRITTEN.sub("", text)


def _execution(notebook: Notebook) -> list[Finding]:
    """Every cell executed, in order, without an error."""
    number, where, cells = notebook.number, notebook.file.where, notebook.cells
    if not cells:
        mend = "hand in the executed notebook"
        return [fault(number, "notebook-empty", f"{where} has no code in it", mend)]
    found = []
    counts = [cell.execution_count for cell in cells]
    if None in counts:
        cell = counts.index(None)
        found.append(
            fault(
                number,
                "not-executed",
                f"{where}: not executed are {counts.count(None)} of {len(cells)} code cells, the first is "
                f"`{_first_line(cells[cell])}`",
                _AGAIN,
            )
        )
    elif counts != list(range(1, len(cells) + 1)):
        cell = next(i for i, count in enumerate(counts) if count != i + 1)
        found.append(
            fault(
                number,
                "out-of-order",
                f"{where} was not executed from top to bottom: code cell {cell + 1}, "
                f"`{_first_line(cells[cell])}`, was run as number {counts[cell]}",
                _AGAIN,
            )
        )
    errors = [(cell, output) for cell in cells for output in cell.outputs if output.output_type == "error"]
    for cell, output in errors[:1]:
        found.append(
            fault(
                number,
                "error-output",
                f"{where}: the cell `{_first_line(cell)}` ended with {output.get('ename', 'an error')}",
                f"mend it, then {_AGAIN}",
            )
        )
    return found or [ok(number, "executed", f"{where}: {len(cells)} code cells, executed in order, no error")]


def _first_line(cell: Any) -> str:
    return cell.source.strip().splitlines()[0][:60]


# The numbers


def _numbers(notebook: Notebook) -> list[Finding]:
    text = "\n".join(notebook.texts)
    if found := _PROFILE.search(text):
        notebook.profile = found[1]
        return [said for run in notebook.runs for said in _number_of_ours(notebook, run, text)]
    return _numbers_of_others(notebook)


def _number_of_ours(notebook: Notebook, run: Run, text: str) -> list[Finding]:
    """The number as the kit's tables have it, against the log of its training and the honest runs."""
    number, where = notebook.number, notebook.file.where
    rows = re.findall(
        rf"^\| {re.escape(run.title)} \| (?:{run.notebook} \| )?(\d+\.\d)\b", text, re.MULTILINE
    )
    if not rows:
        return [_missing(notebook, run)]
    said = float(rows[-1])
    notebook.numbers[run.id] = said
    if len(set(rows)) > 1:
        text = f"{where}: {run.title} is {' and '.join(sorted(set(rows)))} % in different tables"
        return [fault(number, "number-differs", text, _AGAIN)]
    if (logged := _logged(notebook, run)) not in (None, said):
        text = f"{where}: {run.title} is {said} % in the table, but {logged} % in the log of its training"
        return [fault(number, "number-differs", text, _AGAIN)]
    return [judged(number, run.id, said, where, notebook.profile)]


def _logged(notebook: Notebook, run: Run) -> float | None:
    """The best epoch by what was printed while the run trained; `None` unless each epoch is there."""
    for cell, text in zip(notebook.cells, notebook.texts, strict=True):
        if f'"{run.id}"' in cell.source and "train(" in cell.source:
            epochs = _EPOCH.findall(text)
            if epochs and len(epochs) == int(epochs[0][1]):
                return max(float(accuracy) for _, _, accuracy in epochs)
    return None


def _numbers_of_others(notebook: Notebook) -> list[Finding]:
    """The best accuracy of each cell, dealt out to the runs so that they fit their bands best."""
    best = [value for text in notebook.texts if (value := max(_accuracies(text), default=None)) is not None]
    runs = notebook.runs
    if not best:
        return [_missing(notebook, run) for run in runs]
    # No notebook has more runs than three; of many cells the last ones are those that train.
    ways = itertools.permutations([*best[-8:], *[None] * (len(runs) - 1)], len(runs))
    dealt = min(ways, key=lambda way: sum(_misfit(*pair) for pair in zip(runs, way, strict=True)))
    found = []
    for run, value in zip(runs, dealt, strict=True):
        if value is None or points_outside(run.id, value) > FAR_OUTSIDE:
            seen = ", ".join(f"{value:.1f}" for value in best)
            found.append(
                note(
                    notebook.number,
                    "number-not-found",
                    f"{notebook.file.where}: no accuracy that {run.title} could have; there are {seen} %",
                    "look by hand",
                )
            )
        else:
            notebook.numbers[run.id] = round(value, 1)
            found.append(judged(notebook.number, run.id, round(value, 1), notebook.file.where, "course"))
    return found


def _accuracies(text: str) -> list[float]:
    """Whatever looks like an accuracy above chance, in %, but for those on the training reviews."""
    values = []
    for before, value, percent in _ACCURACY.findall(text):
        share = float(value) if percent or float(value) > 1 else 100 * float(value)
        if 50 < share < 100 and not _OF_TRAINING.search(before):
            values.append(share)
    return values


def _misfit(run: Run, value: float | None) -> float:
    low, high = run.published
    # Within its band a value is best in the middle; a run without one is worse than any near miss.
    return 10.0 if value is None else points_outside(run.id, value) + 0.01 * abs(value - (low + high) / 2)


def _missing(notebook: Notebook, run: Run) -> Finding:
    return fault(
        notebook.number,
        "number-missing",
        f"{notebook.file.where}: the accuracy of {run.title} is not in the outputs",
        _AGAIN,
    )


def judged(item: int, run_id: str, percent: float, where: str, profile: str | None) -> Finding:
    """A number held against the honest runs of the course's constants; other profiles have none."""
    said = f"{where}: {RUNS[run_id].title} is {percent:.1f} %"
    if profile != "course":
        return ok(item, "number", f"{said} (profile {profile}, for which there is no band)")
    low, high = RUNS[run_id].published
    outside = points_outside(run_id, percent)
    if outside <= SEED_SPREAD:
        return ok(item, "number", f"{said}, as honest runs are ({low} to {high})")
    text = f"{said}; honest runs of the course's constants gave {low} to {high}"
    if outside <= FAR_OUTSIDE:
        return note(item, "number-unusual", text, "another seed moves it by some 0.3: look for the reason")
    return fault(item, "number-out-of-band", text, "see which constant, base or split was another one")


# The counts


def _counts(notebook: Notebook) -> list[Finding]:
    """`Number of parameters: …` against the formula."""
    number, where = notebook.number, notebook.file.where
    base = base_name_of(notebook.profile or "course")
    right = {run.title: fitted(run.id, base).whole for run in notebook.runs}
    printed = [int(re.sub(r"\D", "", count)) for text in notebook.texts for count in _COUNT.findall(text)]
    wrong = [count for count in printed if count not in right.values()]
    first = next(iter(right.values()))
    if wrong:
        text = f"{where} prints {wrong[0]:,} parameters; it should be {_alternatives(right)}"
        mend = "count the whole model, and see what the method was put into"
        # A library may well count otherwise than the course does; from scratch nothing may.
        return [
            (note if first in printed else fault)(number, "count-wrong", text, mend),
        ]
    if number in PRINT_A_COUNT and first not in printed:
        text = f"{where} does not print `Number of parameters: {first:,}`"
        return [fault(number, "count-missing", text, "print the whole model's count with the method in it")]
    return [ok(number, "count", f"{where}: {first:,} parameters")] if printed else []


def _alternatives(right: dict[str, int]) -> str:
    titles: dict[int, str] = {}
    for title, count in right.items():
        titles.setdefault(count, title)
    return " or ".join(f"{count:,} ({title})" for count, title in titles.items())
