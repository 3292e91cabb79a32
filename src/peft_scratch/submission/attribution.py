"""Which accuracy of a foreign notebook belongs to which run: by evidence, never because it would fit.

Evidence for the size, from strong to weak: the parameter count printed beside the accuracy; its own line; the
last constant or call above it; the heading above it. Evidence for who implements the method: the library that
is called, the heading. If the evidence contradicts itself, a person has to decide.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from peft_scratch.assignment import RUNS, Run
from peft_scratch.submission.cells import Cell
from peft_scratch.submission.outputs import BEST, Accuracy, seen_in
from peft_scratch.submission.sizes import added_by, base_of_profile, size_of
from peft_scratch.submission.source import SIZE_NAMES, CodeReader, Event

_LIBRARY_HEADING = re.compile(
    r"external|(?:use|using|with|by|via|through|the|a)\s+(?:\w+\s+){0,3}librar|(?:using|with|by|via)\s+(?:the\s+)?peft"
    r"|peft (?:lib|package|lora)|librar\w*\s*(?:$|[:(-])|open\s?delta|adapter\s?hub|adaptertrainer|کتابخانه",
    re.IGNORECASE,
)
# Headings that name a library for another reason.
_OTHER_HEADING = re.compile(r"\bimport|install|\bsav(?:e|ing)\b|\bload|require|without", re.IGNORECASE)
_SCRATCH_HEADING = re.compile(r"from scratch|by hand|own implementation|manual|از صفر|پیاده", re.IGNORECASE)
_LARGEST_SIZE = 128


@dataclass
class _Said:
    """The size that was named last, what named it, and in which cell."""

    size: float | None = None
    by: str = ""
    at: int = -1


class Reading:
    """What the cells of notebook `number` (1 to 5) show; each accuracy has the run that it belongs to.

    Attributes:
        accuracies, counts: all accuracies and parameter counts, in order.
        imports: the modules that the code imports.
        trains: whether any code trains.
        library_cells: indexes of the cells that call a library for the method.
    """

    def __init__(self, cells: list[Cell], number: int) -> None:
        self.accuracies: list[Accuracy] = []
        self.counts: list[int] = []
        self.library_cells: list[int] = []
        self._number = number
        self._kind = next(run.kind for run in RUNS.values() if run.notebook == number)
        self._runs = [run for run in RUNS.values() if run.kind == self._kind]
        self._has_sizes = self._kind in SIZE_NAMES
        self._library = number == 4
        self._code, self._heading = _Said(), _Said()
        self._headings_since = 0  # since the heading that named a size
        self._loop: tuple[float, ...] = ()
        self._count: int | None = None  # the last one, until an accuracy has taken it
        self._waiting: Accuracy | None = None  # without a count: one may be printed just after it
        code = CodeReader(self._kind if self._has_sizes else "lora")
        for at, cell in enumerate(cells):
            if cell.kind == "markdown":
                self._read_heading(cell, at)
            else:
                self._read_code(cell, at, code.read(cell.source))
        self.imports, self.trains = code.imports, code.trains

    def _read_heading(self, cell: Cell, at: int) -> None:
        short = len(cell.source) < 120
        lines = [line for line in cell.source.splitlines() if short or line.lstrip().startswith("#")]
        for line in lines[:20]:
            self._headings_since += 1
            if _LIBRARY_HEADING.search(line) and not _OTHER_HEADING.search(line) and self._number != 3:
                self._library, self._count = True, None
            elif _SCRATCH_HEADING.search(line) and self._number != 4:
                self._library, self._count = False, None
            if self._has_sizes and (size := _size_of_heading(line, self._kind)) is not None:
                self._heading = _Said(size, f"the heading “{line.strip('# ').strip()[:60]}”", at)
                self._headings_since, self._count = 0, None

    def _read_code(self, cell: Cell, at: int, events: list[Event]) -> None:
        if self._has_sizes and events:
            self._count = self._waiting = None
            for event in events:
                self._take(event, at)
        seen = seen_in(cell, self._kind)
        _pair_loop(seen, self._loop)
        _pair_counts(seen)
        self._loop = ()
        for one in seen:
            if isinstance(one, int):
                self.counts.append(one)
                self._count = one
                if self._waiting is not None:
                    self._settle(self._waiting, one)
                self._waiting = None
                continue
            one.cell = at
            self.accuracies.append(one)
            count = one.beside if one.beside is not None else self._count
            self._settle(one, count)
            if one.strength == BEST:
                self._waiting = one if count is None else self._waiting
                self._count = None

    def _take(self, event: Event, at: int) -> None:
        """Note what the code of a cell says."""
        if event.what == "library":
            self.library_cells.append(at)
            self._library = True
        elif event.what == "scratch":
            self._library = self._number == 4  # all of notebook 4 is about the library
        elif event.what == "size":
            self._code = _Said(event.values[0], event.by, at)
            if self._heading.size == event.values[0]:
                self._heading = _Said()  # the code confirms it and counts alone from here on
        else:
            self._loop = event.values
            self._code = _Said(None, event.by, at)

    def _settle(self, one: Accuracy, count: int | None) -> None:
        """Set the run that the evidence names, or else say which evidence contradicts which."""
        one.contradiction, size = "", one.size
        if self._has_sizes:
            counted = size_by_count(count, self._kind) if count is not None else None
            if counted and size is not None and counted != size:
                one.contradiction = f"its line says {size:g}, the count beside it {counted:g}"
            size = counted or size
            if size is None:
                size, one.contradiction = self._size_above()
        one.run = None if one.contradiction else self._run(size, one.library)

    def _size_above(self) -> tuple[float | None, str]:
        """The size that code and heading above name; if they contradict each other, None and the reason."""
        code, heading = self._code, self._heading
        if None in (code.size, heading.size):
            return code.size or heading.size, ""
        # A constant that was set above the last heading belongs to the section before.
        if heading.at > code.at:
            return heading.size, ""
        if code.size != heading.size and self._headings_since == 0:
            return None, f"{heading.by} says {heading.size:g}, the code below it {code.by}"
        return code.size, ""

    def _run(self, size: float | None, library: bool | None) -> Run | None:
        """The run that the evidence names; None if it is none of the ten."""
        if not self._has_sizes:
            return self._runs[0]
        by_library = self._library if library is None else library
        runs = [run for run in self._runs if (run.library != "scratch") == by_library]
        if size is None:
            return runs[0] if len(runs) == 1 else None  # the only one, and nothing contradicts it
        return next((run for run in runs if size_of(run) == size), None)


def _size_of_heading(line: str, kind: str) -> float | None:
    """The one size that a heading names, as in `RANK = 1`, `bottleneck size 1`, `N_SOFT_PROMPT_TOKENS=10`."""
    words = {
        "lora": r"rank|\br",
        "soft_prompt": r"tokens?|prompts?|\bn|prompt length",
        "adapter": r"bottleneck\w*(?:\s?(?:size|dim\w*))?|adapter size|\bb",
    }
    found = re.findall(rf"(?:{words[kind]})\s*(?:=|:|is|of|\()?\s*(\d{{1,3}})(?![\d.])", line, re.IGNORECASE)
    if kind == "soft_prompt":
        found += re.findall(r"(?<![\d.])(\d{1,3})[\s-]*(?:soft|virtual|prompt|tokens?)", line, re.IGNORECASE)
    sizes = {int(size) for size in found}
    return float(sizes.pop()) if len(sizes) == 1 else None


def _pair_loop(seen: list[Accuracy | int], loop: tuple[float, ...]) -> None:
    """In a cell that loops over sizes, the k-th result has the k-th size, if there are as many results."""
    for strength in (BEST, None) if len(loop) > 1 else ():
        results = [one for one in seen if isinstance(one, Accuracy) and strength in (None, one.strength)]
        if len(results) == len(loop):
            for one, size in zip(results, loop, strict=True):
                one.size = one.size or size
            return


def _pair_counts(seen: list[Accuracy | int]) -> None:
    """If a cell prints a count after each best accuracy, each accuracy takes the count after it."""
    main = [one for one in seen if isinstance(one, int) or one.strength == BEST]
    if [isinstance(one, int) for one in main] == [False, True] * (len(main) // 2):
        for one, count in itertools.pairwise(seen):
            if isinstance(one, Accuracy) and isinstance(count, int):
                one.beside = count


def size_by_count(count: int, kind: str) -> float | None:
    """The size with which the trained part, or the whole model, has `count` parameters; None if none has."""
    base = base_of_profile("course")
    for size in range(1, _LARGEST_SIZE + 1):
        added = added_by(kind, size, base)
        if count in (added, base.parameters + added):
            return float(size)
    return None
