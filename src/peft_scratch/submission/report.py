"""The report: whether it is a PDF and has the notebooks' number of each run, the counts, the calculation."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from peft_scratch.assignment import REPORT, RUNS, WEIGHT_FILES
from peft_scratch.submission import pdf
from peft_scratch.submission.archive import File
from peft_scratch.submission.findings import OK, Finding, error, look, ok
from peft_scratch.submission.numerals import whole_numbers
from peft_scratch.submission.placing import Placed, Places, place
from peft_scratch.submission.sizes import sizes_of
from peft_scratch.wording import counted

#: Numbers that differ by less are the same: rounding or cutting off a decimal changes them by less than 0.1.
_SAME = 0.0999
#: A number that differs by more from the right one is another number, and not that one with a typing error.
_TYPED_WRONGLY = 8.0
_PRODUCT = re.compile(r"[\d)dDNrbn]\s*(?:[×*·⋅∗∙✕]|\bx\b|\\times)\s*[\d(dDNrbn2]")


def examine(
    files: list[File], numbers: dict[str, float], profile: str, student_number: str
) -> Iterator[Finding]:
    """The findings on the PDFs of a submission.

    Args:
        numbers: the accuracies in the notebooks in %, by run. The report has to give each to its run.
        profile: the profile of the runs, which decides the parameter counts.
        student_number: the number in the files' names, which the report should contain; empty if unknown.
    """
    if not files:
        yield error(REPORT, "report-missing", "the report as PDF is missing", "make it and add it")
        return
    file, *more = files
    if more:
        text = f"there are {len(files)} PDFs: {file.where} was read, {more[0].where} was not"
        yield look(REPORT, "report-more", text, "hand in one")
    where = file.where
    if b"%PDF-" not in file.data[:1024]:
        fix = "export the report as PDF, renaming is not enough"
        yield error(REPORT, "report-no-pdf", f"{where} is not a PDF", fix)
        return
    try:
        document = pdf.read(file.data)
    except pdf.Locked:
        text = f"{where} opens only with a password"
        yield error(REPORT, "report-locked", text, "export it without one")
        return
    except pdf.Damaged as problem:
        text = f"{where} cannot be read as PDF: {problem}"
        yield error(REPORT, "report-damaged", text, "export it again")
        return
    if not document.pages:
        yield error(REPORT, "report-empty", f"{where} has no page", "export it again")
    elif document.plain.strip() or document.blocks:
        yield ok(REPORT, "report", f"{where}: a PDF of {counted(document.pages, 'page')}")
        if document.partly:
            text = f"{where} was read in part: {document.partly}"
            yield look(REPORT, "report-partly", text, "look by hand")
        yield from _content(where, document, numbers, profile, student_number)
    elif document.partly:
        yield look(REPORT, "report-partly", f"{where} was not read: {document.partly}", "look by hand")
    else:
        why = "; it may be a scan" if document.pictures else " and no picture either"
        text = f"{where} has no text that can be read{why}"
        yield look(REPORT, "report-no-text", text, "look by hand")


def _content(
    where: str, document: pdf.Document, numbers: dict[str, float], profile: str, student_number: str
) -> Iterator[Finding]:
    text = "\n".join(block.text for block in document.blocks)
    whole = whole_numbers(text) | whole_numbers(document.plain)
    whole |= whole_numbers("\n".join(line[::-1] for line in document.plain.splitlines()))
    if student_number and int(student_number) not in whole:
        said = f"{where} does not have the student number {student_number}"
        yield look(REPORT, "report-anonymous", said, "put number and name at its beginning")
    places = place(document)
    in_part = bool(document.pictures or document.partly)
    others = [*_counts(where, whole, profile), _calculation(where, f"{text}\n{document.plain}")]
    if not in_part and _is_another_document(places, others):
        said = f"{where} contains no accuracy, no parameter count, no calculation and no picture"
        yield error(REPORT, "report-nothing", said, "hand in the report, not another document")
    elif numbers:
        yield from _numbers(where, places, numbers, in_part)
    else:
        said = f"{where}: its numbers could not be compared, because none was found in the notebooks"
        yield look(REPORT, "report-not-compared", said, "compare by hand")
    yield from others


def _is_another_document(places: Places, others: list[Finding]) -> bool:
    """Whether no reading finds anything of a report, not even the rows of its table."""
    accuracies = places.placed or any(50 <= one < 100 and one % 1 for one in places.any_reading)
    return not accuracies and len(places.empty_rows) < 4 and not any(one.mark == OK for one in others)


# The numbers


class _Said:
    """What a report says of one run.

    Attributes:
        value: the notebook's number, in %.
        instead: another number in the run's own place.
        own_right, possibly, elsewhere: whether the number stands where only this run is meant, where this run
            can be meant, or anywhere.
        unlabelled: whether it stands only where nothing says which run is meant.
        in_some_reading: whether some reading of the text has the number.
        is_right: whether the run's own place has the number, or the run has no place of its own and the
            number stands where it can belong to this run.
    """

    def __init__(self, run: str, value: float, places: Places) -> None:
        mine = [one for one in places.placed if one.runs == {run} and not one.is_other]
        own = [one for one in mine if abs(one.value - value) < _TYPED_WRONGLY]
        same = [one for one in places.placed if abs(one.value - value) < _SAME]
        self.value = value
        self.own_right = any(one.runs == {run} for one in same)
        self.possibly = any(run in one.runs for one in same)
        self.elsewhere = bool(same)
        self.unlabelled = bool(same) and all(len(one.runs) == len(RUNS) for one in same)
        self.in_some_reading = any(abs(reading - value) < _SAME for reading in places.any_reading)
        self.instead: Placed | None = own[0] if own and not self.own_right else None
        somewhere = self.possibly or (self.in_some_reading and not self.elsewhere)
        self.is_right = self.own_right or (somewhere and not own)


def _numbers(where: str, places: Places, numbers: dict[str, float], in_part: bool) -> Iterator[Finding]:
    """Each run's number compared with what the report gives for that run."""
    said = {run: _Said(run, value, places) for run, value in numbers.items()}
    right = [run for run, one in said.items() if one.is_right]
    swapped = _swapped(said)
    for run, other in swapped.items():
        if run < other or swapped.get(other) != run:
            text = f"{where} gives {RUNS[run].title} the {numbers[other]:.1f} % of {RUNS[other].title}"
            fix = "give each run its own number"
            yield error(REPORT, "report-swapped", f"{text}, and the other way round", fix)
    # If hardly any number is found, this program cannot read them, or they are in a picture.
    readable = len(right) * 2 >= len(numbers) and not in_part
    for run, one in said.items():
        if not one.is_right and run not in swapped:
            yield _wrong(where, run, one, places, readable)
    if len(right) == len(numbers):
        yield _all_right(where, said)


