"""The report: really a PDF, and with the ten numbers and the counts in its text."""

from __future__ import annotations

import io
import logging
import re
import unicodedata

from pypdf import PdfReader

from peft_scratch.assignment import REPORT, RUNS
from peft_scratch.submission.archive import File
from peft_scratch.submission.contract import base_name_of, fitted
from peft_scratch.submission.findings import Finding, fault, note, ok
from peft_scratch.wording import counted

_MOST_PAGES = 60


def examine(files: list[File], numbers: dict[str, float], profile: str, student_number: str) -> list[Finding]:
    """What is to be said of the PDFs of a submission.

    Args:
        numbers: the accuracies of the notebooks in %, by run: each has to be in the report.
        profile: of the runs, which decides the parameter counts.
        student_number: as the files' names give it, which the report should have too; empty if they do not.
    """
    if not files:
        return [fault(REPORT, "report-missing", "the report as PDF is missing", "make it and add it")]
    file = files[0]
    if more := files[1:]:
        text = f"there are {len(files)} PDFs: {file.where} was read, {more[0].where} was not"
        return [
            note(REPORT, "report-more", text, "hand in one"),
            *_examine(file, numbers, profile, student_number),
        ]
    return _examine(file, numbers, profile, student_number)


def _examine(file: File, numbers: dict[str, float], profile: str, student_number: str) -> list[Finding]:
    where = file.where
    if not file.data[:1024].lstrip().startswith(b"%PDF-"):
        mend = "export the report as PDF, renaming is not enough"
        return [fault(REPORT, "report-no-pdf", f"{where} is not a PDF", mend)]
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its remarks on damage are the finding below
    try:
        reader = PdfReader(io.BytesIO(file.data))
        if reader.is_encrypted:
            text = f"{where} is locked with a password"
            return [fault(REPORT, "report-locked", text, "export it without one")]
        pages = len(reader.pages)
        text = "\n".join(page.extract_text() for page in reader.pages[:_MOST_PAGES])
    except Exception as problem:  # pypdf raises what the damaged bytes lead it to
        said = f"{where} cannot be read as PDF ({type(problem).__name__})"
        return [fault(REPORT, "report-damaged", said, "export it again")]
    if not pages:
        return [fault(REPORT, "report-empty", f"{where} has no page", "export it again")]
    if not text.strip():
        said = f"{where} has no text that can be read, as a scan has none"
        return [note(REPORT, "report-no-text", said, "look by hand")]
    return [
        ok(REPORT, "report", f"{where}: a PDF of {counted(pages, 'page')}"),
        *_content(where, text, numbers, profile, student_number),
    ]


def _content(
    where: str, text: str, numbers: dict[str, float], profile: str, student_number: str
) -> list[Finding]:
    decimals, whole = _numerals(text)
    found = []
    if student_number and int(student_number) not in whole:
        said = f"{where} does not have the student number {student_number}"
        mend = "`make report` puts name and number into its head: NAME=… STD_NUMBER=…"
        found.append(note(REPORT, "report-anonymous", said, mend))
    absent = {run: value for run, value in numbers.items() if value not in decimals}
    for run, value in absent.items():
        said = f"{where} does not have the {value:.1f} % of {RUNS[run].title} that its notebook has"
        mend = "put the number of the notebook that is handed in"
        found.append(fault(REPORT, "report-number", said, mend))
    if numbers and not absent:
        found.append(
            ok(REPORT, "report-numbers", f"{where} has the notebooks' {counted(len(numbers), 'number')}")
        )
    base = base_name_of(profile)
    for name in ("prompt_scratch_n10", "adapter_scratch_b8", "lora_scratch_r8"):
        if (count := fitted(name, base).added) not in whole:
            said = f"{where} does not have the {count:,} parameters that {RUNS[name].title} adds"
            found.append(note(REPORT, "report-count", said, "look for the hand calculation"))
    return found


def _numerals(text: str) -> tuple[set[float], set[int]]:
    """The decimals of a text as percentages with one place, and its whole numbers, in any script."""
    western = text.replace("\u066b", ".").replace("\u066c", ",")  # the marks that Arabic script sets
    plain = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in western)
    decimals = {float(found) for found in re.findall(r"(?<![\d.])\d{1,3}\.\d+", plain)}
    shares = {100 * value for value in decimals if value <= 1}
    percents = {round(value, 1) for value in decimals | shares}
    percents |= {float(found) for found in re.findall(r"(?<![\d.,])\d\d(?![\d.,]\d|\d)", plain)}
    groups = re.finditer(r"\d{1,3}([,\u00a0\u202f\u2009'])\d{3}(?:\1\d{3}){0,4}|\d{1,15}", plain)
    return percents, {int(re.sub(r"\D", "", group[0])) for group in groups}
