"""Which number in a report stands for which run: by its row, the head of its column, and the text above."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from peft_scratch.assignment import RUNS
from peft_scratch.submission.numerals import percent_of
from peft_scratch.submission.pdf import Document, Part
from peft_scratch.submission.sizes import size_of

_KINDS = {
    "soft_prompt": re.compile(r"prompt|پرامپت|پرامت|پرومپت|سافت", re.IGNORECASE),
    "adapter": re.compile(r"adapter|bottleneck|[آا]داپت[وـ]?ر|گلوگاه", re.IGNORECASE),
    "lora": re.compile(r"lora|لورا|low[\s-]?rank", re.IGNORECASE),
    "full": re.compile(r"\bfull|fine[\s-]?tun\w*|کامل|فاین", re.IGNORECASE),
}
_LIBRARY = re.compile(
    r"librar|external|open\s?delta|adapter\s?hub|\bpeft\b|_peft|hugging|کتابخانه", re.IGNORECASE
)
_SCRATCH = re.compile(r"scratch|\bown\b|manual|by hand|custom|از صفر|صفر|دستی|پیاده", re.IGNORECASE)
_SIZE = re.compile(
    r"(?<![a-z])(?:rank|r|n(?:_soft_prompt_tokens)?|b|k|bottleneck(?:[\s_]size)?|tokens?|soft_token_num|size|رتبه|توکن|اندازه)"
    r"\s*[=:_]?\s*\(?(\d{1,3})(?![\d.,]\d|\d)",
    re.IGNORECASE,
)
_SIZE_BEFORE = re.compile(r"(?<![\d.,])(\d{1,3})\s*(?:soft|virtual|prompt|tokens?|توکن)", re.IGNORECASE)
#: What says that a number is no accuracy of the best epoch.
_OTHER = re.compile(
    r"\blast\b|train|loss|time|second|minute|publish|reference|range|zero[\s-]?shot|bag of|macro|error"
    r"|validation-chosen|by validation|malformed|آخر|آموزش",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?<![\d.,/=_-])(\d{1,3})(?:([.,/])(\d{1,4}))?(?![\d_]|[.,/]\d)(\s?%)?(?!\s?(?:[kKM]\b|million|MB|GB|KB|sec|min\b|s\b|hours?|epoch))"
)
_REVERSED = re.compile(r"(?<![\d.,/])(\d{1,2})([.,/])(\d\d)(?![\d]|[.,/]\d)")
#: What is said behind a number of this number.
_BEHIND = re.compile(
    r"\s*%?\s*(?:\([^()]{0,60}\)|(?:for|with|at|using|برای|با)\s[^.,;]{0,40}?"
    r"(?=\s+and\b|[.,;]|$))"
)
_HEAD_LINES = 14


@dataclass
class Hints:
    """What a piece of text says of a run; None where it says nothing, or several things."""

    kind: str | None = None
    library: bool | None = None
    size: int | None = None

    def over(self, other: Hints) -> Hints:
        """These, and where they say nothing the other's."""
        return Hints(
            self.kind or other.kind,
            self.library if self.library is not None else other.library,
            self.size if self.size is not None else other.size,
        )


@dataclass
class Placed:
    """A number of the report.

    Attributes:
        value: in %.
        runs: the runs that it can stand for; all ten if nothing is said.
        is_other: whether the text says that it is something else, such as the last epoch.
        written: as it is written.
    """

    value: float
    runs: frozenset[str]
    is_other: bool
    written: str


@dataclass
class Places:
    """All numbers of a report, the rows without one, and values that some reading gives."""

    placed: list[Placed] = field(default_factory=list)
    empty_rows: list[str] = field(default_factory=list)
    any_reading: set[float] = field(default_factory=set)


def place(document: Document) -> Places:
    """The numbers of a report with the runs that they can stand for."""
    places = Places()
    section = Hints()
    above: list[list[Part]] = []
    for parts in document.lines:
        text = "  ".join(part.text for part in parts)
        row = hints_of(text)
        if not any(map(_accuracies, parts)):
            if row.kind is not None:
                section = row
                runs = runs_of(row)
                if len(runs) == 1 and len(text) < 120:
                    places.empty_rows += runs
        elif row.kind is not None and _labelled(parts):
            section = Hints(row.kind, None, None)
        for part in parts:
            places.placed += _in_part(part, parts, above, section, row)
        above = [*above[-_HEAD_LINES:], parts]
    places.any_reading = {one.value for one in places.placed} | _readings(document.plain)
    return places


def _labelled(parts: list[Part]) -> bool:
    return any(hints_of(part.text).kind is not None for part in (parts[0], parts[-1]))


