"""The languages of the report, and how each sets a number, a name and a list."""

# ruff: noqa: RUF001 - the minus sign is meant.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from peft_scratch.assignment import LIBRARY_NAMES, RUNS, SIZES
from peft_scratch.reporting.languages import english, persian

#: Unicode's isolates: a minus sign or a unit stays on its side, whatever the direction of the text around.
_LEFT_TO_RIGHT, _RIGHT_TO_LEFT, _END = "\u2066", "\u2067", "\u2069"


@dataclass(frozen=True)
class Language:
    """The words of a language, and numbers as it sets them.

    Attributes:
        code: of ISO 639.
        words: sentences and names, by key.
        units: by unit, the format of a number with this unit.
        right_to_left: whether the script is written from right to left.
        commas: what separates the parts of a list, and of a list whose parts have commas themselves.
        typeface: from the folder `fonts`, if the default one lacks the script.
        digits: translates the digits and marks of an English number into the language's own.
    """

    code: str
    words: Mapping[str, str]
    units: Mapping[str, str]
    right_to_left: bool = False
    commas: tuple[str, str] = (", ", "; ")
    typeface: str = ""
    digits: Mapping[int, str] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """Between a file's name and its ending; empty for English."""
        return "" if self.code == "en" else f".{self.code}"

    @property
    def notes_file(self) -> str:
        """The student's discussion, in the output folder: `notes.md`, `notes.fa.md`."""
        return f"notes{self.suffix}.md"

    def say(self, key: str, **values: object) -> str:
        """The words `key` with `values` filled in; whole numbers are written as in the language."""
        return self.words[key].format(**{name: self.cell(value) for name, value in values.items()})

    def cell(self, value: Any) -> Any:
        """`value` for a sentence or a table: a whole number as text of the language, all else unchanged."""
        return self.number(value) if isinstance(value, int) else value

    def join(self, parts: Iterable[str]) -> str:
        """The parts of a list."""
        return self.commas[0].join(parts)

    def join_longer(self, parts: Iterable[str]) -> str:
        """The parts of a list that have commas themselves."""
        return self.commas[1].join(parts)

    # Names

    def run(self, name: str) -> str:
        """What the run (or the baseline) of this id is called."""
        return self.join([self.method_of(name), *filter(None, [self.source_and_size_of(name)])])

    def method_of(self, name: str) -> str:
        """The method alone, or the whole name of a baseline."""
        return self.words[RUNS[name].kind if name in RUNS else name]

    def source_and_size_of(self, name: str) -> str:
        """What distinguishes a run from others of its method: `from scratch, r = 8`; may be empty."""
        if name not in RUNS or RUNS[name].kind not in SIZES:
            return ""
        return self.join([self.library_of(name) or self.words["from_scratch"], self.size_of(name)])

    def size_of(self, name: str) -> str:
        """The size alone: `r = 8`; the method's name if it has no size."""
        run = RUNS[name]
        if run.kind not in SIZES:
            return self.method_of(name)
        key, letter = SIZES[run.kind]
        return self.formula(f"{letter} = {run.hyperparameters[key]}")

    def library_of(self, name: str) -> str:
        """The library of a run that has one, else nothing."""
        library = RUNS[name].library
        return "" if library in ("none", "scratch") else self.ltr(LIBRARY_NAMES[library])

    # Directions

    def ltr(self, text: str) -> str:
        """`text`, which is read from left to right, for a sentence of any direction."""
        return f"{_LEFT_TO_RIGHT}{text}{_END}" if text and self.right_to_left else text

    def formula(self, text: str) -> str:
        """`text` as a formula, which never breaks at a space or a slash."""
        return self.ltr(text.replace(" ", "\u00a0").replace("/", "/\u2060"))

    def drawn(self, text: str) -> str:
        """`text` for a figure, where no paragraph gives it a direction."""
        return f"{_RIGHT_TO_LEFT}{text}{_END}" if self.right_to_left else text

    def label(self, key: str) -> str:
        """The words `key` for a figure."""
        return self.drawn(self.say(key))

    # Numbers

    def range(self, low: str, high: str) -> str:
        """From `low` to `high`, or the one value that both are."""
        return low if low == high else self.say("range", low=low, high=high)

    def numeral(self, text: str) -> str:
        """`text`, a number as English sets it, in the digits of the language."""
        return self.formula(text.replace("-", "−").translate(self.digits))

    def number(self, value: float, digits: int = 0) -> str:
        """1234.5 as 1,234 or 1,234.5; a zero never has a minus sign."""
        text = f"{value:,.{digits}f}"
        return self.numeral(text if float(text.replace(",", "")) else text.lstrip("-"))

    def points(self, share: float, digits: int = 1) -> str:
        """A difference of two shares, in points, with its sign."""
        value = round(100 * share, digits)
        return self.numeral(f"{value:+.{digits}f}" if value else f"{0:.{digits}f}")

    def rate(self, value: float) -> str:
        """A learning rate: 0.003, 0.0001, 1e-5; without an exponent if the language has its own digits."""
        if self.digits:
            return self.numeral(f"{Decimal(f'{value:g}'):f}")
        return f"{value:g}".replace("e-0", "e-")

    def in_percent(self, share: float | None, digits: int = 1) -> str:
        """A share of 1 in percent, without the sign; nothing for `None`."""
        return "" if share is None else self.number(100 * share, digits)

    def percent(self, share: float, digits: int = 1) -> str:
        """A share of 1 in percent."""
        return self._unit("percent", self.in_percent(share, digits))

    def share(self, share: float) -> str:
        """A share in percent with about two significant digits, for shares that may be tiny."""
        value = 100 * share
        digits = 0 if value >= 10 else 1 if value >= 1 else 2 if value >= 0.1 else 3
        return self.percent(share, digits)

    def seconds(self, value: float) -> str:
        """A length of time in seconds."""
        return self._unit("seconds", self.number(value))

    def bytes(self, value: float) -> str:
        """Decimal units, as a file manager shows them."""
        for prefix, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if value >= unit:
                return self._unit(prefix, self.number(value / unit, 0 if value >= 100 * unit else 1))
        return self._unit("", self.number(value))

    def _unit(self, unit: str, number: str) -> str:
        return self.units[unit].format(number)


LANGUAGES = {
    "en": Language("en", english.WORDS, english.UNITS),
    "fa": Language(
        "fa",
        persian.WORDS,
        persian.UNITS,
        right_to_left=True,
        commas=("، ", "؛ "),
        typeface="Vazirmatn",
        digits=str.maketrans("0123456789.,", "۰۱۲۳۴۵۶۷۸۹٫٬"),
    ),
}
