"""Files that nobody thought of: damaged at random, they give findings and no traceback, and no undeserved ✓.

With `--hypothesis-profile long` there are 5,000 inputs in all; see docs/checking.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import typst
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_scratch.submission import check, notebooks, report, tensors, weights
from peft_scratch.submission.archive import File, Gathered, Reader
from peft_scratch.submission.findings import OK, shown
from submission import course
from submission.parts import NUMBERS, STEM, notebook, pdf, report_lines, saved, zipped
from submission.parts import weights as right_weights
from submission.test_submission_report import long_table

#: Inputs per kind of file.
EXAMPLES = 720 if settings.get_current_profile_name() == "long" else 15
#: No input may take longer, in seconds: a submission has 25.
LONGEST = 10.0
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def in_time() -> Iterator[None]:
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < LONGEST


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@cache
def right() -> dict[str, bytes]:
    """One right file of each kind."""
    import nbformat

    return {
        "course.ipynb": course.notebook(5),
        "kit.ipynb": nbformat.writes(notebook(5)).encode(),
        "lora.pt": saved(right_weights()["lora.pt"]),
        "prompts.pt": saved(right_weights()["prompts.pt"], _use_new_zipfile_serialization=False),
        "a.pdf": pdf(report_lines()),
        "table.pdf": typst.compile(long_table(NUMBERS).encode()),
        "a.zip": zipped({"01_Full FineTune.ipynb": course.notebook(1), "adapter.pt": b"x" * 100}, 8),
    }


#: Cuts, flips, repetitions and insertions, at places given as shares of the length.
edits = st.lists(
    st.tuples(st.sampled_from("cfrid"), st.floats(0, 1), st.floats(0, 0.2), st.binary(max_size=12)),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, changes: list[tuple[str, float, float, bytes]]) -> bytes:
    for kind, at, length, new in changes:
        start = int(at * len(data))
        end = start + max(int(length * len(data) * 0.1), 1)
        middle = {
            "c": b"",
            "f": new or b"\0",
            "r": data[start:end] * 3,
            "i": data[start:end] + new,
            "d": data[start:end][::-1],
        }
        data = data[:start] + middle[kind] + data[end:]
    return data


def said_of(findings: list) -> str:
    text = "\n".join(map(str, shown(findings)))
    assert "Traceback" not in text and "expected 1" not in text
    assert all(one.fix for one in findings if one.mark == "✗"), "an error says what to do"
    return text


@fuzz
@given(st.sampled_from(["course.ipynb", "kit.ipynb"]), edits)
def test_damaged_notebooks(name, changes):
    with in_time():
        _, said = notebooks.examine([File(name, name, edited(right()[name], changes))])
    said_of(said)


@fuzz
@given(st.data())
def test_notebooks_of_another_form(data):
    """A value anywhere in the JSON is replaced by another."""
    book = json.loads(right()["course.ipynb"])
    for _ in range(data.draw(st.integers(1, 4))):
        place = book
        while isinstance(place, (dict, list)) and place and data.draw(st.integers(0, 3)):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], (dict, list)) or not place[key] or not data.draw(st.integers(0, 4)):
                place[key] = data.draw(values)
                break
            place = place[key]
    found, said = notebooks.examine([File("05_LoRA.ipynb", "05_LoRA.ipynb", json.dumps(book).encode())])
    said_of(said)
    for one in found.values():
        assert all(50 <= number <= 100 for number in one.numbers.values())


@fuzz
@given(st.sampled_from(["lora.pt", "prompts.pt"]), edits)
def test_damaged_weights(name, changes):
    data = edited(right()[name], changes)
    with in_time():
        _, said = weights.examine([File(name, name, data)], "course")
    said_of(said)
    # A zip has checksums: what differs in its numbers is not called right.
    if (
        name == "lora.pt"
        and data != right()[name]
        and any(one.code == "weights" and one.mark == OK for one in said)
    ):
        whole, got = tensors.read(right()[name]), tensors.read(data)
        assert all((whole.entries[key] == got.entries[key]).all() for key in whole.entries)


@fuzz
@given(st.sampled_from(["a.pdf", "table.pdf"]), edits)
def test_damaged_reports(name, changes):
    data = edited(right()[name], changes)
    with in_time():
        said = list(report.examine([File("a.pdf", "a.pdf", data)], NUMBERS, "course", ""))
    said_of(said)
    if name == "a.pdf" and any(one.code == "report-numbers" and one.mark == OK for one in said):
        assert all(f"{number:.1f}".encode() in data for number in NUMBERS.values())


@fuzz
@given(edits)
def test_damaged_archives(changes):
    gathered = Gathered("x")
    with in_time():
        Reader(gathered).take("a.zip", "a.zip", edited(right()["a.zip"], changes))
    said_of(gathered.findings)


@fuzz
@given(st.text(max_size=300))
def test_any_text_in_an_output(text):
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "source": text,
        "outputs": [{"output_type": "stream", "text": text}],
    }
    _, said = notebooks.examine([File("05.ipynb", "05.ipynb", json.dumps({"cells": [cell]}).encode())])
    said_of(said)


PLACES = ("full", "lora_scratch_r8", "prompt_opendelta_n1")


@fuzz
@given(st.data())
def test_whole_submissions_with_a_number_that_is_not_the_report_s(data):
    """The three files, each damaged or not: a number that was planted wrongly is never called right."""
    planted = data.draw(st.sampled_from(PLACES))
    text = long_table(NUMBERS).replace(f"[{NUMBERS[planted]:.1f}]", f"[{NUMBERS[planted] + 1.5:.1f}]")
    books = {name: course.notebook(n, numbers=NUMBERS) for n, name in course.FILES.items()}
    files = [
        File(f"{STEM}_notebooks.zip", f"{STEM}_notebooks.zip", zipped(books)),
        File(f"{STEM}_weights.zip", f"{STEM}_weights.zip", zipped({"lora.pt": right()["lora.pt"]})),
        File(f"{STEM}.pdf", f"{STEM}.pdf", compiled(text)),
    ]
    gathered = Gathered("x")
    reader = Reader(gathered)
    whole = data.draw(st.sampled_from([None, 0, 1]))
    for n, file in enumerate(files):
        content = file.data if whole != n else edited(file.data, data.draw(edits))
        reader.take(file.name, file.where, content)
    with in_time():
        checked = check.inspect(gathered)
    said_of(checked.findings)
    right_numbers = [one for one in checked.findings if one.code == "report-numbers" and one.mark == OK]
    if planted in checked.numbers and checked.numbers[planted] == NUMBERS[planted]:
        assert not right_numbers


@cache
def compiled(text: str) -> bytes:
    return typst.compile(text.encode())
