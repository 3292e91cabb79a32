"""What a check finds, and the sentences that say it.

There are three kinds of findings. Something is right. Or it is an error, and the files prove it. Or a person
should look at it, because the program did not understand it or cannot decide it; that costs no points.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peft_scratch.assignment import ALL_POINTS, PARTS
from peft_scratch.wording import counted

if TYPE_CHECKING:
    from peft_scratch.submission.copies import Traces

OK, LOOK, ERROR = "✓", "!", "✗"
READY, REHEARSAL, NOT_READY, UNREAD = "ready", "rehearsal", "not ready", "not read"

#: The longest text of a finding (names in an archive can be huge), and how many findings of a code are shown.
_LONGEST, _MOST_ALIKE = 400, 12


@dataclass(frozen=True)
class Finding:
    """One line of a checklist.

    Attributes:
        item: the part of the submission, a key of `PARTS`.
        mark: ✓ right, ! to be looked at, ✗ error.
        code: a short name of what was found, for programs.
        text: what is right or wrong.
        fix: what to do about it.
    """

    item: int
    mark: str
    code: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.mark} {printable(self.text)}" + (f": {printable(self.fix)}" if self.fix else "")


def ok(item: int, code: str, text: str) -> Finding:
    """Something is as it should be."""
    return Finding(item, OK, code, _clipped(text))


def look(item: int, code: str, text: str, fix: str = "") -> Finding:
    """Something that a person should look at. It costs no points and does not prevent handing in."""
    return Finding(item, LOOK, code, _clipped(text), fix)


def error(item: int, code: str, text: str, fix: str) -> Finding:
    """Something that is wrong, shown by evidence."""
    return Finding(item, ERROR, code, _clipped(text), fix)


@dataclass
class Checked:
    """The checklist of one submission.

    Attributes:
        name: what it is called in messages.
        profile: `course`, or the profile of a rehearsal.
        findings: in the order they were made.
        numbers: the accuracies in %, by run; a run whose number was not found is not in it.
        curves: the test accuracy in % after each epoch, by run, where the notebook shows it.
        student: number and name from the files' names, folded for comparison.
        written_name: the name as it is written there.
        handed_in: when the newest of its files was last changed, in seconds since 1970; 0 if unknown.
        traces: what is needed to find copies; None if it was not asked for.
        unread: whether the check ended early, so that nothing is known.
    """

    name: str
    profile: str = "course"
    findings: list[Finding] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    student: tuple[str, str] = ("", "")
    written_name: str = ""
    handed_in: float = 0.0
    traces: Traces | None = None
    unread: bool = False

    def of(self, item: int, mark: str | None = None) -> list[Finding]:
        """The findings of an item, of one mark or of all."""
        return [found for found in self.findings if found.item == item and mark in (None, found.mark)]

    def marked(self, mark: str) -> list[Finding]:
        """All findings of a mark, in the order of the items."""
        return [found for item in PARTS for found in self.of(item, mark)]

    @property
    def verdict(self) -> str:
        if self.unread:
            return UNREAD
        if self.marked(ERROR):
            return NOT_READY
        return READY if self.profile == "course" else REHEARSAL

    @property
    def points_without_error(self) -> int:
        """The points of the parts without an error. It is not a grade: a part with one error counts 0."""
        if self.unread:
            return 0
        return sum(item.points for key, item in PARTS.items() if not self.of(key, ERROR))

    def lines(self) -> list[str]:
        """The checklist as text: the parts with their points, a line per finding, the verdict last."""
        said = [printable(self.name)]
        for key, item in PARTS.items():
            points = f" ({item.points} of {ALL_POINTS})" if item.points else ""
            said += [f"{item.title}{points}", *(f"  {found}" for found in shown(self.of(key)))]
        return [*said, self.sentence]

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        errors, looks = len(self.marked(ERROR)), len(self.marked(LOOK))
        how_many = f"{counted(errors, 'error')}, {counted(looks, 'point')} to look at"
        rehearsal = f"{run_of(self.profile)} is a rehearsal and not a submission"
        return {
            READY: f"READY to hand in: {how_many}.",
            UNREAD: "NOT READ: look by hand.",
            REHEARSAL: f"REHEARSAL: {how_many}; but {rehearsal}.",
            NOT_READY: f"NOT READY: {how_many}; the parts without an error are worth "
            f"{self.points_without_error} of {ALL_POINTS}"
            + (f"; and {rehearsal}." if self.profile != "course" else "."),
        }[self.verdict]


def run_of(profile: str) -> str:
    """A run of `profile`, in words.

    >>> run_of("offline"), run_of("quick")
    ('an offline run (profile offline)', 'a quick run (profile quick)')
    """
    article = "an" if profile == "offline" else "a"
    return f"{article} {printable(profile)} run (profile {printable(profile)})"


def shown(findings: list[Finding]) -> list[Finding]:
    """`findings` with only the first few of each code: an archive can hold a thousand stray files."""
    kept: list[Finding] = []
    alike: Counter[tuple[int, str, str]] = Counter()
    for one in findings:
        key = (one.item, one.mark, one.code)
        alike[key] += 1
        if alike[key] <= _MOST_ALIKE:
            kept.append(one)
    return kept + [
        Finding(*key, f"and {number - _MOST_ALIKE:,} more of this kind")
        for key, number in alike.items()
        if number > _MOST_ALIKE
    ]


def _clipped(text: str) -> str:
    """`text`, or only its beginning and end if it is very long."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 80]} […] {text[-70:]}"


def printable(text: str) -> str:
    """`text` of limited length, without characters that could disturb a terminal."""
    return visible(_clipped(text))


def visible(text: str) -> str:
    """`text` without control characters. The joiners of Persian words stay."""
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else "�" for c in text)
