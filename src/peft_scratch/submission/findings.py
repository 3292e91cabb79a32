"""What a check finds, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft_scratch.assignment import ALL_POINTS, PARTS
from peft_scratch.wording import counted

OK, NOTE, FAULT = "✓", "!", "✗"
READY, REHEARSAL, NOT_READY = "ready", "rehearsal", "not ready"


@dataclass(frozen=True)
class Finding:
    """One line of a checklist.

    Attributes:
        item: the part of the hand-in, a key of `ITEMS`.
        mark: ✓ right, ! to be looked at, ✗ wrong.
        code: a short name of what was found, for programs.
        text: what is right or wrong.
        mend: what to do about it.
    """

    item: int
    mark: str
    code: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.mark} {printable(self.text)}" + (f": {printable(self.mend)}" if self.mend else "")


def ok(item: int, code: str, text: str) -> Finding:
    """Something is as it should be."""
    return Finding(item, OK, code, text)


def note(item: int, code: str, text: str, mend: str = "") -> Finding:
    """Something that somebody should look at, and that keeps nobody from handing in."""
    return Finding(item, NOTE, code, text, mend)


def fault(item: int, code: str, text: str, mend: str) -> Finding:
    """Something that has to be mended."""
    return Finding(item, FAULT, code, text, mend)


@dataclass
class Checked:
    """The checklist of one submission.

    Attributes:
        name: what it is called in messages.
        profile: `course`, or the profile of a rehearsal.
        findings: in the order they were made.
        numbers: the accuracies in %, by run; a run whose number was not found is not in it.
        student: number and name, as the files' names give them.
    """

    name: str
    profile: str = "course"
    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    student: tuple[str, str] = ("", "")

    def of(self, item: int, mark: str | None = None) -> list[Finding]:
        """The findings of an item, of one mark or of all."""
        return [found for found in self.findings if found.item == item and mark in (None, found.mark)]

    def marked(self, mark: str) -> list[Finding]:
        """All findings of a mark, in the order of the items."""
        return [found for item in PARTS for found in self.of(item, mark)]

    @property
    def verdict(self) -> str:
        if self.marked(FAULT):
            return NOT_READY
        return READY if self.profile == "course" else REHEARSAL

    @property
    def points_without_fault(self) -> int:
        """The shares of the items that nothing is wrong with; no mark, since nobody has read a line yet."""
        return sum(item.points for key, item in PARTS.items() if not self.of(key, FAULT))

    def lines(self) -> list[str]:
        """The checklist as text: the items with their shares, a line a finding, the verdict last."""
        said = [printable(self.name)]
        for key, item in PARTS.items():
            share = f" ({item.points} of {ALL_POINTS})" if item.points else ""
            said += [f"{item.title}{share}", *(f"  {found}" for found in self.of(key))]
        return [*said, self.sentence]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        faults, notes = len(self.marked(FAULT)), len(self.marked(NOTE))
        how_many = f"{counted(faults, 'fault')}, {counted(notes, 'point')} to look at"
        rehearsal = f"an offline run (profile {printable(self.profile)}) is a rehearsal and not a hand-in"
        return {
            READY: f"READY to hand in: {how_many}.",
            REHEARSAL: f"REHEARSAL: {how_many}; but {rehearsal}.",
            NOT_READY: f"NOT READY: {how_many}; items without a fault are worth "
            f"{self.points_without_fault} of {ALL_POINTS}"
            + (f"; and {rehearsal}." if self.profile != "course" else "."),
        }[self.verdict]


def printable(text: str) -> str:
    """`text` without what could play tricks on a terminal or a table; Persian's joiners stay."""
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else "�" for c in text)
