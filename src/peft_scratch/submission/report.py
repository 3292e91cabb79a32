"""The report: really a PDF, its numbers those of the notebooks run by run, its counts and its calculation."""

from __future__ import annotations

import re

from peft_scratch.assignment import REPORT, RUNS
from peft_scratch.submission import pdf
from peft_scratch.submission.archive import File
from peft_scratch.submission.findings import OK, Finding, error, look, ok
from peft_scratch.submission.numerals import whole_numbers
from peft_scratch.submission.placing import Placed, Places, place
from peft_scratch.submission.sizes import sizes_of
from peft_scratch.wording import counted

#: Two numbers are one if they are nearer than this: rounding and cutting off a decimal differ by less.
_SAME = 0.0999
#: How far a wrongly typed number lies from the right one, at most; what is further is about something else.
_TYPED_WRONGLY = 8.0
_PRODUCT = re.compile(r"[\d)dDNrbn]\s*(?:[×*·⋅∗∙✕]|\bx\b|\\times)\s*[\d(dDNrbn2]")


def examine(files: list[File], numbers: dict[str, float], profile: str, student_number: str) -> list[Finding]:
    """What is to be said of the PDFs of a submission.

    Args:
        numbers: the accuracies of the notebooks in %, by run: the report has to give each to its run.
        profile: of the runs, which decides the parameter counts.
        student_number: as the files' names give it, which the report should have too; empty if they do not.
    """
    if not files:
        return [error(REPORT, "report-missing", "the report as PDF is missing", "make it and add it")]
    file = files[0]
    found = _examine(file, numbers, profile, student_number)
    if more := files[1:]:
        text = f"there are {len(files)} PDFs: {file.where} was read, {more[0].where} was not"
        return [look(REPORT, "report-more", text, "hand in one"), *found]
    return found


def _examine(file: File, numbers: dict[str, float], profile: str, student_number: str) -> list[Finding]:
    where = file.where
    if b"%PDF-" not in file.data[:1024]:
        fix = "export the report as PDF, renaming is not enough"
        return [error(REPORT, "report-no-pdf", f"{where} is not a PDF", fix)]
    try:
        document = pdf.read(file.data)
    except pdf.Locked:
        return [
            error(REPORT, "report-locked", f"{where} opens with a password alone", "export it without one")
        ]
    except pdf.Damaged as problem:
        return [
            error(REPORT, "report-damaged", f"{where} cannot be read as PDF: {problem}", "export it again")
        ]
    if not document.pages:
        return [error(REPORT, "report-empty", f"{where} has no page", "export it again")]
    if not document.plain.strip() and not document.blocks:
        if document.partly:
            return [look(REPORT, "report-partly", f"{where} was not read: {document.partly}", "look by hand")]
        why = "as a scan has none" if document.pictures else "and no picture either"
        return [
            look(REPORT, "report-no-text", f"{where} has no text that can be read, {why}", "look by hand")
        ]
    found = [ok(REPORT, "report", f"{where}: a PDF of {counted(document.pages, 'page')}")]
    if document.partly:
        found.append(
            look(REPORT, "report-partly", f"{where} was read in part: {document.partly}", "look by hand")
        )
    return [*found, *_content(where, document, numbers, profile, student_number)]


def _content(
    where: str, document: pdf.Document, numbers: dict[str, float], profile: str, student_number: str
) -> list[Finding]:
    text = "\n".join(block.text for block in document.blocks)
    whole = whole_numbers(text) | whole_numbers(document.plain)
    whole |= whole_numbers("\n".join(line[::-1] for line in document.plain.splitlines()))
    found = []
    if student_number and int(student_number) not in whole:
        said = f"{where} does not have the student number {student_number}"
        found.append(look(REPORT, "report-anonymous", said, "put number and name into its head"))
    places = place(document)
    in_part = bool(document.pictures or document.partly)
    calculation = _calculation(where, f"{text}\n{document.plain}")
    counts = _counts(where, whole, profile)
    if not in_part and _is_another_document(places, [*calculation, *counts]):
        said = f"{where} holds no accuracy, no parameter count and no calculation, and no picture either"
        found.append(error(REPORT, "report-nothing", said, "hand in the report, not another document"))
        return [*found, *counts, *calculation]
    if numbers:
        found += _numbers(where, places, numbers, in_part)
    else:
        said = f"{where}: its numbers could not be compared, since none was read in the notebooks"
        found.append(look(REPORT, "report-not-compared", said, "compare by hand"))
    return [*found, *counts, *calculation]


def _is_another_document(places: Places, others: list[Finding]) -> bool:
    """Whether nothing of a report was found in whatever reading, not even the rows of its table."""
    accuracies = places.placed or any(
        50 <= reading < 100 and reading != int(reading) for reading in places.any_reading
    )
    return not accuracies and len(places.empty_rows) < 4 and not any(one.mark == OK for one in others)


# The numbers


def _numbers(where: str, places: Places, numbers: dict[str, float], in_part: bool) -> list[Finding]:
    """Each run's number against what the report gives for that run."""
    said = {run: _Said(run, value, places) for run, value in numbers.items()}
    right = [run for run, one in said.items() if one.is_right]
    findings: list[Finding] = []
    swapped = _swapped(said)
    for run, other in swapped.items():
        if run < other or swapped.get(other) != run:
            text = (
                f"{where} gives {RUNS[run].title} the {numbers[other]:.1f} % of {RUNS[other].title}, and the "
                "other way round"
            )
            findings.append(error(REPORT, "report-swapped", text, "put each number to its run"))
    # Where hardly a number is found, it is this reader that fails, or the numbers are in a picture.
    readable = len(right) * 2 >= len(numbers) and not in_part
    for run, one in said.items():
        if not one.is_right and run not in swapped:
            findings.append(_wrong(where, run, one, places, readable))
    if len(right) == len(numbers):
        findings.append(_all_right(where, said))
    return findings


