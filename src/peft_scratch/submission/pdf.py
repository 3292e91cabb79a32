"""The text of a PDF as tables and lines, in the order in which a person sees them.

The text layer of a right-to-left document may hold the digits of ۸۹٫۹ in any order. So lines and tables are
put together from the places of the letters on the page (`layout.py`).
"""

from __future__ import annotations

import functools
import io
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from pypdf import PageObject, PdfReader
from pypdf.generic import DictionaryObject, StreamObject

from peft_scratch.submission.layout import Block, laid_out, line_block
from peft_scratch.submission.numerals import western

#: Limits: pages; unpacked bytes of drawing on a page and in all; letters in all; seconds in all.
_MOST_PAGES, _LARGEST_PAGE, _LARGEST, _LONGEST, _SECONDS = 60, 1_500_000, 12_000_000, 400_000, 6.0
#: A picture that is not wider and higher than this, in points, shows no numbers.
_PICTURE = (140.0, 40.0)


class Locked(Exception):
    """The PDF opens only with a password."""


class Damaged(Exception):
    """The file cannot be read as a PDF; the message says why."""


@dataclass
class Document:
    """What a PDF says.

    Attributes:
        pages: how many it has.
        blocks: its tables and lines of text, digits as ASCII, right-to-left text as it is read.
        plain: the text layer in its own order, digits as ASCII.
        pictures: whether it shows a picture that could contain numbers, being larger than a logo.
        partly: why it was not read to the end; empty if it was.
    """

    pages: int
    blocks: list[Block] = field(default_factory=list)
    plain: str = ""
    pictures: bool = False
    partly: str = ""


@functools.lru_cache(maxsize=2)  # it is read twice: for the check, and to find copies
def read(data: bytes) -> Document:
    """The text of a PDF. An encrypted PDF is read if it opens without a password.

    Raises:
        Locked: it opens only with a password.
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
    except Exception as problem:  # damaged bytes can make pypdf raise anything
        raise Damaged(_kind(problem)) from problem
    left = _LARGEST
    for number in range(min(document.pages, _MOST_PAGES)):
        try:
            page = reader.pages[number]
            size = _size(page, left)
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
    too_large = isinstance(problem, (MemoryError, RecursionError))
    return "it is too large" if too_large else "it is cut short or damaged"


def _read_page(document: Document, page: PageObject) -> None:
    """Add the lines and the text of a page, unless pypdf cannot read it."""
    try:
        text = western(page.extract_text())
        document.plain += f"{text}\n"
    except Exception:
        document.partly = document.partly or "a page is damaged"
        return
    try:
        blocks, objects = laid_out(page)
        document.pictures |= _shows_pictures(page, objects)
    except Exception:  # pypdf fails at unusual fonts and damaged operators
        blocks = []
        document.pictures |= _has_pictures(page)
    said = sum(len(block.text) for block in blocks)
    if said * 2 < len(text.strip()):  # the page draws its text in a way that `drawn` does not follow
        blocks = [line_block(line) for line in text.splitlines()[:3_000] if line.strip()]
    document.blocks += blocks


def _size(page: PageObject, limit: int) -> int:
    """Bytes of drawing on a page, with its forms; counting stops at `limit`."""
    waiting = [page.get("/Contents"), page.get("/Resources")]
    size, seen = 0, 0
    streams: set[int] = set()
    while waiting and size <= limit and seen < 500:
        one = _resolved(waiting.pop())
        seen += 1
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, StreamObject):
            if id(one) in streams or one.get("/Subtype") == "/Image":
                continue
            streams.add(id(one))
            size += len(one.get_data())
            waiting.append(one.get("/Resources"))
        elif isinstance(one, DictionaryObject):
            forms = _resolved(one.get("/XObject"))
            waiting += list(forms.values()) if isinstance(forms, DictionaryObject) else []
    return size


def _resolved(one: Any) -> Any:
    """The object itself: a PDF may hold a reference in its place."""
    return one.get_object() if hasattr(one, "get_object") else one


def _shows_pictures(page: PageObject, objects: list[tuple[str, float, float]]) -> bool:
    """Whether a picture is drawn that is large enough to show numbers."""
    large = any(width > _PICTURE[0] and height > _PICTURE[1] for _, width, height in objects)
    forms = any(width <= 1 for _, width, _ in objects)  # a form has its own scale
    return (large or forms) and _has_pictures(page)


def _has_pictures(page: PageObject) -> bool:
    try:
        objects = _resolved(_resolved(page.get("/Resources", {})).get("/XObject", {}))
        found = [_resolved(one) for one in objects.values()]
    except Exception:  # the page is damaged, and may have a picture
        return True
    return any(isinstance(one, StreamObject) and one.get("/Subtype") in ("/Image", "/Form") for one in found)
