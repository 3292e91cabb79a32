"""What stands where on a page of a PDF: the cells of tables by their rules, and the lines of text.

A person gives a number to a row and a column by the rules that are drawn and by where words stand. So the
operators of a page are followed for both: rules and edges of rectangles make a grid, whose cells are joined
where nothing parts them; what lies in no cell becomes lines, which are parted at wide gaps.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pypdf import PageObject
from pypdf._text_extraction._layout_mode._text_state_manager import TextStateManager
from pypdf.generic import ContentStream

from peft_scratch.submission.numerals import western

#: Limits of one page: operators, pieces of text, rules; the grid of one table.
_MOST_OPERATORS, _MOST_PIECES, _MOST_RULES, _LARGEST_GRID = 120_000, 6_000, 2_000, 60
#: In points: rules nearer than this are one; a rule is thinner than this.
_SNAP, _THIN = 2.5, 2.5
#: In heights of letters: a gap is a space, or parts two columns; lines of one paragraph lie nearer.
_SPACE, _COLUMN = 0.15, 1.5
#: Letters that run from right to left; digits and the marks in numbers do not.
_ARABIC = re.compile(r"[\u0590-\u060b\u060d-\u065f\u066d-\u06ef\u06fa-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+")
# Vowel marks and direction marks, which take no place.
_NO_MARKS = dict.fromkeys(
    [*range(0x064B, 0x0660), 0x0670, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


@dataclass(frozen=True)
class Box:
    """A cell, or a part of a line: its text, and its place in points, `top` above `bottom`, both downwards."""

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


@dataclass(frozen=True)
class _Piece:
    text: str
    left: float
    right: float
    base: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, self.base - self.height / 3


@dataclass(frozen=True)
class _Rule:
    """A straight line: at `at` from `start` to `end`."""

    at: float
    start: float
    end: float


@dataclass
class _Page:
    pieces: list[_Piece] = field(default_factory=list)
    across: list[_Rule] = field(default_factory=list)
    down: list[_Rule] = field(default_factory=list)


def blocks_of(page: PageObject) -> list[Block]:
    """The tables and lines of a page, from top to bottom.

    Raises whatever pypdf raises at damaged or unusual fonts and operators.
    """
    drawn = _drawn(page)
    found: list[tuple[float, Block]] = []
    left = drawn.pieces
    for cells in _grids(drawn, float(page.mediabox.width) * float(page.mediabox.height)):
        block, left = _table(cells, left)
        if block is not None:
            found.append((block.rows[0][0].top, block))
    for block in _lines(left):
        found.append((block.rows[0][0].top, block))
    return [block for _, block in sorted(found, key=lambda one: one[0])]


# What is drawn


def _drawn(page: PageObject) -> _Page:
    contents = page.get("/Contents")
    drawn = _Page()
    if contents is None:
        return drawn
    operators = ContentStream(contents.get_object(), page.pdf, "bytes").operations
    _Walk(page._layout_mode_fonts(), drawn).follow(itertools.islice(operators, _MOST_OPERATORS))
    return drawn


class _Walk:
    """Follows the operators of a page; pypdf keeps the matrices and knows the fonts."""

    def __init__(self, fonts: dict[str, Any], drawn: _Page) -> None:
        self._fonts, self._drawn = fonts, drawn
        self._state = TextStateManager()
        self._kept: list[tuple[float, ...]] = []
        self._at: tuple[float, float] | None = None

    def follow(self, operators: Iterable[tuple[list[Any], bytes]]) -> None:
        for operands, operator in operators:
            if operator in (b"Tj", b"TJ", b"'", b'"'):
                self._show(operator, operands)
            elif operator in (b"re", b"m", b"l"):
                self._rule(operator, [float(one) for one in operands])
            else:
                self._state_of(operator, operands)

    def _state_of(self, operator: bytes, operands: list[Any]) -> None:
        state = self._state
        if operator == b"q":
            state.add_q()
            self._kept.append((state.Tc, state.Tw, state.Tz, state.TL, state.Ts))
        elif operator == b"Q":
            if self._kept:
                state.remove_q()
                # Word sets the spacing of letters within q and Q; pypdf lets it go on.
                state.Tc, state.Tw, state.Tz, state.TL, state.Ts = self._kept.pop()
        elif operator == b"cm":
            state.add_cm(*operands)
        elif operator in (b"BT", b"ET"):
            state.reset_tm()
        elif operator == b"Tf":
            if (font := self._fonts.get(operands[0])) is not None:
                state.set_font(font, operands[1])
        elif operator in (b"Td", b"TD", b"Tm", b"T*"):
            state.reset_trm()
            if operator == b"Tm":
                state.reset_tm()
            elif operator == b"TD":
                state.set_state_param(b"TL", -operands[1])
            state.add_tm([0, -state.TL] if operator == b"T*" else list(operands))
        else:
            state.set_state_param(operator, operands)

    def _show(self, operator: bytes, operands: list[Any]) -> None:
        if operator in (b"'", b'"'):
            if operator == b'"':
                self._state.set_state_param(b"Tw", operands[0])
                self._state.set_state_param(b"Tc", operands[1])
            self._state_of(b"T*", [])
        shown = operands[-1] if operands else []
        run = self._state.text_state_params(b"")
        text, start, along = "", 0.0, 0.0
        for one in shown if isinstance(shown, list) else [shown]:
            if isinstance(one, (bytes, str)):
                said = self._state.text_state_params(one)
                text += said.text
                along += said.word_tx(said.value)
                continue
            gap = -float(one) / 1000 * run.font_size * run.Tz / 100
            if gap > _COLUMN * run.font_size:
                self._piece(run, text, start, along)
                text, start = "", along + gap
            elif gap > _SPACE * run.font_size and not text.endswith(" "):
                text += " "
            along += gap
        self._piece(run, text, start, along)
        self._state.add_trm([along, 0])

    def _piece(self, run: Any, text: str, start: float, end: float) -> None:
        a, b, _, d, e, f = run.transform[:6]
        bare = text.strip()
        if not bare or run.rotated or len(self._drawn.pieces) >= _MOST_PIECES:
            return
        # Spaces at the ends take place and say nothing.
        share = (end - start) / len(text)
        start += share * (len(text) - len(text.lstrip()))
        end -= share * (len(text) - len(text.rstrip()))
        height = abs(run.font_size * d) or abs(run.font_size * b) or 1.0
        self._drawn.pieces.append(_Piece(bare, a * start + e, a * end + e, -(b * start + f), height))

    def _rule(self, operator: bytes, numbers: list[float]) -> None:
        a, b, c, d, e, f = self._state.effective_transform[:6]

        def placed(x: float, y: float) -> tuple[float, float]:
            return a * x + c * y + e, -(b * x + d * y + f)

        here = placed(*numbers[:2])
        if operator == b"m":
            self._at = here
        elif operator == b"l":
            if self._at is not None:
                self._edge(*self._at, *here)
            self._at = here
        else:
            x, y, width, height = numbers[:4]
            x0, y0 = here
            x1, y1 = placed(x + width, y + height)
            if abs(x1 - x0) < _THIN or abs(y1 - y0) < _THIN:
                self._edge(x0, y0, x1, y1)
            else:
                for corners in ((x0, y0, x1, y0), (x0, y1, x1, y1), (x0, y0, x0, y1), (x1, y0, x1, y1)):
                    self._edge(*corners)

    def _edge(self, x0: float, y0: float, x1: float, y1: float) -> None:
        drawn = self._drawn
        if len(drawn.across) + len(drawn.down) >= 4 * _MOST_RULES:
            return
        if abs(y1 - y0) < _THIN < abs(x1 - x0):
            drawn.across.append(_Rule((y0 + y1) / 2, min(x0, x1), max(x0, x1)))
        elif abs(x1 - x0) < _THIN < abs(y1 - y0):
            drawn.down.append(_Rule((x0 + x1) / 2, min(y0, y1), max(y0, y1)))


# Grids


def _joined(rules: list[_Rule]) -> list[_Rule]:
    """Rules without those that lie on each other, and pieces of one as one."""
    joined: list[_Rule] = []
    for rule in sorted(rules, key=lambda one: (round(one.at / _SNAP), one.start)):
        before = joined[-1] if joined else None
        if before and abs(rule.at - before.at) < _SNAP and rule.start < before.end + _SNAP:
            joined[-1] = _Rule(before.at, before.start, max(before.end, rule.end))
        else:
            joined.append(rule)
    return joined[:_MOST_RULES]


def _grids(drawn: _Page, area: float) -> Iterator[list[Box]]:
    """The cells of each table: rules that meet are one table. Frames around a page are none."""
    across, down = _joined(drawn.across), _joined(drawn.down)
    tables: list[tuple[list[_Rule], list[_Rule], list[float]]] = []
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
    for rows, columns, extent in tables:
        top, bottom = rows[0].at, rows[-1].at
        columns += [
            one
            for one in down
            if extent[0] - _SNAP < one.at < extent[1] + _SNAP
            and one.start < bottom - _SNAP
            and one.end > top + _SNAP
        ]
        ys = _distinct(rule.at for rule in rows)
        xs = _distinct([*extent, *(rule.at for rule in columns)])
        if 2 <= len(ys) <= _LARGEST_GRID and len(xs) <= _LARGEST_GRID:
            cells = _cells(xs, ys, rows, columns)
            yield [cell for cell in cells if _area(cell) < 0.3 * area]


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def _distinct(values: Iterable[float]) -> list[float]:
    kept: list[float] = []
    for value in sorted(values):
        if not kept or value - kept[-1] > _SNAP:
            kept.append(value)
    return kept


def _cells(xs: list[float], ys: list[float], rows: list[_Rule], columns: list[_Rule]) -> list[Box]:
    """The rectangles between neighbouring rules, joined where no rule parts them."""
    places = list(itertools.product(range(len(ys) - 1), range(len(xs) - 1)))
    group = {place: place for place in places}

    def top_of(place: tuple[int, int]) -> tuple[int, int]:
        while group[place] != place:
            place = group[place]
        return place

    for y, x in places:
        across, down = (xs[x] + xs[x + 1]) / 2, (ys[y] + ys[y + 1]) / 2
        if x + 2 < len(xs) and not _parts(columns, xs[x + 1], down):
            group[top_of((y, x + 1))] = top_of((y, x))
        if y + 2 < len(ys) and not _parts(rows, ys[y + 1], across):
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


def _parts(rules: list[_Rule], at: float, between: float) -> bool:
    return any(abs(rule.at - at) <= _SNAP and rule.start <= between <= rule.end for rule in rules)


def _table(cells: list[Box], pieces: list[_Piece]) -> tuple[Block | None, list[_Piece]]:
    """The pieces that lie in the cells as a table, and the others."""
    inside: dict[Box, list[_Piece]] = {cell: [] for cell in cells}
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


def _columns(cell: Box, pieces: list[_Piece]) -> list[Box]:
    """A cell's text; where only rules across are drawn, a cell is a row, parted at wide gaps."""
    groups: list[list[_Piece]] = []
    edge = 0.0
    for piece in sorted(pieces, key=lambda one: one.left):
        if groups and piece.left < edge + _COLUMN * piece.height:
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


def _in_lines(pieces: Iterable[_Piece]) -> list[list[_Piece]]:
    lines: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda one: (one.base, one.left)):
        if lines and piece.base - lines[-1][0].base < 0.45 * max(piece.height, lines[-1][0].height):
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return [sorted(line, key=lambda one: one.left) for line in lines]


def _text(pieces: list[_Piece]) -> str:
    """The text of pieces that stand beside each other, in the order of reading."""
    text, edge = "", None
    for piece in pieces:
        if edge is not None and piece.left - edge > _SPACE * piece.height and not text.endswith(" "):
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


def _lines(pieces: list[_Piece]) -> Iterator[Block]:
    """Lines of text; those that are parted into columns, one below the other, are a table."""
    table: list[list[Box]] = []
    for line in _in_lines(pieces):
        groups: list[list[_Piece]] = []
        for piece in line:
            if groups and piece.left - max(one.right for one in groups[-1]) < _COLUMN * piece.height:
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


def _box(group: list[_Piece]) -> Box:
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
