"""The accuracies and parameter counts in the outputs of a foreign notebook, each with what its line says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from peft_scratch.assignment import Run
from peft_scratch.submission.cells import Cell, Output
from peft_scratch.submission.numerals import percent_of, percentages, unwrapped
from peft_scratch.submission.source import SIZE_NAMES

#: From strong to weak: a line that says it is the best, a table of epochs, a single line.
BEST, TABLE, LINE = 3, 2, 1

_COUNT = re.compile(
    r"(?:number of (?:\w+ ){0,2}param\w*|n_?params?|num_?(?:\w+_)?param\w*|param\w* count"
    r"|total param\w*|تعداد پارامتر\S*)"
    r"[^\d\n]{0,30}(\d[\d,_]{0,18})",
    re.IGNORECASE,
)
_PEFT_COUNT = re.compile(
    r"trainable params:\s*([\d,]{1,18})\s*\|\|\s*all params:\s*([\d,]{1,18})", re.IGNORECASE
)
_DELTA_COUNT = re.compile(r"Delta Parameter Ratio:?\s*(\d{1,12})\s*/\s*(\d{1,12})", re.IGNORECASE)
_METRIC = re.compile(
    r"acc(?:uracy|uracies|urac)?(?![a-z])|p(?:re|er)form\w*|\bscore\b|دقت|صحت|عملکرد", re.IGNORECASE
)
_IS_BEST = re.compile(r"best|highest|\bmax|final_?best|بهترین|بیشترین", re.IGNORECASE)
_OF_TRAINING = re.compile(r"train(?:ing)?[\s_/:.'\"-]*$|آموزش[\s:]*$", re.IGNORECASE)
#: `88.8 % accuracy`; and `Best: %88.8`, `r = 1: 88.8 %`, where the per-cent sign stands for the word.
_BEFORE_METRIC = re.compile(r"(\d{1,3})[.,](\d{1,6})\s*%?\s+(?:\w+\s+)?(?:acc|دقت)", re.IGNORECASE)
_PER_CENT = re.compile(r"(?:%\s?(\d\d)[.,](\d{1,6})|(?<![\d.,])(\d\d)[.,](\d{1,6})\s?%)")
_OTHER_METRIC = re.compile(
    r"loss|time|lr\b|learning|seconds|perplexity|f1|precision|recall|epochs?\b", re.IGNORECASE
)
_EPOCH = re.compile(r"epochs?\W{0,4}(\d{1,4})", re.IGNORECASE)
_LIST = re.compile(r"[\[(]((?:\s*\d[\d.]*\s*,){1,60}\s*\d[\d.]*\s*,?\s*)[\])]")
_SIZE_IN_LINE = re.compile(
    r"(?<![A-Za-z_])([A-Za-z]\w{0,40})\s*(?:=|:|\bis\b|\bof\b)?\s*(?<![\d.])(\d{1,3})(?!\d|\s?%|[.,]\d)",
    re.IGNORECASE,
)
_LIBRARY_IN_LINE = re.compile(r"library|\bpeft\b|opendelta|adapter_?hub|کتابخانه", re.IGNORECASE)
_SCRATCH_IN_LINE = re.compile(r"scratch|از صفر|from zero|manual|custom", re.IGNORECASE)
#: An accuracy lies between chance, for two classes, and a value that no classifier reaches.
_CHANCE, _PERFECT = 50.0, 99.5


@dataclass
class Accuracy:
    """An accuracy in the outputs. The last four attributes are set when it is assigned to a run.

    Attributes:
        value: in %.
        strength: BEST, TABLE or LINE.
        curve: the accuracy after each epoch, in %.
        size, library: the size, and whether a library is meant, if the line itself says so; otherwise None.
        text: the number as it is printed.
        epoch: the epoch that its line names; 0 if none.
        cell: the index of the cell.
        beside: the parameter count that is clearly printed together with it, if there is one.
        run: the run that it belongs to; None if it is none of the ten, or cannot be told.
        contradiction: which evidence contradicts which, in words; empty if nothing is contradicted.
    """

    value: float
    strength: int
    curve: list[float] = field(default_factory=list)
    size: float | None = None
    library: bool | None = None
    text: str = ""
    epoch: int = 0
    cell: int = -1
    beside: int | None = None
    run: Run | None = None
    contradiction: str = ""


def seen_in(cell: Cell, kind: str) -> list[Accuracy | int]:
    """The accuracies and the parameter counts in the outputs of a cell, in their order."""
    seen: list[Accuracy | int] = []
    for output in cell.outputs:
        table = _table(output)
        if table is not None:
            seen.append(table)
        seen += _lines(output, kind, in_table=table is not None)
        if not seen and table is None:
            seen += _value(cell, output)
    return _joined(seen)


def shows_any_number(cells: list[Cell]) -> bool:
    """Whether the outputs hold anything that could be an accuracy to a person, such as a picture."""
    for cell in cells:
        if cell.source.lstrip().startswith(("!", "%pip", "%conda")):
            continue  # an installer prints many numbers
        for output in cell.outputs:
            texts = [unwrapped(output.text), *(part for row in output.rows for part in row)]
            if output.picture or any(_plausible(value) for text in texts for value, *_ in percentages(text)):
                return True
    return False


# Tables


def _table(output: Output) -> Accuracy | None:
    heads = (n for n, row in enumerate(output.rows[:3]) if any(_METRIC.search(cell) for cell in row))
    head = next(heads, None)
    column = _column(output.rows[head]) if head is not None else None
    if column is None:
        return None
    from_right = len(output.rows[head]) - column
    rows = [row for row in output.rows[head + 1 :] if len(row) >= from_right]
    values = [number for row in rows if (number := _only_number(row[-from_right])) is not None]
    return Accuracy(max(values), TABLE, values) if values and max(values) >= _CHANCE else None


def _column(header: list[str]) -> int | None:
    """The column of the test accuracy: the one named so, or else the first that is not about training."""
    measured = [n for n, name in enumerate(header) if _METRIC.search(name) and "train" not in name.lower()]
    for word in ("test", "valid", "val", "eval", "dev"):
        for n in measured:
            if word in header[n].lower():
                return n
    return measured[0] if measured else None


def _only_number(text: str) -> float | None:
    found = list(percentages(unwrapped(text)))
    if len(found) != 1:
        return None
    value, _, _, decimal = found[0]
    return value if decimal or value > 1 else None


# Lines


def _lines(output: Output, kind: str, in_table: bool) -> Iterator[Accuracy | int]:
    for line in output.text[:200_000].splitlines():
        if not line.strip() or not any(c.isdigit() for c in line):
            continue
        line = unwrapped(line[:2_000])
        yield from _counts(line)
        if not in_table or _IS_BEST.search(line):
            yield from _accuracies(line, kind)


def _counts(line: str) -> Iterator[int]:
    found = _PEFT_COUNT.search(line) or _DELTA_COUNT.search(line)  # the trained part says the size
    for one in [found] if found else _COUNT.finditer(line):
        yield int(re.sub(r"\D", "", one[1]))


def _accuracies(line: str, kind: str) -> Iterator[Accuracy]:
    """The accuracies of a line: those in a list, or else at most one, as a line is about one measurement."""
    size, bare = _size_in(line, kind)
    library = True if _LIBRARY_IN_LINE.search(line) else False if _SCRATCH_IN_LINE.search(line) else None
    best = bool(_IS_BEST.search(line))
    epoch = None if best else _EPOCH.search(line)
    strength = BEST if best else LINE
    for found in _METRIC.finditer(bare):
        if _OF_TRAINING.search(bare[max(found.start() - 14, 0) : found.start()]):
            continue
        after = bare[found.end() : found.end() + 160]
        if listed := _LIST.match(after.lstrip(" :=\"'")):
            values = [value for value, *_ in percentages(listed[1].replace(",", " "))]
            if values and max(values) > _CHANCE:
                yield Accuracy(max(values), TABLE, values, size, library)
            continue
        number = _number_after(after, best)
        if number is None:
            continue
        value, text = number
        curve = [] if best else [value]
        yield Accuracy(value, strength, curve, size, library, text, int(epoch[1]) if epoch else 0)
        return
    found = _BEFORE_METRIC.search(bare)
    alone = _PER_CENT.search(bare)
    if not found and (best or size is not None) and not _OTHER_METRIC.search(bare):
        found = alone
    if found:
        whole, fraction = (part for part in found.groups() if part)
        value = percent_of(whole, ".", fraction, alone is not None or "%" in found[0])
        if value is not None and _plausible(value):
            yield Accuracy(value, strength, [], size, library, f"{whole}.{fraction}")


def _number_after(after: str, best: bool) -> tuple[float, str] | None:
    """The first number after the word `accuracy` that can be its value: in %, and as it is printed."""
    for value, start, end, decimal in percentages(after):
        gap = after[:start]
        if len(gap) > 60 or _METRIC.search(gap) or (_OTHER_METRIC.search(gap) and not best):
            return None
        if _plausible(value) and (decimal or "%" in after[max(start - 2, 0) : end + 1]):
            return value, after[start:end].strip(" %")
    return None


def _size_in(line: str, kind: str) -> tuple[float | None, str]:
    """The size that a line names, such as `rank = 1`, and the line without it."""
    if kind not in SIZE_NAMES:
        return None, line
    pattern = SIZE_NAMES[kind]
    sizes = {int(found[2]) for found in _SIZE_IN_LINE.finditer(line) if pattern.fullmatch(found[1])}
    bare = _SIZE_IN_LINE.sub(lambda found: " " if pattern.fullmatch(found[1]) else found[0], line)
    return (float(sizes.pop()) if len(sizes) == 1 else None), bare


def _value(cell: Cell, output: Output) -> Iterator[Accuracy]:
    """The value of a cell's last line, if that line is about an accuracy."""
    last = next((line for line in reversed(cell.source.splitlines()) if line.strip()), "")
    if not (_METRIC.search(last) or _IS_BEST.search(last)) or re.search(r"train_?acc", last, re.IGNORECASE):
        return
    text = unwrapped(output.text).strip()
    number = _only_number(text) if len(text) < 60 else None
    if number is not None and _plausible(number):
        best = re.search(r"best|max", last, re.IGNORECASE)
        yield Accuracy(number, BEST if best else LINE, text=text)


def _plausible(value: float) -> bool:
    return _CHANCE < value < _PERFECT


def _joined(seen: list[Accuracy | int]) -> list[Accuracy | int]:
    """Join the single lines of one training into one curve. An earlier epoch or a best value ends it."""
    joined: list[Accuracy | int] = []
    epoch = 0  # of the line before
    for one in seen:
        before = joined[-1] if joined else None
        if isinstance(one, int):
            joined.append(one)
            epoch = 0
            continue
        if (
            isinstance(before, Accuracy)
            and one.strength == before.strength == LINE
            and (one.size, one.library) == (before.size, before.library)
            and not (one.epoch and epoch and one.epoch <= epoch)
        ):
            before.curve = [*before.curve, *one.curve]
            if one.value > before.value:
                before.value, before.text = one.value, one.text
        else:
            joined.append(one)
        epoch = one.epoch
    return joined
