"""The pieces of a report, which the template lays out: a block is a dict, a cell a string or a dict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from peft_scratch.assignment import TEN
from peft_scratch.reporting.facts import ends
from peft_scratch.reporting.inputs import Inputs
from peft_scratch.reporting.languages import Language
from peft_scratch.results import RunResult

Block = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """What every section needs: the inputs, the language, and the figures as SVG by name."""

    inputs: Inputs
    language: Language
    drawings: Mapping[str, str]

    @property
    def say(self) -> Callable[..., str]:
        return self.language.say

    @property
    def runs(self) -> dict[str, RunResult]:
        return self.inputs.runs

    def heading(self, word: str) -> Block:
        return {"kind": "heading", "text": self.say(word)}

    def subheading(self, word: str) -> Block:
        return {"kind": "subheading", "text": self.say(word)}

    def text(self, text: str) -> Block:
        return {"kind": "text", "text": text}

    def note(self, text: str) -> Block:
        """Small print."""
        return {"kind": "note", "text": text}

    def verdict(self, key: str, **values: object) -> Block:
        """The verdict on a claim, in one sentence."""
        return {"kind": "verdict", "title": self.say("verdict"), "text": capital(self.say(key, **values))}

    def not_measured(self) -> Block:
        return {"kind": "findings", "items": [capital(self.say("not_measured")) + "."]}

    def findings(self, sentences: Iterable[str]) -> list[Block]:
        """A box of sentences; nothing for none."""
        said = [capital(sentence) for sentence in sentences]
        return [{"kind": "findings", "items": said}] if said else []

    def figure(self, name: str, caption: str = "") -> list[Block]:
        """The figure of this name with its caption, a word; nothing if there was nothing to draw."""
        if name not in self.drawings:
            return []
        return [
            {"kind": "figure", "svg": self.drawings[name], "caption": self.say(caption or f"figure_{name}")}
        ]

    def table(
        self, head: list[str], rows: list[list[Any]], text_columns: int = 1, rules: Iterable[int] = ()
    ) -> Block:
        """A table with the words `head` and a line before each of the rows `rules`."""
        return {
            "kind": "table",
            "head": [self.say(word) for word in head],
            "rows": [list(map(self.language.cell, row)) for row in rows],
            "text_columns": text_columns,
            "rules": list(rules),
        }

    def missing(self, word: str, span: int) -> Block:
        """A cell across `span` columns that says what is missing."""
        return {"style": "missing", "text": self.say(word), "span": span}

    def rows(self, cells: Callable[[str, RunResult], list[Any]], span: int) -> list[list[Any]]:
        """A row for each of the ten: its name, and what `cells` says of it, or that it is missing."""
        absent = [self.missing("missing", span)]
        return [
            [self.language.run(name), *(cells(name, self.runs[name]) if name in self.runs else absent)]
            for name in TEN
        ]

    def ends(self, values: Mapping[str, float], shown: Callable[[float], str]) -> dict[str, str]:
        """The lowest and the highest of the runs' `values` and the names of these runs, for a sentence."""
        low, high = ends(values)
        runs = {"low_run": self.language.run(low), "high_run": self.language.run(high)}
        return {"low": shown(values[low]), "high": shown(values[high]), **runs}

    def distinct(self, of: Callable[[Any], Any], runs: Iterable[Any] | None = None, raw: bool = False) -> str:
        """The different answers of `of` for the runs; `raw` if they are ready for a sentence."""
        answers = dict.fromkeys(of(run) for run in (self.runs.values() if runs is None else runs))
        return self.language.join_longer(
            self.language.cell(answer) if raw or isinstance(answer, int) else self.language.ltr(answer)
            for answer in answers
        )


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def strong(text: str) -> Block:
    return {"style": "strong", "text": text}


def aside(text: str) -> Block:
    """A cell for orientation only."""
    return {"style": "aside", "text": text}


_FORMULA = re.compile(r"(?:L_(?:enc|dec)|[A-Za-z]'?(?![A-Za-z])|[0-9 ·+()=,\"])*")


def maths(text: str) -> Block:
    """A formula of letters, digits and signs; anything else is plain text: Typst would run it."""
    if not _FORMULA.fullmatch(text):
        return {"style": "plain", "text": text}
    return {"style": "maths", "text": re.sub("_(enc|dec)", r'_"\1"', text)}  # else Typst looks for a variable


def check(right: bool) -> Block:
    return {"style": "right" if right else "wrong", "text": "✓" if right else "✗"}


ABSENT: Block = {"style": "missing", "text": "—"}
