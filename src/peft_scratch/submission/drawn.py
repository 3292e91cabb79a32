"""What a page of a PDF draws: pieces of text and rules (straight lines), each with its place.

pypdf decodes the fonts and keeps the matrices of a page. Its own layout mode is not enough: it gives no
rules, and words leave their columns in its text of fixed width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pypdf import PageObject
from pypdf._text_extraction._layout_mode._text_state_manager import TextStateManager
from pypdf.generic import ContentStream

#: Limits for one page: operators, pieces of text, rules.
_MOST_OPERATORS, _MOST_PIECES, _MOST_RULES = 120_000, 6_000, 8_000
#: A rule is thinner than this, in points.
_THIN = 2.5
#: The smallest gap that is a space, and the smallest between two columns, in heights of letters.
SPACE, COLUMN = 0.15, 1.5


@dataclass(frozen=True)
class Piece:
    """Letters on one line, from left to right. Places are in points; `base` grows downwards."""

    text: str
    left: float
    right: float
    base: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, self.base - self.height / 3


@dataclass(frozen=True)
class Rule:
    """A straight line from `start` to `end`; `at` is its other coordinate."""

    at: float
    start: float
    end: float


@dataclass
class Page:
    """What is drawn. Rules `across` run from left to right, rules `down` from top to bottom."""

    pieces: list[Piece] = field(default_factory=list)
    across: list[Rule] = field(default_factory=list)
    down: list[Rule] = field(default_factory=list)
    #: Names of drawn objects, with width and height in points: pictures and forms.
    objects: list[tuple[str, float, float]] = field(default_factory=list)


def drawn_on(page: PageObject) -> Page:
    """The pieces of text and the rules of a page, without those inside forms.

    Raises whatever pypdf raises at damaged or unusual fonts and operators.
    """
    contents = page.get("/Contents")
    drawn = Page()
    if contents is None:
        return drawn
    operators = ContentStream(contents.get_object(), page.pdf, "bytes").operations
    _Walk(page._layout_mode_fonts(), drawn).follow(itertools.islice(operators, _MOST_OPERATORS))
    return drawn


class _Walk:
    """Follows the operators of a page; pypdf keeps the matrices and knows the fonts."""

    def __init__(self, fonts: dict[str, Any], drawn: Page) -> None:
        self._fonts, self._drawn = fonts, drawn
        self._state = TextStateManager()
        self._kept: list[tuple[float, ...]] = []
        self._at: tuple[float, float] | None = None

    def follow(self, operators: Iterable[tuple[list[Any], bytes]]) -> None:
        for operands, operator in operators:
            if operator in (b"Tj", b"TJ", b"'", b'"'):
                self._show(operator, operands)
            elif operator == b"Do" and operands:
                a, b, c, d = self._state.effective_transform[:4]
                self._drawn.objects.append((str(operands[0]), abs(a) + abs(b), abs(c) + abs(d)))
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
                # Word sets the spacing of letters between q and Q; pypdf does not reset it.
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
            for name, value in zip((b"Tw", b"Tc"), operands[:-1], strict=False):
                self._state.set_state_param(name, value)
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
            if gap > COLUMN * run.font_size:
                self._piece(run, text, start, along)
                text, start = "", along + gap
            elif gap > SPACE * run.font_size and not text.endswith(" "):
                text += " "
            along += gap
        self._piece(run, text, start, along)
        self._state.add_trm([along, 0])

    def _piece(self, run: Any, text: str, start: float, end: float) -> None:
        a, b, _, d, e, f = run.transform[:6]
        bare = text.strip()
        if not bare or run.rotated or len(self._drawn.pieces) >= _MOST_PIECES:
            return
        # Spaces at the ends have a width but do not belong to the text.
        share = (end - start) / len(text)
        start += share * (len(text) - len(text.lstrip()))
        end -= share * (len(text) - len(text.rstrip()))
        height = abs(run.font_size * d) or abs(run.font_size * b) or 1.0
        self._drawn.pieces.append(Piece(bare, a * start + e, a * end + e, -(b * start + f), height))

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
        if len(drawn.across) + len(drawn.down) >= _MOST_RULES:
            return
        if abs(y1 - y0) < _THIN < abs(x1 - x0):
            drawn.across.append(Rule((y0 + y1) / 2, min(x0, x1), max(x0, x1)))
        elif abs(x1 - x0) < _THIN < abs(y1 - y0):
            drawn.down.append(Rule((x0 + x1) / 2, min(y0, y1), max(y0, y1)))
