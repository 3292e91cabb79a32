# ruff: noqa: RUF001, RUF002
"""Makes all output printable in any encoding: a pipe on Windows (cp1252, cp1256), an ASCII locale."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

_HANDLER = "peft_scratch.printable"
# What to print for the kit's marks and signs on a console that does not have them.
_PLAIN = {
    **{"✓": "+", "✔": "+", "✗": "x", "✘": "x", "·": ".", "•": "*", "→": "->", "…": "...", "×": "x"},
    **{"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "−": "-", "±": "+-", "≤": "<=", "≥": ">="},
    **{"\u200c": "", "\u200e": "", "\u200f": "", "\u2066": "", "\u2067": "", "\u2069": "", "\xa0": " "},
}


def plain(text: str) -> str:
    """`text` in ASCII: similar characters for known marks, letters without accents, `?` for all else.

    >>> plain("✓ 89.9 – 90.1"), plain("é"), plain("چ")
    ('+ 89.9 - 90.1', 'e', '?')
    """
    return "".join(_PLAIN[c] if c in _PLAIN else _letter(c) for c in text)


def _letter(character: str) -> str:
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


def make_printable() -> None:
    """Make standard output and standard error write plain characters where their encoding lacks the original.

    Without this, the first such character would end the command with a traceback.
    """
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _replace(problem: UnicodeError) -> tuple[str, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    return plain(problem.object[problem.start : problem.end]), problem.end