def _in_part(
    part: Part, parts: list[Part], above: list[list[Part]], section: Hints, row: Hints
) -> list[Placed]:
    """The numbers of a cell, or of a line of prose, where each number inherits what was said before."""
    placed = []
    carried = Hints()
    before = 0
    found_here = _accuracies(part)
    others = " ".join(other.text for other in parts if other is not part and not _accuracies(other))
    beside = hints_of(others).over(Hints(size=_lone_size(parts, part)))
    for found in found_here:
        said = part.text[before : found.start()]
        own = hints_of(said)
        if own.kind is not None and carried.kind not in (None, own.kind):
            carried = Hints()
        carried = own.over(carried)
        before = found.end()
        behind = Hints()
        if own.size is None and (after := _BEHIND.match(part.text[found.end() :])):
            behind = hints_of(after[0])  # `89.1 % for r = 1`: of this number alone
            before += after.end()
            carried.size = None if behind.size is not None else carried.size
            said += after[0]
        head, head_text = _head(part, found, above)
        known = behind.over(carried).over(beside if len(parts) > 1 else Hints())
        known = _possible(known, head)
        if known.kind is None or (known.kind == section.kind and row.kind is None):
            known = _possible(known, section)
        context = f"{said} {head_text} {others if len(found_here) == 1 and len(parts) < 3 else ''}"
        value = _percent(found)
        if value is not None:
            placed.append(Placed(value, runs_of(known), bool(_OTHER.search(context)), found[0].strip()))
    return placed


def _accuracies(part: Part) -> list[re.Match[str]]:
    return [found for found in _NUMBER.finditer(part.text) if _percent(found) is not None]


def _possible(known: Hints, more: Hints) -> Hints:
    """`known` with what `more` adds, as far as there is such a run: a head may speak of other rows."""
    for added in (more, Hints(more.kind, more.library), Hints(more.kind)):
        if runs_of(known.over(added)):
            return known.over(added)
    return known


def _head(part: Part, found: re.Match[str], above: list[list[Part]]) -> tuple[Hints, str]:
    """What the heads of a number's column say, the nearest first."""
    start, end = part.start + found.start(), part.start + found.end()
    hints, texts = Hints(), []
    for line in reversed(above):
        for other in line:
            overlaps = other.start < end + 2 and start - 2 < other.end
            if overlaps and not re.search(r"\d{2}[.,/]\d", other.text) and other.end - other.start < 45:
                hints = hints.over(hints_of(other.text))
                texts.append(other.text)
        if len(line) == 1 and len(line[0].text) > 60:
            break  # a line of prose ends the table
    return hints, " ".join(texts)


def _lone_size(parts: list[Part], part: Part) -> int | None:
    """A size in a cell of its own."""
    sizes = {int(other.text) for other in parts if other is not part and other.text in ("1", "8", "10")}
    return sizes.pop() if len(sizes) == 1 else None


def hints_of(text: str) -> Hints:
    """What a piece of text says of a run."""
    kinds = [kind for kind, pattern in _KINDS.items() if pattern.search(text)]
    if len(kinds) > 1 and "full" in kinds:
        kinds.remove("full")  # `LoRA fine-tuning` is LoRA
    if "soft_prompt" in kinds and "adapter" in kinds and re.search(r"adapter\s?hub", text, re.IGNORECASE):
        kinds.remove("adapter")
    library, scratch = bool(_LIBRARY.search(text)), bool(_SCRATCH.search(text))
    sizes = {int(size) for size in _SIZE.findall(text)} | {int(size) for size in _SIZE_BEFORE.findall(text)}
    return Hints(
        kinds[0] if len(kinds) == 1 else None,
        library if library != scratch else None,
        sizes.pop() if len(sizes) == 1 else None,
    )


def runs_of(hints: Hints) -> frozenset[str]:
    """The runs that the hints leave."""
    return frozenset(
        run.id
        for run in RUNS.values()
        if hints.kind in (None, run.kind)
        and (hints.library is None or run.kind == "full" or hints.library == (run.library != "scratch"))
        and (hints.size is None or run.kind == "full" or hints.size == size_of(run))
    )


def _percent(found: re.Match[str]) -> float | None:
    """A number as an accuracy: a decimal from 50 to 100, a share, or a whole number with % or alone."""
    value = percent_of(found[1], found[2], found[3], bool(found[4]))
    if value is None or not 50 <= value < 100:
        return None
    alone = (
        found.string[: found.start()].strip(" %|") == "" and found.string[found.end() :].strip(" %|") == ""
    )
    beside = "%" in found.string[max(found.start() - 2, 0) : found.start()]
    return round(value, 2) if found[3] or found[4] or alone or beside else None


def _readings(plain: str) -> set[float]:
    """The percentages that some reading of the text layer gives: also from right to left."""
    values = set()
    for found in _NUMBER.finditer(plain):
        value = percent_of(found[1], found[2], found[3], bool(found[4]))
        if value is not None:
            values.add(round(value, 2))
    for found in _REVERSED.finditer(plain):
        values.add(round(float(f"{found[3][::-1]}.{found[1][::-1]}"), 2))
    # Cells without a space between them: 89.388.7.
    for joined in re.finditer(r"(?:\d\d\.\d){2,12}(?!\d)", plain):
        values |= {float(one) for one in re.findall(r"\d\d\.\d", joined[0])}
    return values
