"""Which number of a foreign notebook belongs to which run: by evidence, never by what would fit.

Evidence for the size, from strong to weak: the parameter count printed beside the number, what its own line
says, the last constant set or call made above, the heading above. Evidence for who implements it: the
library that is called, the heading. Where the evidence contradicts itself, the number is left to a person.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from peft_scratch.assignment import RUNS, Run
from peft_scratch.submission.cells import Cell
from peft_scratch.submission.outputs import BEST, Seen, seen_in
from peft_scratch.submission.sizes import added_by, base_of_profile, size_of
from peft_scratch.submission.source import SIZE_NAMES, CodeReader, Event

_LIBRARY_HEADING = re.compile(
    r"external|(?:use|using|with|by|via|through|the|a)\s+(?:\w+\s+){0,3}librar|(?:using|with|by|via)\s+(?:the\s+)?peft"
    r"|peft (?:lib|package|lora)|librar\w*\s*(?:$|[:(-])|open\s?delta|adapter\s?hub|adaptertrainer|کتابخانه",
    re.IGNORECASE,
)
# Headings that speak of libraries or files in another sense.
_OTHER_HEADING = re.compile(r"\bimport|install|\bsav(?:e|ing)\b|\bload|require|without", re.IGNORECASE)
_SCRATCH_HEADING = re.compile(r"from scratch|by hand|own implementation|manual|از صفر|پیاده", re.IGNORECASE)
_LARGEST_SIZE = 128


@dataclass
class Measured:
    """An accuracy with the evidence for its run.

    Attributes:
        run: the run that it belongs to; None if it is none of the ten, or cannot be told.
        size, library: what the evidence says; None if it says nothing.
        contradiction: what contradicts what, in words; empty if nothing does.
    """

    seen: Seen
    cell: int
    run: Run | None = None
    size: float | None = None
    library: bool | None = None
    contradiction: str = ""


@dataclass
class Found:
    """What the cells of a notebook give.

    Attributes:
        measured: all accuracies, in order.
        counts: all parameter counts, with the index of the cell.
        imports: the modules that the code imports.
        trains: whether any code trains.
        library_cells: the cells in which a library of the method is called.
    """

    measured: list[Measured] = field(default_factory=list)
    counts: list[Seen] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    trains: bool = False
    library_cells: list[int] = field(default_factory=list)


@dataclass
class _Said:
    """The latest word on the size, where it was said, and whether it came from code or a heading."""

    size: float | None = None
    by: str = ""
    at: int = -1


@dataclass
class _State:
    library: bool | None
    code: _Said = field(default_factory=_Said)
    heading: _Said = field(default_factory=_Said)
    headings_since: int = 0
    loop: tuple[float, ...] = ()
    count: Seen | None = None


def attribute(cells: list[Cell], number: int) -> Found:
    """The accuracies of notebook `number` (1 to 5), each with the run that it belongs to by evidence."""
    kind = next(run.kind for run in RUNS.values() if run.notebook == number)
    reader = CodeReader(kind if kind in SIZE_NAMES else "lora")
    found = Found()
    state = _State(library=True if number == 4 else None)
    waiting: list[Measured] = []  # without a count yet: one may be printed just after
    for at, cell in enumerate(cells):
        if cell.kind == "markdown":
            _read_heading(cell, at, state, kind, number)
            continue
        events = reader.read(cell.source)
        if kind in SIZE_NAMES and _take(events, at, state, found, number):
            waiting = []
        seen = seen_in(cell, kind)
        _pair_loop(seen, state.loop if kind in SIZE_NAMES else ())
        _counts_after(seen)
        for one in seen:
            one.cell = at
            if one.what == "count":
                state.count = one
                found.counts.append(one)
                for before in waiting:
                    _settle(before, one, state, kind)
                waiting = []
                continue
            measured = Measured(one, at, size=one.size, library=one.library)
            _settle(measured, one.beside or state.count, state, kind)
            if one.strength == BEST:
                if state.count is None and one.beside is None:
                    waiting = [measured]
                state.count = None
            found.measured.append(measured)
        state.loop = ()
    found.imports, found.trains = reader.imports, reader.trains
    for measured in found.measured:
        measured.run = _run(kind, number, measured)
    return found


def _read_heading(cell: Cell, at: int, state: _State, kind: str, number: int) -> None:
    lines = [
        line for line in cell.source.splitlines() if line.lstrip().startswith("#") or len(cell.source) < 120
    ]
    for line in lines[:20]:
        state.headings_since += 1
        if _LIBRARY_HEADING.search(line) and not _OTHER_HEADING.search(line) and number != 3:
            state.library = True
            state.count = None
        elif _SCRATCH_HEADING.search(line) and number != 4:
            state.library = False
            state.count = None
        if kind in SIZE_NAMES and (size := _size_of_heading(line, kind)) is not None:
            state.heading = _Said(size, f"the heading “{line.strip('# ').strip()[:60]}”", at)
            state.headings_since = 0
            state.count = None


def _size_of_heading(line: str, kind: str) -> float | None:
    """The one size that a heading names, as in `RANK = 1`, `bottleneck size 1`, `N_SOFT_PROMPT_TOKENS=10`."""
    words = {
        "lora": r"rank|\br",
        "soft_prompt": r"tokens?|prompts?|\bn|prompt length",
        "adapter": r"bottleneck\w*(?:\s?(?:size|dim\w*))?|adapter size|\bb",
    }
    found = re.findall(rf"(?:{words[kind]})\s*(?:=|:|is|of|\()?\s*(\d{{1,3}})(?![\d.])", line, re.IGNORECASE)
    found += (
        re.findall(r"(?<![\d.])(\d{1,3})[\s-]*(?:soft|virtual|prompt|tokens?)", line, re.IGNORECASE)
        if kind == "soft_prompt"
        else []
    )
    sizes = {int(size) for size in found}
    return float(sizes.pop()) if len(sizes) == 1 else None


def _take(events: list[Event], at: int, state: _State, found: Found, number: int) -> bool:
    """Let what a cell's code says change the state; whether it says anything."""
    for event in events:
        if event.what == "library":
            found.library_cells.append(at)
            state.library = True
        elif event.what == "scratch":
            if number != 4:
                state.library = False
        elif event.what == "size":
            state.code = _Said(event.values[0], event.by, at)
            if state.heading.size == event.values[0]:
                state.heading = _Said()  # confirmed: from here on the code says it alone
        elif event.what == "sizes":
            state.loop = event.values
            state.code = _Said(None, event.by, at)
    if events:
        state.count = None
    return bool(events)


