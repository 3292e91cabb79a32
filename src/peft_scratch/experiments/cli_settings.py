"""`--set NAME=NUMBER` of the command `run`: what can be changed, what is read, and what was changed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from peft_scratch.assignment import FROM_SCRATCH, Profile, find_run
from peft_scratch.errors import UserError

#: In place of a setting, these ask what there is to set.
_HELP = ("--help", "-h", "help")
#: Settings whose values are words.
_WORDS = ("initialiser", "schedule")


def asks_for_help(texts: Sequence[str]) -> bool:
    """Whether one of the values of `--set` asks for the list of settings."""
    return any(text in _HELP for text in texts)


def listing(run_ids: Sequence[str], profile_name: str) -> str:
    """The settings of runs with their values, a line each; by default of each method once.

    Raises:
        UserError: unknown run or profile.
    """
    from peft_scratch.experiments.profile_choice import choose_profile
    from peft_scratch.experiments.settings import settings_of

    profile = choose_profile(profile_name).profile
    blocks = []
    for run in map(find_run, run_ids or FROM_SCRATCH):
        lines = (f"  {name:16}{value}" for name, value in settings_of(run, profile).items())
        blocks.append("\n".join([f"{run.id}, in the {profile.name} profile:", *lines]))
    return "\n\n".join([*blocks, "Change one with --set NAME=NUMBER, such as --set learning_rate=0.001."])


def setting(text: str) -> tuple[str, int | float | str]:
    """Name and value of `rank=4`, or of `schedule=linear`.

    Raises:
        UserError: it has no name, or its value is not a number and should be one.
    """
    name, _, value = text.partition("=")
    if name in _WORDS and value:
        return name, value
    try:
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--set needs NAME=NUMBER, such as rank=4, not {text!r}. `--set --help` lists the names."
        ) from None
    return name, int(value) if re.fullmatch(r"[+-]?\d+", value) else number


def changed(run_id: str, profile: Profile, changes: Mapping[str, Any]) -> str:
    """What was changed in a run, with what it was before: `changed: rank = 4 (8 otherwise)`."""
    from peft_scratch.experiments.settings import settings_of

    before = settings_of(find_run(run_id), profile)
    words = (f"{name} = {value} ({before[name]} otherwise)" for name, value in changes.items())
    return f"changed: {', '.join(words)}"
