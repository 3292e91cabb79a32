"""Which number in a report belongs to which run: by its row, the head of its column and the text above."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from peft_scratch.assignment import RUNS, SIZES
from peft_scratch.submission.hints import Hints, hints_of, hints_of_counts, possible, runs_of, sizes_in
from peft_scratch.submission.layout import Block, Box
from peft_scratch.submission.numerals import percent_of
from peft_scratch.submission.pdf import Document

#: Words that mean that a number is not the accuracy of the best epoch.
_OTHER = re.compile(
    r"\blast\b|train(?!ed)|loss|time|second|minute|publish|reference|range|zero[\s-]?shot|bag of|macro|error"
    r"|validation-chosen|by validation|malformed|behind|difference|improve\w* by|آخر|آموزش|اختلاف",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?<![\d.,/=_-])(\d{1,3})(?:([.,/])(\d{1,4}))?(?![\d_]|[.,/]\d)(\s?%)?(?!\s?(?:[kKM]\b|million|MB|GB|KB|sec|min\b|s\b|hours?|epoch))"
)
_REVERSED = re.compile(r"(?<![\d.,/])(\d{1,2})([.,/])(\d\d)(?![\d]|[.,/]\d)")
#: Words after a number that say what it is.
_BEHIND = re.compile(
    r"\s*%?\s*(?:\([^()]{0,60}\)|(?:for|with|at|using|برای|با)\s[^.,;]{0,40}?"
    r"(?=\s+and\b|[.,;]|$))"
)
_SENTENCE = re.compile(r"(?<=[.!?؟])\s+(?=[^\W\d_])")
#: A line continues in the next if it takes this share of the width and the next is so near, in heights.
_FULL, _STEP = 0.7, 2.3
#: A box with more letters than this is a text, not a cell.
_LONG = 70
#: Without rules, the head of a column may stand so far beside it, in points.
_BESIDE = 4.0
#: The smallest cell that a person would write into.
_SMALLEST = 9.0


@dataclass
class Placed:
    """A number of the report.

    Attributes:
        value: in %.
        runs: the runs that it can belong to; all ten if the report says nothing.
        is_other: whether the report says that it is another number, such as the last epoch's.
        written: as it stands in the report.
        table: the number of the table that it stands in; 0 in text.
    """

    value: float
    runs: frozenset[str]
    is_other: bool
    written: str
    table: int = 0


@dataclass
class Places:
    """All numbers of a report, and the runs that have an empty place in it.

    Attributes:
        placed: the numbers with their runs.
        empty_cells: the runs that have an empty cell in a table with rules.
        empty_rows: the runs that have a row or a heading without a number.
        any_reading: percentages that some reading of the text gives, also from right to left.
    """

    placed: list[Placed] = field(default_factory=list)
    empty_cells: set[str] = field(default_factory=set)
    empty_rows: set[str] = field(default_factory=set)
    any_reading: set[float] = field(default_factory=set)


def place(document: Document) -> Places:
    """The numbers of a report, each with the runs that it can belong to."""
    places = Places()
    flow = _Flow(places)
    for n, one in enumerate(_paragraphs(document.blocks), start=1):
        if isinstance(one, str):
            for sentence in _SENTENCE.split(one):
                flow.line(sentence)
        else:
            _table(one, n, places, flow.section)
            flow.passed(one)
    _settle(places.placed)
    places.any_reading = {one.value for one in places.placed} | set(_readings(document.plain))
    return places


# Text


def _paragraphs(blocks: list[Block]) -> Iterator[str | Block]:
    """The lines of text, joined with the next line if they reach the margin; and the tables."""
    lines = [block.rows[0][0] for block in blocks if block.is_line]
    width = max((box.right - box.left for box in lines), default=0.0)
    text, before = "", None
    for block in blocks:
        box = block.rows[0][0] if block.is_line else None
        if before is not None:
            step, height = (box.bottom - before.bottom, before.bottom - before.top) if box else (-1.0, 0.0)
            if before.right - before.left > _FULL * width and 0 < step < _STEP * height:
                text += " "
            else:
                yield text
                text = ""
        if box is None:
            yield block
        else:
            text += box.text
        before = box
    if before is not None:
        yield text


@dataclass
class _Flow:
    """Reads the lines of text in their order: a number belongs to what was said before it."""

    places: Places
    section: Hints = field(default_factory=Hints)
    counted: Hints = field(default_factory=Hints)
    before: str = ""

    def line(self, text: str) -> None:
        row = hints_of(text)
        if not _accuracies(text):
            self._heading(text, row)
            return
        section = possible(self.counted, self.section) if _agree(self.counted, self.section) else self.section
        self.places.placed += _in_text(text, section)
        if row.kind is not None:
            self.section = Hints(row.kind)
        tail = text[_accuracies(text)[-1].end() :]
        if hints_of(tail).kind is not None:
            self.section = hints_of(tail)  # the sentence goes on in the next line
        self.counted, self.before = Hints(), tail

    def _heading(self, text: str, row: Hints) -> None:
        if self.before and row.kind is None:
            row = row.over(hints_of(f"{self.before} {text}"))
        if row.kind is not None and row.kind != self.section.kind:
            self.section, self.counted = row, Hints()
        elif row != Hints() and len(text) < 160:
            # It is the same method: what is said now replaces what was said before.
            kept = self.section.without_size
            self.section = row.over(kept) if runs_of(row.over(kept)) else row.without_size.over(kept)
        counts = hints_of_counts(text)
        self.counted = counts if counts.kind is not None else self.counted
        runs = runs_of(row)
        if row.kind is not None and len(runs) == 1 and len(text) < 120:
            self.places.empty_rows |= runs
        self.before = text if len(self.before) < 300 else ""

    def passed(self, block: Block) -> None:
        """A table ends what was said before it."""
        self.counted, self.before = Hints(), ""


def _agree(one: Hints, other: Hints) -> bool:
    return None in (one.kind, other.kind) or one.kind == other.kind


def _in_text(
    text: str, section: Hints, beside: Hints | None = None, context: str = "", table: int = 0
) -> list[Placed]:
    """The numbers of a line or of a cell. What is said before a number also counts for the next one."""
    placed = []
    carried, before = Hints(), 0
    found_here = _accuracies(text)
    pairs = _respectively(text, found_here)
    for n, found in enumerate(found_here):
        said = text[before : found.start()]
        own = hints_of(said)
        if own.kind is not None and carried.kind not in (None, own.kind):
            carried = Hints()
        carried = own.over(carried)
        before = found.end()
        behind = Hints()
        if own.size is None and (after := _BEHIND.match(text[found.end() :])):
            behind = hints_of(after[0])  # `89.1 % for r = 1`: only of this number
            before += after.end()
            carried.size = None if behind.size is not None else carried.size
            said += after[0]
        known = behind.over(carried)
        if pairs:
            known.size = pairs[n]
        if beside is not None:
            known = possible(known, beside)
        if known.kind is None or known.kind == section.kind:
            known = possible(known, section)
        runs = runs_of(known) or runs_of(known.without_size) or runs_of(Hints(known.kind))
        other = bool(_OTHER.search(f"{said} {context}"))
        value = _percent(found) or 0.0  # an accuracy, so it is never None
        placed.append(Placed(value, runs, other, found[0].strip(), table))
    return placed


def _respectively(text: str, found: list[re.Match[str]]) -> list[int]:
    """`ranks 1 and 8 give 88.5 and 88.7`: the sizes of the numbers, if there are as many before them."""
    if len(found) < 2:
        return []
    sizes = sizes_in(text[: found[0].start()])
    between = any(sizes_in(text[a.end() : b.start()]) for a, b in itertools.pairwise(found))
    return sizes if len(sizes) == len(found) == len(set(sizes)) and not between else []


def _accuracies(text: str) -> list[re.Match[str]]:
    return [found for found in _NUMBER.finditer(text) if _percent(found) is not None]


# Tables


def _table(block: Block, number: int, places: Places, caption: Hints) -> None:
    boxes = [box for row in block.rows for box in row]
    with_numbers = {box for box in boxes if _accuracies(box.text)}
    indexes = _running(boxes)
    for box in boxes:
        if len(box.text) > _LONG:
            if box in with_numbers:
                places.placed += _in_text(box.text.replace("\n", " "), Hints())
            continue
        if box not in with_numbers and (box.text or not block.ruled or _is_sliver(box)):
            continue
        row = [b for b in boxes if b not in with_numbers and b is not box and _in_row(b, box)]
        column = [b for b in boxes if b not in with_numbers and _is_above(b, box, block.ruled)]
        labels = " ".join(b.text for b in row if b not in indexes)
        known = _of_row(row, indexes)
        heads = Hints()
        for head in sorted(column, key=lambda b: -b.top):
            heads = heads.over(hints_of(head.text))
        known = _lone_size(possible(known, heads), row, column, indexes)
        counts = hints_of_counts("  ".join(b.text for b in row))
        known = possible(known, counts) if _agree(known, counts) else known
        known = possible(known, caption) if known.kind is None else known
        context = f"{labels} {' '.join(b.text for b in column)}"
        if box in with_numbers:
            places.placed += _in_text(box.text.replace("\n", " "), Hints(), known, context, number)
        elif len(runs_of(known)) == 1 and _among_numbers(box, with_numbers) and not _OTHER.search(context):
            places.empty_cells |= runs_of(known)
    here = {one.runs for one in places.placed if one.table == number}
    places.empty_cells -= {run for run in places.empty_cells if frozenset({run}) in here}
    for row in block.rows:
        hints = _lone_size(_of_row(row, indexes), row, [], indexes)
        if hints.kind and len(runs_of(hints)) == 1 and not any(b in with_numbers for b in row):
            places.empty_rows |= runs_of(hints)


def _of_row(row: list[Box], indexes: set[Box]) -> Hints:
    """What the labels of a row say, each alone and all together."""
    known = Hints()
    labels = [box for box in row if box not in indexes and len(box.text) <= 3 * _LONG]
    for box in labels:
        known = possible(known, hints_of(box.text))
    together = hints_of("  ".join(box.text for box in labels))
    return possible(known, together)


def _in_row(one: Box, other: Box) -> bool:
    """Whether two boxes share half of the height of the lower one."""
    overlap = min(one.bottom, other.bottom) - max(one.top, other.top)
    return overlap > 0.5 * min(one.bottom - one.top, other.bottom - other.top)


def _in_column(one: Box, other: Box) -> bool:
    """Whether two boxes share half of the width of the narrower one."""
    overlap = min(one.right, other.right) - max(one.left, other.left)
    return overlap > 0.5 * min(one.right - one.left, other.right - other.left)


def _is_above(one: Box, other: Box, ruled: bool) -> bool:
    if not one.text or one.bottom > other.top + 2 or len(one.text) > _LONG:
        return False
    if ruled:
        return _in_column(one, other)
    return one.left < other.right + _BESIDE and other.left - _BESIDE < one.right


def _is_sliver(box: Box) -> bool:
    return box.right - box.left < _SMALLEST or box.bottom - box.top < _SMALLEST


def _among_numbers(box: Box, with_numbers: set[Box]) -> bool:
    """Whether an empty cell stands in a row or column of accuracies."""
    beside = sum(_in_row(one, box) for one in with_numbers)
    return max(beside, sum(_in_column(one, box) for one in with_numbers)) >= 2


def _running(boxes: list[Box]) -> set[Box]:
    """The boxes of a column that only numbers the rows from 1 (or 0) on."""
    found: set[Box] = set()
    digits = [box for box in boxes if re.fullmatch(r"\d{1,2}[.)]?", box.text)]
    for first in (box for box in digits if box.text.strip(".)") in ("0", "1")):
        column = sorted((b for b in digits if _in_column(b, first)), key=lambda b: b.top)
        values = [int(b.text.strip(".)")) for b in column]
        if len(values) > 2 and values == list(range(values[0], values[0] + len(values))):
            found |= set(column)
    return found


def _lone_size(known: Hints, row: list[Box], column: list[Box], indexes: set[Box]) -> Hints:
    """`known` with the size that stands alone in a cell of the row or column, if there is exactly one."""
    if known.size is not None:
        return known
    sizes = {int(b.text) for b in [*row, *column] if b.text in ("1", "8", "10") and b not in indexes}
    return possible(known, Hints(None, None, sizes.pop())) if len(sizes) == 1 else known


# Settling what is left


def _settle(placed: list[Placed]) -> None:
    """Assign numbers to runs where that is possible in only one way: in each table, and in the text."""
    for table, kind in itertools.product({one.table for one in placed}, SIZES):
        runs = [run.id for run in RUNS.values() if run.kind == kind]
        mine = [one for one in placed if one.table == table and not one.is_other and one.runs]
        mine = [one for one in mine if one.runs <= set(runs)]
        pairs = [list(zip(way, mine, strict=False)) for way in itertools.permutations(runs)]
        ways = [way for way in pairs if all(run in one.runs for run, one in way)]
        if len(mine) == len(runs) and len(ways) == 1:
            for run, one in ways[0]:
                one.runs = frozenset({run})


def _percent(found: re.Match[str]) -> float | None:
    """A number as an accuracy: a decimal from 50 to 100, a share, or a whole number with % or alone."""
    value = percent_of(found[1], found[2], found[3], bool(found[4]))
    if value is None or not 50 <= value < 100:
        return None
    before, after = found.string[: found.start()], found.string[found.end() :]
    alone = not (before + after).strip(" %|")
    return round(value, 2) if found[3] or found[4] or alone or "%" in before[-2:] else None


def _readings(plain: str) -> Iterator[float]:
    """The percentages that some reading of the text layer gives: also from right to left."""
    for found in _NUMBER.finditer(plain):
        value = percent_of(found[1], found[2], found[3], bool(found[4]))
        if value is not None:
            yield round(value, 2)
    for found in _REVERSED.finditer(plain):
        yield round(float(f"{found[3][::-1]}.{found[1][::-1]}"), 2)
    # Cells without a space between them: 89.388.7.
    for joined in re.finditer(r"(?:\d\d\.\d){2,12}(?!\d)", plain):
        yield from (float(one) for one in re.findall(r"\d\d\.\d", joined[0]))