def _pair_loop(seen: list[Seen], loop: tuple[float, ...]) -> None:
    """In a cell that loops over sizes, the k-th result is of the k-th size, where there are as many."""
    if len(loop) < 2:
        return
    for strength in (BEST, None):
        results = [one for one in seen if one.what == "accuracy" and strength in (None, one.strength)]
        if len(results) == len(loop):
            for one, size in zip(results, loop, strict=True):
                one.size = one.size or size
            return


def _counts_after(seen: list[Seen]) -> None:
    """Where a cell prints each count after its result, each result takes the one that follows."""
    whats = [one.what for one in seen if one.what == "count" or one.strength == BEST]
    half = len(whats) // 2
    if half and whats == ["accuracy", "count"] * half:
        for one, other in itertools.pairwise(seen):
            if one.what == "accuracy" and other.what == "count":
                one.beside = other


def size_by_count(count: int, kind: str) -> float | None:
    """The size that a parameter count means: the trained part alone, or the whole model; None if none."""
    base = base_of_profile("course")
    for size in range(1, _LARGEST_SIZE + 1):
        added = added_by(kind, size, base)
        if count in (added, base.parameters + added):
            return float(size)
    return None


def _settle(measured: Measured, count: Seen | None, state: _State, kind: str) -> None:
    """Weigh the evidence for the size and for the library."""
    if measured.seen.library is None:
        measured.library = state.library
    if kind not in SIZE_NAMES:
        return
    counted = size_by_count(int(count.value), kind) if count is not None else None
    own = measured.seen.size
    if counted is not None and own is not None and counted != own:
        measured.size, measured.contradiction = (
            None,
            f"its line says {own:g}, the count beside it {counted:g}",
        )
        return
    if counted is not None or own is not None:
        measured.size, measured.contradiction = counted if counted is not None else own, ""
        return
    measured.size, measured.contradiction = _by_code_and_heading(state)


def _by_code_and_heading(state: _State) -> tuple[float | None, str]:
    code, heading = state.code, state.heading
    if code.size is None or heading.size is None:
        return (code.size if code.size is not None else heading.size), ""
    if code.size == heading.size:
        return code.size, ""
    if heading.at > code.at:
        # Under a newer heading a constant of a section above says nothing, unless nothing was set since.
        return heading.size, ""
    if state.headings_since == 0:
        return None, f"{heading.by} says {heading.size:g}, the code below it {code.by}"
    return code.size, ""


def _run(kind: str, number: int, measured: Measured) -> Run | None:
    """The run of the ten that the evidence means."""
    runs = [run for run in RUNS.values() if run.kind == kind]
    if kind == "full":
        return runs[0]
    if measured.contradiction:
        return None
    library = measured.library if measured.library is not None else number == 4
    runs = [run for run in runs if (run.library != "scratch") == library]
    if measured.size is None:
        # One run and nothing that speaks against it.
        return runs[0] if len(runs) == 1 else None
    return next((run for run in runs if size_of(run) == measured.size), None)
