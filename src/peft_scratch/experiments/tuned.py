"""`peft-scratch run tuned`: runs with other constants than the assignment's, for a better accuracy.

They were chosen on the offline base by the sweeps in `report/sweeps`, with other seeds than the first, and
hold for the offline profile. `report/tables/advice.md` says what else was tried. The results are kept apart
from the ten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from peft_scratch.assignment import RUNS
from peft_scratch.errors import UserError

#: The name that stands for the list.
NAME = "tuned"
#: The profiles whose base is the one that they were found on.
PROFILES = ("offline", "smoke")
#: Changed constants by kind of method. A kind that is not here has none that were found to help.
TUNED: Mapping[str, Mapping[str, Any]] = {
    "full": {"learning_rate": 1e-4},
}


def planned(
    run_ids: Iterable[str], changes: Mapping[str, Any], profile: str
) -> list[tuple[str, dict[str, Any]]]:
    """Each run with its changed constants; `tuned` stands for every run that `TUNED` has some for.

    Args:
        changes: for all of them; they count more than `TUNED`.
        profile: as the user names it.

    Raises:
        UserError: `tuned` is asked for in another profile.
    """
    plan: list[tuple[str, dict[str, Any]]] = []
    for run_id in run_ids:
        if run_id != NAME:
            plan.append((run_id, dict(changes)))
            continue
        if profile not in PROFILES:
            raise UserError(
                f"The constants of `{NAME}` were found on the offline base: add --profile {PROFILES[0]}, or "
                "name runs and change their constants with --set."
            )
        plan += [(run.id, {**TUNED[run.kind], **changes}) for run in RUNS.values() if run.kind in TUNED]
    return plan
