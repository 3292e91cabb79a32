"""A submission against the contract, as a checklist."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peft_scratch.assignment import FILES, PARTS, PROFILES, RUNS
from peft_scratch.errors import UserError
from peft_scratch.experiments.settings import configuration
from peft_scratch.submission import notebooks, report, weights
from peft_scratch.submission.archive import File, Gathered, gather
from peft_scratch.submission.contract import REHEARSAL, base_name_of, file_names, fitted, read_name
from peft_scratch.submission.findings import FAULT, NOTE, Checked, Finding, fault, note, ok, printable
from peft_scratch.submission.notebooks import Notebook
from peft_scratch.wording import counted

# What a submission may come as, when it comes as files.
_HANDED_IN = (".zip", ".pdf", ".ipynb", ".pt")


def check(paths: Iterable[Path], deep: bool = False) -> Checked:
    """The checklist of one submission: a folder, or files that belong together.

    Args:
        deep: also load each weight file into its base, and reproduce the reported accuracy.
    """
    return inspect(gather(paths), deep)


def inspect(gathered: Gathered, deep: bool = False, student: tuple[str, str] = ("", "")) -> Checked:
    """As `check`, of what was read; `student`: number and name, where no file is named after them yet."""
    checked = Checked(gathered.name, student=student)
    findings = checked.findings
    findings += gathered.findings
    findings += _names(gathered, checked)
    found, said = notebooks.examine(gathered.of(".ipynb"))
    findings += said
    results, said = _results(gathered.of(".json"))
    findings += said
    findings += _profile(gathered, found, results, checked)
    findings += _agreement(found, results)
    for number in found:
        checked.numbers |= found[number].numbers
    fitting, said = weights.examine(gathered.of(".pt", ".pth"), checked.profile)
    findings += said
    findings += report.examine(_reports(gathered), checked.numbers, checked.profile, checked.student[0])
    if deep:
        from peft_scratch.submission.deep import reproduce

        findings += reproduce(fitting, checked.numbers, checked.profile)
    return checked


def _names(gathered: Gathered, checked: Checked) -> list[Finding]:
    """The files are named after number and name, and the zips hold what they should."""
    if not gathered.packed:
        text = "a working folder, not packed yet"
        return [note(FILES, "not-packed", text, "`make submission` makes the files that are handed in")]
    # What came out of a zip has the zip's name on it.
    outer = [where for where in gathered.archives if not gathered.archives[where] >= {".zip"}]
    outer += [file.where for file in _reports(gathered)[:1]]
    names = {where: read_name(where.rpartition("/")[2]) for where in outer}
    form = "name it " + " or ".join(file_names("{STD_Number}", "{Name}"))
    found = [
        fault(FILES, "name-form", f"{where} is not named after student number and name", form)
        for where, name in names.items()
        if name is None
    ]
    known = {where: name for where, name in names.items() if name is not None}
    if known:
        checked.student = next(iter(known.values()))
    if len(set(known.values())) > 1:
        text = f"the files are named after different students: {', '.join(known)}"
        found.append(fault(FILES, "names-differ", text, "use one number and one name"))
    elif known and not found:
        text = f"{counted(len(known), 'file')} named after {checked.student[0]}, {checked.student[1]}"
        found.append(ok(FILES, "names", text))
    loose = sorted({file.kind for file in gathered.of(".ipynb", ".pt") if ".zip/" not in file.where.lower()})
    if not gathered.archives:
        text = "notebooks and weights are not in zip files"
        found.append(fault(FILES, "zips-missing", text, "pack them into one each"))
    elif loose:
        text = f"there are {' and '.join(loose)} files outside of the zip files"
        found.append(note(FILES, "zips-loose", text, "pack notebooks and weights into one zip each"))
    for where, kinds in gathered.archives.items():
        if {".ipynb", ".pt"} <= kinds:
            text = f"{where} holds both notebooks and weights"
            found.append(note(FILES, "zips-mixed", text, "the assignment asks for one zip each"))
    return found


def _reports(gathered: Gathered) -> list[File]:
    """The PDFs, the one that is named as the report has to be first."""
    return sorted(gathered.of(".pdf"), key=lambda file: read_name(file.name) is None)


@dataclass(frozen=True)
class _Result:
    """What a result's JSON says: accuracy in %, profile, and the count of the whole model."""

    percent: float
    profile: str
    whole: int


def _results(files: list[File]) -> tuple[dict[str, _Result], list[Finding]]:
    """The results' JSON of the ten runs, and what is wrong in itself."""
    results, findings = {}, []
    for file in files:
        try:
            result = json.loads(file.data)
            if result["id"] not in RUNS:
                continue
            run = RUNS[result["id"]]
            epochs = [100 * float(epoch["accuracy"]) for epoch in result["epochs"]]
            percent, best = 100 * float(result["accuracy"]["best"]), max(epochs)
            said = _Result(percent, str(result["profile"]), int(result["parameters"]["whole"]))
            constants = _changed(result) if said.profile == "course" else None
        except Exception as problem:  # whatever the JSON holds instead
            text = f"{file.where} is not the JSON of a result ({type(problem).__name__}: {problem})"
            findings.append(fault(FILES, "json-damaged", text, "run again what it should hold"))
            continue
        if percent != best:
            text = f"{file.where} says {percent:.1f} %, its best epoch {best:.1f} %"
            findings.append(fault(run.notebook, "json-differs", text, "run again; a result is not edited"))
        if constants:
            mend = "run it with the course's constants"
            findings.append(fault(run.notebook, "constants", f"{file.where}: {constants}", mend))
        results[run.id] = said
    return results, findings


