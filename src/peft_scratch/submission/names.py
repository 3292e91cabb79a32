"""Names of students and of their files. A student is recognised however the name is typed."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

#: The names of files that were packed from a profile other than course begin with it.
REHEARSAL = "REHEARSAL_"

#: Fewest and most digits of a student number.
SHORTEST, LONGEST = 4, 12

_KIND = (
    r"(?:note_?books?|codes?|weights?|models?|reports?|files?|pdf|zip|final|hw\d*|homework\d*|ca\d*|\(?\d\)?"
    r"|v\d|copy|گزارش|کد|وزن\w*)"
)
_PARTS = r"[\s_.,+()\[\]-]+"
#: Arabic letters that look like Persian ones, and characters that are not seen at all.
_LETTERS = str.maketrans("يىئكةۀأإآٱؤ", "یییکههااااو")
_INVISIBLE = re.compile(r"[\u064b-\u065f\u0670\u0640\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


class Name(NamedTuple):
    """Student number and name from a file's name, folded so that two spellings of one student are equal."""

    number: str
    name: str


def western_digits(text: str) -> str:
    """`text` with the digits of any script as ASCII: Persian keyboards write Persian digits."""
    return "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in text)


def folded(name: str) -> str:
    """A name for comparison, without differences of case, spaces, joiners, Arabic or Persian yeh and kaf."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name)).translate(_LETTERS)
    return " ".join(part for part in re.split(_PARTS, plain.casefold()) if part)


def read_name(file_name: str) -> Name | None:
    """The number and name in `{STD_Number}_{Name}…`, without words such as `notebooks`; None if not so named.

    >>> read_name("REHEARSAL_400123456_Ada_Lovelace_notebooks.zip")
    Name(number='400123456', name='ada lovelace')
    """
    number, parts = _parts_of(file_name)
    return Name(number, folded(" ".join(parts))) if parts else None


def written_name(file_name: str) -> str:
    """The name in `{STD_Number}_{Name}…` as it is written there; empty if there is none.

    >>> written_name("400123456_Ada_Lovelace_notebooks.zip")
    'Ada Lovelace'
    """
    return " ".join(_parts_of(file_name)[1])


def _parts_of(file_name: str) -> tuple[str, list[str]]:
    """The student number and the words of the name; both empty if the file is not named after a student."""
    stem = unicodedata.normalize("NFKC", file_name.removeprefix(REHEARSAL)).rpartition(".")[0]
    found = re.fullmatch(rf"\W{{0,3}}(\d{{{SHORTEST},{LONGEST}}})[\s_.-]+(\S.*)", stem, re.DOTALL)
    parts = [part for part in re.split(_PARTS, found[2][:400]) if folded(part)] if found else []
    while parts and re.fullmatch(_KIND, folded(parts[-1])):
        parts.pop()
    named = found is not None and any(c.isalpha() for c in folded("".join(parts)))
    return (western_digits(found[1]), parts) if named else ("", [])


def number_in(name: str) -> str:
    """The student number anywhere in the name of a file or folder; empty if there is none."""
    plain = western_digits(unicodedata.normalize("NFKC", name[:1000]))
    found = re.findall(rf"(?<!\d)\d{{{SHORTEST + 2},{LONGEST}}}(?!\d)", plain)
    return found[0] if found else ""


def stem_of(file_name: str) -> str:
    """The name without ending and words such as `notebooks`: files of one student without number share it."""
    parts = folded(file_name.rpartition(".")[0]).split(" ")
    return " ".join(part for part in parts if not re.fullmatch(_KIND, part))


def file_names(number: str, name: str) -> tuple[str, str, str]:
    """The names of the three files: notebooks, weights, report."""
    stem = f"{number}_{name}"
    return f"{stem}_notebooks.zip", f"{stem}_weights.zip", f"{stem}.pdf"
