"""A submission against the assignment, as a checklist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from peft_scratch.assignment import FILES, PROFILES, REPORT
from peft_scratch.results import RunResult
from peft_scratch.submission import copies, notebooks, own_results, report, weights
from peft_scratch.submission.archive import File, Gathered, gather
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.findings import Checked, Finding, error, look, ok, run_of
from peft_scratch.submission.names import (
    REHEARSAL,
    file_names,
    folded,
    number_in,
    read_name,
    western_digits,
    written_name,
)
from peft_scratch.wording import counted

_T = TypeVar("_T")
_DAMAGED_SUBMISSION = "look by hand"


def check(paths: Iterable[Path] | Path, deep: bool = False, traces: bool = False) -> Checked:
    """The checklist of one submission: a folder, or files that belong together.

    Args:
        paths: the folder, or the files.
        deep: also load each weight file into its base, and reproduce the reported accuracy.
        traces: also keep what copies are found by (`copies.find`).
    """
    return inspect(gather([paths] if isinstance(paths, Path) else paths), deep, traces=traces)


def inspect(
    gathered: Gathered, deep: bool = False, student: tuple[str, str] = ("", ""), traces: bool = False
) -> Checked:
    """As `check`, of what was read; `student`: number and name, where no file is named after them yet."""
    checked = Checked(gathered.name, student=student, handed_in=gathered.newest)
    findings = checked.findings
    findings += gathered.findings
    findings += _names(gathered, checked)
    found, said = _guarded(FILES, "the notebooks", lambda: notebooks.examine(gathered.of(".ipynb")), {})
    findings += said
    results, said = own_results.read(gathered.of(".json"))
    findings += said
    findings += _profile(gathered, found, results, checked)
    findings += own_results.agreement(found, results)
    for notebook in found.values():
        checked.numbers |= notebook.numbers
        checked.curves |= notebook.curves
    files = gathered.of(".pt", ".pth")
    fitting, said = _guarded(FILES, "the weights", lambda: weights.examine(files, checked.profile), {})
    findings += said
    reports = _reports(gathered)
    arguments = checked.numbers, checked.profile, checked.student[0]
    _, said = _guarded(REPORT, "the report", lambda: (None, report.examine(reports, *arguments)), None)
    findings += said
    if traces:
        checked.traces = copies.traces_of(gathered, found, fitting, checked.student)
    if deep:
        from peft_scratch.submission.deep import reproduce

        findings += reproduce(fitting, checked.numbers, checked.profile)
    return checked


def _guarded(
    item: int, what: str, examine: Callable[[], tuple[_T, list[Finding]]], nothing: _T
) -> tuple[_T, list[Finding]]:
    """What `examine` finds; where a file takes too much memory, the rest of the submission is still read."""
    try:
        return examine()
    except (MemoryError, RecursionError):
        text = f"{what} need more memory than a submission is given and were not read"
        return nothing, [look(item, "too-much", text, _DAMAGED_SUBMISSION)]


def _names(gathered: Gathered, checked: Checked) -> list[Finding]:
    """The files are named after number and name, and the zips hold what they should."""
    if not gathered.packed:
        text = "a working folder, not packed yet"
        return [look(FILES, "not-packed", text, "`make submission` makes the files that are handed in")]
    # What came out of a zip has the zip's name on it.
    outer = [where for where in gathered.archives if not gathered.archives[where] >= {".zip"}]
    outer += [file.where for file in _reports(gathered)[:1]]
    names = {where: read_name(where.rpartition("/")[2]) for where in outer}
    found = [_misnamed(where) for where, name in names.items() if name is None]
    known = {where: name for where, name in names.items() if name is not None}
    if known:
        first = next(iter(known))
        checked.student, checked.written_name = known[first], written_name(first.rpartition("/")[2])
    elif not checked.student[0]:
        checked.student = (number_in(Path(gathered.name).name), checked.student[1])
    numbers = {name.number for name in known.values()}
    if len(numbers) > 1:
        text = f"the files are named after different students: {', '.join(known)}"
        found.append(error(FILES, "names-differ", text, "use one number and one name"))
    elif len({name.name for name in known.values()}) > 1:
        found.append(_spellings(known))
    elif known and not found:
        text = f"{counted(len(known), 'file')} named after {checked.student[0]}, {checked.written_name}"
        found.append(ok(FILES, "names", text))
    loose = sorted({file.kind for file in gathered.of(".ipynb", ".pt") if ".zip/" not in file.where.lower()})
    if not gathered.archives:
        text = "notebooks and weights are not in zip files"
        found.append(error(FILES, "zips-missing", text, "pack them into one each"))
    elif loose:
        text = f"there are {' and '.join(loose)} files outside of the zip files"
        found.append(look(FILES, "zips-loose", text, "pack notebooks and weights into one zip each"))
    for where, kinds in gathered.archives.items():
        if {".ipynb", ".pt"} <= kinds:
            text = f"{where} holds both notebooks and weights"
            found.append(look(FILES, "zips-mixed", text, "the assignment asks for one zip each"))
    return found


def _misnamed(where: str) -> Finding:
    books, weights, report = file_names("{STD_Number}", "{Name}")
    form = f"name it {report}" if where.lower().endswith(".pdf") else f"name it {books} or {weights}"
    name = where.rpartition("/")[2].rpartition(".")[0]
    if (number := number_in(name)) and any(c.isalpha() for c in western_digits(name).replace(number, "")):
        return look(FILES, "name-order", f"{where} has the student number, but does not begin with it", form)
    return error(FILES, "name-form", f"{where} is not named after student number and name", form)


def _spellings(known: dict[str, tuple[str, str]]) -> Finding:
    """One number with two names: two scripts or spellings of one, or really another name."""
    names = [name for _, name in known.values()]
    scripts = {name.isascii() for name in names}
    words = [set(folded(name).split()) for name in names]
    if len(scripts) > 1 or words[0] & words[-1] or _squeezed(names[0]) == _squeezed(names[-1]):
        # Ada Lovelace and Ada Byron share a word, and differ in another.
        alike = len(scripts) > 1 or all(one <= words[0] or words[0] <= one for one in words)
        if alike or _squeezed(names[0]) == _squeezed(names[-1]):
            return look(
                FILES, "names-spelt", f"one number, two spellings: {', '.join(known)}", "use one spelling"
            )
    text = f"the files are named after different students: {', '.join(known)}"
    return error(FILES, "names-differ", text, "use one number and one name")


def _squeezed(name: str) -> str:
    return "".join(c for c in name if c.isalnum())


def _reports(gathered: Gathered) -> list[File]:
    """The PDFs, first the one that is named as the report has to be, or after a student, or a report."""

    def rank(file: File) -> tuple[bool, bool, bool]:
        called = re.search("report|گزارش", file.name, re.IGNORECASE)
        return read_name(file.name) is None, not number_in(file.name), not called

    return sorted(gathered.of(".pdf"), key=rank)


def _profile(
    gathered: Gathered, found: dict[int, Notebook], results: dict[str, RunResult], checked: Checked
) -> list[Finding]:
    """Which profile the submission is from; any trace of another than `course` makes it a rehearsal."""
    said = {f"notebook {number}": one.profile for number, one in found.items() if one.profile}
    said |= {f"the result {name}": result.profile for name, result in results.items()}
    names = [*gathered.archives, *(file.name for file in gathered.of(".pdf"))]
    marked = next((name for name in names if name.rpartition("/")[2].startswith(REHEARSAL)), None)
    other = {where: profile for where, profile in said.items() if profile != "course"}
    findings = []
    if marked and not other:
        checked.profile, where = "offline", marked
    elif other:
        where, checked.profile = next(iter(other.items()))
    else:
        return []
    if len(set(said.values())) > 1:
        text = f"the profiles are mixed: {', '.join(f'{where} is {name}' for where, name in said.items())}"
        findings.append(error(FILES, "profiles-mixed", text, "run all notebooks in the course profile"))
    if checked.profile not in PROFILES:
        text = f"{where} is from a profile {checked.profile!r}, which there is not"
        checked.profile = "offline"
        return [*findings, error(FILES, "profile-unknown", text, "run all notebooks in the course profile")]
    text = f"{run_of(checked.profile)} is a rehearsal and not a submission ({where})"
    fix = "run the notebooks in the course profile, which takes a GPU and the Hugging Face Hub"
    return [*findings, look(FILES, "rehearsal", text, fix)]