def _all_right(where: str, said: dict[str, _Said]) -> Finding:
    """All numbers are there; whether the report says whose each is."""
    count = counted(len(said), "number")
    if sum(one.unlabelled for one in said.values()) * 2 >= len(said):
        text = f"{where} has the notebooks' {count}, but does not say for which run each stands"
        return look(REPORT, "report-unlabelled", text, "see whether each stands for its run")
    text = f"{where} has the notebooks' {count}, each for its run"
    if unsettled := sum(not one.own_right for one in said.values()):
        text = f"{where} has the notebooks' {count}; {unsettled} of them could stand for another run too"
    if len(said) < len(RUNS):
        text += f"; {counted(len(RUNS) - len(said), 'other')} could not be compared"
    return ok(REPORT, "report-numbers", text)


class _Said:
    """What a report says of one run."""

    def __init__(self, run: str, value: float, places: Places) -> None:
        mine = [one for one in places.placed if one.runs == {run}]
        self.value = value
        self.own = [one for one in mine if not one.is_other and abs(one.value - value) < _TYPED_WRONGLY]
        same = [one for one in places.placed if abs(one.value - value) < _SAME]
        self.own_right = any(one.runs == {run} for one in same)
        self.possibly = any(run in one.runs for one in same)
        self.elsewhere = bool(same)
        self.unlabelled = bool(same) and all(len(one.runs) == len(RUNS) for one in same)
        self.in_some_reading = any(abs(reading - value) < _SAME for reading in places.any_reading)

    @property
    def is_right(self) -> bool:
        """The run's own place has the value; or the value is where nothing says that it is another run's."""
        return (
            self.own_right
            or (self.possibly and not self.own)
            or (self.in_some_reading and not self.own and not self.elsewhere)
        )

    @property
    def instead(self) -> Placed | None:
        """What its own place has, if that is something else."""
        return self.own[0] if self.own and not self.own_right else None


def _swapped(said: dict[str, _Said]) -> dict[str, str]:
    """Pairs of runs of which each has the other's number."""
    pairs = {}
    for run, one in said.items():
        for other, its in said.items():
            if (
                run != other
                and one.instead is not None
                and its.instead is not None
                and abs(one.value - its.value) >= 0.1
            ):
                crossed = (
                    abs(one.instead.value - its.value) < _SAME and abs(its.instead.value - one.value) < _SAME
                )
                if crossed:
                    pairs[run] = other
    return pairs


def _wrong(where: str, run: str, one: _Said, places: Places, readable: bool) -> Finding:
    title, value = RUNS[run].title, one.value
    if one.instead is not None:
        text = f"{where} has {one.instead.written} for {title}, its notebook has {value:.1f} %"
        fix = "put the number of the notebook that is handed in"
        if one.possibly:  # the right number is there too, where it is not plain whose it is
            return look(
                REPORT, "report-number", f"{text}; {value:.1f} stands elsewhere", "see which is meant"
            )
        return error(REPORT, "report-number", text, fix)
    if (run in places.empty_cells and not one.possibly) or (
        run in places.empty_rows and readable and not one.elsewhere and not one.in_some_reading
    ):
        text = f"{where} leaves the cell of {title} empty; its notebook has {value:.1f} %"
        return error(REPORT, "report-number-empty", text, "put the number of the notebook")
    if one.elsewhere or one.in_some_reading:
        text = f"{where} has the {value:.1f} % of {title}, but it seems to stand for another run"
        return look(REPORT, "report-number-elsewhere", text, "see for which run it stands")
    if readable:
        text = f"{where} does not have the {value:.1f} % of {title} that its notebook has"
        return error(REPORT, "report-number", text, "put the number of the notebook that is handed in")
    text = f"{where}: the {value:.1f} % of {title} was not found by this reader"
    return look(REPORT, "report-number-not-found", text, "look by hand")


# The counts and the calculation


def _counts(where: str, whole: set[int], profile: str) -> list[Finding]:
    """The four-row table: of each method the added part, or the whole model."""
    found = []
    for name in ("prompt_scratch_n10", "adapter_scratch_b8", "lora_scratch_r8"):
        sizes = sizes_of(name, profile)
        if sizes.added not in whole and sizes.whole not in whole:
            said = f"{where} does not have the {sizes.added:,} parameters that {RUNS[name].title} adds"
            found.append(look(REPORT, "report-count", said, "look for the parameter table"))
    full = sizes_of("full", profile).whole
    if full not in whole and len(found) == 3:
        said = f"{where}: no row of the parameter table was found"
        return [look(REPORT, "report-count", said, "look for the parameter table")]
    return found or [ok(REPORT, "report-counts", f"{where} has the parameter counts")]


def _calculation(where: str, text: str) -> list[Finding]:
    products = _PRODUCT.findall(text)
    if products:
        return [ok(REPORT, "report-calculation", f"{where} has a calculation by hand")]
    said = f"{where}: no calculation of the parameters by hand was found"
    return [look(REPORT, "report-calculation", said, "look for it by hand")]