def _changed(result: dict[str, Any]) -> str | None:
    """The first constant in which a result of the course profile is not the course's."""
    run, config = RUNS[result["id"]], result["config"]
    own = (config["seed"], config["base_sha256"], config.get("recipe"))  # any will do
    course = configuration(run, PROFILES["course"], run.learning_rate, *own)
    for name, value in course.items():
        if config.get(name) != value:
            return f"{name} is {config[name]!r}, in the course {value!r}"
    return None


def _profile(
    gathered: Gathered, found: dict[int, Notebook], results: dict[str, _Result], checked: Checked
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
        findings.append(fault(FILES, "profiles-mixed", text, "run all notebooks in the course profile"))
    if checked.profile not in PROFILES:
        text = f"{where} is from a profile {checked.profile!r}, which there is not"
        checked.profile = "offline"
        return [*findings, fault(FILES, "profile-unknown", text, "run all notebooks in the course profile")]
    text = f"an offline run is a rehearsal and not a hand-in ({where} is of the profile {checked.profile})"
    mend = "run the notebooks in the course profile, which takes a GPU and the Hugging Face Hub"
    return [*findings, note(FILES, "rehearsal", text, mend)]


def _agreement(found: dict[int, Notebook], results: dict[str, _Result]) -> list[Finding]:
    """Number and count of each result against its notebook and the formula."""
    findings = []
    for name, result in results.items():
        run = RUNS[name]
        number = found[run.notebook].numbers.get(name) if run.notebook in found else None
        if number is not None and number != round(result.percent, 1):
            text = f"{run.title} is {number} % in its notebook, {result.percent:.1f} % in {name}.json"
            mend = "hand in the notebook of that very run"
            findings.append(fault(run.notebook, "number-not-json", text, mend))
        expected = fitted(name, base_name_of(result.profile)).whole
        if result.whole != expected:
            text = f"{name}.json counts {result.whole:,} parameters in all; it should be {expected:,}"
            findings.append(fault(run.notebook, "json-count", text, "run it again on the right base"))
    return findings


# Many submissions


def submissions(paths: Iterable[Path]) -> tuple[list[list[Path]], list[Path]]:
    """`paths` as submissions, a folder each or the files of one student each; and those that are none.

    Raises:
        UserError: a path is not there.
    """
    groups: dict[tuple[str, ...], list[Path]] = {}
    others = []
    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise UserError(f"{path} is not there: give a folder, or the files that are handed in.")
        if path.is_dir():
            groups[("folder", str(path))] = [path]
        elif path.suffix.lower() in _HANDED_IN:
            name = read_name(path.name)
            groups.setdefault(("files", str(path.parent), name.number if name else ""), []).append(path)
        else:
            others.append(path)
    return list(groups.values()), others


def check_safely(paths: list[Path], deep: bool = False) -> Checked:
    """As `check`, but what the check itself fails at becomes a finding: others are waiting."""
    try:
        return check(paths, deep)
    except Exception as problem:
        text = f"the check itself failed ({type(problem).__name__}: {problem})"
        finding = fault(FILES, "check-failed", text, "look by hand, and tell whoever keeps this kit")
        return Checked(str(paths[0]), findings=[finding])


def table(many: list[Checked]) -> pd.DataFrame:
    """One row a submission.

    Columns: submission, verdict, profile, number and name as the files are named, faults, notes, the
    points of the items without a fault, each item (`ok`, or the codes of its faults and notes), the ten
    numbers in %, and all faults in words.
    """
    rows = []
    for one in many:
        row: dict[str, Any] = {
            "submission": one.name,
            "verdict": one.verdict,
            "profile": one.profile,
            "student_number": one.student[0],
            "student_name": one.student[1],
            "faults": len(one.marked(FAULT)),
            "notes": len(one.marked(NOTE)),
            "points_without_fault": one.points_without_fault,
        }
        for key in PARTS:
            codes = dict.fromkeys(found.code for mark in (FAULT, NOTE) for found in one.of(key, mark))
            row[_column(key)] = " ".join(codes) or "ok"
        row |= {name: one.numbers.get(name) for name in RUNS}
        row["what_is_wrong"] = "; ".join(found.text for found in one.marked(FAULT))
        rows.append({name: _cell(value) for name, value in row.items()})
    return pd.DataFrame(rows)


def _column(item: int) -> str:
    return {FILES: "files"}.get(item) or (f"notebook_{item}" if item in range(1, 6) else "report")


def _cell(value: Any) -> Any:
    """A spreadsheet takes a text that begins like a formula for one, and would run it."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else printable(value)