def _all_right(where: str, said: dict[str, _Said]) -> Finding:
    """All numbers are there: whether the report also says which run each belongs to."""
    text = f"{where} has the notebooks' {counted(len(said), 'number')}"
    if sum(one.unlabelled for one in said.values()) * 2 >= len(said):
        text += ", but does not say which run each belongs to"
        return look(REPORT, "report-unlabelled", text, "check whether each belongs to its run")
    unsettled = sum(not one.own_right for one in said.values())
    text += f"; {unsettled} of them could also belong to another run" if unsettled else ", each for its run"
    if len(said) < len(RUNS):
        text += f"; {counted(len(RUNS) - len(said), 'other')} could not be compared"
    return ok(REPORT, "report-numbers", text)


def _swapped(said: dict[str, _Said]) -> dict[str, str]:
    """Pairs of runs of which each has the other's number."""
    pairs = {}
    for (run, one), (other, its) in itertools.permutations(said.items(), 2):
        if one.instead and its.instead and abs(one.value - its.value) >= 0.1:
            crossed = abs(one.instead.value - its.value), abs(its.instead.value - one.value)
            if max(crossed) < _SAME:
                pairs[run] = other
    return pairs


def _wrong(where: str, run: str, one: _Said, places: Places, readable: bool) -> Finding:
    title, value = RUNS[run].title, f"{one.value:.1f}"
    if one.instead is not None:
        text = f"{where} has {one.instead.written} for {title}, but its notebook has {value} %"
        if one.possibly:  # the right number is there too, but perhaps for another run
            text += f"; {value} stands elsewhere"
            return look(REPORT, "report-number", text, "check which one is meant")
        fix = "put the number of the notebook that is handed in"
        return error(REPORT, "report-number", text, fix)
    found = one.elsewhere or one.in_some_reading
    empty_row = run in places.empty_rows and readable and not found
    if (run in places.empty_cells and not one.possibly) or empty_row:
        text = f"{where} leaves the cell of {title} empty; its notebook has {value} %"
        return error(REPORT, "report-number-empty", text, "put the number of the notebook")
    if found:
        text = f"{where} has the {value} % of {title}, but it seems to belong to another run"
        return look(REPORT, "report-number-elsewhere", text, "check which run it belongs to")
    if readable:
        text = f"{where} does not have the {value} % of {title} that its notebook has"
        return error(REPORT, "report-number", text, "put the number of the notebook that is handed in")
    text = f"{where}: this program did not find the {value} % of {title}"
    return look(REPORT, "report-number-not-found", text, "look by hand")


# The counts and the calculation


def _counts(where: str, whole: set[int], profile: str) -> list[Finding]:
    """Whether the report has the parameter count of each method: of its added part or the whole model."""
    found = []
    for run in WEIGHT_FILES.values():
        sizes = sizes_of(run.id, profile)
        if not {sizes.added, sizes.whole} & whole:
            said = f"{where} does not have the {sizes.added:,} parameters that {run.title} adds"
            found.append(look(REPORT, "report-count", said, "look for the parameter table"))
    if len(found) == len(WEIGHT_FILES) and sizes_of("full", profile).whole not in whole:
        said = f"{where}: no row of the parameter table was found"
        return [look(REPORT, "report-count", said, "look for the parameter table")]
    return found or [ok(REPORT, "report-counts", f"{where} has the parameter counts")]


def _calculation(where: str, text: str) -> Finding:
    if _PRODUCT.search(text):
        return ok(REPORT, "report-calculation", f"{where} has a calculation by hand")
    said = f"{where}: no calculation of the parameters by hand was found"
    return look(REPORT, "report-calculation", said, "look for it by hand")
