"""What stands where on a page of a PDF: the cells of tables by their rules, and the lines of text.

A person finds the row and the column of a number by the rules (straight lines) and by where words stand. So
here rules and edges of rectangles make a grid, whose cells are joined where no rule separates them. Text in
no cell becomes lines, which are divided at wide gaps.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pypdf import PageObject

from peft_scratch.submission.drawn import COLUMN, SPACE, Page, Piece, Rule, drawn_on
from peft_scratch.submission.numerals import western

#: How many rules of a page are used, and how many rows or columns a table may have.
_MOST_RULES, _LARGEST_GRID = 2_000, 60
#: Rules nearer to each other than this are one rule, in points.
_SNAP = 2.5
#: Rules of one table are nearer to each other than this, in points.
_FARTHEST = 200
#: Letters written from right to left; digits and the marks in numbers are not.
_ARABIC = re.compile(r"[\u0590-\u060b\u060d-\u065f\u066d-\u06ef\u06fa-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+")
#: Vowel marks and direction marks, which take no space.
_NO_MARKS = dict.fromkeys(
    [*range(0x064B, 0x0660), 0x0670, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Box:
    """A cell, or a part of a line: its text, and its place in points, which grow downwards."""

    text: str
    left: float
    right: float
    top: float
    bottom: float


@dataclass
class Block:
    """A table, or a line of text, which is a table of one box.

    Attributes:
        rows: from top to bottom, each with its boxes from left to right.
        ruled: whether rules separate the cells, so that empty cells are known too.
    """

    rows: list[list[Box]]
    ruled: bool = False

    @property
    def is_line(self) -> bool:
        return len(self.rows) == 1 and len(self.rows[0]) == 1 and not self.ruled

    @property
    def text(self) -> str:
        """All text, a line per row."""
        return "\n".join("  ".join(box.text for box in row) for row in self.rows)


def line_block(text: str) -> Block:
    """A line whose place on the page is not known."""
    return Block([[Box(text[:4_000], 0, 0, 0, 0)]])


def laid_out(page: PageObject) -> tuple[list[Block], list[tuple[str, float, float]]]:
    """The tables and lines of a page from top to bottom; and its objects with width and height in points.

    Raises whatever pypdf raises at damaged or unusual fonts and operators.
    """
    drawn = drawn_on(page)
    found: list[Block] = []
    left = drawn.pieces
    for cells in _grids(drawn, float(page.mediabox.width) * float(page.mediabox.height)):
        block, left = _table(cells, left)
        found += [block] if block is not None else []
    found += _lines(left)
    return sorted(found, key=lambda block: block.rows[0][0].top), drawn.objects


# Grids


@dataclass
class _Grid:
    """The rules across of one table, and how far they reach to the left and to the right."""

    rows: list[Rule]
    left: float
    right: float

    def add(self, other: _Grid) -> None:
        self.rows += other.rows
        self.left, self.right = min(self.left, other.left), max(self.right, other.right)

    @property
    def heights(self) -> list[float]:
        return _distinct(rule.at for rule in self.rows)


def _joined(rules: list[Rule]) -> list[Rule]:
    """The rules, where those that overlap or continue each other have become one."""
    joined: list[Rule] = []
    for rule in sorted(rules, key=lambda one: (round(one.at / _SNAP), one.start)):
        before = joined[-1] if joined else None
        if before and abs(rule.at - before.at) < _SNAP and rule.start < before.end + _SNAP:
            joined[-1] = Rule(before.at, before.start, max(before.end, rule.end))
        else:
            joined.append(rule)
    return joined[:_MOST_RULES]


def _grids(drawn: Page, area: float) -> Iterator[list[Box]]:
    """The cells of each table: rules that meet are one table. A frame around the page is not a table."""
    across, down = _joined(drawn.across), _joined(drawn.down)
    lines = (_Grid([rule], rule.start, rule.end) for rule in across)
    tables = (grid for grid in _merged(lines, _is_above) if len(grid.rows) > 1)
    for grid in _merged(tables, _is_beside):
        top, bottom = min(rule.at for rule in grid.rows), max(rule.at for rule in grid.rows)
        columns = [
            rule
            for rule in down
            if grid.left - _SNAP < rule.at < grid.right + _SNAP
            and rule.start < bottom - _SNAP
            and rule.end > top + _SNAP
        ]
        xs = _distinct([grid.left, grid.right, *(rule.at for rule in columns)])
        for ys in _stacked(grid.heights, columns):
            if 2 <= len(ys) <= _LARGEST_GRID and len(xs) <= _LARGEST_GRID:
                cells = _cells(xs, ys, grid.rows, columns)
                yield [cell for cell in cells if _area(cell) < 0.3 * area]


def _merged(grids: Iterable[_Grid], belong: Callable[[_Grid, _Grid], bool]) -> list[_Grid]:
    """The grids, where each that belongs to an earlier one has become part of it."""
    merged: list[_Grid] = []
    for grid in grids:
        if (into := next((one for one in merged if belong(one, grid)), None)) is not None:
            into.add(grid)
        else:
            merged.append(grid)
    return merged


def _is_above(one: _Grid, other: _Grid) -> bool:
    """Whether they overlap and are near each other."""
    overlap = other.left < one.right + _SNAP and one.left < other.right + _SNAP
    return overlap and other.rows[0].at - one.rows[-1].at < _FARTHEST


def _is_beside(one: _Grid, other: _Grid) -> bool:
    """Whether their rules are at the same heights: such columns with gaps between them are one table."""
    ours, its = one.heights, other.heights
    same = len(ours) == len(its) > 1
    return same and all(abs(a - b) < _SNAP for a, b in zip(ours, its, strict=True))


def _stacked(heights: list[float], columns: list[Rule]) -> list[list[float]]:
    """The heights of tables below each other: between two tables no rule runs down."""

    def connected(table: list[float], below: float) -> bool:
        middle = (table[-1] + below) / 2
        return not columns or any(rule.start < middle < rule.end for rule in columns)

    return _grouped(heights, connected)


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def _distinct(values: Iterable[float]) -> list[float]:
    near = _grouped(sorted(values), lambda group, value: value - group[0] <= _SNAP)
    return [group[0] for group in near]


def _grouped(items: Iterable[_T], belongs: Callable[[list[_T], _T], bool]) -> list[list[_T]]:
    """The items in groups, in their order: each joins the last group if it belongs there."""
    groups: list[list[_T]] = []
    for item in items:
        if groups and belongs(groups[-1], item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _cells(xs: list[float], ys: list[float], rows: list[Rule], columns: list[Rule]) -> list[Box]:
    """The rectangles between neighbouring rules, joined where no rule separates them."""
    places = list(itertools.product(range(len(ys) - 1), range(len(xs) - 1)))
    group = {place: place for place in places}

    def top_of(place: tuple[int, int]) -> tuple[int, int]:
        while group[place] != place:
            place = group[place]
        return place

    for y, x in places:
        if x + 2 < len(xs) and not _parts(columns, xs[x + 1], ys[y], ys[y + 1]):
            group[top_of((y, x + 1))] = top_of((y, x))
        if y + 2 < len(ys) and not _parts(rows, ys[y + 1], xs[x], xs[x + 1]):
            group[top_of((y + 1, x))] = top_of((y, x))
    members: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for place in places:
        members.setdefault(top_of(place), []).append(place)
    cells = (tuple(zip(*one, strict=True)) for one in members.values())
    return [Box("", xs[min(x)], xs[max(x) + 1], ys[min(y)], ys[max(y) + 1]) for y, x in cells]


def _parts(rules: list[Rule], at: float, start: float, end: float) -> bool:
    """Whether rules at this place separate two neighbours, over half of their length."""
    here = [rule for rule in rules if abs(rule.at - at) <= _SNAP]
    return sum(max(min(rule.end, end) - max(rule.start, start), 0) for rule in here) > (end - start) / 2


def _table(cells: list[Box], pieces: list[Piece]) -> tuple[Block | None, list[Piece]]:
    """The pieces inside the cells as a table, and the pieces outside."""
    inside: dict[Box, list[Piece]] = {cell: [] for cell in cells}
    others = []
    for piece in pieces:
        x, y = piece.middle
        held = [c for c in cells if c.left <= x <= c.right and c.top <= y <= c.bottom]
        if held:
            inside[min(held, key=_area)].append(piece)
        else:
            others.append(piece)
    if sum(map(bool, inside.values())) < 2:
        return None, pieces
    boxes = [box for cell, pieces_of_cell in inside.items() for box in _columns(cell, pieces_of_cell)]
    rows: dict[float, list[Box]] = {}
    for box in sorted(boxes, key=lambda one: (one.top, one.left)):
        rows.setdefault(round(box.top), []).append(box)
    return Block(list(rows.values()), ruled=True), others


def _columns(cell: Box, pieces: list[Piece]) -> list[Box]:
    """A cell with its text. A cell without rules down is a whole row, which is divided at wide gaps."""
    groups = _parted(sorted(pieces, key=lambda one: one.left))
    boxes = []
    for group in groups or [[]]:
        left, right = cell.left, cell.right
        if len(groups) > 1:
            left, right = group[0].left, max(one.right for one in group)
        text = "\n".join(_text(line) for line in _in_lines(group))
        boxes.append(Box(text, left, right, cell.top, cell.bottom))
    return boxes


# Lines


def _in_lines(pieces: Iterable[Piece]) -> list[list[Piece]]:
    def same_line(line: list[Piece], piece: Piece) -> bool:
        return piece.base - line[0].base < 0.45 * max(piece.height, line[0].height)

    lines = _grouped(sorted(pieces, key=lambda one: (one.base, one.left)), same_line)
    return [sorted(line, key=lambda one: one.left) for line in lines]


def _parted(pieces: list[Piece]) -> list[list[Piece]]:
    """Pieces from left to right, divided at wide gaps."""

    def near(group: list[Piece], piece: Piece) -> bool:
        return piece.left - max(one.right for one in group) < COLUMN * piece.height

    return _grouped(pieces, near)


def _text(pieces: list[Piece]) -> str:
    """The text of the pieces of one line, in the order of reading."""
    text, edge = "", pieces[0].right
    for piece in pieces:
        if text and piece.left - edge > SPACE * piece.height and not text.endswith(" "):
            text += " "
        text += piece.text
        edge = max(piece.right, edge)
    return readable(text)


def readable(visual: str) -> str:
    """A line as it is read, given its characters from left to right; digits become ASCII.

    >>> readable("8 :کنلتاب زیاس اب")
    'با سایز باتلنک: 8'
    """
    visual = visual.translate(_NO_MARKS)
    if not _ARABIC.search(visual):
        return western(visual)
    groups: list[str] = []
    right_to_left = 0
    for token in visual.split():
        if _ARABIC.search(token):
            right_to_left += 1
            groups.append(token[::-1] if not re.search(r"[A-Za-z0-9]", token) else _mixed(token))
        elif groups and not _ARABIC.search(groups[-1]):
            groups[-1] += f" {token}"
        else:
            groups.append(token)
    latin = len(re.findall(r"[A-Za-z]{2,}", visual))
    return western(" ".join(groups[::-1] if right_to_left >= latin / 2 else groups))


def _mixed(token: str) -> str:
    return " ".join(
        part[::-1] if _ARABIC.fullmatch(part) else part
        for part in re.split(f"({_ARABIC.pattern})", token)[::-1]
        if part
    )


def _lines(pieces: list[Piece]) -> Iterator[Block]:
    """Lines of text. Neighbouring lines that are divided into columns are a table."""
    table: list[list[Box]] = []
    for line in _in_lines(pieces):
        row = [_box(group) for group in _parted(line)]
        near = table and row[0].top - table[-1][0].bottom < 3 * (row[0].bottom - row[0].top)
        if table and not (near and (len(row) > 1 or len(row[0].text) < 45)):
            yield from _finished(table)
            table = []
        if len(row) > 1 or table:
            table.append(row)
        else:
            yield Block([row])
    yield from _finished(table)


def _box(group: list[Piece]) -> Box:
    base, right = group[0].base, max(one.right for one in group)
    return Box(_text(group), group[0].left, right, base - max(one.height for one in group), base)


def _finished(table: list[list[Box]]) -> Iterator[Block]:
    """A table, then the undivided lines at its end. One divided line is also a table."""
    end = max((n for n, row in enumerate(table) if len(row) > 1), default=-1) + 1
    if end:
        yield Block(table[:end])
    for row in table[end:]:
        yield Block([row])
