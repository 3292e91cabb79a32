"""The text of a PDF as lines of cells, in the order in which a person sees them.

The text layer of a right-to-left document may hold ۸۹٫۹ in any order; where the signs stand on the page is
what counts, so the lines are put together from their places. pypdf does that in its layout mode.
"""

from __future__ import annotations

import io
import logging
import re
import time
from dataclasses import dataclass, field

from pypdf import PageObject, PdfReader
from pypdf.generic import DictionaryObject, StreamObject

from peft_scratch.submission.numerals import western

#: Pages that are read; bytes of drawing on a page and in all, unpacked; letters in all; seconds in all.
_MOST_PAGES, _LARGEST_PAGE, _LARGEST, _LONGEST, _SECONDS = 60, 1_500_000, 12_000_000, 400_000, 6.0
_ARABIC = re.compile(r"[\u0590-\u06ef\u06fa-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+")


class Locked(Exception):
    """The PDF opens with a password alone."""


class Damaged(Exception):
    """The file cannot be read as a PDF; the message says of which kind the damage is."""


@dataclass(frozen=True)
class Part:
    """A piece of a line, set off by spaces: its text and the columns that it takes."""

    text: str
    start: int
    end: int


@dataclass
class Document:
    """What a PDF says.

    Attributes:
        pages: how many it has.
        lines: each with its parts from left to right, digits as ASCII, right-to-left words readable.
        plain: the text layer in its own order, digits as ASCII.
        pictures: whether it holds any picture.
        partly: why it was not read to its end; empty if it was.
    """

    pages: int
    lines: list[list[Part]] = field(default_factory=list)
    plain: str = ""
    pictures: bool = False
    partly: str = ""


def read(data: bytes) -> Document:
    """The text of a PDF; what is restricted but opens without a password is read.

    Raises:
        Locked: it opens with a password alone.
        Damaged: it cannot be read as a PDF.
    """
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its remarks on damage become findings
    end = time.monotonic() + _SECONDS
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Locked
        document = Document(len(reader.pages))
    except Locked:
        raise
    except Exception as problem:  # pypdf raises what the damaged bytes lead it to
        raise Damaged(_kind(problem)) from problem
    left = _LARGEST
    for number in range(min(document.pages, _MOST_PAGES)):
        try:
            page = reader.pages[number]
            size = _size(page, left)
            document.pictures |= _has_pictures(page)
        except Exception as problem:
            if not document.plain and number == 0:
                raise Damaged(_kind(problem)) from problem
            document.partly = f"page {number + 1} is damaged"
            continue
        if size > min(_LARGEST_PAGE, left):
            document.partly = f"page {number + 1} draws more than a page of a report does"
            left -= min(size, _LARGEST_PAGE)
            continue
        left -= size
        _read_page(document, page)
        if time.monotonic() > end or len(document.plain) > _LONGEST:
            document.partly = f"it was read to page {number + 1} of {document.pages}"
            break
    if document.pages > _MOST_PAGES:
        document.partly = document.partly or f"only its first {_MOST_PAGES} pages were read"
    return document


def _kind(problem: Exception) -> str:
    return (
        "it is cut short or damaged"
        if not isinstance(problem, (MemoryError, RecursionError))
        else "it is too large"
    )


def _read_page(document: Document, page: PageObject) -> None:
    """Add the lines and the text of a page; one that pypdf fails at adds nothing."""
    try:
        document.plain += western(page.extract_text()) + "\n"
    except Exception:
        document.partly = document.partly or "a page is damaged"
        return
    try:
        laid_out = page.extract_text(extraction_mode="layout")
    except Exception:  # the layout mode is young, and gives up on some fonts
        laid_out = page.extract_text()
    for line in laid_out.splitlines()[:3_000]:
        readable = western(_ARABIC.sub(lambda word: word[0][::-1], line[:4_000].translate(_NO_MARKS)))
        parts = [Part(found[0], *found.span()) for found in re.finditer(r"\S+(?: \S+)*", readable)]
        if parts:
            document.lines.append(parts)


# Vowel marks and direction marks would change the columns.
_NO_MARKS = dict.fromkeys(
    [*range(0x064B, 0x0660), 0x0670, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


def _size(page: PageObject, limit: int) -> int:
    """Bytes of drawing on a page, its forms included, as far as `limit`."""
    contents = page.get("/Contents")
    waiting = [contents.get_object() if contents is not None else None, page.get("/Resources")]
    size, seen = 0, 0
    streams: set[int] = set()
    while waiting and size <= limit and seen < 500:
        one = waiting.pop()
        seen += 1
        one = one.get_object() if hasattr(one, "get_object") else one
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, StreamObject):
            if id(one) in streams or one.get("/Subtype") == "/Image":
                continue
            streams.add(id(one))
            size += len(one.get_data())
            waiting.append(one.get("/Resources"))
        elif isinstance(one, DictionaryObject):
            forms = one.get("/XObject")
            forms = forms.get_object() if forms is not None else None
            waiting += list(forms.values()) if isinstance(forms, DictionaryObject) else []
    return size


def _has_pictures(page: PageObject) -> bool:
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    if objects is None:
        return False
    found = [one.get_object() for one in objects.get_object().values()]
    return any(isinstance(one, StreamObject) and one.get("/Subtype") == "/Image" for one in found)
