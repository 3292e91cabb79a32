"""A right submission, made once per module and copied for each test."""

from __future__ import annotations

import nbformat
import pytest

from submission.parts import Submission, notebook, pdf, report_lines, weights


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, str], dict]:
    """Notebooks as text and weights as bytes, made once."""
    books = {f"0{n}_part.ipynb": nbformat.writes(notebook(n)) for n in range(1, 6)}
    return books, weights()


@pytest.fixture
def right(parts) -> Submission:
    books, tensors = parts
    return Submission(
        {name: nbformat.reads(text, as_version=4) for name, text in books.items()},
        {name: dict(entries) for name, entries in tensors.items()},
        pdf(report_lines()),
    )
