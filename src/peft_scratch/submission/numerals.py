"""Numbers as people and programs write them: Persian digits, decimal commas and slashes, NumPy and torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

#: Colours and cursor movements that programs print.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
#: Marks of writing direction and joiners. They are invisible and can stand between any two digits.
_INVISIBLE = dict.fromkeys(
    map(ord, "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
)
#: The decimal mark, the group mark, the comma and the per-cent sign of Arabic script.
_MARKS = {ord("٫"): ".", ord("٬"): ",", ord("،"): ",", ord("٪"): "%", ord("\u00a0"): " ", ord("\u2212"): "-"}
_WRAPPED = re.compile(
    r"(?:\b(?:np|numpy|torch|jnp)\.)?\b(?:float(?:16|32|64)?|double|tensor|array)\(\s*\[?\s*(-?[\d.]+(?:e[+-]?\d+)?)\s*\]?[^()\n]{0,80}\)"
)
_NUMBER = re.compile(r"(?<![\d.,/_])(\d{1,3})(?:([.,/])(\d{1,17}))?(?![\d_]|[.,/]\d)(\s?%)?")


def western(text: str) -> str:
    """`text` with digits and marks of any script as ASCII, and without colours and invisible marks.

    >>> western("۸۹٫۱")
    '89.1'
    """
    if not text.isascii():
        text = text.translate(_INVISIBLE).translate(_MARKS)
        text = "".join(str(unicodedata.decimal(c)) if c > "\x7f" and c.isdecimal() else c for c in text)
    return _ANSI.sub("", text) if "\x1b" in text else text


def unwrapped(text: str) -> str:
    """`text` with the bare number in place of `np.float64(0.89)` or `tensor(0.89, device='cuda:0')`.

    >>> unwrapped("{'accuracy': np.float64(0.8921)}")
    "{'accuracy': 0.8921}"
    """
    return _WRAPPED.sub(r"\1", text) if "(" in text else text


def percent_of(whole: str, mark: str | None, fraction: str | None, per_cent: bool) -> float | None:
    """A number as a percentage: 89.1, or 0.891 times 100. None if it cannot be a percentage.

    A slash is the Persian decimal mark only after two digits and before one or two digits.
    """
    if mark == "/" and not (len(whole) == 2 and len(fraction or "") in (1, 2)):
        return None
    if mark == "," and len(fraction or "") == 3 and whole != "0":
        return None  # thousands
    value = float(f"{whole}.{fraction or 0}")
    if value <= 1 and fraction and not per_cent:
        value *= 100
    return value if value <= 100 else None


def percentages(text: str) -> Iterator[tuple[float, int, int, bool]]:
    """Each number in `text` (already `western`) that can be a percentage: value, start, end, has decimals."""
    for found in _NUMBER.finditer(text):
        before = text[max(found.start() - 2, 0) : found.start()].rstrip()
        value = percent_of(found[1], found[2], found[3], bool(found[4]) or before.endswith("%"))
        if value is not None:
            yield value, found.start(), found.end(), found[3] is not None


def whole_numbers(text: str) -> set[int]:
    """The whole numbers in `text` (already `western`), with or without marks between groups of three."""
    groups = re.finditer(r"\d{1,3}([,.\u202f\u2009'/ ])\d{3}(?:\1\d{3}){0,4}(?!\d)|\d{1,15}", text)
    numbers = {int(re.sub(r"\D", "", group[0])) for group in groups}
    return numbers | {int(found) for found in re.findall(r"\d{1,15}", text)}
