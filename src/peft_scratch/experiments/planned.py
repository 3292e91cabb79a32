"""Which runs a command asks for: run ids, `all` for the ten, `tuned` for better hyperparameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from peft_scratch.assignment import RUNS, find_run
from peft_scratch.errors import UserError

ALL, TUNED = "all", "tuned"

#: Hyperparameters that scored better than those of the offline profile, by kind of method. Each combination
#: was swept (`report/sweeps`); `report/tables/advice.md` gives its difference with the interval.
BETTER: Mapping[str, Mapping[str, Any]] = {
    "full": {"learning_rate": 1e-4, "max_tokens": 256},
    "soft_prompt": {"learning_rate": 1.0, "schedule": "linear", "max_tokens": 256},
    "adapter": {"learning_rate": 1e-2, "max_tokens": 256},
    "lora": {"max_tokens": 256},
}
#: The profiles that use the offline base.
_PROFILES = ("offline", "smoke")


def planned(
    names: Iterable[str], changes: Mapping[str, Any], profile: str
) -> list[tuple[str, dict[str, Any]]]:
    """Each run with its changed constants.

    Args:
        names: run ids, `all` or `tuned`.
        changes: for every run; they replace those of `BETTER`.
        profile: as the user names it.

    Raises:
        UserError: a name is unknown, or `tuned` is asked for in a profile with another base.
    """
    plan: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        if name == ALL:
            plan += [(run_id, dict(changes)) for run_id in RUNS]
        elif name != TUNED:
            plan.append((find_run(name).id, dict(changes)))
        elif profile in _PROFILES:
            plan += [(run.id, {**BETTER[run.kind], **changes}) for run in RUNS.values()]
        else:
            raise UserError(
                f"The hyperparameters of `{TUNED}` were found on the offline base: add --profile offline, or "
                "name runs and change their settings with --set."
            )
    return plan
