"""What a lecturer changes of the assignment: `course.toml`, beside the README.

Everything in the file is optional; `assignment.py` has the values that it leaves out. Nothing here imports
torch.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_scratch.errors import UserError
from peft_scratch.paths import ROOT

if TYPE_CHECKING:
    from peft_scratch.assignment import Profile, Run

_OF_A_RUN = ("learning_rate", "published")
_OF_A_PROFILE = ("max_tokens", "epochs", "batch_size", "train_reviews", "test_reviews")
_LANGUAGES = ("en", "fa")


@dataclass(frozen=True)
class Course:
    """A course's changes to the assignment.

    Attributes:
        title, lecturer, term: for the head of the handout; title, and text, by language.
        deadline: the last day for handing in, if it is known yet.
        text: a paragraph of the lecturer's own for the handout.
        marker: part of every key of the weight files.
        seed_per_student: whether each student's seed comes from the student number.
        points: by number of the notebook; 6 stands for the report.
        runs: changed constants, by id of the run.
        profiles: changed sizes, by name of the profile.
    """

    title: Mapping[str, str] = field(default_factory=dict)
    lecturer: str = ""
    term: str = ""
    deadline: datetime.date | None = None
    text: Mapping[str, str] = field(default_factory=dict)
    marker: str = "sharif_llm"
    seed_per_student: bool = False
    points: Mapping[int, int] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def changed_run(self, run: Run) -> Run:
        """`run` of `assignment.py` with what the file changes.

        Raises:
            UserError: the run has no such constant.
        """
        changes = dict(self.runs.get(run.id, {}))
        own = {name: changes.pop(name) for name in _OF_A_RUN if name in changes}
        if "published" in own:
            own["published"] = tuple(own["published"])
        if unknown := sorted(set(changes) - set(run.hyperparameters)):
            known = ", ".join([*run.hyperparameters, *_OF_A_RUN])
            raise UserError(
                f"course.toml, runs.{run.id}: no constant is called {unknown[0]}; there are {known}."
            )
        return replace(run, **own, hyperparameters={**run.hyperparameters, **changes})

    def changed_profile(self, profile: Profile) -> Profile:
        """`profile` of `assignment.py` with what the file changes.

        Raises:
            UserError: a profile has no such size.
        """
        changes = self.profiles.get(profile.name, {})
        if unknown := sorted(set(changes) - set(_OF_A_PROFILE)):
            known = ", ".join(_OF_A_PROFILE)
            raise UserError(f"course.toml, profiles: no size is called {unknown[0]}; there are {known}.")
        return replace(profile, **changes)

    def points_of(self, part: int, otherwise: int) -> int:
        """The points of a part of the submission; `otherwise` if the file does not give them."""
        return self.points.get(part, otherwise)


def read(path: Path) -> Course:
    """The course in the file at `path`; if there is no file, a course that changes nothing.

    Raises:
        UserError: it is not TOML, or something in it is unknown or of the wrong kind; the message says what.
    """
    if not path.is_file():
        return Course()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UserError(f"{path.name} is not TOML: {problem}.") from None
    known = {field.name for field in fields(Course)}
    if unknown := sorted(set(found) - known):
        raise UserError(f"{path.name}: nothing is called {unknown[0]}; there are {', '.join(sorted(known))}.")
    found["points"] = _points(found.get("points", {}), path.name)
    for name in ("title", "text"):
        if set(found.get(name, {})) - set(_LANGUAGES):
            raise UserError(f"{path.name}, {name}: the languages are {' and '.join(_LANGUAGES)}.")
    if not isinstance(found.get("deadline", datetime.date.min), datetime.date):
        raise UserError(f"{path.name}, deadline: write a day as 2027-01-31, without quotes.")
    if not str(found.get("marker", "x")).isidentifier():
        raise UserError(
            f"{path.name}, marker: it becomes part of names in Python, so use only letters, digits and _."
        )
    return Course(**found)


def _points(points: Mapping[str, Any], file: str) -> dict[int, int]:
    try:
        return {6 if part == "report" else int(part): int(value) for part, value in points.items()}
    except (ValueError, TypeError):
        raise UserError(
            f"{file}, points: write 1 = 5 to 5 = 30 for the notebooks, and report = 15."
        ) from None


#: The course of this kit.
COURSE = read(ROOT / "course.toml")
