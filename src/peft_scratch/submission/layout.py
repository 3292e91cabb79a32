"""What stands where on a page of a PDF: the cells of tables by their rules, and the lines of text.

A person gives a number to a row and a column by the rules that are drawn and by where words stand. So rules
and edges of rectangles make a grid, whose cells are joined where nothing parts them. What lies in no cell
becomes lines, which are parted at wide gaps.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pypdf import PageObject

from peft_scratch.submission.drawn import COLUMN, SPACE, Page, Piece, Rule, drawn_on
from peft_scratch.submission.numerals import western

#: Rules of a page that are looked at, and the most rows or columns of a table.
_MOST_RULES, _LARGEST_GRID = 2_000, 60
#: Rules nearer than this are one, in points.
_SNAP = 2.5
#: Rules of one table lie nearer than this below each other.
_FARTHEST = 200
#: Letters that run from right to left; digits and the marks in numbers do not.
_ARABIC = re.compile(r"[\u0590-\u060b\u060d-\u065f\u066d-\u06ef\u06fa-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+")
# Vowel marks and direction marks, which take no place.
_NO_MARKS = dict.fromkeys(
    [*range(0x064B, 0x0660), 0x0670, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


@dataclass(frozen=True)
class Box:
    """A cell, or a part of a line: its text, and its place in points, downwards from `top` to `bottom`."""

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
        ruled: whether rules part the cells, so that an empty one is known too.
    """

    rows: list[list[Box]]
    ruled: bool = False

    @property
    def is_line(self) -> bool:
        """Whether it is a line of text."""
        return len(self.rows) == 1 and len(self.rows[0]) == 1 and not self.ruled

    @property
    def text(self) -> str:
        """All text, a line per row."""
        return "\n".join("  ".join(box.text for box in row) for row in self.rows)


def line_block(text: str) -> Block:
    """A line whose place is not known."""
    return Block([[Box(text[:4_000], 0, 0, 0, 0)]])


def laid_out(page: PageObject) -> tuple[list[Block], list[tuple[str, float, float]]]:
    """The tables and lines of a page from top to bottom; the objects on it, with width and height in points.

    Raises whatever pypdf raises at damaged or unusual fonts and operators.
    """
    drawn = drawn_on(page)
    found: list[tuple[float, Block]] = []
    left = drawn.pieces
    for cells in _grids(drawn, float(page.mediabox.width) * float(page.mediabox.height)):
        block, left = _table(cells, left)
        if block is not None:
            found.append((block.rows[0][0].top, block))
    for block in _lines(left):
        found.append((block.rows[0][0].top, block))
    return [block for _, block in sorted(found, key=lambda one: one[0])], drawn.objects


# Grids


#: Rules across and down, and the leftmost and rightmost place.
_Rules = tuple[list[Rule], list[Rule], list[float]]


def _joined(rules: list[Rule]) -> list[Rule]:
    """Rules without those that lie on each other, and pieces of one as one."""
    joined: list[Rule] = []
    for rule in sorted(rules, key=lambda one: (round(one.at / _SNAP), one.start)):
        before = joined[-1] if joined else None
        if before and abs(rule.at - before.at) < _SNAP and rule.start < before.end + _SNAP:
            joined[-1] = Rule(before.at, before.start, max(before.end, rule.end))
        else:
            joined.append(rule)
    return joined[:_MOST_RULES]


def _grids(drawn: Page, area: float) -> Iterator[list[Box]]:
    """The cells of each table: rules that meet are one table. Frames around a page are none."""
    across, down = _joined(drawn.across), _joined(drawn.down)
    tables: list[_Rules] = []
    # Rules across of one width, one below the other, belong together, and what crosses them.
    for rule in across:
        for rows, _, extent in tables:
            if (
                rule.start < extent[1] + _SNAP
                and extent[0] < rule.end + _SNAP
                and rule.at - rows[-1].at < 200
            ):
                rows.append(rule)
                extent[:] = [min(extent[0], rule.start), max(extent[1], rule.end)]
                break
        else:
            tables.append(([rule], [], [rule.start, rule.end]))
    for rows, columns, extent in _side_by_side(tables):
        top, bottom = min(rule.at for rule in rows), max(rule.at for rule in rows)
        columns += [
            one
            for one in down
            if extent[0] - _SNAP < one.at < extent[1] + _SNAP
            and one.start < bottom - _SNAP
            and one.end > top + _SNAP
        ]
        xs = _distinct([*extent, *(rule.at for rule in columns)])
        for ys in _stacked(_distinct(rule.at for rule in rows), columns):
            if 2 <= len(ys) <= _LARGEST_GRID and len(xs) <= _LARGEST_GRID:
                cells = _cells(xs, ys, rows, columns)
                yield [cell for cell in cells if _area(cell) < 0.3 * area]


