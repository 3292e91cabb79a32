"""Which profile a run uses when none is given."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from peft_scratch.assignment import HUB_BASE, PROFILES, Profile, find_profile


@dataclass(frozen=True)
class ProfileChoice:
    """A profile, why it was chosen, in words, and whether the kit chose it itself."""

    profile: Profile
    reason: str
    automatic: bool = False


def choose_profile(name: str = "auto") -> ProfileChoice:
    """The profile called `name`; for `auto`, `course` if there is a GPU and the Hub can be reached.

    Raises:
        UserError: there is no profile of that name.
    """
    if name != "auto":
        return ProfileChoice(find_profile(name), "it was asked for")
    if not torch.cuda.is_available():
        return ProfileChoice(PROFILES["offline"], "no GPU was found", True)
    if not _hub_answers():
        reason = "a GPU was found but the Hugging Face Hub cannot be reached"
        return ProfileChoice(PROFILES["offline"], reason, True)
    return ProfileChoice(PROFILES["course"], "a GPU was found and the Hugging Face Hub can be reached", True)


def _hub_answers() -> bool:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(HUB_BASE, timeout=10)
    except Exception:  # the Hub client raises a dozen kinds; each of them means no
        return False
    return True
