"""What a text in English or Persian says about a run: its method, who implements it, its size."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

from peft_scratch.assignment import RUNS
from peft_scratch.submission.numerals import whole_numbers
from peft_scratch.submission.sizes import size_of, sizes_of

_KINDS = {
    "soft_prompt": re.compile(
        r"soft[\s_-]*(?:prompt|token)|prompt[\s_-]*(?:tuning|tunning|token|emb)|\bprompts?\b|prompt_|پرامپت|پرامت|پرومپت|پرمپت|سافت",
        re.IGNORECASE,
    ),
    "adapter": re.compile(r"adapte?r|[آاأ]?داپت[وـ]?ر|[آا]دپتر|[آا]داپتر", re.IGNORECASE),
    "lora": re.compile(r"\blo-?ra\b|lora_|_lora|لورا|لُرا|low[\s-]?rank", re.IGNORECASE),
    "full": re.compile(r"\bfull|fine[\s-]?tun+\w*|کامل|فاین", re.IGNORECASE),
}
#: Words that belong to one method, for a text that does not name the method itself.
_OF_KINDS = {
    "soft_prompt": re.compile(r"open\s?delta|soft_?token|n_?soft|virtual tokens?|توکن", re.IGNORECASE),
    "adapter": re.compile(r"bottle\s?neck|pfeiffer|seqbn|باتل\s?نک|بات[تل]ل\s?نک|گلوگاه", re.IGNORECASE),
    "lora": re.compile(r"\brank\b|(?<![a-z])rank\s*=|رنک|رتبه", re.IGNORECASE),
}
_PEFT_ALONE = re.compile(r"^\W*(?:hugging\s?face\s*)?peft\W*(?:lib\w*)?\W*$", re.IGNORECASE)
_LIBRARY = re.compile(
    r"librar|external|open\s?delta|adapter[\s-]?hub|\badapters?\s+lib|\bpeft\b|_peft|hugging|pfeiffer|seqbn"
    r"|کتابخانه|کتاب\s?خانه|آماده",
    re.IGNORECASE,
)
#: Here PEFT is the name of the field, or the text says that no library was used.
_NO_LIBRARY = re.compile(
    r"without (?:the |a |any )?(?:peft|librar)\w*|no library|non-library|peft methods?|\(peft\)"
    r"|بدون کتابخانه",
    re.IGNORECASE,
)
_SCRATCH = re.compile(
    r"scratch|\bown\b|manual|by hand|custom|vanilla|without (?:the |a |any )?librar\w*|no library|non-library"
    r"|از صفر|صفر|دستی|پیاده|بدون کتابخانه",
    re.IGNORECASE,
)
_SIZE = re.compile(
    r"(?<![a-z])(?:rank|ranks|r|n(?:_?soft\w*|umber of tokens)?|b|k|bottle\s?neck(?:[\s_]?(?:size|dim\w*))?"
    r"|tokens?|prompts?|soft_?tokens?(?:[\s_]num\w*|[\s_]counts?)?|num[\s_]soft[\s_]tokens?|size|length"
    r"|رتبه|رنک|توکن|اندازه|سایز|باتل\s?نک|گلوگاه)"
    r"\s*(?:size|equals?(?: to)?|of|is|برابر(?: با)?)?\s*[=:_]?\s*\(?(\d{1,3})(?![\d.,٫]\d|\d)",
    re.IGNORECASE,
)
_SIZE_BEFORE = re.compile(r"(?<![\d.,])(\d{1,3})[\s-]*(?:soft|virtual|prompt|tokens?|توکن)", re.IGNORECASE)
_TWO_SIZES = re.compile(
    r"(?:ranks?|tokens?|sizes?|counts?)\s*(?:of\s+)?(\d{1,2})\s+and\s+(\d{1,2})\b", re.IGNORECASE
)
_ORDINALS = {"اول": 1, "دوم": 2, "سوم": 3, "چهارم": 4, "پنجم": 5, "one": 1, "two": 2, "three": 3, "four": 4}
_NOTEBOOK = re.compile(
    r"(?:note\s?book|نوت\s?بوک|دفتر\w*)\s*(?:#|no\.?|num\w*|number|شماره)?\s*[:=]?\s*0?"
    rf"([1-5](?!\d)|{'|'.join(_ORDINALS)})",
    re.IGNORECASE,
)
_KIND_OF_NOTEBOOK = {run.notebook: run.kind for run in RUNS.values()}
#: Whether a library implements the method of a notebook, if the notebook does not have both.
_LIBRARY_OF_NOTEBOOK = {3: False, 4: True}


@dataclass
class Hints:
    """What a text says about a run; None for what it does not say or says in two ways."""

    kind: str | None = None
    library: bool | None = None
    size: int | None = None

    def over(self, other: Hints) -> Hints:
        """These hints; what they lack is taken from `other`."""
        library = self.library if self.library is not None else other.library
        return Hints(self.kind or other.kind, library, self.size or other.size)

    @property
    def without_size(self) -> Hints:
        return Hints(self.kind, self.library)


def hints_of(text: str) -> Hints:
    """What a text says about a run. A line break in it may separate two words or divide one."""
    text = unicodedata.normalize("NFKC", text)  # also the letters of formulas
    if "\n" in text:
        return _hints(text.replace("\n", " ")).over(_hints(text.replace("\n", "")))
    return _hints(text)


def _hints(text: str) -> Hints:
    kind = _kind(text)
    bare = _NO_LIBRARY.sub(" ", text)
    library, scratch = bool(_LIBRARY.search(bare)), bool(_SCRATCH.search(text))
    said = library if library != scratch else None
    if said is None and not library and (found := _NOTEBOOK.search(text)):
        number = _ORDINALS.get(found[1].casefold()) or int(found[1])
        kind = kind or _KIND_OF_NOTEBOOK[number]
        said = _LIBRARY_OF_NOTEBOOK.get(number) if kind == _KIND_OF_NOTEBOOK[number] else None
    sizes = sizes_in(text)
    return Hints(kind, said, sizes[0] if len(set(sizes)) == 1 else None)


def _kind(text: str) -> str | None:
    kinds = [kind for kind, pattern in _KINDS.items() if pattern.search(text)]
    if len(kinds) > 1 and "full" in kinds:
        kinds.remove("full")  # `LoRA fine-tuning` is LoRA
    if not kinds or kinds == ["full"]:
        of = [kind for kind, pattern in _OF_KINDS.items() if pattern.search(text)]
        kinds = of or kinds
    if not kinds and _PEFT_ALONE.match(text):
        kinds = ["lora"]
    return kinds[0] if len(kinds) == 1 else None


def sizes_in(text: str) -> list[int]:
    """The sizes that a text names, in their order."""
    places = {found.start(1): int(found[1]) for found in _SIZE.finditer(text)}
    places |= {found.start(1): int(found[1]) for found in _SIZE_BEFORE.finditer(text)}
    for found in _TWO_SIZES.finditer(text):
        places |= {found.start(n): int(found[n]) for n in (1, 2)}
    return [places[at] for at in sorted(places)]


def hints_of_counts(text: str) -> Hints:
    """What the parameter counts in a text say: 60,543,488 can only be LoRA with r = 1."""
    found = {_counts().get(number) for number in whole_numbers(text)} - {None}
    kind, size = found.pop() if len(found) == 1 else (None, None)
    return Hints(kind, None, size or None)


@functools.cache
def _counts() -> dict[int, tuple[str, int]]:
    """Method and size by parameter count."""
    known: dict[int, tuple[str, int]] = {}
    for run in RUNS.values():
        sizes = sizes_of(run.id, "course")
        known |= {count: (run.kind, size_of(run)) for count in (sizes.added, sizes.whole) if count}
    return known


def runs_of(hints: Hints) -> frozenset[str]:
    """The runs that fit the hints. Full fine-tuning has no library and no size."""
    library, size = hints.library, hints.size
    return frozenset(
        run.id
        for run in RUNS.values()
        if hints.kind in (None, run.kind)
        and (run.kind == "full" or library in (None, run.library != "scratch"))
        and (run.kind == "full" or size in (None, size_of(run)))
    )


def possible(known: Hints, more: Hints) -> Hints:
    """`known`, with as much of `more` as some run still fits."""
    for added in (more, more.without_size, Hints(more.kind, None, more.size), Hints(more.kind)):
        if runs_of(known.over(added)):
            return known.over(added)
    return known
