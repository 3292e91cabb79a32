"""Quantities in words: a length of time, a number of things."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`seconds` in the unit that fits, as exact as an estimate can be.

    >>> duration(41.7), duration(700), duration(36_000)
    ('42 s', '12 min', '10.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def counted(number: int, thing: str, things: str = "") -> str:
    """`number` with what is counted, in the singular or the plural.

    >>> counted(1, "tensor"), counted(1200, "tensor"), counted(2, "entry", "entries")
    ('1 tensor', '1,200 tensors', '2 entries')
    """
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
