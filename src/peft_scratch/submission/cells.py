"""A notebook file as cells. It is read as JSON and never executed.

Files that break the format are read too, because Jupyter, Colab and VS Code open them.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from peft_scratch.submission.numerals import western

#: The type of the results that this kit's notebooks display for programs.
RESULTS_TYPE = "application/vnd.peft-scratch.results+json"

#: Limits for one notebook: bytes, parts (brackets and commas; each makes an object), cells, letters per text.
_LARGEST, _MOST_PARTS, _MOST_CELLS, _LONGEST = 64 * 2**20, 1_500_000, 2_000, 400_000
_MOST_ROWS = 200

#: A progress bar returns to the start of its line, and what follows overwrites it.
_OVERWRITTEN = re.compile(r"^[^\n]*\r(?=[^\n])", re.MULTILINE)


class NotANotebook(Exception):
    """The file cannot be read as a notebook; the message says why, in plain words."""


@dataclass
class Output:
    """One output of a cell: its text, and the rows of a table or the kit's results if it shows them."""

    text: str = ""
    rows: list[list[str]] = field(default_factory=list)
    results: dict[str, Any] | None = None
    error: str = ""
    picture: bool = False
    #: Whether it is the value of the cell's last line rather than something printed.
    is_value: bool = False

    @property
    def is_printed(self) -> bool:
        return not (self.rows or self.error or self.picture or self.is_value or self.results)


@dataclass
class Cell:
    """A cell of a notebook: `kind` is `code` or `markdown`; `count` is its execution count."""

    kind: str
    source: str
    count: int | None = None
    outputs: list[Output] = field(default_factory=list)

    @property
    def first_line(self) -> str:
        return next((line.strip()[:60] for line in self.source.splitlines() if line.strip()), "")

    @property
    def executed(self) -> bool:
        """Whether it was executed: it has a count, or outputs although its count is lost."""
        return self.count is not None or bool(self.outputs)

    @property
    def printed(self) -> str:
        return "\n".join(output.text for output in self.outputs)


def read_cells(data: bytes) -> list[Cell]:
    """The cells of a notebook with something in them.

    Raises:
        NotANotebook: the file is too large, is no JSON, or has no cells.
    """
    if len(data) > _LARGEST:
        raise NotANotebook(f"it has {len(data):,} bytes, more than any notebook needs")
    brackets = data.count(b"{") + data.count(b"[")
    parts = brackets + data.count(b",")
    if parts > _MOST_PARTS and brackets > _MOST_PARTS // 5:
        raise NotANotebook(f"it has {parts:,} parts, more than any notebook needs")
    try:
        # A broken character in an output does no harm.
        raw = json.loads(data.decode("utf-8-sig", "replace"), parse_int=_integer)
    except (ValueError, RecursionError) as problem:
        raise NotANotebook(_why(data, problem)) from problem
    if not isinstance(raw, dict):
        raise NotANotebook("it is JSON, but not a notebook")
    cells = raw.get("cells")
    if cells is None and isinstance(raw.get("worksheets"), list):  # nbformat 3
        sheets = [sheet for sheet in raw["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in _list(sheet.get("cells"))]
    if not isinstance(cells, list):
        raise NotANotebook("it has no list of cells")
    read = [_cell(cell) for cell in cells[:_MOST_CELLS] if isinstance(cell, dict)]
    if cells and not any("cell_type" in cell for cell in cells if isinstance(cell, dict)):
        raise NotANotebook("its cells have no type")
    return [cell for cell in read if cell.source.strip()]


def _why(data: bytes, problem: Exception) -> str:
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if not data.strip():
        return "it is empty"
    if data.lstrip().startswith(b"{") and isinstance(problem, json.JSONDecodeError):
        return "it is cut short or damaged"
    return "it is not JSON"


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 40 else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(value: Any) -> str:
    """A text, which the format stores as a string or as a list of lines."""
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, list):
        return "".join(line for line in value[:20_000] if isinstance(line, str))[:_LONGEST]
    return ""


def _cell(raw: dict[str, Any]) -> Cell:
    kind = "code" if raw.get("cell_type") == "code" else "markdown"
    source = _joined(raw.get("source", raw.get("input", "")))
    if raw.get("cell_type") == "heading":
        source = f"# {source}"
    count = raw.get("execution_count", raw.get("prompt_number"))
    outputs = _list(raw.get("outputs"))[:2_000] if kind == "code" else []
    return Cell(
        kind,
        source,
        count if isinstance(count, int) and not isinstance(count, bool) else None,
        _without_repeats([_output(output) for output in outputs if isinstance(output, dict)]),
    )


def _output(raw: dict[str, Any]) -> Output:
    kind = raw.get("output_type")
    if kind in ("error", "pyerr"):
        name = raw.get("ename")
        return Output(error=name[:80] if isinstance(name, str) and name else "an error")
    bundle = raw.get("data")
    data = bundle if isinstance(bundle, dict) else raw
    results = data.get(RESULTS_TYPE)
    output = Output(
        picture=any(str(name).startswith("image/") for name in data),
        results=results if isinstance(results, dict) else None,
        is_value=kind in ("execute_result", "pyout"),
    )
    page = _joined(data.get("text/html", data.get("html")))
    plain = _joined(raw.get("text")) or _joined(data.get("text/markdown")) or _joined(data.get("text/plain"))
    if page:
        output.rows = _html_rows(page)
        if not plain or plain.lstrip().startswith("<"):
            plain = html.unescape(re.sub(r"<[^<>]{0,2000}>", " ", page))
    output.text = western(_OVERWRITTEN.sub("", plain))
    if not output.rows:
        output.rows = _text_rows(output.text)
    return output


def _without_repeats(outputs: list[Output]) -> list[Output]:
    """A table that is shown again after each epoch becomes one table, a text printed in pieces one text."""
    kept: list[Output] = []
    for output in outputs:
        before = kept[-1] if kept else None
        if before and output.rows and before.rows and output.rows[: len(before.rows)] == before.rows:
            kept[-1] = output
        elif before and before.is_printed and output.is_printed and len(before.text) < _LONGEST:
            before.text += ("" if before.text.endswith("\n") else "\n") + output.text
        else:
            kept.append(output)
    return kept


class _Tables(HTMLParser):
    """The cells of the tables of a page, row by row."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
            self._open = False
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open and len(self.rows[-1]) < 40:
            self.rows[-1][-1] += data.strip()


def _html_rows(page: str) -> list[list[str]]:
    if "<table" not in page:
        return []
    parser = _Tables()
    parser.feed(page)
    return [[western(cell) for cell in row] for row in parser.rows[:_MOST_ROWS] if row]


def _text_rows(text: str) -> list[list[str]]:
    """The rows of a table that is printed as text: names, one of which says accuracy, then numbers."""
    lines = text.splitlines()[:5_000]
    for at, line in enumerate(lines):
        header = _split(line)
        if len(header) < 2 or not re.search(r"acc", line, re.IGNORECASE) or re.search(r"\d\.\d|[:=]", line):
            continue
        rows = []
        for other in lines[at + 1 : at + 1 + _MOST_ROWS]:
            row = _split(other)
            if len(row) >= len(header) - 1 and row and re.fullmatch(r"-?[\d.]+(?:e-?\d+)?%?", row[-1]):
                rows.append(row)
            elif rows and other.strip():
                break
        if rows:
            width = max(map(len, rows))
            return [[""] * (width - len(header)) + header, *rows]
    return []


def _split(line: str) -> list[str]:
    if "|" in line:
        return [part.strip() for part in line.strip().strip("|").split("|")]
    return line.split()
