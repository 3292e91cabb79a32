"""A submission compared with the assignment, as a checklist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from peft_scratch.assignment import FILES, PROFILES, REPORT
from peft_scratch.results import RunResult
from peft_scratch.submission import copies, notebooks, own_results, report, weights
from peft_scratch.submission.archive import File, Gathered, gather
from peft_scratch.submission.book import Notebook
from peft_scratch.submission.findings import Checked, Finding, error, look, ok, run_of
from peft_scratch.submission.names import (
    REHEARSAL,
    Name,
    file_names,
    folded,
    number_in,
    read_name,
    western_digits,
    written_name,
)
from peft_scratch.wording import counted


def check(paths: Iterable[Path] | Path, deep: bool = False, traces: bool = False) -> Checked:
    """The checklist of one submission: a folder, or files that belong together.

    Args:
        paths: the folder, or the files.
        deep: also load each weight file into its base and measure the accuracy again.
        traces: also keep what `copies.find` needs to find copies.
    """
    return inspect(gather([paths] if isinstance(paths, Path) else paths), deep, traces=traces)


def inspect(
    gathered: Gathered, deep: bool = False, student: tuple[str, str] = ("", ""), traces: bool = False
) -> Checked:
    """The checklist of a submission that is already in memory.

    Args:
        student: number and name, if no file is named after the student yet.
    """
    checked = Checked(gathered.name, student=student, handed_in=gathered.newest)
    findings = checked.findings
    findings += gathered.findings
    findings += _names(gathered, checked)
    found: dict[int, Notebook] = {}
    with _enough_memory("the notebooks", FILES, findings):
        found, said = notebooks.examine(gathered.of(".ipynb"))
        findings += said
    results, said = own_results.read(gathered.of(".json"))
    findings += said
    findings += _profile(gathered, found, results, checked)
    findings += own_results.agreement(found, results)
    for notebook in found.values():
        checked.numbers |= notebook.numbers
        checked.curves |= notebook.curves
    fitting: dict[str, weights.Entries] = {}
    with _enough_memory("the weights", FILES, findings):
        fitting, said = weights.examine(gathered.of(".pt", ".pth"), checked.profile)
        findings += said
    with _enough_memory("the report", REPORT, findings):
        findings += report.examine(_reports(gathered), checked.numbers, checked.profile, checked.student[0])
    if traces:
        checked.traces = copies.traces_of(gathered, found, fitting, checked.student)
    if deep:
        from peft_scratch.submission.deep import reproduce

        findings += reproduce(fitting, checked.numbers, checked.profile)
    return checked


@contextmanager
def _enough_memory(what: str, item: int, findings: list[Finding]) -> Iterator[None]:
    """If reading `what` takes too much memory, say so and let the rest of the submission be read."""
    try:
        yield
    except (MemoryError, RecursionError):
        text = f"reading {what} takes more memory than one submission may use"
        findings.append(look(item, "too-much", text, "look by hand"))


def _names(gathered: Gathered, checked: Checked) -> list[Finding]:
    """Whether the files are named after the student, and whether the zips hold what they should."""
    if not gathered.packed:
        text = "this is a working folder and is not packed yet"
        return [look(FILES, "not-packed", text, "`make submission` makes the files to hand in")]
    # The names of the zips count, not the names of the files in them.
    outer = [where for where in gathered.archives if not gathered.archives[where] >= {".zip"}]
    outer += [file.where for file in _reports(gathered)[:1]]
    names = {where: read_name(where.rpartition("/")[2]) for where in outer}
    known = {where: name for where, name in names.items() if name is not None}
    if known:
        first = next(iter(known))
        checked.student, checked.written_name = known[first], written_name(first.rpartition("/")[2])
    elif not checked.student[0]:
        checked.student = (number_in(Path(gathered.name).name), checked.student[1])
    found = [_misnamed(where) for where, name in names.items() if name is None]
    if len(set(known.values())) > 1:
        found.append(_different_names(known))
    elif known and not found:
        text = f"{counted(len(known), 'file')} named after {checked.student[0]}, {checked.written_name}"
        found.append(ok(FILES, "names", text))
    return [*found, *_zips(gathered)]


def _zips(gathered: Gathered) -> Iterator[Finding]:
    loose = sorted({file.kind for file in gathered.of(".ipynb", ".pt") if ".zip/" not in file.where.lower()})
    if not gathered.archives:
        text = "notebooks and weights are not in zip files"
        yield error(FILES, "zips-missing", text, "pack them into one zip each")
    elif loose:
        text = f"there are {' and '.join(loose)} files outside the zip files"
        yield look(FILES, "zips-loose", text, "pack notebooks and weights into one zip each")
    for where, kinds in gathered.archives.items():
        if {".ipynb", ".pt"} <= kinds:
            text = f"{where} holds both notebooks and weights"
            yield look(FILES, "zips-mixed", text, "the assignment asks for one zip each")


def _misnamed(where: str) -> Finding:
    books, weights, report = file_names("{STD_Number}", "{Name}")
    form = f"name it {report}" if where.lower().endswith(".pdf") else f"name it {books} or {weights}"
    name = where.rpartition("/")[2].rpartition(".")[0]
    if (number := number_in(name)) and any(c.isalpha() for c in western_digits(name).replace(number, "")):
        return look(FILES, "name-order", f"{where} has the student number, but does not begin with it", form)
    return error(FILES, "name-form", f"{where} is not named after student number and name", form)


def _different_names(known: dict[str, Name]) -> Finding:
    """Whether the files are of several students, or of one whose name is spelt in several ways."""
    names = [name.name for name in known.values()]
    if len({name.number for name in known.values()}) == 1 and _one_person(names):
        text = f"one student number, two spellings of the name: {', '.join(known)}"
        return look(FILES, "names-spelt", text, "use one spelling")
    text = f"the files are named after different students: {', '.join(known)}"
    return error(FILES, "names-differ", text, "use one number and one name")


def _one_person(names: list[str]) -> bool:
    """Whether two spellings, or two scripts, can be one name: Ada Lovelace and Ada Byron cannot."""
    letters = ["".join(c for c in name if c.isalnum()) for name in (names[0], names[-1])]
    if letters[0] == letters[1] or len({name.isascii() for name in names}) > 1:
        return True
    first, *others = (set(folded(name).split()) for name in names)
    return all(other <= first or first <= other for other in others)


def _reports(gathered: Gathered) -> list[File]:
    """The PDFs. The first is the one named as the assignment asks, else after a student, else `report`."""

    def rank(file: File) -> tuple[bool, bool, bool]:
        called = re.search("report|گزارش", file.name, re.IGNORECASE)
        return read_name(file.name) is None, not number_in(file.name), not called

    return sorted(gathered.of(".pdf"), key=rank)


def _profile(
    gathered: Gathered, found: dict[int, Notebook], results: dict[str, RunResult], checked: Checked
) -> Iterator[Finding]:
    """Set the profile of the submission. Any sign of a profile other than `course` makes it a rehearsal."""
    said = {f"notebook {number}": one.profile for number, one in found.items() if one.profile}
    said |= {f"the result {name}": result.profile for name, result in results.items()}
    names = [*gathered.archives, *(file.name for file in gathered.of(".pdf"))]
    marked = (name for name in names if name.rpartition("/")[2].startswith(REHEARSAL))
    others = [(where, profile) for where, profile in said.items() if profile != "course"]
    others += [(name, "offline") for name in marked]
    if not others:
        return
    where, checked.profile = others[0]
    if len(set(said.values())) > 1:
        text = f"the profiles are mixed: {', '.join(f'{where} is {name}' for where, name in said.items())}"
        yield error(FILES, "profiles-mixed", text, "run all notebooks in the course profile")
    if checked.profile not in PROFILES:
        text = f"{where} is from a profile {checked.profile!r}, which does not exist"
        checked.profile = "offline"
        yield error(FILES, "profile-unknown", text, "run all notebooks in the course profile")
        return
    text = f"{run_of(checked.profile)} is a rehearsal and not a submission ({where})"
    fix = "run the notebooks in the course profile, which needs a GPU and the Hugging Face Hub"
    yield look(FILES, "rehearsal", text, fix)
