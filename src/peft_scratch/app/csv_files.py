"""Reads texts from a CSV file that a spreadsheet or a script wrote, and writes the opinions on them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peft_scratch.assignment import LABEL_WORDS
from peft_scratch.errors import UserError
from peft_scratch.files import encoding_of, write_atomically

if TYPE_CHECKING:
    from peft_scratch.experiments.ask import Opinion

#: The column of the texts.
TEXT = "text"

_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """A CSV file: the names of its columns, and its rows with one value per column."""

    columns: list[str]
    rows: list[list[str]]

    @property
    def texts(self) -> list[str]:
        position = self.columns.index(TEXT)
        return [row[position] for row in self.rows]


def read_table(path: Path) -> Table:
    """The rows of the CSV file `path`, which must have a column `text`.

    Columns may be separated by a comma, semicolon, tab or bar: the one that gives the first row a column
    `text` is taken. Empty lines are left out.

    Raises:
        UserError: it cannot be read, or has no column `text` or no row.
    """
    content = _content(path)
    separator, columns = _first_row(path, content)
    try:
        rows = [row for row in csv.reader(io.StringIO(content, newline=""), delimiter=separator) if any(row)]
    except csv.Error as problem:
        raise UserError(f"{path} cannot be read as a CSV file ({problem}).") from None
    for number, row in enumerate(rows[1:], start=1):
        if len(row) > len(columns):
            raise UserError(
                f"{path}, row {number}: it has {len(row)} values for {len(columns)} columns; put each text "
                'in double quotes, and write "" for a double quote in it.'
            )
    if len(rows) < 2:
        raise UserError(f"{path} has no row under its first one, which names the columns.")
    return Table(columns, [row + [""] * (len(columns) - len(row)) for row in rows[1:]])


def _content(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise UserError(f"{path} cannot be read as a CSV file ({problem.strerror}).") from None
    encoding = encoding_of(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as problem:
        raise UserError(
            f"{path} cannot be read as a CSV file: byte {problem.start + 1:,} is not {encoding.upper()}; "
            "save it as UTF-8."
        ) from None


def _first_row(path: Path, content: str) -> tuple[str, list[str]]:
    """The separator, and the names of the columns, one of which is `text` in lower case."""
    # A text may be longer than the 131,072 characters that the module allows by default.
    csv.field_size_limit(max(csv.field_size_limit(), len(content) + 1))
    found = []
    for separator in _SEPARATORS:
        lines = csv.reader(io.StringIO(content, newline=""), delimiter=separator)
        first = next((row for row in lines if any(row)), [])
        columns = [TEXT if name.strip().lower() == TEXT else name.strip() for name in first]
        if columns.count(TEXT) == 1:
            return separator, columns
        found.append(columns)
    columns = max(found, key=len)
    named = ", ".join(name if len(name) <= 40 else name[:40] + "…" for name in columns[:8])
    if not columns:
        raise UserError(f"{path} is empty: its first row has to name the column text.")
    raise UserError(f"{path} has the columns {named}, but text is needed: name one column text.")


def write_opinions(path: Path, table: Table, opinions: list[list[Opinion]], remarks: list[list[str]]) -> None:
    """Write `table` with the remarks on each text and the opinions of each model to a CSV file."""
    columns = [*table.columns, "remarks"]
    for opinion in opinions[0]:
        columns += [f"{opinion.model}: {what}" for what in ("verdict", *LABEL_WORDS, "writes")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row, found, said in zip(table.rows, remarks, opinions, strict=True):
        writer.writerow([*row, " ".join(found), *(cell for opinion in said for cell in _cells(opinion))])
    # Excel recognises UTF-8 by this mark at the beginning.
    write_atomically(path, "\ufeff" + text.getvalue())


def _cells(opinion: Opinion) -> list[str]:
    shares = [f"{opinion.probabilities[word]:.4f}" for word in LABEL_WORDS]
    return [opinion.verdict, *shares, opinion.generated or ""]
