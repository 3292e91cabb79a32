"""The course's own notebooks: every number is read and given to its run by evidence, in all variants."""

from __future__ import annotations

import pytest

from peft_scratch.submission import notebooks
from peft_scratch.submission.archive import File
from peft_scratch.submission.findings import ERROR
from submission import course

STYLES = course.styles()


def files(style: course.Style, names: dict[int, str] | None = None) -> list[File]:
    names = names or course.FILES
    return [File(names[n], names[n], course.notebook(n, style)) for n in range(1, 6)]


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_every_number_is_given_to_its_run(style):
    found, said = notebooks.examine(files(style))
    assert {run: one for book in found.values() for run, one in book.numbers.items()} == course.NUMBERS
    assert [one for one in said if one.mark == ERROR] == []