def _stacked(heights: list[float], columns: list[Rule]) -> Iterator[list[float]]:
    """The heights of tables that stand below each other: between them nothing runs down."""
    table = heights[:1]
    for above, below in itertools.pairwise(heights):
        middle = (above + below) / 2
        if columns and not any(rule.start < middle < rule.end for rule in columns):
            yield table
            table = []
        table.append(below)
    yield table


def _side_by_side(tables: list[_Rules]) -> list[_Rules]:
    """The columns of a table whose rules across are broken between them are one table."""
    merged: list[_Rules] = []
    for rows, columns, extent in tables:
        heights = _distinct(rule.at for rule in rows)
        for others, _, its in merged:
            same = _distinct(rule.at for rule in others)
            if len(same) == len(heights) > 1 and all(
                abs(one - other) < _SNAP for one, other in zip(same, heights, strict=True)
            ):
                others += rows
                its[:] = [min(its[0], extent[0]), max(its[1], extent[1])]
                break
        else:
            merged.append((rows, columns, extent))
    return merged


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def _distinct(values: Iterable[float]) -> list[float]:
    kept: list[float] = []
    for value in sorted(values):
        if not kept or value - kept[-1] > _SNAP:
            kept.append(value)
    return kept


def _cells(xs: list[float], ys: list[float], rows: list[Rule], columns: list[Rule]) -> list[Box]:
    """The rectangles between neighbouring rules, joined where no rule parts them."""
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
    return [
        Box(
            "",
            xs[min(x for _, x in one)],
            xs[max(x for _, x in one) + 1],
            ys[min(y for y, _ in one)],
            ys[max(y for y, _ in one) + 1],
        )
        for one in members.values()
    ]


def _parts(rules: list[Rule], at: float, start: float, end: float) -> bool:
    """Whether rules at this place part two neighbours, over half of their length."""
    drawn = sum(
        max(min(rule.end, end) - max(rule.start, start), 0) for rule in rules if abs(rule.at - at) <= _SNAP
    )
    return drawn > (end - start) / 2


def _table(cells: list[Box], pieces: list[Piece]) -> tuple[Block | None, list[Piece]]:
    """The pieces that lie in the cells as a table, and the others."""
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
    boxes: list[Box] = []
    for cell, held_pieces in inside.items():
        boxes += _columns(cell, held_pieces) or [cell]
    rows: dict[float, list[Box]] = {}
    for box in sorted(boxes, key=lambda one: (one.top, one.left)):
        rows.setdefault(round(box.top), []).append(box)
    return Block(list(rows.values()), ruled=True), others


def _columns(cell: Box, pieces: list[Piece]) -> list[Box]:
    """A cell's text; where only rules across are drawn, a cell is a row, parted at wide gaps."""
    groups: list[list[Piece]] = []
    edge = 0.0
    for piece in sorted(pieces, key=lambda one: one.left):
        if groups and piece.left < edge + COLUMN * piece.height:
            groups[-1].append(piece)
            edge = max(edge, piece.right)
        else:
            groups.append([piece])
            edge = piece.right
    boxes = []
    for n, group in enumerate(groups):
        left = cell.left if n == 0 else min(one.left for one in group)
        right = cell.right if n == len(groups) - 1 else max(one.right for one in group)
        if len(groups) > 1:
            left, right = min(one.left for one in group), max(one.right for one in group)
        text = "\n".join(_text(line) for line in _in_lines(group))
        boxes.append(Box(text, left, right, cell.top, cell.bottom))
    return boxes


# Lines


def _in_lines(pieces: Iterable[Piece]) -> list[list[Piece]]:
    lines: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda one: (one.base, one.left)):
        if lines and piece.base - lines[-1][0].base < 0.45 * max(piece.height, lines[-1][0].height):
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return [sorted(line, key=lambda one: one.left) for line in lines]


def _text(pieces: list[Piece]) -> str:
    """The text of pieces that stand beside each other, in the order of reading."""
    text, edge = "", None
    for piece in pieces:
        if edge is not None and piece.left - edge > SPACE * piece.height and not text.endswith(" "):
            text += " "
        text += piece.text
        edge = max(piece.right, edge if edge is not None else piece.right)
    return readable(text)


def readable(visual: str) -> str:
    """A line as it is read, from its signs in their order from left to right; digits as ASCII.

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
    """Lines of text; those that are parted into columns, one below the other, are a table."""
    table: list[list[Box]] = []
    for line in _in_lines(pieces):
        groups: list[list[Piece]] = []
        for piece in line:
            if groups and piece.left - max(one.right for one in groups[-1]) < COLUMN * piece.height:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        row = [_box(group) for group in groups]
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
    height = max(one.height for one in group)
    base = group[0].base
    right = max(one.right for one in group)
    return Box(_text(group), group[0].left, right, base - height, base)


def _finished(table: list[list[Box]]) -> Iterator[Block]:
    """A table without the single lines at its end; a lone line with a gap in it is a table too."""
    end = max((n for n, row in enumerate(table) if len(row) > 1), default=-1) + 1
    if end:
        yield Block(table[:end])
    for row in table[end:]:
        yield Block([row])
